"""What is stored of an image without samples: clean logits of both models, verified radii."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from certmix.calling import call_model
from certmix.certification.deterministic_request import (
    ROBUST,
    DeterministicRequest,
    Margin,
    column_cell,
    margin_cell,
    standard_logits,
)
from certmix.data import spread, stack
from certmix.errors import ModelError
from certmix.margins.graph import Graph
from certmix.margins.propagation import certified_radius, margin_lower
from certmix.margins.translation import CHECKED, build_graph
from certmix.models.spec import LoadedModel
from certmix.radii import margin_slack_of
from certmix.radii.constant import margin_threshold
from certmix.runs import Store
from certmix.runs.attacking import Progress
from certmix.runs.sources import Loaded
from certmix.types import FloatArray, IntArray

__all__ = [
    "Work", "fill", "graph_of", "keep_logits", "unfinished",
]  # fmt: skip

BATCH = {"margin": 10, "lipschitz-constant": 100}
"""Images that are worked on together, and kept together."""


@dataclass(frozen=True)
class Work:
    """What the steps of one run share; ``graph`` is the robust model's, for bound propagation only."""

    request: DeterministicRequest
    loaded: Loaded
    device: torch.device
    batch_size: int | None
    graph: Graph | None
    store: Store
    progress: Callable[[Progress], None] | None
    say: Callable[[str], None] = field(default=lambda message: None)

    @property
    def step(self) -> int:
        """Images in one batch."""
        return self.batch_size or BATCH[self.request.certificate]

    @property
    def bounded(self) -> nn.Module | Graph:
        """What bounds are propagated through."""
        return self.loaded.robust.module if self.graph is None else self.graph


def graph_of(request: DeterministicRequest, loaded: Loaded) -> Graph | None:
    """Return the robust model's layers, if bounds are to be propagated through them.

    They are compared with the model on images of the data.

    Raises
    ------
    ModelError
        As `certmix.margins.build_graph`.
    """
    if request.certificate != "margin":
        return None
    positions = spread(len(loaded.dataset), CHECKED)
    return build_graph(loaded.robust.module, torch.from_numpy(stack(loaded.dataset, positions)))


def fill(work: Work, positions: IntArray) -> None:
    """Compute what the store lacks of one batch of images, and keep it."""
    _logits(work, positions)
    if work.request.certificate == "margin":
        for alpha in _weights(work):
            _margins(work, positions, alpha)
            _columns(work, positions, alpha)


def unfinished(work: Work, positions: IntArray) -> set[int]:
    """Return the positions of which the store lacks anything that follows from the robust model."""
    found = set(_lacking(work, ROBUST, positions).tolist())
    if work.request.certificate != "margin":
        return found
    for alpha in _weights(work):
        missing = _lacking(work, margin_cell(alpha), positions)
        found.update(missing.tolist())
        for column, near in _near(work, np.setdiff1d(positions, missing), alpha):
            found.update(_lacking(work, column_cell(alpha, column), near).tolist())
    return found


def _weights(work: Work) -> list[float]:
    return list(dict.fromkeys(work.request.weights()))


def _lacking(work: Work, cell: str, positions: IntArray) -> IntArray:
    known, indices = work.store.known(cell), work.loaded.dataset.indices
    return np.array([p for p in positions.tolist() if int(indices[p]) not in known], np.int64)


def _inputs(work: Work, positions: IntArray) -> torch.Tensor:
    return torch.from_numpy(stack(work.loaded.dataset, positions))


def _logits(work: Work, positions: IntArray) -> None:
    """Keep both models' clean logits."""
    keep_logits(work, ROBUST, work.loaded.robust, positions)
    if work.loaded.standard is not None:
        keep_logits(work, standard_logits(work.loaded.standard.checksum), work.loaded.standard, positions)


def keep_logits(work: Work, cell: str, model: LoadedModel, positions: IntArray) -> None:
    """Keep a model's clean logits of images that lack them.

    Raises
    ------
    ModelError
        If one is not finite.
    """
    missing = _lacking(work, cell, positions)
    if not len(missing):
        return
    with torch.inference_mode():
        inputs = _inputs(work, missing).to(work.device)
        logits = call_model(model.module, inputs, model.name).double().cpu().numpy()
    if not np.isfinite(logits).all():
        index = work.loaded.dataset.indices[missing][~np.isfinite(logits).all(1)][0]
        raise ModelError(f"{model.name} gives image {index} logits that are not finite: check its weights")
    work.store.write(cell, work.loaded.dataset.indices[missing], logits)


def _classes(work: Work, positions: IntArray) -> IntArray:
    logits = work.store.read(ROBUST, work.loaded.dataset.indices[positions].tolist())
    return logits.argmax(1).astype(np.int64)


def _margins(work: Work, positions: IntArray, alpha: float) -> None:
    """Keep the radii that bisection verifies."""
    missing = _lacking(work, margin_cell(alpha), positions)
    if not len(missing):
        return
    request = work.request
    assert isinstance(request, Margin)
    found = certified_radius(
        work.bounded, _inputs(work, missing), _classes(work, missing), request.norm,
        margin_threshold(alpha, margin_slack_of(alpha)), max_eps=request.max_radius,
        tolerance=request.tolerance, method=request.bound_method,
        input_range=work.loaded.dataset.input_range, chunk=work.step,
    )  # fmt: skip
    share = np.full(len(missing), found.evaluations / len(missing))
    values = np.stack([found.radius, found.status.astype(np.float64), share], 1)
    work.store.write(margin_cell(alpha), work.loaded.dataset.indices[missing], values)


def _near(work: Work, positions: IntArray, alpha: float) -> list[tuple[float, IntArray]]:
    """Return each column of the table, and the positions whose bisection stopped just short of it."""
    indices = work.loaded.dataset.indices[positions]
    if not len(indices):
        return []
    radii: FloatArray = work.store.read(margin_cell(alpha), indices.tolist())[:, 0]
    assert isinstance(work.request, Margin)
    reach = radii + 2 * work.request.tolerance
    return [
        (column, positions[(radii < column) & (column <= reach) & (radii > 0)])
        for column in work.request.radii
    ]


def _columns(work: Work, positions: IntArray, alpha: float) -> None:
    """Look at columns of the table that bisection stopped just short of."""
    assert isinstance(work.request, Margin)
    for column, near in _near(work, positions, alpha):
        missing = _lacking(work, column_cell(alpha, column), near)
        if not len(missing):
            continue
        margins = margin_lower(
            work.bounded, _inputs(work, missing), _classes(work, missing), work.request.norm, column,
            method=work.request.bound_method, input_range=work.loaded.dataset.input_range,
            chunk=work.step,
        )  # fmt: skip
        verified = (margins >= margin_threshold(alpha, margin_slack_of(alpha))) & (margins > 0)
        cell = column_cell(alpha, column)
        work.store.write(cell, work.loaded.dataset.indices[missing], verified[:, None].astype(np.float64))
