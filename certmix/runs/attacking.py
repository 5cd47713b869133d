"""What the cells of empirical studies share: their bench, attacked points, outputs, and blind attacks."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from certmix.attacks import ATTACKS
from certmix.attacks.diagnose import diagnose_gradients
from certmix.calling import call_model
from certmix.errors import DataError, ParameterError
from certmix.runs import Store
from certmix.runs.attack_request import AttackRequest
from certmix.runs.cells import Batch, Cell, Cells, Progress
from certmix.runs.cells import fill as fill_cells
from certmix.sampling.devices import PRECISIONS, full_float32
from certmix.types import Dataset, FloatArray, IntArray

DIAGNOSED = 16
"""Inputs on which an attacked model's gradients are looked at."""


@dataclass(frozen=True)
class Bench:
    """What the cells of one study share; ``blind`` names mixes that gradients do not see whole."""

    dataset: Dataset
    positions: IntArray
    device: torch.device
    request: AttackRequest
    store: Store
    progress: Callable[[Progress], None] | None = None
    say: Callable[[str], None] = field(default=lambda message: None)
    blind: tuple[str, ...] = ()

    @property
    def indices(self) -> IntArray:
        """The inputs' indices in the data set's source."""
        return self.dataset.indices[self.positions]

    @property
    def labels(self) -> IntArray:
        """int64 (m,)."""
        return self.dataset.labels[self.positions]

    @property
    def box(self) -> tuple[float, float]:
        """Range of the inputs."""
        if self.dataset.input_range is None:
            raise DataError(f"{self.dataset.name} has no input range: attacks need one: give --input-range")
        return self.dataset.input_range


def fill(bench: Bench, wanted: Sequence[Cell]) -> tuple[IntArray, bool]:
    """Compute what the cells lack; return the positions that all cells hold, and whether that is all."""
    asked = Cells(wanted, bench.dataset, bench.device, bench.request.batch_size, bench.request.seed)
    todo = asked.todo(bench.store, bench.positions)
    complete = fill_cells(bench.store, todo, progress=bench.progress)
    return bench.positions[~asked.lacking(bench.store, bench.positions)], complete


@full_float32()
def outputs(models: Sequence[nn.Module], inputs: Tensor) -> FloatArray:
    """Return the models' logits side by side, float64 (n, models * classes)."""
    with torch.no_grad():
        return np.concatenate([call_model(model, inputs).double().cpu().numpy() for model in models], 1)


def attacked_points(
    bench: Bench,
    model: nn.Module,
    batch: Batch,
    *,
    early_stop: bool = True,
    attack: str | None = None,
    quick: nn.Module | None = None,
    **settings: Any,
) -> Tensor:
    """Run the study's attack on a model; with reduced precision, inputs it only seemed to break are redone.

    `early_stop` False goes on raising the loss of misclassified inputs, as attacks that are to transfer need.
    `attack` is another name in `ATTACKS`, `settings` are more of its settings, `quick` is the reduced model.
    """
    request, inputs, labels = bench.request, batch.inputs, batch.labels
    own = request.replace(attack=attack or request.attack)
    if own.attack == "autoattack":
        if not early_stop:
            raise ParameterError("autoattack makes no points that transfer: use --attack apgd-ce here")
        settings["say"] = bench.say
    function = ATTACKS[own.attack].function
    settings = {
        **own.settings(), **settings, "box": bench.box, "early_stop": early_stop,
        "generator": batch.generator,
    }  # fmt: skip
    if PRECISIONS[request.precision] is None:
        return function(model, inputs, labels, request.norm, request.eps, **settings)
    fast = reduced(bench, model) if quick is None else quick
    points = function(fast, inputs, labels, request.norm, request.eps, **settings)
    with torch.no_grad():
        seemed = call_model(fast, points).argmax(1) != labels
        redo = seemed & (call_model(model, points).argmax(1) == labels)
    if redo.any():
        points[redo] = function(model, inputs[redo], labels[redo], request.norm, request.eps, **settings)
    return points


def reduced(bench: Bench, model: nn.Module) -> nn.Module:
    """Return the model in the study's precision: itself, or a copy that runs under autocast."""
    dtype = PRECISIONS[bench.request.precision]
    return model if dtype is None else _Autocast(model, bench.device, getattr(torch, dtype))


class _Autocast(nn.Module):
    """A copy of a model whose passes run in reduced precision, channels last where inputs are images."""

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device, self._dtype = device.type, dtype
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device, self._dtype):
            logits = call_model(self.model, inputs)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


def look_for_blindness(bench: Bench, name: str, model: nn.Module, batch: Batch) -> None:
    """Find out once, and keep with the study, whether the study's attack may be blind on this model."""
    key, attack = f"blindness/{name}", ATTACKS[bench.request.attack]
    if bench.store.get(key) is None and not attack.gradient_free:
        found = diagnose_gradients(
            model, batch.inputs[:DIAGNOSED], batch.labels[:DIAGNOSED], loss=attack.loss
        )
        bench.store.put(key, json.dumps(list(found.messages)))


def attacked_outputs(
    bench: Bench, judged: Sequence[nn.Module], name: str, model: nn.Module, early_stop: bool, batch: Batch
) -> FloatArray:
    """Return the logits of `judged` at the points found against one model, called `name` in the study."""
    look_for_blindness(bench, name, model, batch)
    return outputs(judged, attacked_points(bench, model, batch, early_stop=early_stop))


def blind_notes(store: Store, names: Sequence[str]) -> tuple[str, ...]:
    """Return why attacks on these cells' models may be blind; cells with the same trouble share a line."""
    troubled: dict[str, list[str]] = {}
    for name in names:
        for message in json.loads(store.get(f"blindness/{name}") or "[]"):
            troubled.setdefault(str(message), []).append(name)
    notes = []
    for message, cells in troubled.items():
        few = cells if len(cells) <= 3 else [f"{cells[0]}, {cells[1]} and {len(cells) - 2} more"]
        notes.append(f"{', '.join(few)}: {message} (docs/attacks.md#honest-figures)")
    return tuple(notes)
