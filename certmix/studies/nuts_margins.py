"""The logits that MixedNUTS is tuned on: clean, and at each image's point of smallest margin."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from certmix.archives import read_arrays
from certmix.atomic import write_atomically
from certmix.attacks.minimum_margin import minimum_margin
from certmix.calling import call_model
from certmix.errors import DataError, ParameterError
from certmix.nuts.transform import layer_normalize
from certmix.runs.attacking import Batch, Bench, Cell, outputs, reduced
from certmix.studies.attack_request import AttackRequest
from certmix.types import FloatArray, IntArray

__all__ = ["CachedLogits", "margin_cells", "own_attack", "read_cells", "read_logits", "write_logits"]

ATTACK = "apgd-ce"
CLEAN, MARGIN = "clean", "minimum margin"
KEYS = ("standard", "robust", "attacked", "labels", "indices")


@dataclass(frozen=True)
class CachedLogits:
    """Everything that a fit depends on, image by image.

    Parameters
    ----------
    standard, robust
        Clean logits (m, c) of both classifiers.
    attacked
        Logits (m, c) of the robust classifier at its points of smallest margin.
    labels, indices
        int64 (m,).
    """

    standard: FloatArray
    robust: FloatArray
    attacked: FloatArray
    labels: IntArray
    indices: IntArray

    def take(self, rows: IntArray) -> CachedLogits:
        """Return some of the images."""
        return CachedLogits(*(getattr(self, key)[rows] for key in KEYS))

    @property
    def standard_right(self) -> np.ndarray:
        """bool (m,): the standard classifier is right on the clean image."""
        return self.standard.argmax(1) == self.labels


class _Normalized(nn.Module):
    """LN of a classifier's logits: the scale at which margins are comparable between images."""

    def __init__(self, model: nn.Module, top_k: int | None) -> None:
        super().__init__()
        self.model, self.top_k = model, top_k

    def forward(self, inputs: Tensor) -> Tensor:
        return layer_normalize(call_model(self.model, inputs), self.top_k)


def margin_cells(
    bench: Bench,
    pair: tuple[nn.Module, nn.Module],
    *,
    top_k: int | None,
    gradient_free: bool,
    early_stop: bool,
) -> list[Cell]:
    """Return the cells: clean logits of both, and robust logits at the points of smallest margin.

    The second also keeps the margin, what found it, and at which step.
    """
    target = _Normalized(pair[1], top_k).eval()
    margins = partial(_margins, bench, pair[1], target, gradient_free, early_stop)
    return [Cell(CLEAN, lambda batch: outputs(pair, batch.images)), Cell(MARGIN, margins)]


def _margins(
    bench: Bench, robust: nn.Module, target: nn.Module, gradient_free: bool, early_stop: bool, batch: Batch
) -> FloatArray:
    request = bench.request
    budget = {"queries" if gradient_free else "steps": request.steps} if request.steps else {}
    found = minimum_margin(
        reduced(bench, target), batch.images, batch.labels, request.norm, request.radius, **budget,
        restarts=request.restarts, targets=min(9, bench.dataset.classes - 1), gradient_free=gradient_free,
        early_stop=early_stop, box=bench.box, generator=batch.generator,
    )  # fmt: skip
    how = torch.stack([found.margin, found.found_by.double(), found.step.double()], 1)
    return np.concatenate([outputs([robust], found.points), how.cpu().numpy()], 1)


def read_cells(bench: Bench, held: IntArray) -> CachedLogits:
    """Return what the cells hold of the images at positions `held`."""
    dataset, c = bench.dataset, bench.dataset.classes
    indices = dataset.indices[held]
    clean = bench.store.read(CLEAN, indices.tolist())
    attacked = bench.store.read(MARGIN, indices.tolist())[:, :c]
    return CachedLogits(clean[:, :c], clean[:, c:], attacked, dataset.labels[held], indices)


def write_logits(path: Path, cached: CachedLogits) -> None:
    """Write an ``.npz`` of float64 `standard`, `robust`, `attacked` and int64 `labels`, `indices`."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{key: getattr(cached, key) for key in KEYS})
    write_atomically(path, buffer.getvalue())


def read_logits(path: Path) -> CachedLogits:
    """Read such a file; the arrays are checked, and nothing in it is executed.

    Raises
    ------
    DataError
        If it cannot be read, or its arrays do not fit together.
    """
    try:
        with path.open("rb") as file:
            arrays, _ = read_arrays(file, KEYS)
    except Exception as error:
        raise DataError(
            f"{path} is not a readable .npz of logits ({type(error).__name__}): name one"
        ) from None
    lacking = [key for key in KEYS if key not in arrays]
    if lacking:
        raise DataError(f"{path} lacks {lacking[0]!r}: cached logits hold {', '.join(KEYS)}")
    shape = arrays["robust"].shape
    for key in ("standard", "robust", "attacked"):
        good = (
            arrays[key].shape == shape and len(shape) == 2 and arrays[key].dtype in (np.float32, np.float64)
        )
        if not good or not np.isfinite(arrays[key]).all():
            raise DataError(f"{path}: {key} must be finite logits (images, classes), as robust {shape}")
    for key in ("labels", "indices"):
        if arrays[key].shape != shape[:1] or not np.issubdtype(arrays[key].dtype, np.integer):
            raise DataError(f"{path}: {key} must be whole numbers, one for each of {shape[0]} images")
        most = shape[1] - 1 if key == "labels" else np.iinfo(np.int64).max
        if np.any((arrays[key] < 0) | (arrays[key] > most)):
            raise DataError(f"{path}: {key} must lie in 0..{most}")
    standard, robust, attacked = (arrays[key].astype(np.float64) for key in KEYS[:3])
    labels, indices = (arrays[key].astype(np.int64) for key in KEYS[3:])
    return CachedLogits(standard, robust, attacked, labels, indices)


def own_attack(request: AttackRequest | None, steps: int | None) -> AttackRequest:
    """Return a request for the attacks of MixedNUTS studies; `steps` are its steps where it gives none.

    Raises
    ------
    ParameterError
        If it names another attack than a request does by default.
    """
    asked = AttackRequest() if request is None else request
    if asked.attack not in (ATTACK, AttackRequest.attack):
        raise ParameterError(f"attack {asked.attack!r}: MixedNUTS studies run their own suite; leave it out")
    return replace(asked, attack=ATTACK, steps=steps if asked.steps is None else asked.steps)
