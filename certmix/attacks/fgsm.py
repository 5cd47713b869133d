"""The fast gradient method (Goodfellow et al., 2015) in every norm."""

from __future__ import annotations

import torch
from torch import Tensor

from certmix.attacks._search import Model, Search, Track
from certmix.attacks.checks import check_count
from certmix.attacks.pgd import climb

__all__ = ["NORMS", "fgsm"]

NORMS = ("linf", "l2", "l1")


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
    for run in range(restarts):
        at = search.survivors()
        if len(at) == 0:
            break
        ball = search.ball.take(at)
        if run == 0:
            search.visit(at, ball.summit(search.clean.gradient[at]), gradient=False)
        else:
            points = ball.sample(search.seeds[at.cpu()], run)
            climb(search, at, points, search.visit(at, points), 1, eps)
    return search.result()
