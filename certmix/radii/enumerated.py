"""Kinds of smoothing whose cases are all gone through: how many there are, and what their votes prove."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from certmix.errors import DataError, ParameterError
from certmix.radii._checks import Certificate, Kind, statuses
from certmix.radii.bands import band_margins, band_margins_anywhere, check_width
from certmix.radii.counted import classes_of, counts_of, sizes
from certmix.radii.splitting import LEVELS, offsets_of, splitting_margins
from certmix.types import CertifiedRadii, FloatArray, IntArray


@dataclass(frozen=True)
class Enumeration:
    """A kind: its norm, its usual scale, and what follows from votes (m, n) at a scale.

    ``votes`` returns n for inputs of a shape, or raises DataError; ``margins`` and ``theorem`` return the
    least n_y - n_i, (m, t), at size t of a perturbation, and what Theorem 3.5 has instead; sizes count in
    1 / `per_unit` of the norm.
    """

    norm: str
    scale: float
    per_unit: int
    votes: Callable[[float, tuple[int, ...]], int]
    margins: Callable[..., IntArray]
    theorem: Callable[..., IntArray]


def _split(votes: IntArray, selected: IntArray, classes: int, scale: float) -> IntArray:
    return splitting_margins(votes, selected, classes)


def _bands(votes: IntArray, selected: IntArray, classes: int, scale: float, *, exact: bool) -> IntArray:
    return (band_margins if exact else band_margins_anywhere)(votes, selected, classes, int(scale))


def _columns(scale: float, shape: tuple[int, ...]) -> int:
    if len(shape) != 3:
        raise DataError(
            f"inputs of shape {shape} are no images (channels, rows, columns): bands need columns"
        )
    return check_width(scale, shape[-1])


ENUMERATIONS: Mapping[str, Enumeration] = {
    "splitting": Enumeration("l1", 0.5, LEVELS, lambda scale, shape: offsets_of(scale), _split, _split),
    "bands": Enumeration(
        "patch", 4.0, 1, _columns, partial(_bands, exact=True), partial(_bands, exact=False)
    ),
}
"""The kinds by name."""
EXACT, THEOREM = "enumerated", "enumerated-lipschitz"
"""What a table calls the certificate that is exact, and Theorem 3.5's."""


def _of_votes(*given: object, **more: object) -> FloatArray:
    raise ParameterError("such radii follow from all votes of an input: read them off a run")


def _kind(name: str, meaning: str, scale: str) -> Kind:
    """Return what is known of an enumeration besides its votes."""
    norm = ENUMERATIONS[name].norm
    exact = "what votes on all cases of an input prove; no samples; no larger one follows from them."
    theorem = "Theorem 3.5 from these votes, with the least constant of all inputs."
    certificates = {
        EXACT: Certificate(EXACT, "exact (all cases)", exact, _of_votes, norm),
        THEOREM: Certificate(THEOREM, "lipschitz (all cases)", theorem, _of_votes, norm),
    }
    return Kind(name, meaning, scale, {norm: certificates}, enumerated=True)


SPLITTING = _kind("splitting", "all intervals of 8-bit values", "lambda, in units of the input")
BANDS = _kind("bands", "all bands of columns, against patches", "columns of a band")


class Counted(NamedTuple):
    """Votes (m, n) of inputs, -1 for an abstention; their counts (m, c), and classes (m,), -1 for none."""

    votes: IntArray
    counts: IntArray
    selected: IntArray

    @classmethod
    def of(cls, votes: IntArray, classes: int) -> Counted:
        """Count votes."""
        counts = counts_of(votes, classes)
        return cls(votes, counts, classes_of(counts))

    @property
    def shares(self) -> FloatArray:
        """What h gives, (m, c): the share of all votes that each class has."""
        return self.counts / self.votes.shape[1]

    def radii(self, kind: str, scale: float, rows: Iterable[tuple[str, float]]) -> list[CertifiedRadii]:
        """Return the certified radii of each row, a certificate (`EXACT` or `THEOREM`) at an alpha."""
        how, votes = ENUMERATIONS[kind], self.votes.shape[1]
        given = self.votes, np.maximum(self.selected, 0), self.counts.shape[1], scale
        margins, found = dict[str, IntArray](), []
        for name, alpha in rows:
            if name not in margins:
                margins[name] = (how.margins if name == EXACT else how.theorem)(*given)
            size = np.where(self.selected < 0, 0, np.maximum(sizes(margins[name], alpha, votes), 0))
            radius, status = size / how.per_unit, statuses(size, self.selected >= 0)
            found.append(CertifiedRadii(name, how.norm, scale, alpha, radius, status))
        return found


def largest_radius(kind: str, scale: float, votes: int, alpha: float) -> float:
    """Return the radius of an input whose `votes` all agree: no other has a larger one."""
    agreed = Counted.of(np.zeros((1, votes), np.int64), 2)
    return float(agreed.radii(kind, scale, [(EXACT, alpha)])[0].radius[0])
