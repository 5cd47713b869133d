"""Words beside the points of curves, only where nothing is covered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from certmix.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["place_labels"]

_SIZE = 7.5  # points
_AWAY = 5.0  # points from a point to the text beside it
_MOST = 6  # labels a curve
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_SAME = 3.0  # pixels within which two points are one
_APART = 25.0  # pixels within which the same words are not repeated
_MARGIN = 2.5  # pixels between words and lines, about a marker's radius
_DENSE = 40  # points that stand for the line between two


def place_labels(
    axes: Axes, curves: Sequence[FloatArray], texts: Sequence[Sequence[str]], colours: Sequence[str]
) -> None:
    """Write words beside the points of curves; those that find no free room are left out.

    The figure must have been laid out.  Ends come first, then points halfway
    between those that were considered.

    Parameters
    ----------
    axes
        Where the curves are drawn.
    curves
        float64 (n, 2) each: points in data coordinates; not finite ones are skipped.
    texts
        One a point.
    colours
        One a curve; words at points of several curves are grey.
    """
    pixels = [np.asarray(axes.transData.transform(curve)).reshape(-1, 2) for curve in curves]
    finite = [points[np.isfinite(points).all(1)] for points in pixels]
    taken = np.concatenate([np.zeros((0, 2)), *map(_along, finite)])
    frame = _box(*axes.bbox.extents)
    boxes: list[FloatArray] = []
    written: list[tuple[str, FloatArray]] = []
    for curve, index in _in_turn([len(points) for points in pixels]):
        at, text = pixels[curve][index], texts[curve][index]
        shared = sum(bool((np.abs(points - at).max(1) < _SAME).any()) for points in finite if len(points)) > 1
        if not np.isfinite(at).all() or any(t == text and np.hypot(*(p - at)) < _APART for t, p in written):
            continue
        box = _write(axes, at, text, "0.3" if shared else colours[curve], taken, boxes, frame)
        if box is not None:
            boxes.append(box)
            written.append((text, at))


def _in_turn(counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (curve, point): the most telling point of each curve, then the next of each, and so on."""
    orders = [_order(count) for count in counts]
    for turn in range(max(map(len, orders), default=0)):
        yield from ((curve, order[turn]) for curve, order in enumerate(orders) if turn < len(order))


def _order(count: int) -> list[int]:
    """Return the points to label, the ends first, then ever finer between."""
    order, parts = [0, count - 1], 1
    while len(dict.fromkeys(order)) < min(count, _MOST) and parts < 2 * count:
        parts *= 2
        order += [round(k * (count - 1) / parts) for k in range(1, parts, 2)]
    return list(dict.fromkeys(order))[:_MOST] if count else []


def _along(points: FloatArray) -> FloatArray:
    """Return points close together on the line through the given ones, (k, 2)."""
    if len(points) < 2:
        return points
    steps = np.linspace(0.0, 1.0, _DENSE)[:, None, None]
    return np.asarray((points[:-1] + steps * np.diff(points, axis=0)).reshape(-1, 2))


def _write(
    axes: Axes,
    at: FloatArray,
    text: str,
    colour: str,
    taken: FloatArray,
    boxes: Sequence[FloatArray],
    frame: FloatArray,
) -> FloatArray | None:
    """Write a text on the first side where it covers nothing; return its box, or None if there is none."""
    x, y = axes.transData.inverted().transform(at)
    for right, up in _SIDES:
        away = _AWAY if 0 in (right, up) else 0.7 * _AWAY
        drawn = axes.annotate(
            text, (x, y), (away * right, away * up), textcoords="offset points", fontsize=_SIZE,
            color=colour, ha=("right", "center", "left")[right + 1],
            va=("top", "center_baseline", "bottom")[up + 1], parse_math=False, zorder=4,
        )  # fmt: skip
        drawn.set_in_layout(False)
        box = _box(*drawn.get_window_extent().extents)
        if _inside(box, frame) and not _meets(box, boxes) and not _holds(box, taken):
            return box
        drawn.remove()
    return None


def _box(left: float, low: float, right: float, high: float) -> FloatArray:
    return np.array([[left, low], [right, high]])


def _inside(box: FloatArray, frame: FloatArray) -> bool:
    return bool((box[0] >= frame[0]).all() and (box[1] <= frame[1]).all())


def _meets(box: FloatArray, boxes: Sequence[FloatArray]) -> bool:
    return any(bool((box[0] < b[1] + 1).all() and (b[0] < box[1] + 1).all()) for b in boxes)


def _holds(box: FloatArray, points: FloatArray) -> bool:
    return bool(((points > box[0] - _MARGIN) & (points < box[1] + _MARGIN)).all(1).any())
