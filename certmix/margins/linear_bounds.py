"""Linear bounds (CROWN), and the bounds of differences of logits that each method gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from certmix.margins.graph import Graph, Node
from certmix.margins.intervals import Ball, Box, down, input_box, interval_step
from certmix.margins.layers import TINY, UNIT, Input, LinearMap, Maximum, Rectifier, Sum, gamma


@dataclass(frozen=True)
class Relaxation:
    """Lines below and above a rectifier: low x <= max(x, slope x) <= high x + offset, (N, ...)."""

    low: Tensor
    high: Tensor
    offset: Tensor


def relax(layer: Rectifier, box: Box) -> Relaxation:
    """Return the lines of a rectifier over a box (CROWN, H. Zhang et al., NeurIPS 2018).

    Above lies the chord, below the line of slope 1 or its own, whichever leaves the smaller area.
    """
    lower, upper, slope = box.lower, box.upper, layer.slope
    active, inactive = lower >= 0, upper <= 0
    chord = (upper - slope * lower) / (upper - lower).clamp_min(1e-300)
    chord = chord.clamp(slope, 1.0)
    high = torch.where(active, 1.0, torch.where(inactive, slope, chord))
    ends = torch.maximum(slope * lower - high * lower, upper - high * upper)
    ends = ends + 8 * UNIT * (lower.abs() + upper.abs()) + 4 * TINY
    offset = torch.where(active | inactive, 0.0, ends.clamp_min(0.0))
    # torch.where of two numbers gives float32: the slope would not be the rectifier's own
    low = torch.full_like(lower, slope).masked_fill(active | (~inactive & (upper >= -lower)), 1.0)
    return Relaxation(low, high, offset)


class _Rows:
    """Rows on their way to the input: coefficients by node, a constant, and a bound of its error."""

    def __init__(self, start: int, rows: Tensor, owner: Tensor) -> None:
        self.coefficients = {start: rows}
        self.owner = owner
        self.constant = rows.new_zeros(len(rows))
        self.error = rows.new_zeros(len(rows))

    def add(self, value: Tensor, error: Tensor | float) -> None:
        """Add to the constant a number that may be off by `error`."""
        self.constant = self.constant + value
        self.error = self.error + error + UNIT * self.constant.abs()

    def hand(self, node: int, rows: Tensor, size: Tensor, underflow: float = 4 * TINY) -> None:
        """Give rows to a node whose values are at most `size`, (N,); an entry may be off by `underflow`."""
        self.error = self.error + _entries(rows) * underflow * (1 + size[self.owner])
        if node in self.coefficients:
            rows = self.coefficients[node] + rows
            self.error = self.error + UNIT * _magnitude(rows) * size[self.owner]
        self.coefficients[node] = rows


def _entries(rows: Tensor) -> int:
    return math.prod(rows.shape[1:])


def _magnitude(rows: Tensor) -> Tensor:
    return rows.abs().flatten(1).sum(1)


def _linear(
    state: _Rows, node: Node, layer: LinearMap, rows: Tensor, box: Box, shape: tuple[int, ...]
) -> None:
    """a (W x + b) = (a W) x + a b."""
    size = box.size
    magnitude = _magnitude(rows)
    error = layer.error * magnitude * (layer.row_sum * size[state.owner] + layer.bias_size)
    value = torch.zeros_like(state.constant)
    if layer.bias is not None:
        value = (rows * layer.bias).flatten(1).sum(1)
        error = error + gamma(_entries(rows) + 1) * magnitude * layer.bias_size
    state.add(value, error)
    state.hand(node.inputs[0], layer.transpose(layer.weight, rows, shape), size, layer.underflow)


def _rectifier(state: _Rows, node: Node, rows: Tensor, lines: Relaxation, box: Box) -> None:
    """Positive coefficients take the line below, negative ones the line above."""
    owner, size = state.owner, box.size
    negative = rows.clamp_max(0.0)
    value = (negative * lines.offset[owner]).flatten(1).sum(1)
    moved = torch.where(rows > 0, rows * lines.low[owner], rows * lines.high[owner])
    state.add(value, gamma(_entries(rows)) * value.abs() + UNIT * _magnitude(moved) * size[owner])
    state.hand(node.inputs[0], moved, size)


def _maximum(state: _Rows, node: Node, layer: Maximum, rows: Tensor, box: Box) -> None:
    """Below lies its entry of largest lower bound; above it too, or the largest upper bound."""
    owner, shape = state.owner, box.lower.shape[1:]
    lower, upper = layer.entries(box.lower), layer.entries(box.upper)
    best = lower.argmax(3, keepdim=True)
    rest = upper.scatter(3, best, -torch.inf).amax(3)
    dominant = lower.gather(3, best)[..., 0] >= rest
    places = layer.windows.expand(lower.shape).gather(3, best)[..., 0]
    flat = rows.flatten(2)
    ceiling = torch.where(dominant, 0.0, upper.amax(3))
    value = (flat.clamp_max(0.0) * ceiling[owner]).flatten(1).sum(1)
    kept = torch.where((flat > 0) | dominant[owner], flat, 0.0)
    moved = rows.new_zeros((len(rows), shape[0], shape[1] * shape[2]))
    moved.scatter_add_(2, places[owner], kept)
    size, terms = box.size, _entries(rows)
    lost = 2 * gamma(terms) * _magnitude(rows) * size[owner]
    state.add(value, lost)
    state.hand(node.inputs[0], moved.view(-1, *shape), size)


def _subtract(state: _Rows, rows: Tensor, centre: Tensor, spread: Tensor, terms: float) -> None:
    """Add what rows are at the centre, less `spread`, which is up to `terms` of itself too small."""
    value = (rows * centre[state.owner]).flatten(1).sum(1)
    size = centre.abs().flatten(1).amax(1)[state.owner]
    state.add(value - spread, terms * (_magnitude(rows) * size + 2 * spread))


def backward(
    graph: Graph,
    boxes: list[Box],
    relaxations: dict[int, Relaxation],
    ball: Ball,
    start: int,
    rows: Tensor,
    owner: Tensor,
    *,
    to_input: bool = True,
) -> Tensor:
    """Return lower bounds of  rows . value(start)  over each row's ball, (R,), rounded down, -inf if unknown.

    Rows are exact coefficients (R, *shape of the node `start`), of the inputs `owner` (R,); `boxes` and
    `relaxations` hold the bounds of every node and the lines of the rectifiers before it.  Without `to_input`
    the way back ends at the first nonlinear node's box: interval bounds of the rows instead of linear ones.
    """
    state = _Rows(start, rows, owner)
    for number in range(start, -1, -1):
        if number not in state.coefficients:
            continue
        current, node = state.coefficients.pop(number), graph.nodes[number]
        layer, source = node.layer, boxes[node.inputs[0]] if node.inputs else boxes[0]
        terms = _entries(current)
        carried = to_input or isinstance(layer, LinearMap | Sum)
        if carried and (rounding := boxes[number].rounding) is not None:
            lost = (current.abs() * rounding[owner]).flatten(1).sum(1)
            state.add(torch.zeros_like(lost), lost * (1 + gamma(terms + 2)))
        if isinstance(layer, Input) and ball.norm == "l2":  # least value over the ball: its dual norm is l2
            size = (current.flatten(1).square().sum(1) + terms * TINY).sqrt()
            _subtract(state, current, ball.inputs, ball.eps[owner] * size, gamma(2 * terms + 8))
        elif isinstance(layer, Input) or not carried:
            centre, width = boxes[number].centred()
            spread = (current.abs() * width[owner]).flatten(1).sum(1)
            _subtract(state, current, centre, spread, gamma(terms + 2))
        elif isinstance(layer, LinearMap):
            _linear(state, node, layer, current, source, graph.nodes[node.inputs[0]].shape)
        elif isinstance(layer, Maximum):
            _maximum(state, node, layer, current, source)
        elif isinstance(layer, Rectifier):
            _rectifier(state, node, current, relaxations[number], source)
        else:
            state.hand(node.inputs[0], current, source.size)
            state.hand(node.inputs[1], layer.sign * current, boxes[node.inputs[1]].size)
    bound = down(state.constant - (1 + 1e-6) * state.error - 1e-280)
    return torch.where(bound.isfinite(), bound, -torch.inf)


METHODS = ("interval", "crown-ibp", "crown")
"""In order of cost: all by intervals; linear bounds of the logits; of every unstable rectifier too."""

ROWS_ELEMENTS = 2**23
"""Largest number of coefficients that are carried back at once, in the widest layer."""

REFINED = 4096
"""A layer of which one input has more unstable rectifiers keeps its interval bounds for that input."""


def _carry(
    graph: Graph, boxes: list[Box], lines: dict[int, Relaxation], ball: Ball, start: int,
    rows: Tensor, owner: Tensor
) -> Tensor:  # fmt: skip
    """`backward` in pieces that fit into memory."""
    widest = max(math.prod(node.shape) for node in graph.nodes[: start + 1])
    piece = max(1, ROWS_ELEMENTS // widest)
    pairs = zip(rows.split(piece), owner.split(piece), strict=True)
    return torch.cat([backward(graph, boxes, lines, ball, start, part, who) for part, who in pairs])


def _refined(graph: Graph, boxes: list[Box], lines: dict[int, Relaxation], ball: Ball, node: int) -> Box:
    """Tighten a node's box where it crosses 0, by linear bounds."""
    box = boxes[node]
    lower, upper = box.lower.flatten(1).clone(), box.upper.flatten(1).clone()
    crossing = (lower < 0) & (upper > 0)
    crossing &= (crossing.sum(1) <= REFINED)[:, None]
    shape, width = graph.nodes[node].shape, lower.shape[1]
    owners, places = crossing.nonzero(as_tuple=True)
    if not len(owners):
        return box
    for who, where in zip(owners.split(1024), places.split(1024), strict=True):
        unit = one_hot(where, width).to(lower.dtype).view(-1, *shape)
        above = _carry(graph, boxes, lines, ball, node, unit, who)
        below = -_carry(graph, boxes, lines, ball, node, -unit, who)
        lower[who, where] = torch.maximum(lower[who, where], above)
        upper[who, where] = torch.minimum(upper[who, where], below)
    return replace(box, lower=lower.view_as(box.lower), upper=upper.view_as(box.upper))


def bounds_of_layers(graph: Graph, ball: Ball, method: str) -> tuple[list[Box], dict[int, Relaxation]]:
    """Return the bounds of every node and, of linear methods, the lines of every rectifier."""
    boxes, lines = [input_box(ball)], dict[int, Relaxation]()
    for k, node in enumerate(graph.nodes[1:], 1):
        if isinstance(node.layer, Rectifier) and method != "interval":
            source = node.inputs[0]
            if lines and method == "crown":  # intervals are exact, or nearly so, before the first rectifier
                boxes[source] = _refined(graph, boxes, lines, ball, source)
            lines[k] = relax(node.layer, boxes[source])
        boxes.append(interval_step(node.layer, [boxes[i] for i in node.inputs], ball))
    return boxes, lines


def differences(graph: Graph, ball: Ball, y: Tensor, method: str) -> Tensor:
    """Return lower bounds of z_y - z_j for every j != y, (N, c - 1), the best of both kinds, or -inf."""
    boxes, lines = bounds_of_layers(graph, ball, method)
    eye = torch.eye(graph.classes, dtype=torch.float64, device=y.device)
    rival = torch.arange(graph.classes, device=y.device)[None] != y[:, None]
    rows = (eye[y][:, None, :] - eye[None])[rival]
    owner = torch.arange(len(y), device=y.device).repeat_interleave(graph.classes - 1)
    last = len(graph.nodes) - 1
    bounds = backward(graph, boxes, {}, ball, last, rows, owner, to_input=False)
    if method != "interval":
        bounds = torch.maximum(bounds, _carry(graph, boxes, lines, ball, last, rows, owner))
    return bounds.view(len(y), -1)
