"""Checks of a claim about a population: its draws, what follows from them, and some of them drawn again."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from certmix.certification.drawing import steps_of
from certmix.certification.population import (
    ABOUT,
    CELL,
    Claim,
    claim_of,
    groups_of,
    looks_of,
    order_of,
    scores_of,
)
from certmix.certification.request.population import Population
from certmix.errors import CertmixError, RunError
from certmix.files import digest_of, write_atomically
from certmix.sampling import Draw, Sampler
from certmix.sampling.law import noise_error
from certmix.text import floor_digits
from certmix.types import Dataset, IntArray
from certmix.verification.checks import SAMPLED_AGAIN, CheckResult, Faults, Outcome, judged, unchecked
from certmix.verification.guarantees.requirements import Requirement, written
from certmix.verification.proofs.check_population import fails
from certmix.verification.proofs.proof import noise_of
from certmix.verification.request import VerifyRequest
from certmix.verification.stored import Run, is_whole, other_noise

DRAWS, CLAIM = "draws", "claim"
WIDE = 20
"""Of each draw that is sampled again whole, so many have their first look taken again."""


def numbers_of(run: Run) -> IntArray:
    """Return what a run holds of its draws 0, 1, ..., as far as there is no gap."""
    held = run.cells.get(CELL, {})
    width = ABOUT + len(looks_of(run.request.samples))  # type: ignore[union-attr]
    found = list[Any]()
    while (vector := held.get(len(found))) is not None:
        if vector.shape != (width,) or vector.dtype != np.int64:
            raise RunError(
                f"draw {len(found)} has {len(vector)} numbers, not {width} whole ones: restore the run"
            )
        found.append(vector)
    return np.array(found, np.int64).reshape(-1, width)


def _coordinates(run: Run) -> int:
    noise = run.description.get("noise")
    told: Any = noise.get("coordinates") if isinstance(noise, dict) else None
    if not is_whole(told) or told < 1:
        raise RunError("run.json does not say how many values an input has: restore it")
    return int(told)


def check_draws(run: Run, request: Population, data: Dataset | None) -> list[CheckResult]:
    """Are the draws those of the seed, of inputs as the data set holds them, with votes that can be?"""
    try:
        numbers, coordinates = numbers_of(run), _coordinates(run)
        groups = groups_of(request, coordinates, numbers)
    except CertmixError as error:
        return [CheckResult(DRAWS, Outcome.FAILS, str(error))]
    faults = other_noise(run, request)
    for row, fault in _impossible(request, groups, numbers):
        faults.append((None, f"draw {row}: {fault}"))
    if data is None:
        return [unchecked("inputs", "the data set cannot be loaded"), judged(DRAWS, faults, _drawn(numbers))]
    order, wrong = order_of(request, len(data)), Faults()
    known: dict[int, tuple[list[int], int]] = {}
    for row, vector in enumerate(numbers):
        if row >= len(order):
            wrong.append((None, f"draw {row}: {len(order)} were asked for"))
            break
        at = int(order[row])
        if at not in known:
            values = np.ascontiguousarray(data.read(at))
            words = np.frombuffer(bytes.fromhex(digest_of(values.tobytes())), "<i8").tolist()
            steps = steps_of(request, data.scale, values)
            known[at] = [int(data.indices[at]), int(data.labels[at]), *words], steps
            if values.size != coordinates:
                wrong.append((at, f"input {at} has {values.size:,} values, run.json says {coordinates:,}"))
        about, steps = known[at]
        if vector[: ABOUT - 1].tolist() != about:
            wrong.append(
                (about[0], f"draw {row} is not of input {about[0]}, as the seed and the data have it")
            )
        if vector[ABOUT - 1] < steps:
            wrong.append((about[0], f"draw {row} allows for less than its distance from the grid"))
    return [
        judged("inputs", wrong, f"{len(numbers):,} draws are those of the seed, with their labels"),
        judged(DRAWS, faults, _drawn(numbers)),
    ]


def _drawn(numbers: IntArray) -> str:
    return f"votes of {len(numbers):,} draws grow, and each was looked at until it was decided"


def _impossible(request: Population, groups: Any, numbers: IntArray) -> Iterator[tuple[int, str]]:
    looks = np.array([0, *looks_of(request.samples)])
    for rule, rows in groups:
        votes = numbers[rows, ABOUT:]
        taken = votes >= 0
        grown = np.diff(np.concatenate([np.zeros((len(rows), 1), np.int64), votes], 1), axis=1)
        odd = taken & ((grown < 0) | (grown > np.diff(looks)))
        gaps = taken[:, 1:] & ~taken[:, :-1]
        _, at = scores_of(rule, votes)
        decided = np.array([scores_of(rule, _until(votes, k))[1] for k in range(1, votes.shape[1] + 1)])
        first = (decided < 0).argmax(0) + 1
        bad = odd.any(1) | gaps.any(1) | (votes < -1).any(1) | (at >= 0) | (taken.sum(1) != first)
        for row in rows[bad].tolist():
            yield row, "votes that cannot be, or looks that are lacking or too many"


def _until(votes: IntArray, looks: int) -> IntArray:
    """Return votes with the looks after so many left out."""
    return np.where(np.arange(votes.shape[1]) < looks, votes, -1)


def check_claim(run: Run, request: Population) -> list[CheckResult]:
    """Does the claim follow?  By ball arithmetic, from the votes."""
    try:
        claim, proof = proof_of(run, request)
        faults: Faults = [(None, text) for text in fails(proof)]
    except (CertmixError, ZeroDivisionError) as error:
        return [unchecked(CLAIM, f"nothing follows from the numbers: {error}")]
    told = f"at least {floor_digits(claim.lower_bound, 4)} of the population: proved by ball arithmetic"
    return [judged(CLAIM, faults, f"{told} from the votes (docs/population.md)")]


def proof_of(run: Run, request: Population) -> tuple[Claim, dict[str, Any]]:
    """Return the claim of a run, and its proof as plain data for JSON."""
    numbers, coordinates = numbers_of(run), _coordinates(run)
    claim = claim_of(request, coordinates, int(run.description["data"]["inputs"]), numbers)
    groups, draws = groups_of(request, coordinates, numbers), [list[int]()] * len(numbers)
    smoothing = request.smoothing
    for number, (_, rows) in enumerate(groups):
        for row in rows.tolist():
            draws[row] = [number, *(k for k in numbers[row, ABOUT:].tolist() if k >= 0)]
    proof = {
        "format": "certmix-population-proof 2", "alpha": request.alpha, "radius": request.at_radius,
        "eps": noise_error(smoothing, coordinates), **noise_of(smoothing),
        "dimension": smoothing.dimension or coordinates,
        "population": request.population, "data_checksum": run.description["data"]["checksum"],
        "robust_checksum": run.description["models"]["robust"]["checksum"],
        "failure_probability": request.failure_probability, "lower_bound": claim.lower_bound,
        "rules": [{"steps": r.steps, "p": r.p, "looks": [list(look) for look in r.looks]} for r, _ in groups],
        "draws": draws,
    }  # fmt: skip
    return claim, proof | {"digest": digest_of(proof)}


def write_proof(run: Run, request: Population, path: Path) -> CheckResult:
    """Write the proof of a claim, for `certmix.verification.proofs.check_population` to check by itself."""
    claim, proof = proof_of(run, request)
    write_atomically(path, json.dumps(proof, separators=(",", ":")).encode())
    told = (
        f"{path}: {claim.draws:,} draws; check_population.py checks it without certmix (docs/population.md)"
    )
    return CheckResult("proof file", Outcome.HOLDS, told)


def draw_again(
    run: Run,
    request: Population,
    data: Dataset,
    module: nn.Module,
    device: torch.device,
    asked: VerifyRequest,
    usual_part: float,
    report: Callable[[int, int], object],
) -> list[CheckResult]:
    """Draw some of the votes again: with the run's seed, and with one that it cannot have known.

    With the run's own seed votes must be equal, but for those that rounding may change: where the label
    leads, or trails, by less than `usual_part` of the usual lead.  With another the sum of the votes of the
    first looks may differ by chance alone (Hoeffding).
    """
    numbers, looks = numbers_of(run), looks_of(request.samples)
    seed = secrets.randbits(48) if asked.new_seed is None else asked.new_seed
    rng, order = np.random.default_rng(seed), order_of(request, len(data))
    chosen = rng.permutation(min(len(numbers), len(order)))[: WIDE * asked.resample].tolist()
    if not chosen:
        return [unchecked(check, "there are no draws") for check in SAMPLED_AGAIN[:2]]
    size = run.description.get("batch_size")
    own, other = (
        Sampler(
            module, data.classes, request.smoothing, key, device=device, precision=request.precision,
            batch_size=size if is_whole(size) else None, scale=data.scale,
        )
        for key in (request.seed, seed)
    )  # fmt: skip
    draws, most = [], list[int]()
    for place, row in enumerate(chosen):
        taken = [n for n, k in zip(looks, numbers[row, ABOUT:].tolist(), strict=True) if k >= 0]
        stops = (
            [n for n in taken if n <= max(asked.resample_samples, looks[0])]
            if place < asked.resample
            else taken[:1]
        )
        most.append(stops[-1])
        draws.append(Draw(torch.from_numpy(data.read(int(order[row]))), row, tuple(stops)))
    leads, labels = [list[np.ndarray]() for _ in draws], data.labels[order[chosen]]
    for done, (part, logits) in enumerate(own.logits(draws), 1):
        rest = logits.clone()
        label = int(labels[part.draw])
        rest[:, label] = -math.inf
        leads[part.draw].append((logits[:, label] - rest.amax(1)).numpy())
        report(min(done, len(draws)), len(draws))
    usual = float(np.median(np.abs(np.concatenate([one for own_ in leads for one in own_]))))
    faults, checked, open_ = Faults(), 0, 0
    for row, draw, parts in zip(chosen, draws, leads, strict=True):
        lead = np.concatenate(parts)
        for number, n in enumerate(draw.stops):
            low, high = (int((lead[:n] > side * usual_part * usual).sum()) for side in (1, -1))
            stored, checked, open_ = int(numbers[row, ABOUT + number]), checked + 1, open_ + high - low
            if not low <= stored <= high:
                told = f"draw {row}: {stored} of {n} votes for its label, drawn again {low} to {high}"
                faults.append((int(numbers[row, 0]), told))
    same = judged(
        SAMPLED_AGAIN[0], faults,
        f"votes of {len(chosen)} draws, {sum(most):,} samples, are what the run's seed gives"
        f" (rounding leaves {open_} open); draws chosen by seed {seed}",
    )  # fmt: skip
    first = [Draw(one.input, one.index, (looks[0],)) for one in draws]
    fresh = [int(cast[0].votes(data.classes)[label]) for cast, label in zip(
        other.submit(first).result(), labels.tolist(), strict=True
    )]  # fmt: skip
    before, count = int(numbers[chosen, ABOUT].sum()), looks[0] * len(chosen)
    allowed = math.sqrt(2 * count * math.log(2 / asked.error_rate))
    told = f"{before:,} of {count:,} first votes for the labels, with new noise {sum(fresh):,}"
    far: Faults = [(None, f"{told}: more apart than chance allows ({allowed:.0f})")]
    near = f"{told}: within what chance allows ({allowed:.0f})"
    return [same, judged(SAMPLED_AGAIN[1], far if abs(before - sum(fresh)) > allowed else [], near)]


def judge_claim(requirement: Requirement, claim: Claim) -> tuple[Outcome, None, float, str, int, float]:
    """Return whether a share is shown, no value, the bound, a sentence, draws and how it may fail.

    A share that is not shown is left open: nothing proves the contrary.
    """
    shown = f"of the population at least {floor_digits(claim.lower_bound, 4)}, by {claim.draws:,} draws"
    wanted = written(requirement.threshold)
    if claim.lower_bound >= requirement.threshold:
        told = f"{shown}; the lower bound reaches {wanted}"
        return Outcome.HOLDS, None, claim.lower_bound, told, claim.draws, claim.failure_probability
    told = f"{shown}, which does not show {wanted}, nor the contrary: take more inputs or samples"
    return Outcome.UNCHECKED, None, claim.lower_bound, told, claim.draws, claim.failure_probability
