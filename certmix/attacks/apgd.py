"""Auto-PGD (Croce and Hein, 2020): momentum, and steps that halve when the loss stalls."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor

from certmix.attacks.geometry import Ball, shaped
from certmix.attacks.search import Model, Search, Track, Visit, check_count

_MOMENTUM = 0.75
_RISES = 0.75
"""Share of the steps between two checkpoints that must raise the loss (rho in the paper)."""


def checkpoints(steps: int) -> tuple[int, ...]:
    """Return the steps after which the step size is looked at.

    They are ``ceil(p_j steps)`` with p_0 = 0, p_1 = 0.22 and
    ``p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)``, counted in percent.

    Examples
    --------
    >>> checkpoints(100)
    (22, 41, 57, 70, 80, 87, 93, 99)
    """
    before, percent, found = 0, 22, []
    while percent <= 100:
        found.append(-(-percent * steps // 100))
        before, percent = percent, percent + max(percent - before - 3, 6)
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class State:
    """One run's variables, a row an image: current and previous point, best point, step, checkpoint."""

    at: Tensor
    points: Tensor
    previous: Tensor
    gradient: Tensor
    loss: Tensor
    top_points: Tensor
    top_gradient: Tensor
    top_loss: Tensor
    length: Tensor
    rises: Tensor
    checked_loss: Tensor
    halved: Tensor

    def take(self, rows: Tensor) -> State:
        return State(*(getattr(self, each.name)[rows] for each in fields(self)))


def _begin(at: Tensor, points: Tensor, visit: Visit, ball: Ball) -> State:
    return State(
        at, points, points, visit.gradient, visit.loss, points, visit.gradient, visit.loss,
        length=2 * ball.radius, rises=torch.zeros_like(at), checked_loss=visit.loss,
        halved=torch.zeros_like(visit.wrong),
    )  # fmt: skip


def _next_points(ball: Ball, state: State, first: bool) -> Tensor:
    """Return the next points: a projected step, mixed with the last move (equations 3 and 4 of the paper)."""
    stepped = ball.ascend(state.points, state.gradient, state.length)
    if first:
        return stepped
    forward, inertia = stepped - state.points, state.points - state.previous
    return ball.project(state.points + _MOMENTUM * forward + (1 - _MOMENTUM) * inertia)


def _moved(state: State, points: Tensor, visit: Visit) -> State:
    """Return the state after a step to visited points."""
    higher = visit.loss > state.top_loss
    mask = shaped(higher, points)
    return State(
        state.at, points, state.points, visit.gradient, visit.loss,
        top_points=torch.where(mask, points, state.top_points),
        top_gradient=torch.where(mask, visit.gradient, state.top_gradient),
        top_loss=torch.where(higher, visit.loss, state.top_loss),
        length=state.length, rises=state.rises + (visit.loss > state.loss),
        checked_loss=state.checked_loss, halved=state.halved,
    )  # fmt: skip


def checked(state: State, steps: int) -> State:
    """Return the state after a checkpoint, `steps` steps after the last one.

    Where too few steps raised the loss, or the best loss stands still and the
    step was not halved last time, the step halves and the run goes on from
    its best point (conditions 1 and 2 of the paper).
    """
    stalled = ~state.halved & (state.top_loss == state.checked_loss)
    halve = (state.rises < _RISES * steps) | stalled
    mask = shaped(halve, state.points)
    return State(
        state.at,
        points=torch.where(mask, state.top_points, state.points),
        previous=state.previous,
        gradient=torch.where(mask, state.top_gradient, state.gradient),
        loss=torch.where(halve, state.top_loss, state.loss),
        top_points=state.top_points, top_gradient=state.top_gradient, top_loss=state.top_loss,
        length=torch.where(halve, state.length / 2, state.length),
        rises=torch.zeros_like(state.rises), checked_loss=state.top_loss, halved=halve,
    )  # fmt: skip


def run(search: Search, at: Tensor, steps: int, stream: int, targets: Tensor | None = None) -> None:
    """Take `steps` steps of Auto-PGD from a random start of the images `at`."""
    ball = search.ball.take(at)
    points = ball.sample(search.seeds[at.cpu()], stream)
    visit = search.visit(at, points, targets=targets)
    state, last, looks = _begin(at, points, visit, ball), 0, checkpoints(steps)
    for step in range(1, steps + 1):
        rows = search.going_on(visit)
        if rows is not None:
            ball, state = ball.take(rows), state.take(rows)
        if len(state.at) == 0:
            return
        points = _next_points(ball, state, step == 1)
        visit = search.visit(state.at, points, gradient=step < steps, targets=targets)
        if step == steps:
            return
        state = _moved(state, points, visit)
        if step in looks:
            state, last = checked(state, step - last), step


NORMS = ("linf", "l2")


@torch.no_grad()
def apgd(
    model: Model,
    images: Tensor,
    labels: Tensor,
    norm: str = "linf",
    eps: float = 8 / 255,
    *,
    loss: str = "cross-entropy",
    steps: int = 100,
    restarts: int = 1,
    box: tuple[float, float] = (0.0, 1.0),
    early_stop: bool = True,
    generator: torch.Generator | None = None,
    track: Track | None = None,
) -> Tensor:
    """Return the best points of Auto-PGD; accuracy on them is an upper bound of robust accuracy.

    Gradient ascent with momentum from random starts.  The step is twice the
    radius at first; at checkpoints it halves, and the run goes on from its
    best point, wherever the loss stalls.  More restarts never give a worse
    point; more steps change the whole schedule and usually give better ones.

    Parameters
    ----------
    model, images, labels, eps, box, early_stop, generator, track
        As for `certmix.attacks.pgd`.
    norm
        ``"linf"`` or ``"l2"``.
    loss
        Name in `certmix.attacks.losses.LOSSES`, such as ``"cross-entropy"`` or ``"dlr"``.
    steps, restarts
        Steps of each run, and number of runs.

    Raises
    ------
    ParameterError, ModelError
        As for `certmix.attacks.pgd`.

    References
    ----------
    F. Croce, M. Hein, Reliable evaluation of adversarial robustness with an
    ensemble of diverse parameter-free attacks, ICML 2020, algorithm 1.
    """
    check_count("steps", steps)
    check_count("restarts", restarts)
    search = Search(
        model, images, labels, norm, eps, attack="apgd", norms=NORMS, loss=loss, box=box,
        early_stop=early_stop, generator=generator, track=track, gradient=False,
    )  # fmt: skip
    for restart, at in search.runs(restarts):
        run(search, at, steps, restart)
    return search.result()


apgd_ce = partial(apgd, loss="cross-entropy")
apgd_dlr = partial(apgd, loss="dlr")
"""`apgd` on the difference of logits ratio (two classes: the margin)."""


@torch.no_grad()
def apgd_targeted(
    model: Model,
    images: Tensor,
    labels: Tensor,
    norm: str = "linf",
    eps: float = 8 / 255,
    *,
    targets: int = 9,
    steps: int = 100,
    restarts: int = 1,
    box: tuple[float, float] = (0.0, 1.0),
    early_stop: bool = True,
    generator: torch.Generator | None = None,
    track: Track | None = None,
) -> Tensor:
    """Return the best points of Auto-PGD on the targeted difference of logits ratio.

    The targets are the classes besides the label whose clean logits are
    largest, one run each.  With early stop a run attacks the images that no
    earlier one broke.  Without it, losses of different targets compete.

    Parameters
    ----------
    model, images, labels, norm, eps, steps, restarts, box, early_stop, generator, track
        As for `apgd`; each restart goes through all targets.
    targets
        Number of target classes; at most all classes but the label.
    """
    for name, value in (("targets", targets), ("steps", steps), ("restarts", restarts)):
        check_count(name, value)
    search = Search(
        model, images, labels, norm, eps, attack="apgd-targeted", norms=NORMS, loss="targeted-dlr", box=box,
        early_stop=early_stop, generator=generator, track=track, gradient=False,
    )  # fmt: skip
    ranked = search.ranked_rivals()
    ranks = min(targets, ranked.shape[1])
    for count, at in search.runs(restarts * ranks):
        restart, rank = divmod(count, ranks)
        run(search, at, steps, restart * ranked.shape[1] + rank, ranked[:, rank])
    return search.result()
