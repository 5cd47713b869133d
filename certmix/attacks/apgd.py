"""Auto-PGD (Croce and Hein, 2020): momentum, and steps that halve when the loss stalls.

F. Croce, M. Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks, ICML 2020, algorithm 1.
"""

from __future__ import annotations

from functools import partial
from typing import Unpack

import torch
from torch import Tensor

from certmix.attacks.search import Common, Model, Search, check_count

_MOMENTUM = 0.75
_RISES = 0.75
"""Share of the steps between two checkpoints that must raise the loss (rho in the paper)."""


def checkpoints(steps: int) -> tuple[int, ...]:
    """Return the steps after which the step size is looked at.

    ``ceil(p_j steps)``, p_0 = 0, p_1 = 0.22, ``p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)``, in percent.
    """
    before, percent, found = 0, 22, []
    while percent <= 100:
        found.append(-(-percent * steps // 100))
        before, percent = percent, percent + max(percent - before - 3, 6)
    return tuple(dict.fromkeys(found))


def run(search: Search, at: Tensor, steps: int, stream: int, targets: Tensor | None = None) -> None:
    """Take `steps` steps of Auto-PGD from a random start of the inputs `at`."""
    ball, looks, last = search.ball[at], checkpoints(steps), 0
    here = top = visit = search.start(at, stream, targets)
    previous, length, checked_loss = here.points, 2 * ball.radius, here.loss
    rises, halved = torch.zeros_like(at), torch.zeros_like(here.wrong)
    for step in range(1, steps + 1):
        at, ball, here, top, previous, length, checked_loss, rises, halved = search.left(
            visit, at, ball, here, top, previous, length, checked_loss, rises, halved
        )
        if len(at) == 0:
            return
        points = ball.ascend(here.points, here.gradient, length)
        if step > 1:  # mixed with the last move: equations 3 and 4 of the paper
            forward, inertia = points - here.points, here.points - previous
            points = ball.project(here.points + _MOMENTUM * forward + (1 - _MOMENTUM) * inertia)
        visit = search.visit(at, points, gradient=step < steps, targets=targets)
        if step == steps:
            return
        rises = rises + (visit.loss > here.loss)
        previous, here, top = here.points, visit, visit.where(visit.loss > top.loss, top)
        if step in looks:
            # Where too few steps raised the loss, or the best loss stands still and the step was not halved
            # last time, the step halves and the run goes on from its best point (conditions 1 and 2).
            halved = (rises < _RISES * (step - last)) | (~halved & (top.loss == checked_loss))
            here, length = top.where(halved, here), torch.where(halved, length / 2, length)
            rises, checked_loss, last = torch.zeros_like(rises), top.loss, step


@torch.no_grad()
def apgd(
    model: Model,
    inputs: Tensor,
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

    Gradient ascent with momentum from random starts.  The step is twice the radius at first; at checkpoints
    it halves, and the run goes on from its best point, wherever the loss stalls.  More restarts never give a
    worse point.  Parameters and errors are those of `pgd`; the norm is ``"linf"`` or ``"l2"``.
    """
    check_count("steps", steps)
    check_count("restarts", restarts)
    name = "apgd-dlr" if loss == "dlr" else "apgd-ce"
    search = Search(name, model, inputs, labels, norm, eps, loss, **common)
    for restart, at in search.runs(restarts):
        run(search, at, steps, restart)
    return search.result()


apgd_ce = partial(apgd, loss="cross-entropy")
apgd_dlr = partial(apgd, loss="dlr")
"""`apgd` on the difference of logits ratio (two classes: the margin)."""


@torch.no_grad()
def apgd_targeted(
    model: Model,
    inputs: Tensor,
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
    largest, one run each.  With early stop a run attacks the inputs that no earlier one broke; without it,
    losses of different targets compete.  The rest is as for `apgd`; each restart goes through all targets.
    """
    for name, value in (("targets", targets), ("steps", steps), ("restarts", restarts)):
        check_count(name, value)
    search = Search("apgd-targeted", model, inputs, labels, norm, eps, "targeted-dlr", **common)
    if len(inputs) == 0:
        return search.result()
    others = search.clean_logits.double().scatter(1, search.labels[:, None], -torch.inf)
    ranked = others.argsort(stable=True, dim=1, descending=True)[:, :-1]
    ranks = min(targets, ranked.shape[1])
    for count, at in search.runs(restarts * ranks):
        restart, rank = divmod(count, ranks)
        run(search, at, steps, restart * ranked.shape[1] + rank, ranked[:, rank])
    return search.result()
