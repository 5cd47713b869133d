"""A finding judged again: the claim from the run, the distance, the margin on the same or fresh noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from certmix.errors import RunError
from certmix.studies.sources import Sources
from certmix.verification.checks import CheckResult, Outcome
from certmix.verification.falsification.claims import Claims, read_claims
from certmix.verification.falsification.falsify import input_of, load_target
from certmix.verification.falsification.files import Finding, read_finding
from certmix.verification.falsification.judge import Attacked, Trial, judge_plain, judge_smoothed, noise_seed
from certmix.verification.falsification.request import FalsifyRequest

__all__ = ["Replay", "replay"]


@dataclass(frozen=True)
class Replay:
    """A finding judged again: check by check."""

    finding: Finding
    attacked: Attacked
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
    """Judge a finding again.

    Parameters
    ----------
    path
        Its ``.json`` or ``.npz``.
    run
        The run's folder, if it is no longer where it was.
    seed
        Key of fresh noise; None repeats the finding's own, so that votes can be compared.
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
    else:
        trial = _trial(claims, said, seed)
        rival = int(said["worst_standard_classifier"]["one_hot"])
        attacked = judge_smoothed(target, claims, claim, image, point, rival, trial)
    same = seed is None and claims.sigma is not None and target.device.type == said["device"]
    return Replay(finding, attacked, _checks(attacked, said, same))


def _trial(claims: Claims, said: dict[str, Any], seed: int | None) -> Trial:
    trial = Trial(int(said["samples"]), float(said["failure_probability"]), int(said["noise_seed"]))
    return trial if seed is None else replace(trial, seed=noise_seed(seed, claims.seed, "replay"))


def _checks(attacked: Attacked, said: dict[str, Any], same_noise: bool) -> tuple[CheckResult, ...]:
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
    risk = (
        "" if "failure_probability" not in said else f" (failure probability {said['failure_probability']:g})"
    )
    upper = "not settled" if attacked.upper is None else f"at most {attacked.upper:.6f}{risk}"
    below = attacked.upper is not None and attacked.upper < attacked.threshold
    flips = attacked.found if inside else below
    checks.append(
        CheckResult.about(
            "margin", _outcome(flips),
            f"{attacked.margin:.6f} to class {attacked.rival}, {upper}; below {attacked.threshold:.6f} a g "
            "flips the mix", image,
        )
    )  # fmt: skip
    if same_noise and attacked.counts is not None:
        equal = attacked.counts.tolist() == said["votes"]
        checks.append(
            CheckResult.about(
                "votes", Outcome.HOLDS if equal else Outcome.UNCHECKED,
                "equal to the finding's" if equal else "not equal to the finding's: other versions or "
                "hardware may round otherwise", image,
            )
        )  # fmt: skip
    return tuple(checks)


def _outcome(holds: bool) -> Outcome:
    return Outcome.HOLDS if holds else Outcome.FAILS
