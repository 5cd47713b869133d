"""Attacks inside the certified balls of a run, their verdict, and findings judged again."""

from __future__ import annotations

import io
import json
import math
import os
import re
import secrets
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from msgspec import Meta, Struct
from numpy.typing import NDArray
from torch import Tensor

from certmix.certification.describe import views_of
from certmix.certification.evaluate import bound_records, radii_of
from certmix.certification.proved_table import stored_classes, stored_radii
from certmix.certification.publish import unfinished
from certmix.certification.request.noisy import ENUMERATED
from certmix.certification.request.population import Population
from certmix.certification.request.proved import ROBUST, Enumerated, margin_cell
from certmix.certification.request.sampled import CertifyRequest
from certmix.data import spread
from certmix.errors import DataError, ParameterError, RunError, brief
from certmix.files import (
    COPY_IT,
    LINK_OUT,
    digest_of,
    leads_out,
    open_file,
    parse_json,
    read_arrays,
    read_file,
    remedy_of,
    write_atomically,
)
from certmix.runs.behaviour import hold_original
from certmix.runs.cells import Progress
from certmix.runs.folder import DESCRIPTION
from certmix.runs.sources import Sources, handed_over, load_models
from certmix.sampling import resolve_device
from certmix.sampling.enumerated import Views
from certmix.tables.result import Result
from certmix.tables.table import Quantity, Table
from certmix.types import Dataset
from certmix.verification.checks import CheckResult, Outcome
from certmix.verification.falsify import attack
from certmix.verification.falsify.attack import Attacked, Claim, Claims, Target, Trial
from certmix.verification.request import FalsifyRequest
from certmix.verification.stored import load, opened

__all__ = ["Falsification", "FalsifyRequest", "Replay", "attack_claims", "falsify", "read_claims", "replay"]

FOLDER = "falsify"  # of findings, within a run's folder
CHECK = "attacks inside the certified balls"
FAILURE_PROBABILITY = 1e-3  # that a right certificate's finding stands, whatever its file says
LEAST_SAMPLES, MOST_SAMPLES = 10_000, 10**6

VERSION = 1
_Whole = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Say = Callable[[str], None]


@dataclass(frozen=True, repr=False)
class Falsification(Result):
    """The attacks on the certificates of a run, as it was named, their verdict, and where findings lie."""

    source: str
    claims: Claims
    request: FalsifyRequest
    attacked: tuple[Attacked, ...]
    files: tuple[str, ...] = ()

    @property
    def table(self) -> Table:
        """The certificates that were attacked, nearest to wrong first."""
        claims = self.claims
        rows = tuple(
            (one.claim.index, Quantity(one.margin, 4), one.rival, Quantity(one.distance, 4, rounding="down"),
             Quantity(one.claim.radius, 4, rounding="down"), "WRONG" if one.found else "stands")
            for one in self.closest
        )  # fmt: skip
        noise = "without noise" if claims.smoothing is None else claims.smoothing.told
        return Table(
            "falsification", f"Certificates of {self.source} under attack: {self.check.message}",
            f"certificate {claims.certificate}, alpha {claims.alpha:g}, {claims.norm}, {noise}",
            ("input", "margin", "rival class", "distance", "certified radius", "outcome"), rows,
            notes=("That nothing is found proves nothing.",), complete=self.complete,
        )  # fmt: skip

    @property
    def complete(self) -> bool:
        """Whether all certificates that were looked at were attacked."""
        return len(self.attacked) == len(self.claims.claims)

    @cached_property
    def findings(self) -> tuple[Attacked, ...]:
        """The certificates shown to be wrong; all are, except with probability `error_rate`."""
        return tuple(one for one in self.attacked if one.found)

    @property
    def rate(self) -> float:
        """Most findings an input on average, of honest certificates: issued and false, or judged in error."""
        if self.claims.smoothing is None or not self.claims.looked_at:
            return 0.0
        return self.claims.failure_probability + self.request.error_rate / self.claims.looked_at

    @property
    def needed(self) -> int:
        """Findings from which on the run is falsified."""
        return attack.findings_needed(self.claims.looked_at, self.rate, self.request.error_rate)

    @property
    def chance(self) -> float:
        """Probability of so many findings or more among honest certificates."""
        return attack.chance_of(len(self.findings), self.claims.looked_at, self.rate)

    @property
    def falsified(self) -> bool:
        """Whether there are more findings than the failure probability allows."""
        return len(self.findings) >= self.needed

    @property
    def closest(self) -> tuple[Attacked, ...]:
        """The attacks in order of the margin found: an estimate, and no certificate."""
        return tuple(sorted(self.attacked, key=lambda one: one.margin))

    @property
    def check(self) -> CheckResult:
        """The verdict as the result of one check."""
        found, claims = [one.claim.index for one in self.findings], self.claims
        if not self.attacked:
            none = "none was attacked" if claims.claims else "nothing is certified"
            return CheckResult(CHECK, Outcome.UNCHECKED, f"{claims.looked_at} inputs: {none}")
        of = f"{len(self.attacked)} certificates ({claims.certificate}, alpha {claims.alpha:g})"
        if not found:
            message = f"no point found where some g flips the mix, in {of}: no proof that there is none"
            return CheckResult(CHECK, Outcome.HOLDS, message)
        outcome, beyond = (Outcome.FAILS, "") if self.falsified else (Outcome.HOLDS, "not ")
        allowed = f"failure probability {claims.failure_probability:g} allows in {claims.looked_at} inputs"
        message = f"{len(found)} of {of} are wrong, {beyond}more than {allowed}"
        return CheckResult.about(CHECK, outcome, message, found)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        claims = self.claims
        attacks = [
            {
                "input": one.claim.index, "predicted": one.claim.predicted,
                "radius": one.claim.radius if math.isfinite(one.claim.radius) else None,
                "distance": one.distance, "rival": one.rival, "margin": one.margin,
                "margin_upper": one.upper, "samples": one.samples, "found": one.found,
            }
            for one in self.attacked
        ]  # fmt: skip
        return {
            "schema_version": 1, "source": self.source, "certificate": claims.certificate,
            "alpha": claims.alpha, "gate": claims.gate, "threshold": attack.threshold(claims.alpha),
            "norm": claims.norm,
            **noise_of(claims), "failure_probability": claims.failure_probability,
            "request": self.request.as_dict(), "inputs": claims.looked_at, "certified": len(claims.claims),
            "attacked": len(self.attacked), "complete": self.complete, "findings": len(self.findings),
            "findings_needed": self.needed, "chance_if_honest": self.chance, "falsified": self.falsified,
            "check": self.check.as_dict(), "attacks": attacks, "files": list(self.files),
        }  # fmt: skip


def falsify(
    run: str | Path,
    request: FalsifyRequest | None = None,
    *,
    sources: Sources | None = None,
    output: str | Path | None = None,
    device: str = "auto",
    progress: Callable[[Progress], None] | None = None,
    say: Say = lambda message: None,
) -> Falsification:
    """Attack a run's certificates inside their balls.

    For each certified input a point x' strictly within the radius is searched where the margin of h is below
    mu = (1 - alpha) / alpha: there some g flips the mix (Lemma 3.2 is tight).  A smoothed h is judged there
    on fresh noise, by a confidence bound.  That nothing is found proves nothing.

    Findings go to `output`, or ``falsify`` in the run's folder.  `sources` are the data and models of a run
    that was made from Python objects; code that ``run.json`` names runs only with ``request.run_code``, else
    it is a ModelError.  A keyboard interrupt ends the attacks, not the result.
    """
    asked = request or FalsifyRequest()
    claims = read_claims(run, asked)
    told = unfinished(Path(run))
    if told is not None:
        say(told)
    if not claims.claims:
        return Falsification(str(run), claims, asked, ())
    target, dataset = _load_target(Path(run), claims, sources, asked.run_code, device, say)
    attacked = attack_claims(target, claims, lambda claim: _input_of(dataset, claim), asked, progress)
    result = Falsification(str(run), claims, asked, attacked)
    if result.findings:
        folder = Path(run) / FOLDER if output is None else Path(output)
        files = [write_finding(folder, Path(run), one, claims, asked, target) for one in result.findings]
        result = replace(result, files=tuple(map(str, files)))
    return result


def attack_claims(
    target: Target,
    claims: Claims,
    read: Callable[[Claim], Tensor],
    request: FalsifyRequest,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[Attacked, ...]:
    """Attack certificates, whose inputs (float32) `read` gives; an interrupt returns those that are done."""
    found: list[Attacked] = []
    start = time.monotonic()
    with suppress(KeyboardInterrupt):
        for claim in claims.claims:
            found.append(attack.attack_claim(target, claims, claim, read(claim), request))
            if progress is not None:
                wrong = sum(one.found for one in found)
                cell = f"{wrong} found, smallest margin {min(one.margin for one in found):.3f}"
                progress(Progress(len(found), len(claims.claims), cell, time.monotonic() - start))
    return tuple(found)


def read_claims(folder: str | Path, request: FalsifyRequest) -> Claims:
    """Return the certificates that a run's stored numbers give, of inputs chosen by index alone."""
    folder = Path(folder)
    if os.path.isfile(folder):
        told = "name the folder of a run of certmix certify, whose model is attacked"
        raise RunError(f"{folder} is a file: {told}; a log alone is checked by certmix audit")
    run = load(folder)
    own, described = run.request, run.description
    if isinstance(own, Population):
        told = f"{folder} claims a share of a population, and certifies no input that could be attacked"
        raise RunError(f"{told}: check it with certmix verify")
    alpha = own.alpha if request.alpha is None else request.alpha
    if isinstance(own, CertifyRequest):
        certificate = request.certificate or own.certificates[0]
        if certificate not in own.smoothing.certificates:
            told = f"certificate {certificate}: {folder} was sampled"
            raise ParameterError(f"{told}: use one of {', '.join(own.smoothing.certificates)}")
        records = bound_records(run.records, own).records
        # Of the run's own gate at the looks that its rule took, else at all: both are valid.
        every = request.gate not in (None, own.gate)
        gate = own.gate if request.gate is None else request.gate
        own = own.replace(certificates=(certificate,), gate=gate, tuned="none")
        records = records.take(spread(len(records), request.inputs)) if records else records
        claims: tuple[Claim, ...] = ()
        if records:
            seen = bound_records(records, own, every_look=every)
            radii = radii_of(seen.bounds, sigma=own.smoothing, alpha=alpha, certificate=certificate).radius
            found = zip(seen.records, seen.first.selected.tolist(), radii.tolist(), strict=True)
            claims = tuple(Claim(r.index, y, t, r.input_checksum) for r, y, t in found if t > 0)
        return Claims(
            certificate, alpha, own.norm, own.smoothing, own.of_one_input,
            len(records), claims, own.scores, own.score_temperature, own.precision, own.seed, run=described,
            gate=own.gate,
        )  # fmt: skip
    if isinstance(own, Enumerated):
        own = own.replace(gate=own.gate if request.gate is None else request.gate, alpha=alpha)
    elif request.gate is not None:
        raise ParameterError(f"gate = {request.gate:g}: {folder} has no votes: leave --gate out")
    if request.certificate not in (None, own.certificate):
        told = f"certificate {request.certificate}: {folder} holds {own.certificate}"
        raise ParameterError(f"{told}: leave --certificate out")
    if alpha not in own.weights():
        there = " and ".join(f"{a:g}" for a in sorted(set(own.weights())))
        remedy = f"use one of them, or repeat certmix certify with --alpha {alpha:g}"
        raise ParameterError(f"alpha = {alpha:g}: {folder} holds radii at {there}: {remedy}")
    stored = run.proved_inputs
    if own.certificate == "margin":
        stored = set(run.cells.get(ROBUST, {})) & set(run.cells.get(margin_cell(alpha), {}))
    indices = np.array(sorted(stored), np.int64)
    chosen = indices[spread(len(indices), request.inputs)] if len(indices) else indices
    claims = ()
    if len(chosen):
        with closing(opened(folder, run.classes)) as store:
            radii = stored_radii(own, store, chosen, alpha).radius
            classes = stored_classes(own, store, chosen)
        held = zip(chosen.tolist(), classes.tolist(), radii.tolist(), strict=True)
        claims = tuple(Claim(i, y, t) for i, y, t in held if t > 0)
    clipped = (own.certificate, own.norm) == ("margin", "linf")
    clipped = clipped and described["data"].get("input_range") is not None
    return Claims(
        own.certificate, alpha, own.norm, None, 0.0, len(chosen), claims, clipped=clipped, run=described,
        gate=getattr(own, "gate", 0.0), views=views_of(own),
    )  # fmt: skip


def _load_target(
    run: Path, claims: Claims, sources: Sources | None, run_code: bool, device: str, say: Say
) -> tuple[Target, Dataset]:
    """Load a run's data and robust model, and refuse them if they are not what they were."""
    described: dict[str, Any] = claims.run or {}
    try:
        stored = described["sources"]
        given = (
            {} if sources is None else {"standard": None, **handed_over(stored, sources.handed())}
        )  # which is not attacked
        named = Sources.from_dict(stored, run / DESCRIPTION, run_code, given)
        robust = named.robust if named.robust is not None else described["models"]["robust"]["spec"]
        expected = str(described["identity"]["data_checksum"])
    except (KeyError, TypeError) as error:
        raise RunError(f"{run}/{DESCRIPTION} lacks {error}: only complete runs can be attacked") from None
    chosen = resolve_device(device)
    noise = claims.smoothing
    views = claims.views or (None if noise is None else Views.of_noise(noise))
    loaded = load_models(named.replace(standard=None), robust, chosen, say, views=views)
    data = loaded.dataset
    with closing(opened(run, data.classes)) as store:
        hold_original(run, described, store, loaded, chosen)
    if data.checksum != expected:
        sums = f"(checksum {data.checksum[:12]}, {expected[:12]} there)"
        told = f"{data.name} is not the data that {run} was made with {sums}"
        raise RunError(f"{told}: restore it, or certify again")
    counted = claims.smoothing is not None or claims.views is not None
    batch = described.get("batch_size") if counted else None
    robust_model = loaded.robust.module
    return Target(robust_model, data.classes, chosen, data.input_range, batch, data.scale), data


def _input_of(dataset: Dataset, claim: Claim) -> Tensor:
    """Return the input that a claim is about; RunError if the data set lacks it, or it is not what it was."""
    places = np.flatnonzero(dataset.indices == claim.index)
    if len(places) != 1:
        raise RunError(f"{dataset.name} holds no input {claim.index}: restore the data of the run")
    values = np.ascontiguousarray(dataset.read(int(places[0])))
    if claim.input_checksum and digest_of(values.tobytes()) != claim.input_checksum:
        raise RunError(f"input {claim.index} is not what it was when the run was made: restore the data")
    return torch.from_numpy(values)


def noise_of(claims: Claims) -> dict[str, Any]:
    """Return what is said of the noise: Gaussian noise by its sigma, None where there is none."""
    smoothing = claims.smoothing
    if smoothing is None or smoothing.sigma is not None:
        return {"sigma": None if smoothing is None else smoothing.sigma}
    return {"sigma": None, "noise": smoothing.kind, "scale": smoothing.scale}


# Findings: two files that anyone can check again, a point and what is said of it.


class Said(Struct, frozen=True, kw_only=True):
    """What any finding says, for a replay to go by."""

    run: str
    input: _Whole
    predicted: _Whole
    certificate: str
    alpha: Annotated[float, Meta(ge=0.5, le=1)]
    gate: Annotated[float, Meta(ge=0, lt=1)] | None = None
    sigma: float | None
    noise: str | None = None
    scale: float | None = None
    robust_checksum: str | None
    point_checksum: str
    worst_standard_classifier: dict[str, _Whole]


class Sampled(Said, frozen=True, kw_only=True):
    """What it says besides where h is smoothed by noise."""

    samples: _Whole
    failure_probability: float
    noise_seed: _Whole
    votes: tuple[_Whole, ...] | None
    device: str


def write_finding(
    folder: Path, run: Path, one: Attacked, claims: Claims, request: FalsifyRequest, target: Target
) -> Path:
    """Write ``finding-INPUT-...json`` and the ``.npz`` beside it; return the path of the first."""
    claim, identity = one.claim, (claims.run or {}).get("identity", {})
    place = os.path.relpath(Path(run).resolve(), folder.resolve())
    counted = claims.smoothing is not None or claims.views is not None
    said: dict[str, Any] = {
        "format_version": VERSION, "certmix": version("certmix"), "run": place,
        "data_checksum": identity.get("data_checksum"), "robust_checksum": identity.get("robust_checksum"),
        "input": claim.index, "predicted": claim.predicted, "certificate": claims.certificate,
        "alpha": claims.alpha, "gate": claims.gate if counted else None, "norm": claims.norm,
        **noise_of(claims),
        "certificate_failure_probability": claims.failure_probability,
        "certified_radius": claim.radius if math.isfinite(claim.radius) else None,
        "distance": one.distance, "worst_standard_classifier": {"one_hot": one.rival},
        "threshold": one.threshold, "margin": one.margin, "margin_upper": one.upper,
        "samples": one.samples, "votes": None if one.counts is None else one.counts.tolist(),
        "request": request.as_dict(), "device": target.device.type,
    }  # fmt: skip
    if claims.smoothing is not None:
        trial = attack.trial_of(claims, request)
        said |= {"failure_probability": trial.failure_probability, "noise_seed": trial.seed}
    said["point_checksum"] = digest_of(one.point.tobytes())
    buffer = io.BytesIO()
    np.savez(buffer, point=one.point)
    behind = f"-gate{claims.gate:g}" if claims.gate else ""
    name = f"finding-{claim.index}-{claims.certificate}-alpha{claims.alpha:g}{behind}-seed{request.seed}"
    write_atomically(folder / f"{name}.npz", buffer.getvalue())
    write_atomically(folder / f"{name}.json", (json.dumps(said, indent=2, allow_nan=False) + "\n").encode())
    return folder / f"{name}.json"


def read_finding(path: str | Path) -> tuple[Path, NDArray[np.float32], Said]:
    """Return a finding's path, point and what is said, by either of its files; RunError or DataError."""
    path = Path(path)
    try:
        path = path.with_suffix(".json")
        for one in (path, path.with_suffix(".npz")):
            if leads_out(one.parent, one.name):
                raise RunError(f"{one} {LINK_OUT}: {COPY_IT}")
        found = parse_json(read_file(path))
        if not isinstance(found, dict):
            raise ValueError("it is no object")
        number = msgspec.convert(found.get("format_version"), Annotated[int, Meta(ge=1)])
        if number > VERSION:
            told = f"{path}: format version {number!s:.20}"
            raise RunError(f"{told}, this certmix reads up to {VERSION}: update certmix")
        plain = found.get("sigma") is None and found.get("noise") in (None, *ENUMERATED)
        said = msgspec.convert(found, Said if plain and found.get("noise_seed") is None else Sampled)
    except (OSError, ValueError) as error:  # also what msgspec raises
        reason = re.sub(r"^Object missing required field `(.*)`", r"it lacks '\1'", _one_line(error))
        remedy = remedy_of(error, "name the .json of certmix falsify, or restore the file")
        raise RunError(f"{path} is no finding ({reason}): {remedy}") from None
    points = path.with_suffix(".npz")
    try:
        with open_file(points) as file:
            point = read_arrays(file, ["point"])[0]["point"]
        if point.dtype != np.float32 or not np.isfinite(point).all():
            raise ValueError(f"{point.dtype} of shape {point.shape}, not finite float32")
    except Exception as error:  # damaged archives raise errors of many kinds
        remedy = remedy_of(error, "restore it")
        raise DataError(f"{points} holds no point ({_one_line(error)}): {remedy}") from None
    if digest_of(point.tobytes()) != said.point_checksum:
        raise DataError(f"{points} is not the point that {path.name} describes: restore both")
    return path, point, said


def _one_line(error: Exception) -> str:
    return brief(str(error) or type(error).__name__)


@dataclass(frozen=True)
class Replay:
    """A finding, by its file, judged again: check by check, on noise keyed by `seed` (None without noise)."""

    finding: Path
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
            "schema_version": 1, "finding": str(self.finding), "input": self.attacked.claim.index,
            "seed": self.seed, "failure_probability": None if self.seed is None else FAILURE_PROBABILITY,
            "stands": self.stands, "checks": [check.as_dict() for check in self.checks],
        }  # fmt: skip


def replay(
    path: str | Path,
    run: str | Path | None = None,
    *,
    seed: int | None = None,
    sources: Sources | None = None,
    run_code: bool = False,
    device: str = "auto",
    say: Say = lambda message: None,
) -> Replay:
    """Judge a finding again, by nothing that its file could have been made to fit.

    Noise, number of samples and failure probability of the verdict are the replayer's; the finding's own
    votes are drawn again and compared, but do not enter it.  `path` is its ``.json`` or ``.npz``, `run` the
    run's folder if it lies elsewhere now, `seed` the key of the fresh noise, None for one that is drawn, and
    `run_code` lets code run that the run's ``run.json`` names.
    """
    file, where, said = read_finding(path)
    folder = Path(os.path.relpath(file.parent / said.run) if run is None else run)
    claims = read_claims(folder, FalsifyRequest("all", said.alpha, said.certificate, gate=said.gate))
    if said.robust_checksum != (claims.run or {}).get("identity", {}).get("robust_checksum"):
        raise RunError(f"{folder} is not the run that {file.name} is about: name that run")
    claim = next((one for one in claims.claims if one.index == said.input), None)
    if claim is None:
        told = f"{folder} does not certify input {said.input} at alpha {said.alpha:g}: "
        raise RunError(f"{told}name the run that the finding is about")
    target, dataset = _load_target(folder, claims, sources, run_code, device, say)
    input, point = _input_of(dataset, claim), torch.from_numpy(where)
    if input.shape != point.shape:
        raise RunError(f"{file} holds a point of another shape than input {claim.index}: restore it")
    input, point = input.to(target.device), point.to(target.device)
    if claims.views is not None:
        attacked = attack.judge_cases(target, claims, claim, input, point)
        return Replay(file, attacked, None, tuple(_checks(attacked, said, None)))
    if claims.smoothing is None:
        attacked = attack.judge_plain(target, claims, claim, input, point[None])
        return Replay(file, attacked, None, tuple(_checks(attacked, said, None)))
    rival = said.worst_standard_classifier.get("one_hot", -1)
    if not isinstance(said, Sampled) or rival == claim.predicted or not 0 <= rival < target.classes:
        raise RunError(f"{file}: class {rival} is no rival of class {claim.predicted}: restore the file")
    seed = secrets.randbits(48) if seed is None else seed
    samples = min(max(said.samples, LEAST_SAMPLES), MOST_SAMPLES)
    trial = Trial(samples, FAILURE_PROBABILITY, attack.noise_seed(seed, claims.seed, "replay"))
    attacked = attack.judge_smoothed(target, claims, claim, input, point, rival, trial)
    checks = _checks(attacked, said, seed)
    if said.votes is not None and claims.scores == "hard" and target.device.type == said.device:
        outcome = Outcome.UNCHECKED
        if not 0 < said.samples <= MOST_SAMPLES:
            text = f"not compared: {said.samples:,} samples, where 1 to {MOST_SAMPLES:,} are drawn again"
        else:
            sampler = attack.sampler_of(target, claims, said.noise_seed)
            counts = sampler.votes(point, said.input, [said.samples], gate=claims.gate)[0]
            text = "not the finding's votes: other versions or hardware may round otherwise"
            if tuple(counts.tolist()) == said.votes:
                outcome, text = Outcome.HOLDS, "the same votes"
            text += ", with its own seed and samples"
        checks.append(CheckResult.about("votes", outcome, text, [said.input]))
    return Replay(file, attacked, seed, tuple(checks))


def _checks(attacked: Attacked, said: Said, seed: int | None) -> list[CheckResult]:
    """Compare the claim, the distance and the margin."""
    claim, inside = attacked.claim, attacked.distance < attacked.claim.radius or attacked.found
    upper = "not settled" if attacked.upper is None else f"at most {attacked.upper:.6f}"
    if seed is not None:
        fresh = f"{attacked.samples:,} fresh samples, seed {seed}"
        upper += f" ({fresh}, failure probability {FAILURE_PROBABILITY:g})"
    below = attacked.upper is not None and attacked.upper < attacked.threshold
    flips = attacked.found if inside else below
    wanted = f"the run certifies class {claim.predicted}, the finding attacked {said.predicted}"
    away = f"{attacked.distance!r} from the input, certified radius {claim.radius!r}"
    margin = f"{attacked.margin:.6f} to class {attacked.rival}, {upper}; "
    margin += f"below {attacked.threshold:.6f} a g flips the mix"
    same = claim.predicted == said.predicted
    found = (("class", same, wanted), ("distance", inside, away), ("margin", flips, margin))
    outcomes = {True: Outcome.HOLDS, False: Outcome.FAILS}
    return [CheckResult.about(name, outcomes[holds], told, [claim.index]) for name, holds, told in found]
