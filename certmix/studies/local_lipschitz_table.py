"""The tables of the local Lipschitz search, which say "estimated" wherever a figure is one.  No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from certmix.margins.local_search import RATIOS
from certmix.tables.table import Cell, Quantity, Table
from certmix.text import ceil_digits, floor_digits, plain_decimal
from certmix.types import FloatArray

if TYPE_CHECKING:
    from certmix.runs.attacking import Bench
    from certmix.studies.local_lipschitz import EstimatedLipschitz
    from certmix.studies.local_lipschitz_trial import ClaimTrial

__all__ = ["check_table", "constants_table"]

_ESTIMATE = (
    "Estimated, not certified: a search finds slopes, so that true constants may be larger, "
    "and radii that rest on them smaller."
)
_EVIDENCE = ("restarts differ (%)", "second half added (%)")


def constants_table(found: EstimatedLipschitz, model: str, bench: Bench, complete: bool) -> Table:
    """Return estimated constants image by image, and the radius they suggest."""
    constants, radius = found.constants, found.radius
    wide = constants.slopes.shape[1] > 1
    names = ("estimated L_y", "estimated largest L_i") if wide else ("estimated L",)
    columns = [constants.own, constants.rivals] if wide else [constants.own]
    extra = ("margin", "estimated r", "status") if radius is not None else ()
    rows = [
        (*start, *(_down(column[k]) for column in columns), *_radius(found, k), *end)
        for k, (start, end) in enumerate(zip(_starts(found, bench), _evidence(found), strict=True))
    ]
    notes = [_ESTIMATE, _formula(found), *_verdict(found), _convergence(found), *bench.blind]
    notes.append(_run(model, bench))
    return Table(
        name="lipschitz",
        title=f"Estimated local Lipschitz constants of {constants.of}",
        settings=_settings(found, bench),
        headings=("image", "predicted", "right", *names, *extra, *_EVIDENCE),
        rows=tuple(rows),
        notes=tuple(notes),
        complete=complete,
        extra={"kind": "estimated, not certified", **_summary(found)},
    )


def check_table(
    found: EstimatedLipschitz, trial: ClaimTrial, model: str, bench: Bench, complete: bool
) -> Table:
    """Return the steepest slopes image by image, and whether they contradict the claim."""
    rows = [
        (*start, _down(found.constants.slopes[k].max()), *end)
        for k, (start, end) in enumerate(zip(_starts(found, bench), _evidence(found), strict=True))
    ]
    verdict = _trial_words(trial)
    return Table(
        name="lipschitz",
        title=f"A claimed Lipschitz constant {plain_decimal(trial.claimed)} of {trial.of} on trial",
        settings=_settings(found, bench),
        headings=("image", "predicted", "right", "estimated L", *_EVIDENCE),
        rows=tuple(rows),
        notes=(verdict, _formula(found), _convergence(found), *bench.blind, _run(model, bench)),
        complete=complete,
        extra={
            "verdict": "contradicted" if trial.contradicted else "not contradicted",
            "claimed": trial.claimed,
            "slope_beyond_rounding": trial.slope,
            "index": trial.index,
            **_summary(found),
        },
    )


def _trial_words(trial: ClaimTrial) -> str:
    slope, claimed = floor_digits(trial.slope, 6), plain_decimal(trial.claimed)
    if trial.contradicted:
        return (
            f"Contradicted: image {trial.index} and a point near it (witness.npz) have slope {slope}, "
            f"rounding taken off, above the claimed {claimed}: no certificate may rest on this constant."
        )
    return (
        f"Not contradicted by this search, which is no proof: the steepest slope found is {slope}, "
        f"the claim {claimed}. A constant is established by the layers' construction alone."
    )


def _starts(found: EstimatedLipschitz, bench: Bench) -> list[tuple[Cell, ...]]:
    names, y = bench.dataset.class_names, found.constants.selected
    return [
        (int(index), str(names[own]), bool(own == label))
        for index, own, label in zip(found.indices, y, found.labels, strict=True)
    ]


def _radius(found: EstimatedLipschitz, k: int) -> tuple[Any, ...]:
    if found.radius is None:
        return ()
    outputs, own = found.constants.outputs[k], int(found.constants.selected[k])
    margin = float(outputs[own] - np.delete(outputs, own).max())
    return Quantity(margin, 3, rounding="down"), _down(found.radius.quotient[k]), found.radius.status[k]


def _evidence(found: EstimatedLipschitz) -> list[tuple[Cell, ...]]:
    spreads = found.constants.spread if len(found.constants.by_restart) > 1 else [None] * len(found.labels)
    return [(_percent_up(s), _percent_up(g)) for s, g in zip(spreads, found.constants.gain, strict=True)]


def _percent_up(share: float | None) -> Quantity:
    return Quantity(None if share is None else 100 * float(share), 1, rounding="up")


def _down(value: float) -> Quantity:
    return Quantity(float(value) if np.isfinite(value) else None, 4, rounding="down")


def _settings(found: EstimatedLipschitz, bench: Bench) -> str:
    return f"search by {bench.request.words()}, {len(found.labels):,} images"


def _formula(found: EstimatedLipschitz) -> str:
    constants = found.constants
    box = "and d within the ball and the input range"
    return f"Ratio {constants.ratio}: {RATIOS[constants.ratio].summary}; {constants.norm} norm of d, {box}."


def _verdict(found: EstimatedLipschitz) -> Sequence[str]:
    radius = found.radius
    if radius is None:
        return ()
    right = found.constants.selected == found.labels
    held = int(radius.holds.sum())
    return (
        f"At alpha = {radius.alpha:g} the mix is estimated to keep h's class within eps for {held} of "
        f"{len(right)} images, {int((radius.holds & right).sum())} of them classified right. r below eps "
        "establishes nothing, r above it no more than eps; '-' for r: no slope was found.",
    )


def _convergence(found: EstimatedLipschitz) -> str:
    constants = found.constants
    gains, words = constants.gain, f"{constants.steps} steps x {len(constants.by_restart)} restarts"
    spread = (
        f"restarts differ by {_percent(constants.spread)} of an image's largest constant, "
        if len(constants.by_restart) > 1
        else "one restart shows no spread, "
    )
    return (
        f"Search evidence ({words}): {spread}the second half of the steps added {_percent(gains)}; "
        "where these are large, more --steps or --restarts will find more."
    )


def _percent(shares: FloatArray) -> str:
    median, most = (ceil_digits(100 * float(share), 1) for share in (np.median(shares), shares.max()))
    return f"{median} % (median), {most} % (most)"


def _run(model: str, bench: Bench) -> str:
    return f"Run: data {bench.dataset.name}; model {model}; seed {bench.request.seed}."


def _summary(found: EstimatedLipschitz) -> dict[str, Any]:
    constants = found.constants
    return {
        "of": constants.of,
        "ratio": constants.ratio,
        "norm": constants.norm,
        "eps": constants.eps,
        "steps": constants.steps,
        "restarts": len(constants.by_restart),
        "indices": found.indices.tolist(),
        "estimated_constants": constants.slopes.tolist(),
        "estimated_constants_by_restart": constants.by_restart.tolist(),
    }
