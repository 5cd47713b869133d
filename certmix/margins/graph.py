"""From a torch module to the graph of layers that bounds are propagated through."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx, nn

from certmix.errors import ModelError
from certmix.margins.faithful import check_agreement, check_mode, check_parts, nothing_drawn_or_kept
from certmix.margins.nodes import Builder, Graph
from certmix.margins.operations import Value, attribute, step
from certmix.margins.rules import RULES
from certmix.margins.tracing import trace, unsupported
from certmix.models.adapters import FixedMode
from certmix.models.normalize import Normalized

__all__ = ["build_graph"]


def build_graph(model: nn.Module, images: Tensor) -> Graph:
    """Return a model's layers in float64, on the CPU; the weights' values are kept exactly.

    Parameters
    ----------
    model
        Gives logits (N, classes); in evaluation mode.
    images
        (n, ...), of the data: the layers and the model are compared on 16 of them at most.

    Raises
    ------
    ModelError
        If bounds cannot be propagated through a layer (the message names it),
        or the layers are not what runs: forward hooks, methods replaced on an
        instance, random numbers, a state that changes, a tensor changed in
        place and used again, or other differences of logits than the model's.
    """
    check_parts(model)
    builder = Builder(images.shape[1:])
    inner, source = _unwrap(model, builder)
    with nothing_drawn_or_kept(model):
        traced = trace(nn.Sequential(inner) if type(inner) in RULES else inner)
        graph = _built(traced, builder, source)
        check_agreement(graph, model, images)
    check_mode(model)
    return graph


def _built(traced: fx.GraphModule, builder: Builder, source: int) -> Graph:
    made: dict[fx.Node, Any] = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            made[node] = Value(source)
        elif node.op == "get_attr":
            made[node] = attribute(traced, str(node.target))
        elif node.op != "output":
            made[node] = step(builder, traced, node, made)
        elif not isinstance(node.args[0], fx.Node) or not isinstance(made[node.args[0]], Value):
            raise unsupported(f"an output of type {type(node.args[0]).__name__}")
        else:
            last = made[node.args[0]].node
    builder.check_current("the output", last)
    graph = Graph(tuple(builder.nodes[: last + 1]))
    if len(graph.nodes[-1].shape) != 1 or graph.nodes[-1].shape[0] < 2:
        raise ModelError(f"the model gives {graph.nodes[-1].shape} an image: bounds need 2 logits or more")
    return graph


def _unwrap(model: nn.Module, builder: Builder) -> tuple[nn.Module, int]:
    """Take off the wrappers that certmix puts around models."""
    source = 0
    while type(model) in (Normalized, FixedMode):
        if isinstance(model, Normalized):
            source = builder.add_module("normalize", model, source)
        inner = model.model if isinstance(model, Normalized) else model.module
        assert isinstance(inner, nn.Module)
        model = inner
    return model, source
