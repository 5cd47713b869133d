"""Auto-PGD (Croce and Hein, 2020): momentum, and steps that halve when the loss stalls.

F. Croce, M. Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks, ICML 2020, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Unpack

import torch
from torch import Tensor

from certmix.attacks.geometry import shaped
from certmix.attacks.search import Common, Model, Search, Visit, check_count

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

    def moved(self, points: Tensor, visit: Visit) -> State:
        """Return the state after a step to visited points."""
        higher = visit.loss > self.top_loss
        mask = shaped(higher, points)
        return replace(
            self, previous=self.points, points=points, gradient=visit.gradient, loss=visit.loss,
            top_points=torch.where(mask, points, self.top_points),
            top_gradient=torch.where(mask, visit.gradient, self.top_gradient),
            top_loss=torch.where(higher, visit.loss, self.top_loss),
            rises=self.rises + (visit.loss > self.loss),
        )  # fmt: skip

    def checked(self, steps: int) -> State:
        """Return the state after a checkpoint, `steps` steps after the last one.

        Where too few steps raised the loss, or the best loss stands still and the
        step was not halved last time, the step halves and the run goes on from
        its best point (conditions 1 and 2 of the paper).
        """
        stalled = ~self.halved & (self.top_loss == self.checked_loss)
        halve = (self.rises < _RISES * steps) | stalled
        mask = shaped(halve, self.points)
        return replace(
            self,
            points=torch.where(mask, self.top_points, self.points),
            gradient=torch.where(mask, self.top_gradient, self.gradient),
            loss=torch.where(halve, self.top_loss, self.loss),
            length=torch.where(halve, self.length / 2, self.length),
            rises=torch.zeros_like(self.rises), checked_loss=self.top_loss, halved=halve,
        )  # fmt: skip


def run(search: Search, at: Tensor, steps: int, stream: int, targets: Tensor | None = None) -> None:
    """Take `steps` steps of Auto-PGD from a random start of the images `at`."""
    ball = search.ball.take(at)
    points = ball.sample(search.seeds[at.cpu()], stream)
    visit = search.visit(at, points, targets=targets)
    last, looks = 0, checkpoints(steps)
    state = State(
        at, points, points, visit.gradient, visit.loss, points, visit.gradient, visit.loss,
        length=2 * ball.radius, rises=torch.zeros_like(at), checked_loss=visit.loss,
        halved=torch.zeros_like(visit.wrong),
    )  # fmt: skip
    for step in range(1, steps + 1):
        rows = search.going_on(visit)
        if rows is not None:
            ball, state = ball.take(rows), state.take(rows)
        if len(state.at) == 0:
            return
        points = ball.ascend(state.points, state.gradient, state.length)
        if step > 1:  # mixed with the last move: equations 3 and 4 of the paper
            forward, inertia = points - state.points, state.points - state.previous
            points = ball.project(state.points + _MOMENTUM * forward + (1 - _MOMENTUM) * inertia)
        visit = search.visit(state.at, points, gradient=step < steps, targets=targets)
        if step == steps:
            return
        state = state.moved(points, visit)
        if step in looks:
            state, last = state.checked(step - last), step


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
    **common: Unpack[Common],
) -> Tensor:
    """Return the best points of Auto-PGD; accuracy on them is an upper bound of robust accuracy.

    Gradient ascent with momentum from random starts.  The step is twice the
    radius at first; at checkpoints it halves, and the run goes on from its
    best point, wherever the loss stalls.  More restarts never give a worse
    point; more steps change the whole schedule and usually give better ones.
    Parameters and errors are those of `pgd`; the norm is ``"linf"`` or ``"l2"``.
    """
    check_count("steps", steps)
    check_count("restarts", restarts)
    name = "apgd-dlr" if loss == "dlr" else "apgd-ce"
    search = Search(name, model, images, labels, norm, eps, loss, **common)
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
    **common: Unpack[Common],
) -> Tensor:
    """Return the best points of Auto-PGD on the targeted difference of logits ratio.

    The `targets` (at most all classes but the label) are those besides the label whose clean logits are
    largest, one run each.  With early stop a run attacks the images that no earlier one broke.  Without it,
    losses of different targets compete.  Other parameters are those of `apgd`; each restart goes through all
    targets.
    """
    for name, value in (("targets", targets), ("steps", steps), ("restarts", restarts)):
        check_count(name, value)
    search = Search("apgd-targeted", model, images, labels, norm, eps, "targeted-dlr", **common)
    if len(images) == 0:
        return search.result()
    others = search.clean_logits.double().scatter(1, search.labels[:, None], -torch.inf)
    ranked = others.argsort(stable=True, dim=1, descending=True)[:, :-1]
    ranks = min(targets, ranked.shape[1])
    for count, at in search.runs(restarts * ranks):
        restart, rank = divmod(count, ranks)
        run(search, at, steps, restart * ranked.shape[1] + rank, ranked[:, rank])
    return search.result()
