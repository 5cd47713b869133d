"""Projected gradient ascent (Madry et al., 2018), and its single step, the fast gradient method."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from certmix.attacks.search import Model, Search, Track, Visit, check_count, check_positive

NORMS = ("linf", "l2", "l1")


@torch.no_grad()
def pgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    norm: str = "linf",
    eps: float = 8 / 255,
    *,
    steps: int = 20,
    step_size: float | None = None,
    loss: str = "cross-entropy",
    random_start: bool = True,
    restarts: int = 1,
    box: tuple[float, float] = (0.0, 1.0),
    early_stop: bool = True,
    generator: torch.Generator | None = None,
    track: Track | None = None,
) -> Tensor:
    """Return the best points of projected gradient ascent.

    The accuracy on them is an upper bound of robust accuracy.
    Each step goes `step_size` along the steepest direction of the norm and is
    projected onto ball and box; in l1 it moves as much of the perturbation to
    the coordinates of largest gradient (a Frank-Wolfe step).  More restarts,
    or more steps of equal size, never give a worse point.

    Parameters
    ----------
    model
        Gives logits (N, classes) for images (N, ...); a module must be in evaluation mode.
    images, labels
        Floating-point inputs (N, ...) inside the box, and their classes (N,).
    norm, eps
        ``"linf"``, ``"l2"`` or ``"l1"``, and the radius of the ball in units of the input.
    steps, step_size
        Number of steps and their length in that norm (default ``2.5 * eps / steps``).
    loss
        Name in `certmix.attacks.losses.LOSSES`.
    random_start, restarts
        Whether the first run starts at a random point of the ball or at the image; number
        of runs, the others start at random.
    box
        Range of the input.
    early_stop
        Drop an image at its first misclassified point, clean ones included.  Otherwise
        every step is taken and the misclassified point of highest loss is returned.
    generator
        Source of the random starts; without one they are the same at each call.
    track
        Called with (indices into the batch, points, logits, step) for every evaluated
        batch of points; step 0 is the clean batch, and the count goes on over restarts.

    Returns
    -------
    Tensor
        For each image the first misclassified point, or else the one of highest loss;
        within ball and box when measured in float64.

    Raises
    ------
    ParameterError, ModelError
        If an argument is out of range; if the model is in training mode, or gives
        logits or gradients that are not finite.

    References
    ----------
    A. Madry et al., Towards Deep Learning Models Resistant to Adversarial
    Attacks, ICLR 2018.  J. Chen et al., A Frank-Wolfe Framework for Efficient
    and Effective Adversarial Attacks, AAAI 2020.
    """
    check_count("steps", steps)
    check_count("restarts", restarts)
    length = 2.5 * eps / steps if step_size is None else step_size
    if step_size is not None:
        check_positive("step_size", step_size)
    search = Search(
        model, images, labels, norm, eps, attack="pgd", norms=NORMS, loss=loss, box=box,
        early_stop=early_stop, generator=generator, track=track, gradient=not random_start,
    )  # fmt: skip
    for run, at in search.runs(restarts):
        if run == 0 and not random_start:
            climb(search, at, search.ball.centre[at], search.clean.take(at), steps, length)
        else:
            points = search.ball.take(at).sample(search.seeds[at.cpu()], run)
            climb(search, at, points, search.visit(at, points), steps, length)
    return search.result()


def climb(search: Search, at: Tensor, points: Tensor, visit: Visit, steps: int, length: float) -> None:
    """Take steps of projected ascent from visited points of the images `at`.

    Steps longer than the ball's diameter are cut to it.
    """
    ball = search.ball.take(at)
    for step in range(steps):
        rows = search.going_on(visit)
        if rows is not None:
            at, points, ball, visit = at[rows], points[rows], ball.take(rows), visit.take(rows)
        if len(at) == 0:
            return
        points = ball.ascend(points, visit.gradient, (2 * ball.radius).clamp_max(length))
        visit = search.visit(at, points, gradient=step < steps - 1)


def training_points(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    norm: str,
    eps: float,
    *,
    steps: int,
    step_size: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the last iterates of PGD on the cross-entropy, for adversarial training in [0, 1].

    Unlike an attack it takes the model in training mode, checks nothing,
    evaluates no point twice and keeps no best point: the examples of
    adversarial training are where the ascent ends.

    Parameters
    ----------
    model, images, labels
        A module in any mode, images (N, ...) in [0, 1] and int64 labels (N,).
    norm, eps
        ``"linf"`` or ``"l2"``, and the radius of the ball.
    steps, step_size
        Number of steps and their length.
    generator
        Source of the random start, on the device of `images`.
    """
    delta = _pull_in(torch.empty_like(images).uniform_(-1, 1, generator=generator) * eps, norm, eps)
    for _ in range(steps):
        delta = ((images + delta).clamp(0, 1) - images).requires_grad_(True)
        loss = F.cross_entropy(model(images + delta).float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, delta)
        step = step_size * gradient.sign() if norm == "linf" else step_size * gradient / _lengths(gradient)
        delta = _pull_in(delta.detach() + step, norm, eps)
    return (images + delta).clamp(0, 1).detach()


def _lengths(tensor: Tensor) -> Tensor:
    """l2 norm of each sample, shaped to broadcast against the samples."""
    return tensor.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, *[1] * (tensor.ndim - 1))


def _pull_in(delta: Tensor, norm: str, eps: float) -> Tensor:
    if norm == "linf":
        return delta.clamp(-eps, eps)
    return delta * (eps / _lengths(delta)).clamp_max(1.0)


@torch.no_grad()
def fgsm(
    model: Model,
    images: Tensor,
    labels: Tensor,
    norm: str = "linf",
    eps: float = 8 / 255,
    *,
    loss: str = "cross-entropy",
    restarts: int = 1,
    box: tuple[float, float] = (0.0, 1.0),
    early_stop: bool = True,
    generator: torch.Generator | None = None,
    track: Track | None = None,
) -> Tensor:
    """Return the points of ball and box where the linearised loss is highest.

    Inside the box that is one step of `eps` along the dual direction: the
    gradient's sign in linf, the gradient in l2, its largest coordinate in l1.
    An attack for quick looks: it leaves many images unbroken that others break.

    Parameters
    ----------
    model, images, labels, norm, eps, loss, box, early_stop, generator, track
        As for `certmix.attacks.pgd`.
    restarts
        The first run starts at the image; each further one takes a step of
        `eps` from a random point of the ball.

    References
    ----------
    I. Goodfellow, J. Shlens, C. Szegedy, Explaining and Harnessing
    Adversarial Examples, ICLR 2015.
    """
    check_count("restarts", restarts)
    search = Search(
        model, images, labels, norm, eps, attack="fgsm", norms=NORMS, loss=loss, box=box,
        early_stop=early_stop, generator=generator, track=track, gradient=True,
    )  # fmt: skip
    for run, at in search.runs(restarts):
        ball = search.ball.take(at)
        if run == 0:
            search.visit(at, ball.summit(search.clean.gradient[at]), gradient=False)
        else:
            points = ball.sample(search.seeds[at.cpu()], run)
            climb(search, at, points, search.visit(at, points), 1, eps)
    return search.result()
