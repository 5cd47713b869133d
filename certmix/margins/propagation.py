"""Verified margins and radii of a network, by interval or linear bounds; no sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from certmix.errors import ParameterError, check_choice
from certmix.margins.graph import Graph
from certmix.margins.intervals import Ball
from certmix.margins.layers import ARITHMETICS
from certmix.margins.linear_bounds import METHODS, differences
from certmix.margins.margins import softmax_margin_lower
from certmix.margins.translation import build_graph
from certmix.types import FloatArray, IntArray, Status

__all__ = [
    "ARITHMETICS", "METHODS", "NORMS", "VerifiedRadii", "certified_radius", "logit_differences_lower",
    "margin_lower",
]  # fmt: skip

NORMS = ("linf", "l2")


@dataclass(frozen=True)
class VerifiedRadii:
    """Radii within which a margin was verified, (m,) each.

    `radius`, in the units of the input, is that of a closed ball that was verified itself, 0 where none was.
    `status` is ABSTAIN where even the input alone gives no class, NOT_CERTIFIED where its margin is too small
    or no radius was verified.  `evaluations` counts the pairs (input, radius) that were bounded.
    """

    radius: FloatArray
    status: IntArray
    evaluations: int


def _check(norm: str, method: str, inputs: Tensor, y: ArrayLike | Tensor, classes: int) -> Tensor:
    for what, found, known in (("norm", norm, NORMS), ("method", method, METHODS)):
        check_choice(what, found, known)
    labels = torch.as_tensor(y.cpu() if isinstance(y, Tensor) else np.asarray(y))
    if inputs.ndim < 2 or not inputs.is_floating_point():
        found = f"inputs have shape {tuple(inputs.shape)} and type {inputs.dtype}"
        raise ParameterError(f"{found}: give a batch of floating-point inputs")
    if labels.shape != (len(inputs),) or labels.dtype.is_floating_point or labels.dtype == torch.bool:
        found = f"classes have shape {tuple(labels.shape)} and type {labels.dtype}"
        raise ParameterError(f"{found}: give one whole number for each of {len(inputs)} inputs")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ParameterError(f"classes run from {labels.min()} to {labels.max()}: 0..{classes - 1} are known")
    return labels.long()


def logit_differences_lower(
    model: nn.Module | Graph,
    inputs: Tensor,
    y: ArrayLike | Tensor,
    norm: str,
    eps: ArrayLike,
    *,
    method: str = "crown-ibp",
    input_range: tuple[float, float] | None = None,
    arithmetic: str = "float32",
    chunk: int = 32,
) -> FloatArray:
    """Return lower bounds of z_y - z_j over the ball of radius eps, for every j != y.

    Proved for the network as it runs in float32, or in exact arithmetic, with the given weights, and the
    inputs as given; all computing is in float64, on the CPU, and rounded outwards.

    Parameters
    ----------
    model
        A module of supported layers in evaluation mode, or its graph from `build_graph`.
    inputs, y
        (m, ...), and a class each, (m,).
    norm, eps
        ``"linf"`` or ``"l2"``; a radius, or one an input, in units of the input.
    method
        ``"interval"``; ``"crown-ibp"`` (linear bounds of the logits over interval bounds of the layers);
        ``"crown"`` (linear bounds of every layer, much dearer).  Each takes the best of itself and
        ``"interval"``.
    input_range, chunk
        Smallest and largest value of an input: l-inf balls are cut to it.  Inputs that are bounded together.
    arithmetic
        ``"float32"``: z is what the network gives for any float32 input in the ball, however a layer adds up
        its products, without TF32 and transforms (Winograd, FFT); ``"exact"``: what its weights define.

    Returns
    -------
    FloatArray
        (m, c - 1), rivals in order of class; -inf where nothing finite was found.  ModelError if bounds
        cannot be propagated through the model, ParameterError for a value out of range.

    References
    ----------
    Gowal et al. (2018); H. Zhang et al., NeurIPS 2018 and ICLR 2020 (CROWN-IBP).
    """
    graph = model if isinstance(model, Graph) else build_graph(model, inputs)
    labels = _check(norm, method, inputs, y, graph.classes)
    check_choice("arithmetic", arithmetic, ARITHMETICS)
    radii = np.broadcast_to(np.asarray(eps, np.float64), (len(inputs),)).copy()
    wrong = ~(np.isfinite(radii) & (radii >= 0))
    if wrong.any():
        raise ParameterError(f"eps = {radii[wrong][0]}: radii must be finite and at least 0")
    parts = [np.empty((0, graph.classes - 1))]
    with torch.no_grad():
        for start in range(0, len(inputs), chunk):
            here = slice(start, start + chunk)
            eps_here = torch.from_numpy(radii[here])
            ball = Ball(inputs[here].cpu().double(), norm, eps_here, input_range, ARITHMETICS[arithmetic])
            parts.append(differences(graph, ball, labels[here], method).numpy())
    return np.concatenate(parts)


def margin_lower(
    model: nn.Module | Graph,
    inputs: Tensor,
    y: ArrayLike | Tensor,
    norm: str,
    eps: ArrayLike,
    *,
    method: str = "crown-ibp",
    input_range: tuple[float, float] | None = None,
    arithmetic: str = "float32",
    chunk: int = 32,
) -> FloatArray:
    """Return a verified lower bound of min_i h_y - h_i over the ball, h the model's softmax.

    Where it is at least mu = (1 - alpha) / alpha, and positive, the mix of weight alpha predicts y on the
    whole ball, whatever the other classifier is.  float64 (m,) in [-1, 1]; -1 where nothing is known.
    Parameters and errors are those of `logit_differences_lower`.

    >>> import torch
    >>> net = torch.nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    >>> print(f"{margin_lower(net, torch.tensor([[1.0, 0.5]]), [0], 'linf', 0.25)[0]:.4f}")
    0.6351
    """
    bounds = logit_differences_lower(
        model, inputs, y, norm, eps,
        method=method, input_range=input_range, arithmetic=arithmetic, chunk=chunk,
    )  # fmt: skip
    return softmax_margin_lower(bounds)


def certified_radius(
    model: nn.Module | Graph,
    inputs: Tensor,
    y: ArrayLike | Tensor,
    norm: str,
    mu: float,
    *,
    max_eps: float,
    tolerance: float = 1e-4,
    method: str = "crown-ibp",
    input_range: tuple[float, float] | None = None,
    arithmetic: str = "float32",
    chunk: int = 32,
) -> VerifiedRadii:
    """Return, by bisection, the largest radius found at which the margin of h is verified to be >= mu.

    Every returned radius was itself verified: nothing is assumed of how the bounds change with eps.  Inputs
    do not influence each other, rounding apart.  `mu` in [0, 1] is (1 - alpha) / alpha for a mix (Lemma 3.2);
    at 0 the margin must be > 0.  `max_eps` is the largest radius that is tried, `tolerance` how far below a
    radius that was refused the result may lie; the rest is as for `margin_lower`.
    """
    if not 0.0 <= mu <= 1.0:
        raise ParameterError(f"mu = {mu}: the margin threshold must lie in [0, 1]: use (1 - alpha) / alpha")
    if not (0.0 < max_eps < math.inf and 0.0 < tolerance < math.inf):
        raise ParameterError(f"max_eps = {max_eps}, tolerance = {tolerance}: both must be positive numbers")
    graph = model if isinstance(model, Graph) else build_graph(model, inputs)
    classes = _check(norm, method, inputs, y, graph.classes).numpy()
    low, high = np.zeros(len(inputs)), np.full(len(inputs), float(max_eps))

    def margins(chosen: IntArray, eps: FloatArray) -> FloatArray:
        rows = inputs[torch.from_numpy(chosen)]
        return margin_lower(
            graph, rows, classes[chosen], norm, eps,
            method=method, input_range=input_range, arithmetic=arithmetic, chunk=chunk,
        )  # fmt: skip

    def enough(margin: FloatArray) -> np.ndarray:  # to prove the mix's class; NaN is not
        return (margin >= mu) & (margin > 0)

    everyone = np.arange(len(inputs))
    clean = margins(everyone, low)
    status = np.where(clean > 0, Status.NOT_CERTIFIED, Status.ABSTAIN).astype(np.int64)
    active = everyone[enough(clean)]
    evaluations, eps = len(inputs), high.copy()
    while len(active):
        verified = enough(margins(active, eps[active]))
        evaluations += len(active)
        low[active[verified]] = eps[active[verified]]
        high[active[~verified]] = eps[active[~verified]]
        active = active[high[active] - low[active] > tolerance]
        eps = low + (high - low) / 2
    status[low > 0] = Status.CERTIFIED
    return VerifiedRadii(low, status, evaluations)
