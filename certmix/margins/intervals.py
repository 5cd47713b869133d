"""Interval bounds of every layer over a ball, rounded outwards.

Interval bound propagation (S. Gowal et al., 2018); for the l2 ball, the first layer is bounded by the norms
of its rows.  Results of a linear layer are widened by the standard error bound of a sum of products, gamma_n
(|W| |x| + |b|), in any order of summation; all other operations are exact or moved to the next float.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from certmix.margins.layers import TINY, Arithmetic, Layer, LinearMap, Maximum, Rectifier, Sum


@dataclass(frozen=True)
class Ball:
    """The points within `eps` (N,) of float64 inputs (N, ...), in ``"l2"``, or ``"linf"`` and `limits`.

    `arithmetic` is what the network runs in at these points, None for real numbers.
    """

    inputs: Tensor
    norm: str
    eps: Tensor
    limits: tuple[float, float] | None = None
    arithmetic: Arithmetic | None = None


@dataclass(frozen=True)
class Affine:
    """Entries that are affine in the input, (N, ...): over an l2 ball they move by eps sqrt(energy).

    `point` is the value at the input up to `slip`; `energy` at least its weights' sum of squares.
    """

    point: Tensor
    slip: Tensor
    energy: Tensor


@dataclass(frozen=True)
class Box:
    """Entrywise bounds, (N, ...); `affine` where more is known of them over an l2 ball.

    `rounding` is how far an entry, as it runs, may be from its layer's exact answer to what the layer took.
    """

    lower: Tensor
    upper: Tensor
    affine: Affine | None = None
    rounding: Tensor | None = None

    @property
    def size(self) -> Tensor:
        """Largest magnitude of each input's entries, (N,)."""
        return torch.maximum(self.lower.abs(), self.upper.abs()).flatten(1).amax(1)

    def centred(self) -> tuple[Tensor, Tensor]:
        """Return a centre, and a half-width that is rounded up."""
        centre = 0.5 * self.lower + 0.5 * self.upper
        return centre, up(torch.maximum(self.upper - centre, centre - self.lower))


def down(x: Tensor) -> Tensor:
    """Return the next smaller floats."""
    return torch.nextafter(x, x.new_tensor(-torch.inf))


def up(x: Tensor) -> Tensor:
    """Return the next larger floats."""
    return torch.nextafter(x, x.new_tensor(torch.inf))


def _each(values: Tensor, like: Tensor) -> Tensor:
    """Return one number an input (N,) in a shape that broadcasts against (N, ...)."""
    return values.view(-1, *[1] * (like.ndim - 1))


def input_box(ball: Ball) -> Box:
    """Return the bounds of the inputs."""
    eps = _each(ball.eps, ball.inputs)
    lower, upper = down(ball.inputs - eps), up(ball.inputs + eps)
    if ball.norm == "l2":
        exact = Affine(ball.inputs, torch.zeros_like(lower), torch.ones_like(lower))
        return Box(lower, upper, exact)
    if ball.limits is not None:
        lower = lower.clamp_min(ball.limits[0]).minimum(ball.inputs)
        upper = upper.clamp_max(ball.limits[1]).maximum(ball.inputs)
    return Box(lower, upper)


def _linear(layer: LinearMap, box: Box) -> Box:
    """W x + b lies within |W| r of its centre."""
    centre, width = box.centred()
    error = layer.error
    middle = layer(centre)
    reach = layer.apply(layer.weight.abs(), width + error * (centre.abs() + width))
    reach = reach * (1 + 2 * error) + error * layer.bias_size + layer.underflow * (1 + _each(box.size, reach))
    return Box(down(middle - reach), up(middle + reach))


def _affine(layer: LinearMap, source: Affine, eps: Tensor) -> Box:
    """A row w moves by eps times its l2 norm; a diagonal one leaves the next row's norm known."""
    error = layer.error
    middle = layer(source.point)
    slip = layer.apply(layer.weight.abs(), source.slip + error * source.point.abs())
    largest = source.point.abs().flatten(1).amax(1)
    slip = slip * (1 + 2 * error) + error * layer.bias_size + layer.underflow * (1 + _each(largest, slip))
    energy = layer.apply(layer.weight.square(), source.energy) * (1 + 4 * error)
    energy = energy + 4 * layer.terms * (1 + source.energy.max()) * TINY
    reach = energy.sqrt() * _each(eps, energy) * (1 + 1e-15) + slip
    known = Affine(middle, slip, energy) if layer.diagonal else None
    return Box(down(middle - up(reach)), up(middle + up(reach)), known)


def _rounding(layer: Layer, boxes: list[Box], runs_in: Arithmetic) -> Tensor | None:
    """Return by how much each entry may be off when a layer is run, None if it only chooses or keeps."""
    largest = [torch.maximum(box.lower.abs(), box.upper.abs()) for box in boxes]
    if isinstance(layer, LinearMap) and not layer.is_view:
        size = layer.apply(layer.weight.abs(), largest[0]) * (1 + 2 * layer.error) + layer.bias_size
        lost = 4 * (layer.terms + 16) * (1 + layer.row_sum) * (1 + _each(boxes[0].size, size))
        return runs_in.error(layer.terms, size, 1.0) + lost * runs_in.tiny
    if isinstance(layer, Rectifier) and layer.slope > 0.0:
        return runs_in.error(1, layer.slope * largest[0], 2.0)
    return runs_in.error(2, largest[0] + largest[1], 2.0) if isinstance(layer, Sum) else None


def interval_step(layer: Layer, boxes: list[Box], ball: Ball) -> Box:
    """Return a layer's bounds from those of what it takes, as it runs."""
    box = _exact_step(layer, boxes, ball.eps)
    runs_in = ball.arithmetic
    rounding = None if runs_in is None else _rounding(layer, boxes, runs_in)
    if rounding is None:
        return box
    known = box.affine
    if known is not None:
        known = Affine(known.point, up(known.slip + rounding), known.energy)
    return Box(down(box.lower - rounding), up(box.upper + rounding), known, rounding)


def _exact_step(layer: Layer, boxes: list[Box], eps: Tensor) -> Box:
    """Return a layer's bounds from those of what it takes, in exact arithmetic."""
    if isinstance(layer, LinearMap):
        source = boxes[0].affine
        return _linear(layer, boxes[0]) if source is None else _affine(layer, source, eps)
    if isinstance(layer, Rectifier) and layer.slope == 0.0:
        return Box(boxes[0].lower.clamp_min(0.0), boxes[0].upper.clamp_min(0.0))
    if isinstance(layer, Rectifier):
        lower, upper = boxes[0].lower, boxes[0].upper
        steeper = torch.maximum(upper, up(layer.slope * upper))
        return Box(torch.maximum(lower, down(layer.slope * lower)), steeper)
    if isinstance(layer, Maximum):
        return Box(layer(boxes[0].lower), layer(boxes[0].upper))
    first, second = boxes
    if isinstance(layer, Sum) and layer.sign < 0:
        second = Box(-second.upper, -second.lower)
    return Box(down(first.lower + second.lower), up(first.upper + second.upper))
