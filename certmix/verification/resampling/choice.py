"""Which stored images, and which of their samples, are drawn again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from certmix.certification.request import CertifyRequest
from certmix.runs import ImageRecord
from certmix.verification.plain.table import derive, evidence
from certmix.verification.rederivation.tables import plan
from certmix.verification.resampling.draws import Again

__all__ = ["SHORT", "WIDE", "Piece", "choose_images", "choose_pieces", "weights_of"]

WIDE = 20
"""For each image that is sampled again in depth so many are in a few samples."""
SHORT = 100
"""Samples of these."""


def choose_images(again: Again, weights: Mapping[int, float]) -> tuple[dict[int, int], str]:
    """Return index -> position of `WIDE` times the images asked for, as the new seed orders them.

    Where there is none the second value says what is lacking; else it is empty.
    Images with a large weight come early more often.
    """
    dataset, problems = again.reloaded.dataset, again.reloaded.problems
    lacking = [text for name, text in problems.items() if name in ("data", "robust")]
    if lacking or dataset is None or again.reloaded.models["robust"] is None:
        return {}, " ".join(lacking) or "no robust model is named"
    places = {int(index): k for k, index in enumerate(dataset.indices)}
    known = sorted(index for index in weights if index in places)
    if not known:
        return {}, "no stored image is in the data set"
    weight = np.array([weights[index] for index in known])
    count, rng = min(WIDE * again.images, len(known)), np.random.default_rng(again.new_seed)
    picked = rng.choice(len(known), count, replace=False, p=weight / weight.sum())
    return {known[k]: places[known[k]] for k in picked.tolist()}, ""


def weights_of(records: Sequence[ImageRecord], request: CertifyRequest) -> dict[int, float]:
    """Return a weight for each image: large where its radius lies little above a column of the table.

    There a few votes decide a figure.  It is sigma / (distance + sigma / 4),
    with at most sigma as the distance, as for images that count nowhere.
    """
    if not records:
        return {}
    derived, columns = derive(records, request), np.array([0.0, *request.radii])
    counted = np.array([record.selected == record.label for record in records])
    distance = np.full(len(records), request.sigma)
    for _, certificate, alpha in plan(request):
        radii = np.where(counted, derived.radii(certificate, request.sigma, alpha), 0.0)[:, None]
        above = np.where((radii > 0) & (radii >= columns), radii - columns, request.sigma)
        distance = np.minimum(distance, above.min(1))
    weights = 1 / (distance / request.sigma + 0.25)
    return dict(zip((record.index for record in records), weights.tolist(), strict=True))


@dataclass(frozen=True)
class Piece:
    """Samples begin..end - 1 of an image, within `stretch`, whose counts are stored."""

    record: ImageRecord
    stream: str
    stretch: tuple[int, int]
    begin: int
    end: int

    @property
    def left(self) -> int:
        """Samples of the stretch that are not drawn."""
        return self.stretch[1] - self.stretch[0] - (self.end - self.begin)


def choose_pieces(
    again: Again, request: CertifyRequest, records: Sequence[ImageRecord], unit: int
) -> list[Piece]:
    """Return what is drawn again of images, in whole `unit`s of samples.

    Of each image up to `SHORT` samples: of the selection or of a stretch between
    two looks, half of the time each is as likely, half of the time a long one
    is likelier.  Of the first ``again.images`` instead the selection, and long
    stretches, whole up to twice ``again.samples``, until as many are drawn; they
    share ``again.images * again.samples``.
    """
    pieces: list[Piece] = []
    budget = again.images * again.samples
    for number, record in enumerate(records):
        rng = np.random.default_rng([again.new_seed, record.index])
        ends = [0, *sorted(n for n in evidence(record, request) if n > 0 and n in record.estimation)]
        kept = [("selection", 0, request.selection_samples)]
        kept += [("estimation", a, b) for a, b in pairwise(ends)]
        lengths = np.array([b - a for _, a, b in kept], float)
        order = rng.choice(len(kept), len(kept), replace=False, p=lengths / lengths.sum()).tolist()
        if number >= again.images:
            at = int(rng.integers(len(kept))) if rng.random() < 0.5 else order[0]
            pieces.append(_piece(record, kept[at], SHORT, unit, rng))
            continue
        pieces.append(_piece(record, kept[0], request.selection_samples, unit, rng))
        spent = 0
        for at in order:
            if at > 0 and spent < min(again.samples, budget):
                pieces.append(_piece(record, kept[at], 2 * again.samples, unit, rng))
                spent += pieces[-1].end - pieces[-1].begin
        budget -= spent
    return pieces


def _piece(
    record: ImageRecord, stretch: tuple[str, int, int], most: int, unit: int, rng: np.random.Generator
) -> Piece:
    """Return a random piece of a stretch, of `most` samples rounded up to whole units."""
    stream, a, b = stretch
    count = min(b - a, -(-most // unit) * unit)
    begin = a + unit * int(rng.integers((b - a - count) // unit + 1))
    return Piece(record, stream, (a, b), begin, begin + count)
