"""From a torch module to the graph of layers that bounds are propagated through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from certmix.errors import ModelError
from certmix.lipschitz.nodes import Builder, Graph
from certmix.lipschitz.operations import attribute, step
from certmix.lipschitz.rules import RULES
from certmix.lipschitz.tracing import trace, unsupported
from certmix.models.adapters import FixedMode
from certmix.models.normalize import Normalized

__all__ = ["build_graph"]

AGREEMENT = 1e-3
"""Largest difference between the graph's logits and the model's, relative to the largest logit."""


def build_graph(model: nn.Module, shape: Sequence[int]) -> Graph:
    """Return a model's layers in float64, on the CPU; the weights' values are kept exactly.

    Parameters
    ----------
    model
        Gives logits (N, classes); in evaluation mode.
    shape
        Of one image, such as (3, 32, 32).

    Raises
    ------
    ModelError
        If bounds cannot be propagated through a layer (the message names it),
        or the graph does not compute what the model computes.
    """
    builder = Builder(shape)
    inner, source = _unwrap(model, builder)
    traced = trace(nn.Sequential(inner) if type(inner) in RULES else inner)
    made: dict[fx.Node, Any] = {}
    last = source
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            made[node] = source
        elif node.op == "get_attr":
            made[node] = attribute(traced, str(node.target))
        elif node.op == "output":
            if not isinstance(node.args[0], fx.Node) or not isinstance(made[node.args[0]], int):
                raise unsupported(f"an output of type {type(node.args[0]).__name__}")
            last = made[node.args[0]]
        else:
            made[node] = step(builder, traced, node, made)
    graph = Graph(tuple(builder.nodes[: last + 1]))
    if len(graph.nodes[-1].shape) != 1 or graph.nodes[-1].shape[0] < 2:
        raise ModelError(f"the model gives {graph.nodes[-1].shape} an image: bounds need 2 logits or more")
    _compare(graph, model, shape)
    return graph


def _unwrap(model: nn.Module, builder: Builder) -> tuple[nn.Module, int]:
    """Take off the wrappers that certmix puts around models."""
    source = 0
    while isinstance(model, Normalized | FixedMode):
        if isinstance(model, Normalized):
            source = builder.add_module("normalize", model, source)
        model = model.model if isinstance(model, Normalized) else model.module
    return model, source


def _compare(graph: Graph, model: nn.Module, shape: Sequence[int]) -> None:
    """Refuse a graph whose logits are not the model's."""
    count = 2 * int(torch.tensor(shape).prod())
    images = torch.linspace(0, 40, count).sin().square().view(2, *shape)
    parameter = next(model.parameters(), None)
    with torch.no_grad():
        expected = model(images if parameter is None else images.to(parameter)).cpu().double()
        found = graph.values(images)[-1]
    if found.shape != expected.shape or not (
        (found - expected).abs().max() <= AGREEMENT * expected.abs().max().clamp_min(1e-6)
    ):
        raise ModelError(
            "the traced layers do not give the model's logits: "
            "put it in evaluation mode, without autocast, and let no layer depend on the batch"
        )
