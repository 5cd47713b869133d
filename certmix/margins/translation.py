"""From a torch module to the graph that bounds are propagated through, held to what the module computes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.nn.modules import module as globally

from certmix import guard
from certmix.errors import ModelError, describe
from certmix.margins.graph import Builder, Graph, Value, step, trace
from certmix.margins.layers import MODELESS, RULES, exact, unsupported
from certmix.models.architectures import Normalized
from certmix.models.foreign import FixedMode


def build_graph(model: nn.Module, inputs: Tensor) -> Graph:
    """Return a model's layers in float64, on the CPU; the weights' values are kept exactly.

    The model gives logits (N, classes) and is in evaluation mode; `inputs` (n, ...) are of the data: layers
    and model are compared on 16 of them at most.  ModelError if bounds cannot be propagated through a layer,
    or the layers are not what runs: forward hooks, methods replaced on an instance, random numbers, a state
    that changes, a tensor changed in place and used again, or other differences of logits than the model's.
    """
    check_parts(model)
    builder, source = Builder(inputs.shape[1:]), 0
    inner: Any = model
    while type(inner) in (Normalized, FixedMode):  # wrappers that certmix puts around models
        if isinstance(inner, Normalized):
            source = builder.add_module("normalize", inner, source)
        inner = inner.model if isinstance(inner, Normalized) else inner.module
    with nothing_drawn_or_kept(model):
        traced = trace(nn.Sequential(inner) if type(inner) in RULES else inner)
        made: dict[fx.Node, Any] = {}
        for node in traced.graph.nodes:
            if node.op == "placeholder":
                made[node] = Value(source)
            elif node.op == "get_attr":
                made[node] = exact(attrgetter(str(node.target))(traced))
            elif node.op != "output":
                made[node] = step(builder, traced, node, made)
            elif not isinstance(node.args[0], fx.Node) or not isinstance(made[node.args[0]], Value):
                raise unsupported(f"an output of type {type(node.args[0]).__name__}")
            else:
                last = made[node.args[0]].node
        builder.check_current("the output", last)
        graph = Graph(tuple(builder.nodes[: last + 1]))
        shape = graph.nodes[-1].shape
        if len(shape) != 1 or shape[0] < 2:
            raise ModelError(f"the model gives {shape} an input: bounds need 2 logits or more")
        check_agreement(graph, model, inputs)
    for path, part in model.named_modules():  # of no layer of torch's is it known whether its mode matters
        if part.training and type(part) not in MODELESS:
            name = f"layer {path}" if path else "the model"
            raise ModelError(f"{name} ({type(part).__name__}) is in training mode: call model.eval() first")
    return graph


CHECKED = 16
"""Inputs on which the graph and the model are compared, at most."""

EXACT, AS_IT_RUNS = 1e-5, 1e-3
"""Largest error of a difference of logits, relative to the differences' spread: of the model in float64, and
in its own precision."""

ROUNDING = {EXACT: 2.0**-40, AS_IT_RUNS: 2.0**-18}
"""What rounding explains besides, relative to the largest value in the graph."""


DIFFER = "the traced layers do not give the model's logits: they differ"


def check_parts(model: nn.Module) -> None:
    """Refuse a model of which a part does more, or something else, than its class says: a forward hook, a
    method replaced on an instance or on a class of torch's, or training mode that matters."""
    if globally._global_forward_hooks or globally._global_forward_pre_hooks:
        raise ModelError(
            "a forward hook of all modules is set, which bounds cannot see: remove it (handle.remove())"
        )
    for path, part in model.named_modules():
        kind = type(part)
        name = f"layer {path} ({kind.__name__})" if path else f"the model ({kind.__name__})"
        if isinstance(part, fx.GraphModule | torch.jit.ScriptModule):
            raise ModelError(f"{name} is a traced or exported program: give the module that it was made from")
        hooks = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
        if hooks:
            called = getattr(hooks[0], "__qualname__", type(hooks[0]).__name__)
            raise ModelError(
                f"{name} has a forward hook, {called}, which bounds cannot see: remove it (handle.remove(), "
                "or torch.nn.utils.remove_weight_norm, remove_spectral_norm, prune.remove)"
            )
        own = [attribute for attribute in vars(part) if callable(getattr(kind, attribute, None))]
        if own or part._compiled_call_impl is not None:
            what = f"a {own[0]} of its own" if own else "been compiled"
            raise ModelError(
                f"{name} has {what}, which bounds cannot see: "
                "give the model as its class defines it (the one that was compiled or changed)"
            )
        torchs = kind.__module__.startswith("torch.nn.")
        foreign = torchs and not str(getattr(kind.forward, "__module__", "")).startswith("torch.nn.")
        if foreign or kind.__call__ is not nn.Module.__call__:
            raise ModelError(
                f"{name}: its class has a __call__ or a forward that was put there, which bounds cannot see: "
                "let the class define forward, and restore torch's own"
            )
        if part.training and torchs and kind not in MODELESS:
            raise ModelError(f"{name} is in training mode: call model.eval() first")


@contextmanager
def nothing_drawn_or_kept(model: nn.Module) -> Iterator[None]:
    """Refuse, whatever else was raised, a model that inside draws random numbers or changes its own state."""

    def random_state() -> tuple[Any, ...]:
        return torch.get_rng_state().numpy().tobytes(), random.getstate(), repr(np.random.get_state())

    def same(now: Any, before: Any) -> bool:
        if isinstance(now, Tensor) and isinstance(before, Tensor):
            return now.shape == before.shape and torch.allclose(now, before, 0, 0, equal_nan=True)
        return now is before or bool(now == before)

    drawn, kept, kind = random_state(), _state(model), type(model).__name__
    try:
        yield
    finally:
        if random_state() != drawn:
            raise ModelError(
                f"{kind} draws random numbers as it runs, so that it is no fixed function: "
                "take the randomness out, or pass training=self.training to dropout"
            )
        changed = [name for name, value in _state(model).items() if not same(value, kept.get(name))]
        if changed:
            raise ModelError(
                f"{kind} changes its {changed[0]} as it runs, so that it is no fixed function: "
                "let the forward pass change nothing"
            )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(model.named_parameters(), model.named_buffers())


def _state(model: nn.Module) -> dict[str, Any]:
    """Return copies of a model's tensors, and its parts' plain attributes, by name."""
    tensors = {name: tensor.detach().clone() for name, tensor in _tensors(model)}
    plain = {
        f"{path}.{name}".lstrip("."): value
        for path, part in model.named_modules()
        for name, value in vars(part).items()
        if isinstance(value, int | float | str)
    }
    return tensors | plain


def check_agreement(graph: Graph, model: nn.Module, inputs: Tensor) -> None:
    """Refuse a graph whose differences of logits are not the model's, at the first 16 finite inputs.

    The model runs in float64, where its rounding hides nothing, and as it is, twice: it must answer alike.
    What all inputs have in common, class by class, is no spread; of a single input, half is looked at too.
    """
    rows = inputs[inputs.flatten(1).isfinite().all(1)][:CHECKED].cpu()
    rows = rows if len(rows) else torch.zeros((1, *inputs.shape[1:]), dtype=inputs.dtype)
    rows = rows if len(rows) > 1 else torch.cat([rows, rows / 2])
    values = graph.values(rows)
    found = values[-1]
    size, spread = max(float(value.abs().max()) for value in values), _range(found - found.mean(0))
    parameter = next(model.parameters(), None)
    doubled = {
        name: tensor.detach().cpu().double() if tensor.is_floating_point() else tensor.detach().cpu()
        for name, tensor in _tensors(model)
    }
    one, two = (
        _run(model, lambda: functional_call(model, doubled, (rows.to(torch.float64, copy=True),)))
        for _ in range(2)
    )
    if not torch.equal(one, two):
        raise ModelError(
            f"{type(model).__name__} answers the same inputs differently when asked again: "
            "take the randomness out, and let the forward pass keep nothing"
        )
    as_it_is = _run(
        model, lambda: model(rows.clone() if parameter is None else rows.to(parameter, copy=True))
    )
    runs = (
        (one, EXACT, "no layer may depend on the batch, and each must do what its class says"),
        (as_it_is, AS_IT_RUNS, "run it in float32 or float64, without autocast"),
    )
    for logits, share, remedy in runs:
        if logits.shape != found.shape:
            raise ModelError(f"{DIFFER} in shape, {tuple(logits.shape)} not {tuple(found.shape)}: {remedy}")
        error = _range(found - logits)
        if not error <= share * spread + ROUNDING[share] * size:
            off = f"differences of logits by {error:.3g}, while they spread by {spread:.3g}"
            raise ModelError(f"{DIFFER}, {off}: {remedy}")


def _range(logits: Tensor) -> float:
    """Return the largest |z_i - z_j| of any input."""
    return float((logits.amax(1) - logits.amin(1)).max())


def _run(model: nn.Module, run: Callable[[], Tensor]) -> Tensor:
    try:
        with torch.no_grad(), guard.foreign(type(model).__name__):
            return run().detach().cpu().double()
    except BaseException as error:
        guard.keep_interrupt(error)
        raise ModelError(
            f"{type(model).__name__} fails on the data's own inputs, in its own precision or in float64 "
            f"({describe(error)}): check the inputs, and let layers take dtype and device from their input"
        ) from error
