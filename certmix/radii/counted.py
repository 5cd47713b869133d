"""Exact certificates from votes that are all there: whole numbers and fractions to the end.

A kind of smoothing that goes through every case (`certmix.radii.splitting`, `certmix.radii.bands`) has n
votes an input and no failure probability.  A perturbation of size t changes some of them; ``margins[t]`` is
the least n_y - n_i that it can leave, over all rivals i, so that it falls in t.  The mix keeps y whatever g
is while alpha (n_y - n_i) > (1 - alpha) n: ties count against y.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from certmix.errors import ParameterError
from certmix.radii import SMOOTHINGS, margin_slack_of
from certmix.radii._checks import Cases, Certificate, Kind, statuses
from certmix.types import CertifiedRadii, FloatArray, IntArray

EXACT, THEOREM = "enumerated", "enumerated-lipschitz"
"""What a table calls the certificate that is exact, and Theorem 3.5's."""


def _of_votes(*given: object, **more: object) -> FloatArray:
    raise ParameterError("such radii follow from all votes of an input: read them off a run")


CERTIFICATES = {
    EXACT: Certificate(
        EXACT, "exact (all cases)",
        "what votes on all cases of an input prove; no samples; no larger one follows from them.", _of_votes,
    ),
    THEOREM: Certificate(
        THEOREM, "lipschitz (all cases)",
        "Theorem 3.5 from these votes, with the least constant of all inputs.", _of_votes,
    ),
}  # fmt: skip
"""Certificates of kinds whose cases are all gone through, by name."""


def enumerated(
    name: str, meaning: str, scale: str, norm: str, sampler: str, cases: Cases, whole: bool
) -> Kind:
    """Return such a kind, with its certificates; the parameters are those of `Kind`."""
    rules = {rule.name: replace(rule, norm=norm) for rule in CERTIFICATES.values()}
    return Kind(name, meaning, scale, {norm: rules}, sampler=sampler, whole=whole, cases=cases)


def votes_ahead(alpha: float, votes: int) -> int:
    """Return the least n_y - n_i that the mix needs: the first whole number above mu n.

    alpha is the decimal number that it prints as; mu = (1 - alpha) / alpha, and 2^-22 for the rounding of a
    mix in float64.

    >>> votes_ahead(0.8, 256), votes_ahead(0.76, 32), votes_ahead(1.0, 32)
    (65, 11, 1)
    """
    printed = Fraction(repr(float(alpha)))
    return math.floor(((1 - printed) / printed + Fraction(margin_slack_of(alpha))) * votes) + 1


def counts_of(votes: IntArray, classes: int) -> IntArray:
    """Return how many of the votes (m, n) each class has, int64 (m, classes); -1 abstains."""
    counts = np.zeros((len(votes), classes), np.int64)
    rows, places = np.nonzero(votes >= 0)
    np.add.at(counts, (rows, votes[rows, places]), 1)
    return counts


def classes_of(counts: IntArray) -> IntArray:
    """Return the class with the most votes (m,), -1 where two have as many, or none has any."""
    two = np.sort(counts, 1)[:, -2:]
    return np.where(two[:, 1] > two[:, 0], counts.argmax(1), -1)


def rival_margins(counts: IntArray, selected: IntArray) -> IntArray:
    """Return n_y - max n_i of inputs (m,), from counts (m, classes); y must be a class."""
    rows, others = np.arange(len(counts)), counts.copy()
    own = others[rows, selected]
    others[rows, selected] = -1
    return np.asarray(own - others.max(1), np.int64)


def sizes(margins: IntArray, alpha: float, votes: int) -> IntArray:
    """Return the largest t (m,) at which `margins` (m, t + 1) suffice at alpha; -1 where not even 0 does."""
    return np.asarray((margins >= votes_ahead(alpha, votes)).sum(1) - 1, np.int64)


def cases_of(kind: str) -> Cases:
    """Return what a kind has of which no case is left out."""
    found: Cases = SMOOTHINGS[kind].cases
    return found


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
        votes, (norm,), cases = self.votes.shape[1], SMOOTHINGS[kind].certificates, cases_of(kind)
        given = self.votes, np.maximum(self.selected, 0), self.counts.shape[1], scale
        margins, found = dict[str, IntArray](), []
        for name, alpha in rows:
            if name not in margins:
                margins[name] = (cases.margins if name == EXACT else cases.theorem)(*given)
            size = np.where(self.selected < 0, 0, np.maximum(sizes(margins[name], alpha, votes), 0))
            radius, status = size / cases.per_unit, statuses(size, self.selected >= 0)
            found.append(CertifiedRadii(name, norm, scale, alpha, radius, status))
        return found


def largest_radius(kind: str, scale: float, votes: int, alpha: float) -> float:
    """Return the radius of an input whose `votes` all agree: no other has a larger one."""
    agreed = Counted.of(np.zeros((1, votes), np.int64), 2)
    return float(agreed.radii(kind, scale, [(EXACT, alpha)])[0].radius[0])
