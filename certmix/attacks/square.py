"""Square Attack (Andriushchenko et al., 2020): random search, without gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from certmix.attacks._geometry import Ball, shaped
from certmix.attacks._search import Model, Search, Track
from certmix.attacks._square import MOVES, picture_shape, share, window
from certmix.attacks.checks import check_count
from certmix.errors import ParameterError

__all__ = ["NORMS", "square"]

NORMS = tuple(MOVES)

_BLOCK = 64
"""Queries whose random numbers are drawn together."""


@torch.no_grad()
def square(
    model: Model,
    images: Tensor,
    labels: Tensor,
    norm: str = "linf",
    eps: float = 8 / 255,
    *,
    queries: int = 5000,
    p_init: float = 0.8,
    loss: str = "margin",
    restarts: int = 1,
    box: tuple[float, float] = (0.0, 1.0),
    early_stop: bool = True,
    generator: torch.Generator | None = None,
    track: Track | None = None,
) -> Tensor:
    """Return the best points of Square Attack; the accuracy on them bounds robust accuracy from above.

    A random search that asks the model for logits alone: a random window of
    the picture is changed, and the change stays if it raises the loss.
    Windows shrink as the queries are used up.  It finds what gradients hide.

    Parameters
    ----------
    model, images, labels, eps, box, early_stop, track
        As for `certmix.attacks.pgd`.  Inputs (N, d) are treated as pictures of
        height 1, (N, h, w) as pictures of one channel, (N, c, h, w) as they are,
        all others as flattened.
    norm
        ``"linf"`` or ``"l2"``.
    queries
        Evaluations of the model for each image in each run; the clean image is
        the first of the first run.
    p_init
        Share of the picture that the first windows cover, in (0, 1].
    loss
        Name in `certmix.attacks.losses.LOSSES`.
    restarts
        Number of runs, each from another start.
    generator
        Source of all random numbers; without one they are the same at each
        call.  An image's moves do not depend on the other images.

    Raises
    ------
    ParameterError, ModelError
        As for `certmix.attacks.pgd`.

    Notes
    -----
    Windows reach the last row and column, which the authors' code leaves to
    the largest windows, and lie elsewhere in each image.  Pictures that are
    not square get windows of equal area.

    References
    ----------
    M. Andriushchenko, F. Croce, N. Flammarion, M. Hein, Square Attack: a
    query-efficient black-box adversarial attack via random search, ECCV 2020,
    algorithms 1 to 3.

    Examples
    --------
    >>> def model(x):
    ...     return torch.stack([x.sum(1), 1.9 - x.sum(1)], 1)
    >>> square(model, torch.full((1, 2), 0.5), torch.tensor([0]), eps=0.05, queries=20)
    tensor([[0.4500, 0.4500]])
    """
    check_count("queries", queries)
    check_count("restarts", restarts)
    if not 0 < p_init <= 1:
        raise ParameterError(f"p_init = {p_init}: the share of the picture lies in (0, 1], such as 0.8")
    search = Search(
        model, images, labels, norm, eps, attack="square", norms=NORMS, loss=loss, box=box,
        early_stop=early_stop, generator=generator, track=track, gradient=False,
    )  # fmt: skip
    for run in range(restarts):
        at = search.survivors()
        if len(at) == 0:
            break
        _run(search, at, run, queries - 1 if run == 0 else queries, p_init)
    return search.result()


def _run(search: Search, at: Tensor, run: int, queries: int, p_init: float) -> None:
    """Evaluate a start and `queries - 1` moves of the images `at`."""
    if queries == 0:
        return
    ball, seeds = _pictures(search.ball.take(at)), search.seeds[at.cpu()]
    moves, stream = MOVES[ball.norm], run * (2 + queries // _BLOCK)
    points = moves.start(ball, lambda count: _uniforms(seeds, stream, (count,), at.device))
    channels, height, width = points.shape[1:]
    visit = search.visit(at, _restored(points, search), gradient=False)
    loss, wrong = visit.loss, visit.wrong
    for query in range(queries - 1):
        rows = search.going_on(visit)
        if query % _BLOCK == 0:
            block = 1 + query // _BLOCK
            drawn = _uniforms(seeds, stream + block, (_BLOCK, 5 + channels), at.device)
        if rows is not None:
            at, ball, seeds, drawn = at[rows], ball.take(rows), seeds[rows.cpu()], drawn[rows]
            points, loss, wrong = points[rows], loss[rows], wrong[rows]
        if len(at) == 0:
            return
        size = window(share(query, queries, p_init), height, width, moves.odd)
        moved = moves.move(ball, points, size, drawn[:, query % _BLOCK])
        visit = search.visit(at, _restored(moved, search), gradient=False)
        better = (visit.wrong & ~wrong) | ((visit.wrong == wrong) & (visit.loss > loss))
        points = torch.where(shaped(better, points), moved, points)
        loss, wrong = torch.where(better, visit.loss, loss), torch.where(better, visit.wrong, wrong)


def _pictures(ball: Ball) -> Ball:
    """Return the ball about images that are viewed as (N, channels, height, width)."""
    shape = picture_shape(ball.centre.shape[1:])
    centre, lower, upper = (each.reshape(len(each), *shape) for each in (ball.centre, ball.lower, ball.upper))
    return Ball(ball.norm, centre, ball.radius, lower, upper)


def _restored(points: Tensor, search: Search) -> Tensor:
    return points.reshape(len(points), *search.ball.centre.shape[1:])


def _uniforms(seeds: Tensor, stream: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Draw float32 numbers (N, ...) in [0, 1) that depend on each image's seed and the stream alone."""
    draws = torch.empty(len(seeds), *shape)
    generator = torch.Generator()
    for row, seed in zip(draws, seeds.tolist(), strict=True):
        generator.manual_seed((seed + 0x9E3779B1 * (stream + 1)) % (1 << 32))
        row.uniform_(generator=generator)
    return draws.to(device)
