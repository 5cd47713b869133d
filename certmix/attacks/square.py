"""Square Attack (Andriushchenko et al., 2020): random search, without gradients.

Pictures are (N, channels, height, width); each input's moves depend on its own of the uniform numbers (N, k).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Unpack

import torch
from torch import Tensor

from certmix.attacks.geometry import Ball, distance, fill
from certmix.attacks.search import Common, Model, Search, Visit, check_count
from certmix.errors import ParameterError

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries, of 10,000, after which the window's share of the picture halves."""

_TILES = 5
"""Tiles of an l2 start along each side."""

_SLACK = 1e-6
"""Share of the l2 radius left to rounding, so that a projection is seldom needed."""


def picture_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return (channels, height, width) of inputs (d,), (h, w) or (c, h, w); others are flattened."""
    sides = tuple(shape) if len(shape) <= 3 else (math.prod(shape),)
    channels, height, width = (1,) * (3 - len(sides)) + sides
    return channels, height, width


def share(query: int, queries: int, first: float) -> float:
    """Return the share of the picture that is changed at a query, counted from 0."""
    scaled = query * 10_000 // queries
    return first / 2 ** sum(scaled > bound for bound in _HALVINGS)


def window(part: float, height: int, width: int, odd: bool = False) -> tuple[int, int]:
    """Return height and width of a window that covers a share of a picture: a square, if it fits.

    ``odd`` asks for odd sides of at least 3 where they fit.
    """

    def side_of(length: float) -> int:
        return max(round(length), 3) // 2 * 2 + 1 if odd else max(round(length), 1)

    short, area = min(height, width), part * height * width
    side = side_of(area**0.5)
    other = side if side <= short else side_of(area / short)
    return min(side if height <= width else other, height), min(side if width < height else other, width)


def _signs(uniforms: Tensor) -> Tensor:
    return torch.where(uniforms < 0.5, -1.0, 1.0)


def _spans(uniforms: Tensor, size: int, length: int) -> Tensor:
    """Return the indices (N, size) of spans placed at random in 0 .. length - 1."""
    first = (uniforms * (length - size + 1)).long().clamp_max(length - size)
    return first[:, None] + torch.arange(size, device=uniforms.device)


def _stripes(ball: Ball, uniforms: Callable[[int], Tensor]) -> Tensor:
    """Return corners of the linf ball that are constant along each column of a channel."""
    n, channels, _, width = ball.centre.shape
    up = uniforms(channels * width).view(n, channels, 1, width) < 0.5
    return torch.where(up, ball.upper, ball.lower)


def _move_linf(ball: Ball, points: Tensor, size: tuple[int, int], uniforms: Tensor) -> Tensor:
    """Put each channel of a window at its upper or its lower end, or else all at the other end."""
    n, channels, height, width = points.shape
    inside = torch.zeros(n, 1, height, width, dtype=torch.bool, device=points.device)
    input = torch.arange(n, device=points.device)[:, None, None]
    rows, columns = _spans(uniforms[:, 0], size[0], height), _spans(uniforms[:, 1], size[1], width)
    inside[input, 0, rows[:, :, None], columns[:, None, :]] = True
    up = uniforms[:, 2 : 2 + channels, None, None] < 0.5
    moved = torch.where(inside, torch.where(up, ball.upper, ball.lower), points)
    idle = (moved == points).flatten(1).all(1)
    if idle.any():
        opposite = torch.where(inside, torch.where(up, ball.lower, ball.upper), points)
        moved = torch.where(idle[:, None, None, None], opposite, moved)
    return moved


def _bump(height: int, width: int) -> Tensor:
    """Return a peak of unit l2 norm: sums of 1/k^2 that fall with the distance from the middle."""
    radius = max(height, width) // 2 + 1
    tails = (1.0 / torch.arange(1, radius + 1).square()).flip(0).cumsum(0).flip(0)
    down, along = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    peak = tails[torch.maximum(down.abs()[:, None], along.abs()[None])]
    return peak / peak.norm().clamp_min(1e-12)


def _tile(height: int, width: int, like: Tensor) -> Tensor:
    """Return two opposite bumps side by side along the longer side, of unit l2 norm."""
    if width > height:
        return _tile(width, height, like).T
    first = height // 2
    tile = torch.cat([_bump(first, width), -_bump(height - first, width)])
    return (tile / tile.norm()).to(like)


def _turned(tile: Tensor, turn: Tensor) -> Tensor:
    """Transpose a square tile where `turn` says so; `turn` ends in two axes of length 1."""
    return torch.where(turn, tile.T, tile) if tile.shape[0] == tile.shape[1] else tile


def _tiles(ball: Ball, uniforms: Callable[[int], Tensor]) -> Tensor:
    """Return points on the l2 sphere that consist of tiles with random signs."""
    n, channels, height, width = ball.centre.shape
    tall, wide = max(height // _TILES, 1), max(width // _TILES, 1)
    down, along = min(_TILES, height), min(_TILES, width)
    drawn = uniforms((channels + 1) * down * along).view(n, channels + 1, down, along, 1, 1)
    tile = _turned(_tile(tall, wide, ball.centre), drawn[:, :1] < 0.5) * _signs(drawn[:, 1:])
    top, left = (height - down * tall) // 2, (width - along * wide) // 2
    offset = torch.zeros_like(ball.centre)
    filled = tile.transpose(3, 4).reshape(n, channels, down * tall, along * wide)
    offset[:, :, top : top + down * tall, left : left + along * wide] = filled.to(offset.dtype)
    return _on_sphere(ball, offset)


def _on_sphere(ball: Ball, offset: Tensor) -> Tensor:
    """Scale offsets to the ball's radius, and cut them by the box."""
    length = offset.flatten(1).double().norm(dim=1).clamp_min(torch.finfo(offset.dtype).tiny)
    scale = ((1 - _SLACK) * ball.radius / length).to(offset.dtype)
    points = (ball.centre + offset * scale[:, None, None, None]).clamp(ball.lower, ball.upper)
    beyond = (distance(points, ball.centre, "l2") > ball.radius).nonzero().squeeze(1)
    if len(beyond):
        points[beyond] = ball[beyond].project(points[beyond])
    return points


def _move_l2(ball: Ball, points: Tensor, size: tuple[int, int], uniforms: Tensor) -> Tensor:
    """Add a tile to one window, with the norm that the ball leaves and that another window gives up."""

    def unit(windows: Tensor) -> Tensor:  # each channel of (N, height, width, channels); zeros stay
        return windows / windows.square().sum((1, 2), keepdim=True).sqrt().clamp_min(1e-12)

    n, channels, height, width = points.shape
    input = torch.arange(n, device=points.device)[:, None, None]
    spans = [_spans(uniforms[:, k], size[k % 2], (height, width)[k % 2]) for k in range(4)]
    here, there = ((input, slice(None), spans[k][:, :, None], spans[k + 1][:, None, :]) for k in (0, 2))
    offset = points - ball.centre
    rest = offset.clone()
    rest[here], rest[there] = 0.0, 0.0
    windows = (offset.square() - rest.square()).sum((2, 3))
    left = (ball.radius.to(offset.dtype).square() - offset.square().sum((1, 2, 3))).clamp_min(0.0)
    budget = (left[:, None] / channels + windows).sqrt()[:, None, None]
    tile = _turned(_tile(*size, offset), uniforms[:, 4, None, None] < 0.5).expand(n, *size)
    change = tile[..., None] * _signs(uniforms[:, None, None, 5 : 5 + channels]).to(offset.dtype)
    rest[here] = budget * unit(unit(offset[here]) + change)
    return _on_sphere(ball, rest)


Uniforms = Callable[[int], Tensor]
"""Gives (N, k) numbers for k."""

MOVES: dict[str, tuple[Callable[[Ball, Uniforms], Tensor], Callable[..., Tensor], bool]] = {
    "linf": (_stripes, _move_linf, False),
    "l2": (_tiles, _move_l2, True),
}
"""A norm's start, its move (of ball, points, window and 5 + channels numbers), and if windows are odd."""

_BLOCK = 64
"""Queries whose random numbers are drawn together."""


@torch.no_grad()
def square(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    norm: str = "linf",
    eps: float = 8 / 255,
    *,
    queries: int = 5000,
    p_init: float = 0.8,
    loss: str = "margin",
    restarts: int = 1,
    **common: Unpack[Common],
) -> Tensor:
    """Return the best points of Square Attack; the accuracy on them bounds robust accuracy from above.

    A random search that asks the model for logits alone, and finds what gradients hide: a random window of
    the picture is changed, and the change stays if it raises the loss.  Windows shrink as the queries are
    used up.  They reach the last row and column, which the authors' code leaves to the largest windows, and
    lie elsewhere in each input.  Pictures that are not square get windows of equal area.

    Parameters
    ----------
    model, inputs, labels, eps, **common
        As for `certmix.attacks.pgd`.  Inputs (N, d) are treated as pictures of height 1, (N, h, w) as
        pictures of one channel, (N, c, h, w) as they are, all others as flattened.
    norm, loss
        ``"linf"`` or ``"l2"``, and a name in `certmix.attacks.losses.LOSSES`.
    queries, restarts
        Evaluations of the model for each input in each run; the clean input is the first of the first run.
        Number of runs, each from another start.
    p_init
        Share of the picture that the first windows cover, in (0, 1].

    References
    ----------
    M. Andriushchenko, F. Croce, N. Flammarion, M. Hein, Square Attack: a query-efficient black-box
    adversarial attack via random search, ECCV 2020, algorithms 1 to 3.

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
    search = Search("square", model, inputs, labels, norm, eps, loss, **common)
    for run, at in search.runs(restarts):
        _run(search, at, run, queries - 1 if run == 0 else queries, p_init)
    return search.result()


def _run(search: Search, at: Tensor, run: int, queries: int, p_init: float) -> None:
    """Evaluate a start and `queries - 1` moves of the inputs `at`."""
    if queries == 0:
        return
    ball, seeds, shape = search.ball[at], search.seeds[at.cpu()], search.ball.centre.shape[1:]
    channels, height, width = picture_shape(shape)

    def as_pictures(points: Tensor) -> Tensor:
        return points.reshape(len(points), channels, height, width)

    def uniforms(block: int, *sizes: int) -> Tensor:
        """Float32 numbers (N, ...) in [0, 1)."""
        rows, stream = torch.empty(len(seeds), *sizes), run * (2 + queries // _BLOCK) + block
        return fill(rows, seeds, stream, lambda row, source: row.uniform_(generator=source)).to(at.device)

    def visit(points: Tensor) -> Visit:
        return search.visit(at, points.reshape(len(points), *shape), gradient=False)

    ball = Ball(
        ball.norm, as_pictures(ball.centre), ball.radius, as_pictures(ball.lower), as_pictures(ball.upper)
    )
    start, move, odd = MOVES[ball.norm]
    best = last = visit(start(ball, lambda count: uniforms(0, count)))
    for query in range(queries - 1):
        if query % _BLOCK == 0:
            drawn = uniforms(1 + query // _BLOCK, _BLOCK, 5 + channels)
        at, ball, seeds, drawn, best = search.left(last, at, ball, seeds, drawn, best)
        if len(at) == 0:
            return
        size = window(share(query, queries, p_init), height, width, odd)
        last = visit(move(ball, as_pictures(best.points), size, drawn[:, query % _BLOCK]))
        best = last.where(last.beats(best), best)
