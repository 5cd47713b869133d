"""The figures that requirements are about, derived from a run's counts or logits, never from its tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from certmix.certification.deterministic_fill import ROBUST, column_cell, margin_cell
from certmix.certification.deterministic_request import DeterministicRequest, Margin
from certmix.certification.evaluate import bound_records, ceilings, radii_of, row_plan
from certmix.certification.request import CertifyRequest
from certmix.errors import RunError
from certmix.radii import margin_slack_of
from certmix.radii.constant import constant_radius, softmax_probabilities
from certmix.runs import ImageRecord
from certmix.types import FloatArray, IntArray
from certmix.verification.guarantee.judging import Figures
from certmix.verification.plain import radii as plain_radii
from certmix.verification.plain.table import derive
from certmix.verification.rederivation.stored import StoredRun, StoredVectors

__all__ = ["logit_figures", "vote_figures"]

BoolArray = NDArray[np.bool_]


def vote_figures(
    stored: StoredRun, request: CertifyRequest, indices: Sequence[int], standard: str | None
) -> Figures:
    """Return the figures of a sampled run, each radius the smaller of two derivations.

    One is the run's own, rounded down; the other is that of
    `certmix.verification.plain.table`, which shares no bound or radius code with it.

    Parameters
    ----------
    stored
        What the run folder holds.
    request
        Decides how counts become radii; one certificate.
    indices
        Of the images that count.
    standard
        Checksum of the standard classifier, None without one.

    Raises
    ------
    RunError
        If an image has not been sampled as far as the request wants.
    """
    records = [stored.images[index] for index in indices if index in stored.images]
    bounded = bound_records(records, request) if records else None
    if bounded is None or len(records) < len(indices) or bounded.waiting.any():
        raise RunError(f"{stored.folder} lacks samples of some images: sample them, or take fewer images")
    labels = np.array([record.label for record in records], np.int64)
    selected = np.array([record.selected for record in records], np.int64)
    radii, plain = {}, derive(records, request)
    for classifier, certificate, alpha in row_plan(request)[:2]:
        rounded = radii_of(bounded.bounds, sigma=request.sigma, alpha=alpha, certificate=certificate).radius
        smaller = np.minimum(rounded, plain.radii(certificate, request.sigma, alpha))
        radii[classifier] = np.where(selected == labels, smaller, 0.0)
    frequencies = np.stack([record.selection / record.selection.sum() for record in records])
    probabilities = _probabilities(stored, records, standard)
    right = _right(probabilities, frequencies, request.alpha, labels)
    largest = {name: most for name, _, most in ceilings(request, stored.classes)[:2]}
    return Figures(np.array(indices, np.int64), right, radii, largest)


def _probabilities(
    stored: StoredRun, records: Sequence[ImageRecord], standard: str | None
) -> FloatArray | None:
    known = stored.standard.get(standard or "", {})
    if standard is None or any(record.index not in known for record in records):
        return None
    return np.stack([known[record.index] for record in records])


def _right(
    standard: FloatArray | None, robust: FloatArray, alpha: float, labels: IntArray
) -> dict[str, BoolArray]:
    """Which images each classifier gets right; without the standard one only h is known."""
    right = {"robust": robust.argmax(1) == labels}
    if standard is not None:
        mixed = (1 - alpha) * standard + alpha * robust
        right |= {"standard": standard.argmax(1) == labels, "mixed": mixed.argmax(1) == labels}
    return right


def logit_figures(
    stored: StoredVectors,
    request: DeterministicRequest,
    indices: Sequence[int],
    labels: IntArray,
    standard: str | None,
) -> Figures:
    """Return the figures of a run without samples.

    Radii of ``lipschitz-constant`` have no largest value: the bound of their
    mean counts those beyond the last column of the request as this column.

    Parameters
    ----------
    stored, request, indices
        As for `vote_figures`.
    labels
        Classes (m,) of the images: such runs do not keep them.
    standard
        Cell of the standard classifier's logits, None without one.

    Raises
    ------
    RunError
        If the run lacks an image.
    """
    logits = _read(stored, ROBUST, indices)
    predicted = logits.argmax(1)
    radii = {}
    for classifier, alpha in zip(("robust", "mixed"), request.weights(), strict=True):
        if request.certificate == "margin":
            radius = _verified(stored, request, alpha, indices)
        else:
            slack = margin_slack_of(alpha)
            rounded = constant_radius(logits, alpha, *request.given, margin_slack=slack)[0]
            plain = [plain_radii.constant_radius(z, alpha, *request.given, slack) for z in logits]
            radius = np.minimum(rounded, plain)
        radii[classifier] = np.where(predicted == labels, radius, 0.0)
    g = None if standard is None else softmax_probabilities(_read(stored, standard, indices))
    right = _right(g, softmax_probabilities(logits), request.alpha, labels)
    most = request.max_radius if request.certificate == "margin" else request.radii[-1]
    return Figures(np.array(indices, np.int64), right, radii, dict.fromkeys(radii, most))


def _read(stored: StoredVectors, cell: str, indices: Sequence[int]) -> FloatArray:
    known = stored.cells.get(cell, {})
    missing = [index for index in indices if index not in known]
    if missing or not len(indices):
        raise RunError(f"{stored.folder} lacks images in cell {cell[:40]!r}: run certmix certify again")
    if len({known[index].shape for index in indices}) > 1:
        raise RunError(f"{stored.folder}: cell {cell[:40]!r} is damaged: restore the run")
    return np.stack([known[index] for index in indices])


def _verified(stored: StoredVectors, request: Margin, alpha: float, indices: Sequence[int]) -> FloatArray:
    """Return verified radii, raised to columns just beyond them that were verified as well."""
    radius = _read(stored, margin_cell(alpha), indices)[:, 0].copy()
    first = radius.copy()
    for column in request.radii:
        known = stored.cells.get(column_cell(alpha, column), {})
        near = (first < column) & (column <= first + 2 * request.tolerance) & (first > 0)
        verified = np.array([index in known and known[index].tolist() == [1.0] for index in indices])
        radius[near & verified] = column
    return radius
