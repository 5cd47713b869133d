"""Projected ascent of slopes: estimates of local Lipschitz constants, from below."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from certmix.attacks.geometry import make_ball
from certmix.attacks.search import (
    check_clean_logits,
    check_count,
    check_eps,
    check_images,
    check_model,
    check_positive,
)
from certmix.calling import call_model
from certmix.errors import ParameterError
from certmix.margins._ascent import Ascent, Model
from certmix.margins.estimates import LipschitzEstimate
from certmix.margins.ratios import OUTPUTS, RATIOS

__all__ = ["OUTPUTS", "RATIOS", "float64_twin", "local_search"]


@torch.no_grad()
def local_search(
    model: Model,
    images: Tensor,
    norm: str = "linf",
    eps: float = 8 / 255,
    *,
    of: str = "probabilities",
    ratio: str = "relaxed",
    steps: int = 20,
    restarts: int = 2,
    box: tuple[float, float] | None = (0.0, 1.0),
    selected: Tensor | None = None,
    seeds: Tensor | None = None,
    judge: Model | None = None,
    batch_size: int = 1000,
) -> LipschitzEstimate:
    """Estimate local Lipschitz constants around images, from below, by ascents for each class.

    Step t goes 2 eps / (t + 2) up the norm's steepest direction and is projected
    onto ball and box; its length does not depend on how many follow, and a
    restart not on how many there are.  The best value of every class over
    all points evaluated is kept, so that more steps or restarts never lower it.
    The first restart begins where the linear approximation is largest.  For
    linear models it is exact.

    Parameters
    ----------
    model
        Gives logits (N, classes) for images (N, ...); a module must be in evaluation mode.
    images
        Floating-point inputs (N, ...) inside the box.
    norm, eps
        ``"linf"``, ``"l2"`` or ``"l1"``, and the radius of the ball in units of the input.
    of, ratio
        Names in `OUTPUTS` and `RATIOS` of `certmix.margins.ratios`.
    steps, restarts
        Steps of each restart, and number of restarts.
    box
        Range of the input, to which perturbed points are kept; None for no range.
    selected
        int64 (N,): the classes y; the largest output's by default.
    seeds
        int64 (N,): key of each image's random starts; 0, 1, ... by default.
    judge
        The same model for float64 inputs, from which values are taken; by
        default a float64 copy of a module that can be so copied.
    batch_size
        Points in one pass of the model.

    Raises
    ------
    ParameterError, ModelError
        If an argument is out of range, or the model gives logits or gradients
        that are not finite.

    References
    ----------
    Section 3.1 of Bai, Anderson, Sojoudi, "Mixing classifiers to alleviate the
    accuracy-robustness trade-off".  Y.-Y. Yang et al., A Closer Look at
    Accuracy vs. Robustness, NeurIPS 2020.
    """
    _check(model, images, norm, eps, of, ratio, steps, restarts, box)
    box = box or _around(images, eps)
    check_images(images, box)
    ball = make_ball(images.detach().clone(), norm, eps, box)
    judge = judge or float64_twin(model, images)
    logits = call_model(judge or model, ball.centre.double() if judge else ball.centre).double()
    check_clean_logits(logits, torch.zeros(len(images), dtype=torch.int64))
    outputs = OUTPUTS[of](logits)
    y = outputs.argmax(1) if selected is None else selected.to(outputs.device)
    task = Ascent(model, judge, ball, norm, eps, of, RATIOS[ratio], logits, y, batch_size)
    keys = torch.arange(len(images)) if seeds is None else seeds
    best, halfway, points = task.search(steps, restarts, keys)
    return LipschitzEstimate(
        of, ratio, norm, eps, steps, y.cpu().numpy(), outputs.cpu().numpy(), best.cpu().numpy(),
        halfway.cpu().numpy(), points.cpu().numpy(),
    )  # fmt: skip


def float64_twin(model: Model, images: Tensor) -> nn.Module | None:
    """Return a float64 copy of a module in lower precision, None if there is none or no need of one."""
    if images.dtype == torch.float64 or not isinstance(model, nn.Module):
        return None
    try:
        twin = copy.deepcopy(model).double()
        fits = twin(images[:1].double()).dtype == torch.float64
    except (RuntimeError, TypeError, ValueError):
        return None
    return twin if fits else None


def _check(
    model: Model, images: Tensor, norm: str, eps: float, of: str, ratio: str, steps: int, restarts: int,
    box: tuple[float, float] | None,
) -> None:  # fmt: skip
    for what, name, known in (
        ("norm", norm, ("linf", "l2", "l1")), ("of", of, OUTPUTS), ("ratio", ratio, RATIOS)
    ):  # fmt: skip
        if name not in known:
            raise ParameterError(f"{what} {name!r} is unknown: use one of {', '.join(known)}")
    check_positive("eps", eps)
    check_eps(eps, box or (0.0, 1.0))
    check_count("steps", steps)
    check_count("restarts", restarts)
    check_model(model)
    if len(images) == 0:
        raise ParameterError("there are no images: give at least one")


def _around(images: Tensor, eps: float) -> tuple[float, float]:
    """Return a box that cuts no ball."""
    low, high = images.min().item(), images.max().item()
    return low - 2 * eps - 1e-3 * abs(low), high + 2 * eps + 1e-3 * abs(high)
