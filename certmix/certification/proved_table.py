"""From stored logits and radii to the table of a certification without samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certmix.certification.evaluate import Evaluation, Outcomes, clean_accuracy, tabulate
from certmix.certification.request.proved import (
    LABEL,
    ROBUST,
    DeterministicRequest,
    Enumerated,
    Margin,
    column_cell,
    margin_cell,
    needed_cells,
    standard_logits,
)
from certmix.models.temperature import answer_of, mix_shares
from certmix.radii import margin_slack_of
from certmix.radii.constant import CONSTANTS_OF, constant_radius, softmax_probabilities
from certmix.radii.counted import EXACT, Counted, largest_radius
from certmix.runs import Store
from certmix.sampling.ballots import LEVELS as BALLOT_LEVELS
from certmix.sampling.ballots import level_of
from certmix.text import plain_decimal
from certmix.types import CertifiedRadii, FloatArray, IntArray, Status, Summary

ARITHMETIC_WORDS = {
    "float32": "as it runs in float32, its stored weights and sums of products in any order",
    "exact": "in exact arithmetic with its stored weights",
}


def stored_outcomes(
    request: DeterministicRequest, store: Store, indices: IntArray, labels: IntArray, cell: str | None
) -> Outcomes:
    """Return what a store says of inputs; `cell` holds the standard model's logits, None without one."""
    if len(indices) == 0:
        return Outcomes(indices, labels, np.empty(0, np.int64))
    if isinstance(request, Enumerated):
        return _counted_outcomes(request, store, indices, labels, cell)
    logits = store.read(ROBUST, indices.tolist())
    standard = mixed = None
    if cell is not None:
        g, h = softmax_probabilities(store.read(cell, indices.tolist())), softmax_probabilities(logits)
        mixed = mix_shares(g, h, request.alpha, request.standard_temperature).argmax(1)
        standard = g.argmax(1)
    radii = tuple(stored_radii(request, store, indices, alpha) for alpha in request.weights())
    return Outcomes(indices, labels, logits.argmax(1), standard, mixed, radii)


def counted(request: Enumerated, store: Store, indices: IntArray) -> Counted:
    """Return the votes of stored inputs behind the request's gate."""
    ballots = store.read(request.cell, indices.tolist()).astype(np.int64)
    sure = ballots % BALLOT_LEVELS >= level_of(request.gate)
    return Counted.of(np.where(sure, ballots // BALLOT_LEVELS, -1), store.classes or 0)


def _counted_outcomes(
    request: Enumerated, store: Store, indices: IntArray, labels: IntArray, cell: str | None
) -> Outcomes:
    held, standard, mixed = counted(request, store, indices), None, None
    if cell is not None:
        g = softmax_probabilities(store.read(cell, indices.tolist()))
        shares = mix_shares(g, held.shares, request.alpha, request.standard_temperature)
        standard, mixed = g.argmax(1), answer_of(shares)
    rows = [(row.certificate, row.alpha) for row in request.rows()]
    radii = held.radii(request.noise, request.scale, rows)
    return Outcomes(indices, labels, held.selected, standard, mixed, tuple(radii))


def stored_radii(
    request: DeterministicRequest, store: Store, indices: IntArray, alpha: float
) -> CertifiedRadii:
    """Return the radii of stored inputs, by index."""
    if isinstance(request, Enumerated):
        held = counted(request, store, indices)
        return held.radii(request.noise, request.scale, [(EXACT, alpha)])[0]
    if request.certificate == "margin":
        stored = store.read(margin_cell(alpha), indices.tolist())
        radius, status = stored[:, 0].copy(), stored[:, 1].astype(np.int64)
        for column in request.radii:  # raised to the columns just beyond that were verified as well
            near = near_column(request, stored[:, 0], column)
            if near.any():
                verified = store.read(column_cell(alpha, column), indices[near].tolist())[:, 0] == 1
                radius[np.flatnonzero(near)[verified]] = column
    else:
        logits, slack = store.read(ROBUST, indices.tolist()), margin_slack_of(alpha)
        radius, status = constant_radius(logits, alpha, *request.given, margin_slack=slack)
    return CertifiedRadii(request.certificate, request.norm, float("nan"), alpha, radius, status)


def stored_classes(request: DeterministicRequest, store: Store, indices: IntArray) -> IntArray:
    """Return the class of h for each of stored inputs, -1 for none."""
    if isinstance(request, Enumerated):
        return counted(request, store, indices).selected
    return store.read(ROBUST, indices.tolist()).argmax(1).astype(np.int64)


def near_column(request: Margin, radius: FloatArray, column: float) -> NDArray[np.bool_]:
    """Return which radii (m,), found by bisection, stopped just short of a column."""
    return (radius < column) & (column <= radius + 2 * request.tolerance) & (radius > 0)


def held_inputs(request: DeterministicRequest, store: Store, described: Mapping[str, Any]) -> IntArray:
    """Return the inputs, by index, of which a run has all that its table needs."""
    standard = described["models"]["standard"]
    wanted = [*needed_cells(request), LABEL]
    wanted += [] if standard is None else [standard_logits(standard["checksum"])]
    return np.array(sorted(set.intersection(*map(store.known, wanted))), np.int64)


def evaluate_proved(
    request: DeterministicRequest,
    store: Store,
    planned: Sequence[int],
    described: Mapping[str, Any],
    **names: Any,
) -> Evaluation:
    """Return what a run's numbers say of the inputs `planned`, by index; `names` of data and models."""
    standard = described["models"]["standard"]
    cell = None if standard is None else standard_logits(standard["checksum"])
    held = set(held_inputs(request, store, described).tolist())
    indices = np.array([index for index in planned if index in held], np.int64)
    inputs = len(indices)
    labels = store.read(LABEL, indices.tolist()).reshape(-1).astype(np.int64)
    found = stored_outcomes(request, store, indices, labels, cell)
    largest = largest_radii(request, held_votes(request, store))
    rows, curves = tabulate(found, request.rows(), request.radii, largest=largest) if inputs else ((), ())
    abstained = int(np.sum(found.radii[0].status == Status.ABSTAIN)) if inputs else None
    first, *details = _notes(request, found, described["data"]["input_range"])
    summary = Summary(
        sigma=None, alpha=request.alpha, inputs=inputs, failure_probability=None, radii=request.radii,
        clean_accuracy=clean_accuracy(found), rows=rows, complete=inputs == len(planned), goal=None,
        planned_inputs=len(planned), bound=request.bound_method if isinstance(request, Margin) else None,
        abstained=abstained, notes=(first,), details=tuple(details), norm=request.norm,
        noise=getattr(request, "noise", None), scale=getattr(request, "scale", None), **names,
    )  # fmt: skip
    return Evaluation(summary, curves, found)


def held_votes(request: DeterministicRequest, store: Store) -> int:
    """Return how many votes each input of a run has; 0 of runs without votes."""
    if not isinstance(request, Enumerated):
        return 0
    some = sorted(store.known(request.cell))[:1]
    return int(store.read(request.cell, some).shape[1]) if some else 0


def largest_radii(request: DeterministicRequest, votes: int) -> list[float]:
    """Return the radius of each row that no input could exceed; none where there is no such."""
    if isinstance(request, Margin):
        return [request.max_radius] * 2
    if not isinstance(request, Enumerated) or not votes:
        return []
    return [largest_radius(request.noise, request.scale, votes, row.alpha) for row in request.rows()]


def _notes(request: DeterministicRequest, found: Outcomes, box: tuple[float, float] | None) -> list[str]:
    if isinstance(request, Enumerated):
        exact = (
            "Votes are whole numbers and alpha the decimal that it prints as; ties count against the class."
        )
        return [request.cases.told(request.scale), exact]
    if request.certificate == "lipschitz-constant":
        constant, what = request.given
        return [
            f"Given, not verified: {plain_decimal(constant)} is a Lipschitz constant of h, from the "
            f"{request.norm} norm of the input to {CONSTANTS_OF[what]}."
        ]
    notes = [
        f"Proved for h {ARITHMETIC_WORDS[request.arithmetic]}; radii are found to within "
        f"{plain_decimal(float(f'{request.tolerance:.2g}'))}."
    ]
    if request.norm == "linf" and box is not None:
        low, high = map(plain_decimal, box)
        notes.append(f"Balls are cut to inputs in [{low}, {high}].")
    largest = sum(int(np.sum(radii.radius >= request.max_radius)) for radii in found.radii[-1:])
    if largest:
        notes.append(
            f"The largest radius that is tried, {request.max_radius:.4g}, was verified for {largest:,} "
            "inputs of the mix: larger ones need --max-radius."
        )
    return notes


def radii_by_input(found: Outcomes) -> dict[str, dict[str, str]]:
    """Return label, class and radii of each input by index, in full; radius 0 where nothing is certified."""
    heading = ("label", "predict", "radius_robust", "radius_mixed")
    columns = [found.indices, found.labels, found.robust, *(radii.radius for radii in found.radii[:2])]
    rows = ([repr(value.item()) for value in row] for row in zip(*columns, strict=True))
    return {index: dict(zip(heading, values, strict=True)) for index, *values in rows}
