"""Lower bounds of logit differences over balls, by each method."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from certmix.margins.intervals import Ball, Box, interval_step, intervals
from certmix.margins.layers import Rectifier
from certmix.margins.linear_bounds import Relaxation, backward, relax
from certmix.margins.nodes import Graph

__all__ = ["METHODS", "differences"]

METHODS = ("interval", "crown-ibp", "crown")
"""In order of cost: all by intervals; linear bounds of the logits; of every unstable rectifier too."""

ROWS_ELEMENTS = 2**23
"""Largest number of coefficients that are carried back at once, in the widest layer."""

REFINED = 4096
"""A layer of which one image has more unstable rectifiers keeps its interval bounds for that image."""


def _specification(y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return the rows e_y - e_j, j != y, and their owners."""
    eye = torch.eye(classes, dtype=torch.float64, device=y.device)
    rows = eye[y][:, None, :] - eye[None]
    rival = torch.arange(classes, device=y.device)[None] != y[:, None]
    return rows[rival], torch.arange(len(y), device=y.device).repeat_interleave(classes - 1)


def _carry(
    graph: Graph, boxes: list[Box], lines: dict[int, Relaxation], ball: Ball, start: int,
    rows: Tensor, owner: Tensor,
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
    return Box(lower.view_as(box.lower), upper.view_as(box.upper), box.affine)


def _boxes(graph: Graph, ball: Ball, method: str) -> tuple[list[Box], dict[int, Relaxation]]:
    """Return the bounds of every node and the lines of every rectifier."""
    if method != "crown":
        boxes = intervals(graph, ball)
        lines = {
            k: relax(node.layer, boxes[node.inputs[0]])
            for k, node in enumerate(graph.nodes)
            if isinstance(node.layer, Rectifier) and method != "interval"
        }
        return boxes, lines
    boxes, lines = intervals(Graph(graph.nodes[:1]), ball), {}
    for k, node in enumerate(graph.nodes[1:], 1):
        if isinstance(node.layer, Rectifier):
            source = node.inputs[0]
            if lines:  # intervals are exact, or nearly so, before the first rectifier
                boxes[source] = _refined(graph, boxes, lines, ball, source)
            lines[k] = relax(node.layer, boxes[source])
        boxes.append(interval_step(node.layer, [boxes[i] for i in node.inputs], ball.eps))
    return boxes, lines


def differences(graph: Graph, ball: Ball, y: Tensor, method: str) -> Tensor:
    """Return lower bounds of z_y - z_j for every j != y, (N, c - 1), -inf where nothing is known.

    The bounds are the best of the intervals' and the lines'.

    Parameters
    ----------
    graph, ball
        The network, and images with their radii.
    y
        int64 (N,).
    method
        Name in `METHODS`.
    """
    boxes, lines = _boxes(graph, ball, method)
    rows, owner = _specification(y, graph.classes)
    last = len(graph.nodes) - 1
    bounds = backward(graph, boxes, {}, ball, last, rows, owner, to_image=False)
    if method != "interval":
        bounds = torch.maximum(bounds, _carry(graph, boxes, lines, ball, last, rows, owner))
    return bounds.view(len(y), -1)
