"""A finding judged again: the claim from the run, the distance, the margin on fresh noise."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from certmix.errors import RunError
from certmix.runs.sources import Sources
from certmix.verification.checks import CheckResult, Outcome
from certmix.verification.falsification.claims import Claims, read_claims
from certmix.verification.falsification.falsify import input_of, load_target
from certmix.verification.falsification.files import Finding, read_finding
from certmix.verification.falsification.judge import (
    Attacked,
    Target,
    Trial,
    judge_plain,
    judge_smoothed,
    noise_seed,
    sampler_of,
)
from certmix.verification.falsification.request import FalsifyRequest

__all__ = ["Replay", "replay"]

FAILURE_PROBABILITY = 1e-3
"""Probability that a right certificate's finding stands: the replayer's own, whatever the file says."""
LEAST_SAMPLES, MOST_SAMPLES = 10_000, 10**6


@dataclass(frozen=True)
class Replay:
    """A finding judged again: check by check, on noise keyed by `seed` (None without noise)."""

    finding: Finding
    attacked: Attacked
    seed: int | None
    checks: tuple[CheckResult, ...]

    @property
    def stands(self) -> bool:
        """Whether the certificate is shown to be wrong once more."""
        return all(check.outcome != Outcome.FAILS for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "schema_version": 1,
            "finding": str(self.finding.path),
            "image": self.attacked.claim.index,
            "seed": self.seed,
            "failure_probability": None if self.seed is None else FAILURE_PROBABILITY,
            "stands": self.stands,
            "checks": [check.as_dict() for check in self.checks],
        }


def replay(
    path: str | Path,
    run: str | Path | None = None,
    *,
    seed: int | None = None,
    sources: Sources | None = None,
    device: str = "auto",
    say: Callable[[str], None] = lambda message: None,
) -> Replay:
    """Judge a finding again, by nothing that its file could have been made to fit.

    Noise, number of samples and failure probability of the verdict are the
    replayer's.  The noise of the finding is drawn too, to compare its votes.

    Parameters
    ----------
    path
        Its ``.json`` or ``.npz``.
    run
        The run's folder, if it is no longer where it was.
    seed
        Key of the fresh noise that decides; None takes one from the operating system.  It is reported.
    sources, device, say
        As for `certmix.verification.falsification.falsify.falsify`.

    Raises
    ------
    CertmixError
        If the finding, the run, its data or model cannot be read, or are not what they were.
    """
    finding = read_finding(path)
    said, folder = finding.said, Path(finding.said["run"] if run is None else run)
    asked = FalsifyRequest(images="all", alpha=said["alpha"], certificate=said["certificate"])
    claims = read_claims(folder, asked)
    if said["robust_checksum"] != (claims.run or {}).get("identity", {}).get("robust_checksum"):
        raise RunError(f"{folder} is not the run that {finding.path.name} is about: name that run")
    claim = next((one for one in claims.claims if one.index == said["image"]), None)
    if claim is None:
        raise RunError(
            f"{folder} does not certify image {said['image']} at alpha {said['alpha']:g}: name the run that "
            "the finding is about"
        )
    target, dataset = load_target(folder, claims, sources, device, say)
    image, point = input_of(dataset, claim), torch.from_numpy(finding.point)
    if image.shape != point.shape:
        raise RunError(f"{finding.path} holds a point of another shape than image {claim.index}: restore it")
    image, point = image.to(target.device), point.to(target.device)
    if claims.sigma is None:
        attacked = judge_plain(target, claims, claim, image, point[None])
        return Replay(finding, attacked, None, _checks(attacked, said, None))
    rival = int(said["worst_standard_classifier"]["one_hot"])
    if rival == claim.predicted or rival >= target.classes:
        raise RunError(
            f"{finding.path}: class {rival} is no rival of class {claim.predicted}: restore the file"
        )
    seed = secrets.randbits(48) if seed is None else seed
    attacked = judge_smoothed(target, claims, claim, image, point, rival, _trial(claims, finding, seed))
    checks = (*_checks(attacked, said, seed), *_votes(target, claims, finding, claim.index, point))
    return Replay(finding, attacked, seed, checks)


def _trial(claims: Claims, finding: Finding, seed: int) -> Trial:
    """Return how the point is judged: on fresh noise, by no fewer samples than the finding had."""
    samples = min(max(_whole(finding, "samples"), LEAST_SAMPLES), MOST_SAMPLES)
    return Trial(samples, FAILURE_PROBABILITY, noise_seed(seed, claims.seed, "replay"))


def _whole(finding: Finding, name: str) -> int:
    value = finding.said[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise RunError(f"{finding.path}: {name} {value!r} is no whole number: restore the file")
    return value


def _votes(target: Target, claims: Claims, finding: Finding, image: int, point: Tensor) -> list[CheckResult]:
    """Compare the votes of the finding's own noise; they do not enter the verdict."""
    said, samples, key = finding.said, _whole(finding, "samples"), _whole(finding, "noise_seed")
    if said["votes"] is None or claims.scores != "hard" or target.device.type != said["device"]:
        return []
    if not 0 < samples <= MOST_SAMPLES:
        text = f"not compared: {samples:,} samples, where 1 to {MOST_SAMPLES:,} are drawn again"
        return [CheckResult.about("votes", Outcome.UNCHECKED, text, [image])]
    counts = sampler_of(target, claims, key).votes(point, image, [samples])[0]
    equal = counts.tolist() == said["votes"]
    text = "the same votes" if equal else (
        "not the finding's votes: other versions or hardware may round otherwise"
    )  # fmt: skip
    about = f"{text}, with its own seed and samples"
    return [CheckResult.about("votes", Outcome.HOLDS if equal else Outcome.UNCHECKED, about, [image])]


def _checks(attacked: Attacked, said: dict[str, Any], seed: int | None) -> tuple[CheckResult, ...]:
    """Compare the claim, the distance and the margin."""
    image, claim = [attacked.claim.index], attacked.claim
    predicted = claim.predicted == said["predicted"]
    inside = attacked.distance < claim.radius
    checks = [
        CheckResult.about(
            "class", _outcome(predicted), f"the run certifies class {claim.predicted}, the finding attacked "
            f"{said['predicted']}", image,
        ),
        CheckResult.about(
            "distance", _outcome(inside),
            f"{attacked.distance!r} from the image, certified radius {claim.radius!r}", image,
        ),
    ]  # fmt: skip
    risk = ""
    if seed is not None:
        fresh = f"{attacked.samples:,} fresh samples, seed {seed}"
        risk = f" ({fresh}, failure probability {FAILURE_PROBABILITY:g})"
    upper = ("not settled" if attacked.upper is None else f"at most {attacked.upper:.6f}") + risk
    below = attacked.upper is not None and attacked.upper < attacked.threshold
    flips = attacked.found if inside else below
    checks.append(
        CheckResult.about(
            "margin", _outcome(flips),
            f"{attacked.margin:.6f} to class {attacked.rival}, {upper}; below {attacked.threshold:.6f} a g "
            "flips the mix", image,
        )
    )  # fmt: skip
    return tuple(checks)


def _outcome(holds: bool) -> Outcome:
    return Outcome.HOLDS if holds else Outcome.FAILS
