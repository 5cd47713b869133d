"""A network as a list of layers, and its construction node by node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from certmix.errors import ModelError
from certmix.margins.layers import Input, Layer, LinearMap
from certmix.margins.rules import layer_of

__all__ = ["Builder", "Graph", "Node"]


@dataclass(frozen=True)
class Node:
    """One layer, the nodes it takes, and the shape of its output without the batch."""

    name: str
    layer: Layer
    inputs: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """Layers in order: the first is the image, the last gives the logits."""

    nodes: tuple[Node, ...]

    def values(self, images: Tensor) -> list[Tensor]:
        """Return every node's value for images (N, ...), in float64."""
        found: list[Tensor] = []
        for node in self.nodes:
            arguments = [found[i] for i in node.inputs] or [images.double()]
            found.append(node.layer(*arguments))
        return found

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.nodes[-1].shape[0]


class Builder:
    """Adds nodes one by one, each with the shape that a zero image gives.

    `storage` names the memory that the model keeps a node's value in, by the
    first node there; `stale` holds the nodes whose memory was changed in place.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        zeros = torch.zeros((1, *shape), dtype=torch.float64)
        self.nodes = [Node("input", Input(), (), tuple(shape))]
        self.zeros = [zeros]
        self.storage, self.stale = [0], set[int]()

    def add(self, name: str, layer: Layer, *inputs: int, in_place: bool = False) -> int:
        """Add a layer that takes these nodes, and may change the first in place; return its number."""
        for i in inputs:
            self.check_current(name, i)
        try:
            value = layer(*(self.zeros[i] for i in inputs))
        except (RuntimeError, IndexError, ValueError) as error:
            shapes = ", ".join(str(self.nodes[i].shape) for i in inputs)
            detail = str(error).splitlines()[0]
            raise ModelError(
                f"layer {name} does not fit an input of shape {shapes} ({detail}): check the images"
            ) from None
        self.nodes.append(Node(name, layer, inputs, tuple(value.shape[1:])))
        self.zeros.append(value)
        first = self.storage[inputs[0]]
        if in_place:
            self.stale.update(i for i, storage in enumerate(self.storage) if storage == first)
        shares = in_place or (isinstance(layer, LinearMap) and layer.is_view)
        self.storage.append(first if shares else len(self.storage))
        return len(self.nodes) - 1

    def check_current(self, name: str, node: int) -> None:
        """Refuse to take a value that was changed in place since.

        Raises
        ------
        ModelError
            If it was.
        """
        if node in self.stale:
            raise ModelError(
                f"{name} takes the value of {self.nodes[node].name}, which was changed in place since: "
                "write that change out of place (inplace=False, x = x + y)"
            )

    def add_module(self, name: str, module: nn.Module, source: int) -> int:
        """Add the layers that stand for a module; return the last one's number."""
        in_place = bool(getattr(module, "inplace", False))
        for layer in layer_of(name, module, self.nodes[source].shape):
            source = self.add(name, layer, source, in_place=in_place)
        return source
