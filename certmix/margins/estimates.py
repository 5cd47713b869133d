"""What a search for local Lipschitz constants found: estimates, and the radius that they suggest.

No certificates: a search finds lower bounds of the constants, and Theorem 3.5 asks for upper bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from certmix.errors import ParameterError
from certmix.types import FloatArray, IntArray

HOLDS, NOT_ESTABLISHED = "estimated to hold within eps", "not established"


@dataclass(frozen=True, eq=False, repr=False)
class LipschitzEstimate:
    """Estimated local constants: the largest slopes found, each a lower bound of the constant it stands for.

    Parameters
    ----------
    of, ratio
        Which outputs, ``"probabilities"`` or ``"logits"``, and what counts as a slope: a name in
        `certmix.margins.local_search.RATIOS`.
    norm, eps, steps
        The ball that was searched, in whose norm of the input slopes are; steps of ascent in each restart.
    selected, outputs
        int64 (m,), the class y of each input, and float64 (m, c), the outputs there.
    by_restart, halfway
        float64 (restarts, m, k): what each restart found, and had found after half the steps; k is the number
        of classes, or 1.
    points
        (m, k, ...): the points x + d with the largest slopes.
    """

    of: str
    ratio: str
    norm: str
    eps: float
    steps: int
    selected: IntArray
    outputs: FloatArray
    by_restart: FloatArray
    halfway: FloatArray
    points: NDArray[np.floating] | None = field(default=None)

    def __repr__(self) -> str:
        return (
            f"LipschitzEstimate({self.of}, {self.ratio}, {self.norm}, eps={self.eps:g}, "
            f"{len(self.selected)} inputs, {self.steps} steps x {len(self.by_restart)} restarts: "
            "estimated, not certified)"
        )

    @property
    def slopes(self) -> FloatArray:
        """Estimated constants (m, k): the best of all restarts."""
        return np.asarray(self.by_restart.max(0), np.float64)

    @property
    def own(self) -> FloatArray:
        """Estimated constants of the selected classes, (m,)."""
        return np.take_along_axis(self.slopes, self._columns, 1)[:, 0]

    @property
    def rivals(self) -> FloatArray:
        """Largest estimated constant of another class, (m,); NaN where outputs are taken together."""
        others = self.slopes.copy()
        np.put_along_axis(others, self._columns, -np.inf, 1)
        largest = others.max(1)
        return np.where(np.isfinite(largest), largest, np.nan)

    @property
    def spread(self) -> FloatArray:
        """How far restarts differ, (m,): at most over classes, as a share of the input's largest constant."""
        return self._share(self.by_restart.max(0) - self.by_restart.min(0))

    @property
    def gain(self) -> FloatArray:
        """What the second half of the steps added, (m,): the same share."""
        return self._share(self.slopes - self.halfway.max(0))

    @property
    def _columns(self) -> IntArray:
        wide = self.by_restart.shape[2] > 1
        return np.asarray(self.selected * wide, np.int64)[:, None]

    def _share(self, differences: FloatArray) -> FloatArray:
        largest = self.slopes.max(1)
        return np.asarray(differences.max(1) / np.where(largest > 0, largest, 1.0), np.float64)


@dataclass(frozen=True, eq=False, repr=False)
class EstimatedRadius:
    """Theorem 3.5 with estimated constants in place of proved ones.

    They hold in the ball of `norm` and `eps`; `quotient`, float64 (m,), is the theorem's r at mixing weight
    `alpha`: 0 where the margin does not suffice, inf where no slope was found.
    """

    norm: str
    eps: float
    alpha: float
    quotient: FloatArray

    def __repr__(self) -> str:
        held = f"{int(self.holds.sum())} of {len(self.quotient)} inputs {HOLDS}, not certified"
        return f"EstimatedRadius({self.norm}, eps={self.eps:g}, alpha={self.alpha:g}: {held})"

    @property
    def holds(self) -> NDArray[np.bool_]:
        """bool (m,): r >= eps, so that the mix would keep its class within eps if the constants were true."""
        return np.asarray(self.quotient >= self.eps)

    @property
    def radius(self) -> FloatArray:
        """Estimated radii (m,): eps where `holds`, and 0, which says nothing, elsewhere."""
        return np.where(self.holds, self.eps, 0.0)

    @property
    def status(self) -> tuple[str, ...]:
        """`HOLDS` or `NOT_ESTABLISHED` for each input."""
        return tuple(HOLDS if held else NOT_ESTABLISHED for held in self.holds)


def estimated_radius(found: LipschitzEstimate, alpha: ArrayLike) -> EstimatedRadius:
    """Return the radius of Theorem 3.5 under the relaxed constants that were found, one a class.

    ``r = min_i [alpha (h_y - h_i) + alpha - 1] / [alpha (L_y + L_i)]`` over all rivals i.  The relaxed
    constants bound changes over the ball of radius eps alone: r >= eps gives eps, and r < eps gives nothing.
    Since the constants are estimated from below, r is estimated from above (section 3.1 of Bai, Anderson,
    Sojoudi, "Mixing classifiers to alleviate the accuracy-robustness trade-off", after Theorem 3.5).
    ParameterError for other constants, or alpha out of range.
    """
    if (found.of, found.ratio) != ("probabilities", "relaxed"):
        raise ParameterError(
            f"constants are {found.ratio} ones of {found.of}: a radius needs relaxed ones of probabilities"
        )
    from certmix.radii import lipschitz_radius  # numba, which importing this package spares

    own, slopes, weight = found.selected[:, None], found.slopes, float(np.asarray(alpha))
    rival = np.arange(slopes.shape[1]) != own
    h, others = (each[rival].reshape(len(own), -1) for each in (found.outputs, slopes))
    selected = np.take_along_axis(found.outputs, own, 1)[:, 0]
    quotient = lipschitz_radius(selected, h, weight, found.own, others)
    return EstimatedRadius(found.norm, found.eps, weight, quotient)
