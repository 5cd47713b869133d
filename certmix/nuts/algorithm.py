"""Algorithm 1 of MixedNUTS: s, p, c and alpha from the margins of saved logits.  No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from certmix.errors import DataError, ParameterError, check_choice
from certmix.kernels import jit
from certmix.nuts.grid import CLAMP_NAMES, QUANTILES, RIVALS, FitFacts, Grid, TransformSettings
from certmix.nuts.margins import attacked_margin, check_labels, check_logits, normalize_numpy, over_grid
from certmix.types import FloatArray, IntArray

LARGEST_THRESHOLD = 1.0 - 1e-9
"""Margin thresholds are cut off here, as in published code: at 1 alpha is 1/2, where everything ties."""

SATURATED = 1e-6

_LARGEST_CACHE = 2**31  # bytes

_PREDICTED = -1  # in place of a label: the class that is predicted after the transform


class NutsFit(FitFacts, frozen=True, eq=False):
    """What Algorithm 1 found, and at each point of the grid, (s, p, c), its objective and its threshold q.

    ``feasible`` says where (7) can be met at all; elsewhere q is 0 and the point is left out.  ``settings``
    are as `NonlinearTransform` takes them, ``rival`` as `margin_grid` does.
    """

    settings: TransformSettings
    rival: str
    objectives: FloatArray
    thresholds: FloatArray
    feasible: NDArray[np.bool_]

    @property
    def alpha(self) -> float:
        """The mixing weight."""
        return mixing_weight(self.margin_threshold)

    @property
    def saturated(self) -> bool:
        """Whether q is within 1e-6 of 0 or 1, where float32 logits of the mix tie."""
        return not SATURATED < self.margin_threshold < 1.0 - SATURATED


def fit(
    clean_logits: ArrayLike,
    attacked_logits: ArrayLike,
    labels: ArrayLike,
    grid: Grid,
    beta: float = 0.985,
    *,
    clamp: str = "gelu",
    top_k: int | None = None,
    quantile: str = "conservative",
    rival: str = RIVALS[0],
    standard_correct: ArrayLike | None = None,
) -> NutsFit:
    """Return the grid's best transform and its mixing weight: `solve_beta` of `margin_grid`.

    Minimises the share of misclassified clean inputs whose margin is >= q, where q is the largest margin that
    a share beta of the rightly classified attacked inputs keeps: Algorithm 1 and problem (7) of Bai, Zhou,
    Patel, Sojoudi, "MixedNUTS", TMLR 2024.  Tune on inputs that no result is reported on.  `beta` and
    `quantile` are as in `solve_beta`, the others as in `margin_grid`.  Arrays that do not fit together, or no
    attacked input that is classified right, are a DataError; a value out of range, and a grid of which no
    point meets (7), a ParameterError.

    >>> clean = [[3.0, 0.0, 0.0], [0.9, 1.0, -2.0], [0.0, 0.0, 3.0]]
    >>> attacked = [[2.0, 0.0, 0.5], [0.5, 1.5, 0.0], [0.0, 0.3, 2.0]]
    >>> found = fit(clean, attacked, [0, 0, 2], Grid((1.0, 4.0), (1.0, 2.0), (-0.5, 0.0)), beta=1.0)
    >>> found.objective, found.attacked_right, found.clean_wrong
    (0.0, 2, 1)
    """
    check_share(beta, quantile)
    margins = margin_grid(
        clean_logits, attacked_logits, labels, grid,
        clamp=clamp, top_k=top_k, rival=rival, standard_correct=standard_correct,
    )  # fmt: skip
    return solve_beta(margins, beta, quantile=quantile)


@dataclass(frozen=True, eq=False)
class MarginGrid:
    """Sorted margins, float64 (s, p, c, inputs), at every point of a grid: any beta follows from them.

    ``attacked`` are the label's probability less the largest other, of attacked inputs that the robust model
    classifies right; ``clean_wrong`` the largest probability less the rival's, of clean inputs that it
    classifies wrong and, if ``conditional``, the standard model right.  ``inputs`` counts those of which
    these are parts.
    """

    grid: Grid
    clamp: str
    top_k: int | None
    attacked: FloatArray
    clean_wrong: FloatArray
    inputs: int
    rival: str
    conditional: bool


def margin_grid(
    clean_logits: ArrayLike,
    attacked_logits: ArrayLike,
    labels: ArrayLike,
    grid: Grid,
    *,
    clamp: str = "gelu",
    top_k: int | None = None,
    rival: str = RIVALS[0],
    standard_correct: ArrayLike | None = None,
) -> MarginGrid:
    """Return the sorted margins that Algorithm 1 needs, at every point of a grid.

    Logits (m, c) are the robust model's, on inputs and on their perturbations of least margin; labels (m,)
    count from 0.  Right and wrong are decided before the transform, by the largest logit (the lowest class on
    a tie), which LN does not change.  `clamp` and `top_k` are as in `TransformSettings`.

    For rival ``"label"`` the margin of a misclassified clean input is that over its label, which is what a
    right standard model must outweigh; for ``"second"`` that of Definition 2.1, to its second class, as in
    the paper. They differ where the label comes third or later.  `standard_correct`, bool (m,), is where the
    standard model classifies the clean input right, and conditions the objective on it (Appendix D.8.3).
    """
    check_choice("clamp", clamp, CLAMP_NAMES)
    check_choice("rival", rival, RIVALS)
    clean, attacked = check_logits(clean_logits), check_logits(attacked_logits)
    if clean.shape != attacked.shape:
        found = f"clean logits have shape {clean.shape}, attacked ones {attacked.shape}"
        raise DataError(f"{found}: give one row of each for every input")
    y = check_labels(labels, *clean.shape)
    wrong = clean.argmax(1) != y
    if standard_correct is not None:
        flags = np.asarray(standard_correct)
        if flags.shape != y.shape or flags.dtype != np.bool_:
            found = f"standard_correct has shape {flags.shape} and type {flags.dtype}"
            raise DataError(f"{found}: give true or false for each of {len(y)} inputs")
        wrong &= flags
    attacked, targets = _classified_right(attacked, y)
    points, rows = math.prod(grid.shape), len(targets) + int(wrong.sum())
    if 8 * points * rows > _LARGEST_CACHE:
        remedy = "take a coarser grid or fewer inputs"
        raise ParameterError(f"{points} grid points of {rows} margins need more than 2 GiB: {remedy}")
    sort = partial(_sorted_margins, grid=grid, clamp=clamp, top_k=top_k)
    if rival == "label":
        unmended = -sort(clean[wrong], y[wrong])[..., ::-1]
    else:
        unmended = sort(clean[wrong], np.full(wrong.sum(), _PREDICTED, np.int64))
    conditional = standard_correct is not None
    return MarginGrid(grid, clamp, top_k, sort(attacked, targets), unmended, len(y), rival, conditional)


def _classified_right(logits: FloatArray, labels: IntArray) -> tuple[FloatArray, IntArray]:
    """Return the rows whose largest logit is the label's, and their labels."""
    right = logits.argmax(1) == labels
    if not right.any():
        remedy = "take more inputs, a smaller eps or a more robust model"
        raise DataError(f"none of {len(labels)} attacked inputs is classified right: {remedy}")
    return logits[right], labels[right]


def _sorted_margins(
    logits: FloatArray, labels: IntArray, *, grid: Grid, clamp: str, top_k: int | None
) -> FloatArray:
    """Margins (s, p, c, m), sorted along the last axis."""
    scales = np.array(grid.s)

    def task(clamped: FloatArray, p: float, out: FloatArray) -> None:
        _margins_over_scales(clamped, labels, p, scales, out)
        out.sort(-1)

    return over_grid(task, normalize_numpy(logits, top_k), grid, clamp, (len(logits),))[0]


@jit()
def _margins_over_scales(
    clamped: FloatArray, labels: IntArray, p: float, scales: FloatArray, margins: FloatArray
) -> None:
    """Write the margins (scales, m) of softmax(s |z|^p sgn z) for each scale s.

    Input by input: neither their order nor the number of threads changes a bit.
    clamped: z, (m, c); labels: (m,), `_PREDICTED` or a class.
    """
    inputs, classes = clamped.shape
    below = np.empty(classes)
    for i in range(inputs):
        top, second, first = -math.inf, -math.inf, 0
        for j in range(classes):
            z = clamped[i, j]
            value = below[j] = -((-z) ** p) if z < 0.0 else z**p
            if value > top:
                second, top, first = top, value, j
            elif value > second:
                second = value
        right = labels[i] == _PREDICTED or labels[i] == first
        gap = top - second if right else top - below[labels[i]]
        for j in range(classes):
            below[j] = top - below[j]
        for k in range(scales.size):
            total = 0.0
            for j in range(classes):
                total += math.exp(-scales[k] * below[j])
            margin = -math.expm1(-scales[k] * gap) / total
            margins[k, i] = margin if right else 0.0 - margin


def solve_beta(margins: MarginGrid, beta: float, *, quantile: str = "conservative") -> NutsFit:
    """Return the best point of a grid, of `margin_grid`, for one beta.

    `beta` in [0, 1] is the share of rightly classified attacked inputs that must keep their class whatever
    the standard model says.  The quantile ``"conservative"`` takes the largest margin that meets this on
    these inputs as q, ``"linear"`` the interpolated (1 - beta)-quantile, as published code has it, which can
    fall short by part of an input.  At a margin of exactly q the worst standard model only ties with the
    robust one.

    Of the points with the least objective the one with the largest 1 - alpha is taken; then, of several, that
    of smallest p, smallest s, smallest |c|.
    """
    check_share(beta, quantile)
    grid, raw = margins.grid, _threshold(margins.attacked, beta, quantile)
    feasible, q = raw >= 0.0, np.clip(raw, 0.0, LARGEST_THRESHOLD)
    if not feasible.any():
        remedy = "lower beta, or move the grid towards c = 0"
        raise ParameterError(f"beta = {beta:g}: every transform of the grid misclassifies too many: {remedy}")
    kept = np.count_nonzero(margins.clean_wrong >= q[..., None], axis=-1)
    tied = np.argwhere(feasible & (kept == kept[feasible].min()))
    s, p, c = (np.array(values)[i] for values, i in zip((grid.s, grid.p, grid.c), tied.T, strict=True))
    first = np.lexsort((np.abs(c), s, p, -q[tuple(tied.T)]))[0]
    at = tuple(tied[first].tolist())
    wrong, right = margins.clean_wrong.shape[-1], margins.attacked.shape[-1]
    objectives, share = kept / max(wrong, 1), np.count_nonzero(margins.attacked[at] >= q[at]) / right
    return NutsFit(
        beta, quantile, float(q[at]), float(objectives[at]), share, len(tied), grid.edges(at),
        margins.conditional, margins.inputs, wrong, right, grid,
        TransformSettings(grid.s[at[0]], grid.p[at[1]], grid.c[at[2]], margins.clamp, margins.top_k),
        margins.rival, objectives, q, feasible,
    )  # fmt: skip


def mixing_weight(threshold: float) -> float:
    """Return alpha = 1 / (1 + q), rounded up so that (1 - alpha) / alpha <= q in float64."""
    alpha = 1.0 / (1.0 + threshold)
    while (1.0 - alpha) / alpha > threshold:
        alpha = math.nextafter(alpha, 1.0)
    return alpha


def auxiliary_alpha(
    attacked_logits: ArrayLike,
    labels: ArrayLike,
    beta: float = 0.985,
    *,
    quantile: str = "conservative",
    top_k: int | None = None,
    normalize: bool = True,
) -> float:
    """Return alpha_d of the auxiliary mix that adaptive attacks differentiate (equation 8).

    Algorithm 1 without clamp, at s = p = 1 and c = 0, as in Appendix B.2.1 of MixedNUTS: alpha_d follows from
    the attacked margins alone.  Arguments are those of `fit`; `normalize` False takes raw logits in place of
    LN's, as published code does.
    """
    check_share(beta, quantile)
    logits = check_logits(attacked_logits)
    logits, targets = _classified_right(logits, check_labels(labels, *logits.shape))
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


def check_share(beta: float, quantile: str) -> None:
    if not 0.0 <= beta <= 1.0:
        raise ParameterError(f"beta = {beta}: it must lie in [0, 1], such as 0.985")
    check_choice("quantile", quantile, QUANTILES)
