"""Projected gradient ascent (Madry et al., 2018), and its single step, the fast gradient method."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from certmix.attacks.search import Common, Model, Search, Visit, check_count, check_positive


@torch.no_grad()
def pgd(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    norm: str = "linf",
    eps: float = 8 / 255,
    *,
    steps: int = 20,
    step_size: float | None = None,
    loss: str = "cross-entropy",
    random_start: bool = True,
    restarts: int = 1,
    **common: Unpack[Common],
) -> Tensor:
    """Return the best points of projected gradient ascent.

    The accuracy on them is an upper bound of robust accuracy.  Each step goes `step_size` along the steepest
    direction of the norm and is projected onto ball and box; in l1 it moves as much of the perturbation to
    the coordinates of largest gradient (a Frank-Wolfe step).  More restarts, or more steps of equal size,
    never give a worse point.

    Parameters
    ----------
    model, inputs, labels
        Gives logits (N, classes), in evaluation mode, for floating-point inputs (N, ...) inside the box,
        whose classes are (N,).
    norm, eps
        ``"linf"``, ``"l2"`` or ``"l1"``, and the radius of the ball in units of the input.
    steps, step_size, loss
        Number of steps and their length in that norm (default ``2.5 * eps / steps``); a name in
        `certmix.attacks.losses.LOSSES`.
    random_start, restarts
        Whether the first run starts at a random point of the ball or at the input; number of runs.
    **common
        ``box``, ``early_stop``, ``generator``, ``track``: see `certmix.attacks.search.Common`.

    Returns
    -------
    Tensor
        For each input the first misclassified point, or else the one of highest loss; within ball and box
        when measured in float64.  ParameterError if an argument is out of range; ModelError if the model is
        in training mode, or gives logits or gradients that are not finite.

    References
    ----------
    A. Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR 2018.  J. Chen et
    al., A Frank-Wolfe Framework for Efficient and Effective Adversarial Attacks, AAAI 2020.
    """
    check_count("steps", steps)
    check_count("restarts", restarts)
    length = 2.5 * eps / steps if step_size is None else step_size
    if step_size is not None:
        check_positive("step_size", step_size)
    search = Search("pgd", model, inputs, labels, norm, eps, loss, gradient=not random_start, **common)
    for run, at in search.runs(restarts):
        first = search.start(at, run) if run or random_start else search.clean[at]
        climb(search, at, first, steps, length)
    return search.result()


def climb(search: Search, at: Tensor, visit: Visit, steps: int, length: float) -> None:
    """Take steps of projected ascent, no longer than the diameter, from visited points of the inputs `at`."""
    ball = search.ball[at]
    for step in range(steps):
        at, ball, visit = search.left(visit, at, ball, visit)
        if len(at) == 0:
            return
        points = ball.ascend(visit.points, visit.gradient, (2 * ball.radius).clamp_max(length))
        visit = search.visit(at, points, gradient=step < steps - 1)


@torch.no_grad()
def fgsm(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    norm: str = "linf",
    eps: float = 8 / 255,
    *,
    loss: str = "cross-entropy",
    restarts: int = 1,
    **common: Unpack[Common],
) -> Tensor:
    """Return the points of ball and box where the linearised loss is highest.

    Inside the box that is one step of `eps` along the gradient's sign in linf, the gradient in l2, its
    largest coordinate in l1.  For quick looks: it leaves many inputs unbroken that others break (I.
    Goodfellow, J. Shlens, C. Szegedy, ICLR 2015).  Parameters are those of `pgd`; runs after the first start
    at random points of the ball.
    """
    check_count("restarts", restarts)
    search = Search("fgsm", model, inputs, labels, norm, eps, loss, gradient=True, **common)
    for run, at in search.runs(restarts):
        if run == 0:
            search.visit(at, search.ball[at].summit(search.clean.gradient[at]), gradient=False)
        else:
            climb(search, at, search.start(at, run), 1, eps)
    return search.result()
