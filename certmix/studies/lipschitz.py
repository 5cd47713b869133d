"""Local Lipschitz constants by search: an estimate, and a trial of claimed constants."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from certmix.errors import ParameterError, check_choice
from certmix.margins.estimates import EstimatedRadius, LipschitzEstimate, estimated_radius
from certmix.margins.local_search import OUTPUTS, RATIOS, float64_twin, local_search, slopes_beyond_rounding
from certmix.runs.attack_request import AttackRequest, check_weight
from certmix.runs.attacking import Bench, reduced
from certmix.runs.cells import Batch, Cell
from certmix.runs.sources import Sources
from certmix.studies.study import Numbers, StudyResult, Surroundings, open_study
from certmix.tables.study_plots import lipschitz_image
from certmix.tables.table import Quantity, Table
from certmix.text import ceil_digits, floor_digits, plain_decimal
from certmix.types import FloatArray

__all__ = ["CLAIMED", "ClaimTrial", "EstimatedLipschitz", "local_lipschitz"]

CLAIMED = {"logits": "together", "probabilities": "each"}
"""The ratio of a claimed constant, as the certificate lipschitz-constant takes it."""

_CELL = "search"
_VERSION = 1
"""Raised when the same settings would search other points."""
_ESTIMATE = (
    "Estimated, not certified: a search finds slopes, so that true constants may be larger, "
    "and radii that rest on them smaller."
)


@dataclass(frozen=True, eq=False)
class ClaimTrial:
    """Whether a search contradicts a claimed global constant; that it does not proves nothing.

    ``slope`` is the steepest found, rounding errors taken off, ``index`` its input's, ``point`` (D,) the
    other point of the pair, flat.
    """

    claimed: float
    slope: float
    index: int
    point: FloatArray

    @property
    def contradicted(self) -> bool:
        """Whether a pair of points is steeper than the claim allows, beyond rounding."""
        return self.slope > self.claimed


@dataclass(frozen=True, eq=False)
class EstimatedLipschitz:
    """What the study found: estimated constants, and what they suggest or contradict."""

    constants: LipschitzEstimate
    radius: EstimatedRadius | None
    trial: ClaimTrial | None


def local_lipschitz(
    request: AttackRequest | None = None,
    sources: Sources | None = None,
    where: Surroundings | None = None,
    *,
    of: str = "probabilities",
    ratio: str | None = None,
    alpha: float = 0.76,
    check: float | None = None,
) -> StudyResult:
    """Estimate local Lipschitz constants of the robust model, or try a claimed constant.

    ``batch_size`` of the request counts points, of which an input has one a class.  `of` and `ratio` are
    names in `certmix.margins.local_search.OUTPUTS` and `RATIOS`; the ratio is ``"relaxed"`` by default, with
    a claim what `CLAIMED` says.  `alpha` is the mixing weight of the estimated radius, which relaxed
    constants of probabilities give; `check` is a claimed global constant, to be contradicted.  ``.data`` of
    the result is an `EstimatedLipschitz`; a contradicted claim's points are ``witness.npz`` in the run
    folder.
    """
    request = request or AttackRequest(steps=20, restarts=2, inputs=20)
    check_choice("of", of, OUTPUTS)
    ratio = ratio or ("relaxed" if check is None else CLAIMED[of])
    check_choice("ratio", ratio, RATIOS)
    if not request.eps > 0:
        raise ParameterError("eps = 0: slopes need two points: give a radius > 0")
    alpha = check_weight(alpha, low=0.5)
    if check is not None and not (math.isfinite(check) and check >= 0):
        raise ParameterError(f"check = {check}: a claimed constant is a finite number >= 0")
    if check is not None and not RATIOS[ratio].by_distance:
        raise ParameterError(
            f"ratio {ratio!r} divides by eps, not by ||d||: check a claim by each, together or yang"
        )
    check = None if check is None else float(check)
    request = request.replace(attack="pgd", steps=request.steps or 20)
    identity = {"of": of, "ratio": ratio, "search": _VERSION}
    with open_study(
        "lipschitz", request, sources, where,
        asked={"of": of, "ratio": ratio, "alpha": alpha, "check": check}, identity=identity, mixes=False,
    ) as study:  # fmt: skip
        dataset, model = study.bench.dataset, study.loaded.robust.module
        # So many inputs in a batch that their points, one a class, fill it.
        inputs = max(1, request.batch_size // dataset.classes)
        bench = replace(study.bench, request=request.replace(batch_size=inputs))
        twins: list[nn.Module | None] = []  # the twin is made when there is something to search

        def search(batch: Batch) -> FloatArray:
            if not twins:
                twins.append(float64_twin(model, batch.inputs))
                if twins[0] is None:
                    bench.say("the model does not run in float64: slopes are measured in its own precision")
            return _search(bench, model, twins[0], request, of, ratio, batch)

        numbers = study.fill([Cell(_CELL, search)], bench=bench)
        found = view(numbers)
        trial = found.data.trial
        if trial is not None and trial.contradicted:
            input = dataset.read(int(np.flatnonzero(dataset.indices == trial.index)[0]))
            buffer = io.BytesIO()
            np.savez_compressed(
                buffer, input=input, perturbed=trial.point.reshape(input.shape).astype(input.dtype),
                index=trial.index, slope=trial.slope, claimed=trial.claimed, of=of, ratio=ratio,
                norm=request.norm,
            )  # fmt: skip
            found = replace(found, files={"witness.npz": buffer.getvalue()})
        elif study.run.path is not None:
            (study.run.path / "witness.npz").unlink(missing_ok=True)
        return numbers.publish(study.run, found)


def _search(
    bench: Bench, model: nn.Module, twin: nn.Module | None, request: AttackRequest, of: str, ratio: str,
    batch: Batch,
) -> FloatArray:  # fmt: skip
    """Return outputs, best values of each restart, the same halfway; of slopes also what holds of them."""
    # A key of random starts for each input, whatever batch it is in.
    digests = [
        hashlib.sha256(f"{request.seed}\0{index}".encode()).digest() for index in batch.indices.tolist()
    ]
    seeds = torch.tensor([int.from_bytes(digest[:4], "little") for digest in digests])
    found = local_search(
        reduced(bench, model) if twin is not None else model, batch.inputs, request.norm, request.eps,
        of=of, ratio=ratio, steps=request.steps or 20, restarts=request.restarts,
        box=bench.dataset.input_range, seeds=seeds, judge=twin,
        batch_size=request.batch_size,
    )  # fmt: skip
    n = len(batch.indices)
    parts = [found.outputs, found.by_restart.swapaxes(0, 1), found.halfway.swapaxes(0, 1)]
    if RATIOS[ratio].by_distance:
        assert found.points is not None
        slopes = partial(
            slopes_beyond_rounding, model, twin, batch.inputs, of=of, ratio=ratio, norm=request.norm
        )
        points = torch.from_numpy(found.points).to(batch.inputs.device)
        sure = [slopes(points[:, i]) for i in range(points.shape[1])]
        each = torch.stack([one[:, min(i, one.shape[1] - 1)] for i, one in enumerate(sure)], 1).cpu().numpy()
        best = np.where(each.max(1) > 0, each.argmax(1), found.slopes.argmax(1))
        parts += [each.max(1), found.points[np.arange(n), best]]
    return np.concatenate([np.asarray(part, np.float64).reshape(n, -1) for part in parts], 1)


def view(numbers: Numbers) -> StudyResult:
    """Return the table, a row an input, which says "estimated" wherever a figure is one, and its figure."""
    request, asked, c = numbers.request, numbers.asked, len(numbers.class_names)
    of, ratio, check = asked["of"], asked["ratio"], asked["check"]
    k, r, steps = (c if RATIOS[ratio].wide else 1), request.restarts, request.steps or 20
    outputs, best, halfway, rest = np.split(numbers.read(_CELL), np.cumsum([c, r * k, r * k]), axis=1)
    restarts = [part.reshape(-1, r, k).swapaxes(0, 1) for part in (best, halfway)]
    constants = LipschitzEstimate(
        of, ratio, request.norm, request.eps, steps, outputs.argmax(1), outputs, *restarts
    )
    suggests = check is None and (of, ratio) == ("probabilities", "relaxed")
    radius = estimated_radius(constants, asked["alpha"]) if suggests else None
    trial = None
    if check is not None:  # of each input the slope that holds beyond rounding, and its point
        steepest = int(rest[:, 0].argmax())
        trial = ClaimTrial(
            check, float(rest[steepest, 0]), int(numbers.indices[steepest]), rest[steepest, 1:]
        )
    names, several = numbers.class_names, len(constants.by_restart) > 1
    columns, headings = [constants.own], ["estimated L"]
    if trial is not None:
        columns = [constants.slopes.max(1)]
    elif constants.slopes.shape[1] > 1:
        columns.append(constants.rivals)
        headings = ["estimated L_y", "estimated largest L_i"]
    if radius is not None:
        headings += ["margin", "estimated r", "status"]
    rows: list[tuple[Any, ...]] = []
    for k, (index, y) in enumerate(zip(numbers.indices.tolist(), constants.selected.tolist(), strict=True)):
        row: list[Any] = [index, names[y], y == int(numbers.labels[k])]
        row += [_down(column[k]) for column in columns]
        if radius is not None:
            margin = float(outputs[k, y] - np.delete(outputs[k], y).max())
            row += [Quantity(margin, 3, rounding="down"), _down(radius.quotient[k]), radius.status[k]]
        shares = (constants.spread[k] if several else None, constants.gain[k])
        row += [Quantity(None if s is None else 100 * float(s), 1, rounding="up") for s in shares]
        rows.append(tuple(row))
    formula = (
        f"Ratio {constants.ratio}: {RATIOS[constants.ratio].summary}; {constants.norm} norm of d, "
        "and d within the ball and the input range."
    )
    title, notes = f"Estimated local Lipschitz constants of {constants.of}", [_ESTIMATE, formula]
    extra: dict[str, Any] = {"kind": "estimated, not certified"}
    if radius is not None:
        right = constants.selected == numbers.labels
        notes.append(
            f"At alpha = {radius.alpha:g} the mix is estimated to keep h's class within eps for "
            f"{int(radius.holds.sum())} of {len(right)} inputs, {int((radius.holds & right).sum())} of them "
            "classified right. r below eps establishes nothing, r above it no more than eps; '-' for r: no "
            "slope was found."
        )
    if trial is not None:
        slope, claimed = floor_digits(trial.slope, 6), plain_decimal(trial.claimed)
        title = f"A claimed Lipschitz constant {claimed} of {of} on trial"
        verdict = (
            f"Not contradicted by this search, which is no proof: the steepest slope found is {slope}, "
            f"the claim {claimed}. A constant is established by the layers' construction alone."
        )
        if trial.contradicted:
            verdict = (
                f"Contradicted: input {trial.index} and a point near it (witness.npz) have slope {slope}, "
                f"rounding taken off, above the claimed {claimed}: no certificate may rest on this constant."
            )
        notes = [verdict, formula]
        told = "contradicted" if trial.contradicted else "not contradicted"
        extra = {"verdict": told, "claimed": trial.claimed}
        extra |= {"slope_beyond_rounding": trial.slope, "index": trial.index}
    spread = "one restart shows no spread"
    if several:
        spread = f"restarts differ by {_percent(constants.spread)} of an input's largest constant"
    notes += [
        f"Search evidence ({constants.steps} steps x {len(constants.by_restart)} restarts): {spread}, the "
        f"second half of the steps added {_percent(constants.gain)}; where these are large, more --steps or "
        "--restarts will find more.",
        *numbers.blind,
        f"Run: data {numbers.data}; model {numbers.models['robust']}; seed {request.seed}.",
    ]
    extra |= {name: getattr(constants, name) for name in ("of", "ratio", "norm", "eps", "steps")}
    extra |= {
        "restarts": len(constants.by_restart),
        "indices": numbers.indices.tolist(),
        "estimated_constants": constants.slopes.tolist(),
        "estimated_constants_by_restart": constants.by_restart.tolist(),
    }
    table = Table(
        name="lipschitz",
        title=title,
        settings=f"search by {request.words()}, {len(numbers.labels):,} inputs",
        headings=("input", "predicted", "right", *headings, "restarts differ (%)", "second half added (%)"),
        rows=tuple(rows),
        notes=tuple(notes),
        complete=numbers.complete,
        extra=extra,
    )
    curves = {"predicted class y": constants.own, "largest of another class": constants.rivals}
    if trial is not None or constants.slopes.shape[1] == 1:
        curves = {"largest slope": constants.slopes.max(1)}
    draw = partial(
        lipschitz_image, curves, unit=f"{of} a unit of {constants.norm}", eps=constants.eps,
        title=f"{numbers.models['robust']}: local Lipschitz search, {request.words()}",
        quotient=None if radius is None else radius.quotient,
        claimed=None if trial is None else trial.claimed,
    )  # fmt: skip
    data = EstimatedLipschitz(constants, radius, trial)
    return StudyResult(table, {"lipschitz": draw}, data)


def _down(value: float) -> Quantity:
    return Quantity(float(value) if np.isfinite(value) else None, 4, rounding="down")


def _percent(shares: FloatArray) -> str:
    median, most = (ceil_digits(100 * float(share), 1) for share in (np.median(shares), shares.max()))
    return f"{median} % (median), {most} % (most)"
