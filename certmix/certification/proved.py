"""The recipe without noise: verified margins, and networks of known Lipschitz constant."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from certmix.calling import backward, call_model
from certmix.certification.describe import Recipe, robust_of, views_of
from certmix.certification.proved_table import Outcomes, near_column
from certmix.certification.request.proved import (
    LABEL,
    ROBUST,
    DeterministicRequest,
    Enumerated,
    GivenConstant,
    Margin,
    column_cell,
    margin_cell,
    standard_logits,
)
from certmix.certification.stored import remember_planned
from certmix.data import spread, stack
from certmix.errors import ModelError, ParameterError
from certmix.margins.graph import Graph
from certmix.margins.propagation import certified_radius, margin_lower
from certmix.margins.translation import CHECKED, build_graph
from certmix.models.spec import LoadedModel
from certmix.radii import margin_slack_of
from certmix.radii.constant import STEEPNESS, margin_threshold
from certmix.runs import Run, Store
from certmix.runs.cells import Batch, Cell, Cells, Todo
from certmix.runs.engine import Handler, Open
from certmix.runs.opening import Named
from certmix.runs.sources import Loaded
from certmix.sampling.devices import full_float32
from certmix.sampling.enumerated import Shown
from certmix.text import floor_digits
from certmix.types import FloatArray, IntArray

BATCH = {"margin": 10, "lipschitz-constant": 100, "enumerated": 10}
"""Inputs that are worked on together, and kept together."""
LOOKED_AT = 16
"""Inputs at which a given constant is held against the model's slope."""
SLACK = 1e-3
"""Relative excess that rounding of the model's own arithmetic may explain."""


@dataclass(frozen=True)
class Proving(Recipe):
    """A certification without noise.  Bounds are propagated on the CPU, whatever the device."""

    request: DeterministicRequest

    @property
    def step(self) -> int:
        """Inputs that are kept together; of votes, the batch size is of what is shown of one."""
        usual = BATCH[self.request.certificate]
        return usual if isinstance(self.request, Enumerated) else self.passes.batch_size or usual

    @cached_property
    def cells(self) -> Cells:
        """What follows from the robust model."""
        return cells_of(self.request, self.loaded, self.passes.device, self.step, self.passes.batch_size)

    def expectations(self) -> list[str]:
        """Return what cannot be shown; layers that no bound passes are refused."""
        _ = self.cells  # made here, so that such layers are refused before a folder is
        if self.request.alpha == 0.5:
            return ["alpha = 0.5: the mix ties with the worst accurate classifier everywhere: raise --alpha"]
        return []

    def admit(self, run: Run) -> dict[str, Any]:
        """Refuse a constant that the model refutes; return what ``run.json`` says of this request."""
        if isinstance(self.request, GivenConstant):
            self._refute(self.request, run.store)
        indices = self.loaded.dataset.indices[self.everyone]
        remember_planned(run.store, self.request.inputs, indices.tolist())
        if isinstance(self.request, Enumerated):
            self._check_views()
            return self.described()
        return self.described(batch_size=self.step)

    def standard(self, model: LoadedModel) -> Cell:
        """Return the cell of the standard model's logits."""
        return Cell(standard_logits(model.checksum), partial(_logits, model))

    def todo(self, store: Store) -> Todo:
        """Return which inputs lack any figure."""
        return self.cells.todo(store, self.positions, self.elsewhere)

    def _check_views(self) -> None:
        """Refuse inputs that the kind says nothing of, as far as some tell, and a model that mixes cases."""
        shown, dataset = self.loaded.robust.module, self.loaded.dataset
        assert isinstance(shown, Shown)
        looked = self.positions[:: max(1, len(self.positions) // LOOKED_AT)]
        inputs = torch.from_numpy(stack(dataset, looked)).to(self.passes.device)
        shown.views.refuse(inputs, dataset.name)
        with full_float32():
            shown.check(inputs[0], self.passes.batch_size, self.loaded.robust.name)
        assert isinstance(self.request, Enumerated)
        self.request.refuse_wider(inputs.shape[-1])

    def look_at(self, found: Outcomes) -> None:
        """Point out a robust model near chance."""
        right, total = int((found.robust == found.labels).sum()), len(found.labels)
        if total:
            self.near_chance(self.loaded.robust, right, total)

    def elsewhere(self) -> Open:
        """Return what makes, in another process, a handler of the same data and model."""
        views = views_of(self.request)
        named = Named.of(
            self.sources, robust_of(self.request, self.sources), self.loaded, self.passes.device, views=views
        )
        return partial(_load, self.request, named, self.step, self.passes.batch_size)

    @full_float32()
    def _refute(self, request: GivenConstant, store: Store) -> None:
        """Refuse a constant below a slope that the model shows at some input; one that passes is not proved.

        The slope of z_y - z_i (or h_y - h_i), y and i the two largest, is the dual norm of its gradient;
        every valid constant is at least this slope over `STEEPNESS`.
        """
        (constant, what), robust = request.given, self.loaded.robust
        key = f"slope of {'probabilities' if what == 'probabilities' else 'logits'}, {request.norm}"
        known, largest = store.get(key), 0.0
        if known is None:
            order = {"l2": 2.0, "linf": 1.0, "l1": float("inf")}[request.norm]  # dual to the inputs' norm
            looked = self.positions[:: max(1, len(self.positions) // LOOKED_AT)]
            inputs = torch.from_numpy(stack(self.loaded.dataset, looked)).to(self.passes.device)
            for part in inputs.split(self.step):
                x = part.clone().requires_grad_(True)
                with torch.enable_grad():
                    values = call_model(robust.module, x, robust.name)
                    if what == "probabilities":
                        values = values.double().softmax(1)
                    first, second = values.topk(2, dim=1).values.unbind(1)
                    difference = (first - second).sum()
                    if not difference.requires_grad:  # nothing is refuted
                        largest = 0.0
                        break
                    (gradient,) = backward(difference, x)
                norms = torch.linalg.vector_norm(gradient.flatten(1).double(), order, dim=1)
                largest = max(largest, float(norms.max()))
        slope = largest if known is None else float(known)
        least = slope / STEEPNESS[what]
        if least > constant * (1 + SLACK):
            raise ParameterError(
                f"Lipschitz constant {constant:g}: {robust.name} is steeper than that at an "
                f"input, which needs {floor_digits(least, 4)} at least: give a proved upper bound "
                "(PyTorch's spectral_norm and orthogonal are none for convolutions)"
            )
        if known is None:
            store.put(key, repr(slope))


def cells_of(
    request: DeterministicRequest, loaded: Loaded, device: torch.device, step: int, together: int | None
) -> Cells:
    """Return the cells that follow from the robust model; its layers are compared with it on some inputs."""
    cells = [Cell(ROBUST, partial(_logits, loaded.robust))]
    if isinstance(request, Enumerated):
        cells = [Cell(request.cell, partial(_ballots, loaded.robust, together))]
    if isinstance(request, Margin):
        checked = torch.from_numpy(stack(loaded.dataset, spread(len(loaded.dataset), CHECKED)))
        graph = build_graph(loaded.robust.module, checked)
        for alpha in dict.fromkeys(request.weights()):
            cells += _margin_cells(request, graph, loaded, step, alpha)
    cells.append(Cell(LABEL, lambda batch: batch.labels.cpu().numpy()[:, None]))
    return Cells(cells, loaded.dataset, device, step)


def _load(
    request: DeterministicRequest, named: Named, step: int, together: int | None, device: str
) -> Handler:
    """Return what works in another process, which loads data and robust model itself."""
    chosen = torch.device(device)
    return cells_of(request, named.load(chosen), chosen, step, together).handler()


def _ballots(model: LoadedModel, together: int | None, batch: Batch) -> IntArray:
    """Return the answer to each case of each input, (m, n)."""
    shown, found = model.module, []
    assert isinstance(shown, Shown)
    for index, input in zip(batch.indices.tolist(), batch.inputs, strict=True):
        shown.views.refuse(input, f"input {index}")
        found.append(shown.ballots(input, together, model.name).cpu().numpy())
    return np.stack(found)


def _logits(model: LoadedModel, batch: Batch) -> FloatArray:
    """Return a model's clean logits; ModelError if one is not finite."""
    with torch.inference_mode():
        logits: FloatArray = call_model(model.module, batch.inputs, model.name).double().cpu().numpy()
    if not np.isfinite(logits).all():
        index = batch.indices[~np.isfinite(logits).all(1)][0]
        raise ModelError(f"{model.name} gives input {index} logits that are not finite: check its weights")
    return logits


def _margin_cells(request: Margin, graph: Graph, loaded: Loaded, step: int, alpha: float) -> list[Cell]:
    """Return the cells of one alpha: radii that bisection verifies, columns that it stopped just short of."""
    threshold = margin_threshold(alpha, margin_slack_of(alpha))
    how: dict[str, Any] = {
        "method": request.bound_method, "input_range": loaded.dataset.input_range,
        "arithmetic": request.arithmetic, "chunk": step,
    }  # fmt: skip

    def given(batch: Batch) -> tuple[torch.Tensor, IntArray, str]:
        logits = batch.held.read(ROBUST, batch.indices.tolist())
        return batch.inputs.cpu(), logits.argmax(1).astype(np.int64), request.norm

    def radii(batch: Batch) -> FloatArray:
        found = certified_radius(
            graph, *given(batch), threshold, max_eps=request.max_radius, tolerance=request.tolerance, **how
        )
        share = np.full(len(batch.indices), found.evaluations / len(batch.indices))
        return np.stack([found.radius, found.status.astype(np.float64), share], 1)

    def reached(column: float, batch: Batch) -> FloatArray:
        margins = margin_lower(graph, *given(batch), column, **how)
        return ((margins >= threshold) & (margins > 0))[:, None].astype(np.float64)

    def near(column: float, store: Store, indices: IntArray) -> NDArray[np.bool_]:
        return near_column(request, store.read(margin_cell(alpha), indices.tolist())[:, 0], column)

    columns = [
        Cell(column_cell(alpha, column), partial(reached, column), wanted=partial(near, column))
        for column in request.radii
    ]
    return [Cell(margin_cell(alpha), radii), *columns]
