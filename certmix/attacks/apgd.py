"""Auto-PGD (Croce and Hein, 2020): momentum, and steps that halve when the loss stalls."""

from __future__ import annotations

import torch
from torch import Tensor

from certmix.attacks._auto_pgd import run
from certmix.attacks._search import Model, Search, Track
from certmix.attacks.checks import check_count

__all__ = ["NORMS", "apgd", "apgd_ce", "apgd_dlr", "apgd_targeted"]

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
    for restart in range(restarts):
        at = search.survivors()
        if len(at) == 0:
            break
        run(search, at, steps, restart)
    return search.result()


def apgd_ce(
    model: Model,
    images: Tensor,
    labels: Tensor,
    norm: str = "linf",
    eps: float = 8 / 255,
    *,
    steps: int = 100,
    restarts: int = 1,
    box: tuple[float, float] = (0.0, 1.0),
    early_stop: bool = True,
    generator: torch.Generator | None = None,
    track: Track | None = None,
) -> Tensor:
    """Return the points of `apgd` on the cross-entropy."""
    return apgd(
        model, images, labels, norm, eps, loss="cross-entropy", steps=steps, restarts=restarts, box=box,
        early_stop=early_stop, generator=generator, track=track,
    )  # fmt: skip


def apgd_dlr(
    model: Model,
    images: Tensor,
    labels: Tensor,
    norm: str = "linf",
    eps: float = 8 / 255,
    *,
    steps: int = 100,
    restarts: int = 1,
    box: tuple[float, float] = (0.0, 1.0),
    early_stop: bool = True,
    generator: torch.Generator | None = None,
    track: Track | None = None,
) -> Tensor:
    """Return the points of `apgd` on the difference of logits ratio (two classes: the margin)."""
    return apgd(
        model, images, labels, norm, eps, loss="dlr", steps=steps, restarts=restarts, box=box,
        early_stop=early_stop, generator=generator, track=track,
    )  # fmt: skip


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
    for restart in range(restarts):
        for rank in range(min(targets, ranked.shape[1])):
            at = search.survivors()
            if len(at) == 0:
                return search.result()
            run(search, at, steps, restart * ranked.shape[1] + rank, ranked[:, rank])
    return search.result()
