"""Algorithm 1 of MixedNUTS: s, p, c and alpha from the margins of saved logits.  No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from certmix.errors import ParameterError
from certmix.nuts.cache import RIVALS, MarginGrid, classified_right, margin_grid
from certmix.nuts.grid import BETAS, Grid, TransformSettings
from certmix.nuts.margins import attacked_margin, check_labels, check_logits, normalize_numpy
from certmix.types import FloatArray, IntArray

__all__ = [
    "QUANTILES",
    "NutsFit",
    "auxiliary_alpha",
    "check_choices",
    "fit",
    "mixing_weight",
    "solve_beta",
]

QUANTILES = ("conservative", "linear")

LARGEST_THRESHOLD = 1.0 - 1e-9
"""Margin thresholds are cut off here, as in published code: at 1 alpha is 1/2, where everything ties."""

SATURATED = 1e-6


@dataclass(frozen=True, eq=False)
class NutsFit:
    """What Algorithm 1 found.

    Parameters
    ----------
    s, p, c, alpha
        The transform and the mixing weight.
    margin_threshold
        q: alpha is 1 / (1 + q), and a margin of at least q withstands any standard model.
    objective
        Share of the `clean_wrong` images whose margin is >= q, which no
        standard model can mend; 0 if there are none.  With the rival
        ``"label"`` every right standard model mends all others.
    constraint_share
        Share of the `attacked_right` images whose margin is >= q; the
        conservative quantile keeps it >= beta.
    ties
        Feasible grid points with this objective, the chosen one included.
    on_edge
        Which of s, p, c end their range on the grid: the optimum may lie beyond.
    beta, quantile, clamp, top_k, rival, conditional
        How it was found.
    images, clean_wrong, attacked_right
        Numbers of images: all, in the objective, and in the constraint.
    grid, objectives, thresholds, feasible
        The grid, and at each of its points, (s, p, c), the objective, q, and
        whether (7) can be met at all (else q is 0 and the point is left out).
    """

    s: float
    p: float
    c: float
    alpha: float
    margin_threshold: float
    objective: float
    constraint_share: float
    ties: int
    on_edge: tuple[str, ...]
    beta: float
    quantile: str
    clamp: str
    top_k: int | None
    rival: str
    conditional: bool
    images: int
    clean_wrong: int
    attacked_right: int
    grid: Grid
    objectives: FloatArray
    thresholds: FloatArray
    feasible: NDArray[np.bool_]

    @property
    def settings(self) -> TransformSettings:
        """The transform, as `NonlinearTransform` and `constraint_share` take it."""
        return TransformSettings(self.s, self.p, self.c, self.clamp, self.top_k)

    @property
    def saturated(self) -> bool:
        """Whether q is within 1e-6 of 0 or 1, where float32 logits of the mix tie."""
        return not SATURATED < self.margin_threshold < 1.0 - SATURATED


def fit(
    clean_logits: ArrayLike,
    attacked_logits: ArrayLike,
    labels: ArrayLike,
    grid: Grid,
    beta: float = BETAS["cifar10"],
    *,
    clamp: str = "gelu",
    top_k: int | None = None,
    quantile: str = "conservative",
    rival: str = RIVALS[0],
    standard_correct: ArrayLike | None = None,
    threads: int | None = None,
) -> NutsFit:
    """Return the grid's best transform and its mixing weight: `solve_beta` of `margin_grid`.

    Minimises the share of misclassified clean images whose margin is >= q,
    where q is the largest margin that a share beta of the rightly classified
    attacked images keeps.  Tune on images that no result is reported on.

    Parameters
    ----------
    clean_logits, attacked_logits, labels, grid, clamp, top_k, rival, standard_correct, threads
        See `margin_grid`.
    beta, quantile
        See `solve_beta`.

    Raises
    ------
    DataError
        If the arrays do not fit together, or no attacked image is classified right.
    ParameterError
        For a value out of range, or if no point of the grid meets (7).

    References
    ----------
    Algorithm 1 and problem (7) of Bai, Zhou, Patel, Sojoudi, "MixedNUTS:
    Training-Free Accuracy-Robustness Balance via Nonlinearly Mixed
    Classifiers", TMLR 2024.

    Examples
    --------
    >>> clean = [[3.0, 0.0, 0.0], [0.9, 1.0, -2.0], [0.0, 0.0, 3.0]]
    >>> attacked = [[2.0, 0.0, 0.5], [0.5, 1.5, 0.0], [0.0, 0.3, 2.0]]
    >>> found = fit(clean, attacked, [0, 0, 2], Grid((1.0, 4.0), (1.0, 2.0), (-0.5, 0.0)), beta=1.0)
    >>> found.objective, found.attacked_right, found.clean_wrong
    (0.0, 2, 1)
    """
    check_choices(beta, quantile)
    margins = margin_grid(
        clean_logits, attacked_logits, labels, grid,
        clamp=clamp, top_k=top_k, rival=rival, standard_correct=standard_correct, threads=threads,
    )  # fmt: skip
    return solve_beta(margins, beta, quantile=quantile)


def solve_beta(margins: MarginGrid, beta: float, *, quantile: str = "conservative") -> NutsFit:
    """Return the best point of a grid for one beta.

    Of the points with the least objective the one with the largest 1 - alpha
    is taken; then, of several, that of smallest p, smallest s, smallest |c|.
    At a margin of exactly q the worst standard model only ties with the robust one.

    Parameters
    ----------
    margins
        From `margin_grid`.
    beta
        In [0, 1]: the share of rightly classified attacked images that must keep their class whatever
        the standard model says.  1 keeps all, 0 asks for nothing.
    quantile
        ``"conservative"``: q is the largest margin that meets the constraint
        on these images.  ``"linear"``: the interpolated (1 - beta)-quantile, as
        published code has it, which can fall short by part of an image.
    """
    check_choices(beta, quantile)
    raw = _threshold(margins.attacked, beta, quantile)
    feasible, q = raw >= 0.0, np.clip(raw, 0.0, LARGEST_THRESHOLD)
    kept = _count_at_least(margins.clean_wrong, q)
    wrong, right = margins.clean_wrong.shape[-1], margins.attacked.shape[-1]
    at, ties = _choose(margins.grid, kept, q, feasible, beta)
    share = np.count_nonzero(margins.attacked[at] >= q[at]) / right
    s, p, c = (values[i] for values, i in zip(_axes(margins.grid), at, strict=True))
    objectives = kept / max(wrong, 1)
    return NutsFit(
        s, p, c, mixing_weight(float(q[at])), float(q[at]), float(objectives[at]), share, ties,
        margins.grid.edges(at), beta, quantile, margins.clamp, margins.top_k, margins.rival,
        margins.conditional, margins.images, wrong, right, margins.grid, objectives, q, feasible,
    )  # fmt: skip


def _choose(
    grid: Grid, kept: IntArray, q: FloatArray, feasible: NDArray[np.bool_], beta: float
) -> tuple[tuple[int, int, int], int]:
    """Return the indices of the best feasible point, and how many share its objective."""
    if not feasible.any():
        remedy = "lower beta, or move the grid towards c = 0"
        raise ParameterError(f"beta = {beta:g}: every transform of the grid misclassifies too many: {remedy}")
    tied = np.argwhere(feasible & (kept == kept[feasible].min()))
    s, p, c = (np.array(values)[i] for values, i in zip(_axes(grid), tied.T, strict=True))
    best = np.lexsort((np.abs(c), s, p, -q[tuple(tied.T)]))[0]
    i, j, k = map(int, tied[best])
    return (i, j, k), len(tied)


def mixing_weight(threshold: float) -> float:
    """Return alpha = 1 / (1 + q), rounded up so that (1 - alpha) / alpha <= q in float64."""
    alpha = 1.0 / (1.0 + threshold)
    while (1.0 - alpha) / alpha > threshold:
        alpha = math.nextafter(alpha, 1.0)
    return alpha


def auxiliary_alpha(
    attacked_logits: ArrayLike,
    labels: ArrayLike,
    beta: float = BETAS["cifar10"],
    *,
    quantile: str = "conservative",
    top_k: int | None = None,
    normalize: bool = True,
) -> float:
    """Return alpha_d of the auxiliary mix that adaptive attacks differentiate (equation 8).

    Algorithm 1 without clamp, at s = p = 1 and c = 0: nothing is left to choose,
    and alpha_d follows from the attacked margins alone.

    Parameters
    ----------
    attacked_logits, labels, beta, quantile
        As in `fit`.
    top_k, normalize
        LN of the logits as in the paper, or False for raw logits as in its published code.

    References
    ----------
    Appendix B.2.1 of MixedNUTS.
    """
    check_choices(beta, quantile)
    logits = check_logits(attacked_logits)
    logits, targets = classified_right(logits, check_labels(labels, *logits.shape))
    margins = attacked_margin(normalize_numpy(logits, top_k) if normalize else logits, targets)
    q = np.clip(_threshold(np.sort(margins), beta, quantile), 0.0, LARGEST_THRESHOLD)
    return mixing_weight(float(q))


def _threshold(margins: FloatArray, beta: float, quantile: str) -> FloatArray:
    """The margin that a share beta of sorted margins (..., m) reaches; 1 if beta is 0."""
    if quantile == "linear":
        return np.quantile(margins, 1.0 - beta, axis=-1)
    number = margins.shape[-1]
    wanted = math.ceil(round(beta * number, 9))  # 0.07 * 100 exceeds 7
    return margins[..., number - wanted] if wanted else np.ones(margins.shape[:-1])


def _count_at_least(margins: FloatArray, thresholds: FloatArray) -> IntArray:
    return np.count_nonzero(margins >= thresholds[..., None], axis=-1).astype(np.int64)


def _axes(grid: Grid) -> tuple[tuple[float, ...], ...]:
    return grid.s, grid.p, grid.c


def check_choices(beta: float, quantile: str) -> None:
    """Refuse a share outside [0, 1], and an unknown quantile."""
    if not 0.0 <= beta <= 1.0:
        raise ParameterError(f"beta = {beta}: it must lie in [0, 1], such as 0.985")
    if quantile not in QUANTILES:
        raise ParameterError(f"quantile {quantile!r} is unknown: use one of {', '.join(QUANTILES)}")
