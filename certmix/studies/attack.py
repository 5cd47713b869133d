"""Attack one classifier, or a mix: clean against attacked accuracy, and the points found."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from certmix.errors import RunError
from certmix.files import write_atomically
from certmix.models.mixture import MixedClassifier
from certmix.runs.attack_request import AttackRequest, check_weight
from certmix.runs.attacking import (
    Batch,
    Bench,
    Cell,
    attacked_points,
    blind_notes,
    fill_some,
    look_for_blindness,
    outputs,
)
from certmix.runs.sources import Sources
from certmix.studies.study import (
    Study,
    StudyResult,
    Surroundings,
    attacked_accuracy,
    estimated_accuracy,
    open_study,
)
from certmix.tables.table import Quantity, Table
from certmix.types import FloatArray, IntArray

__all__ = ["AttackOutcome", "attack"]


@dataclass(frozen=True)
class AttackOutcome:
    """What an attack did to each image.

    Parameters
    ----------
    indices, labels
        int64 (m,).
    clean, attacked
        Logits (m, c) of the clean images and of the points found.
    distance
        float64 (m,): norm of the perturbation.
    points
        float32 (m, ...), None unless they were asked for.
    """

    indices: IntArray
    labels: IntArray
    clean: FloatArray
    attacked: FloatArray
    distance: FloatArray
    points: np.ndarray | None

    @property
    def right(self) -> np.ndarray:
        """bool (m,): right on the clean image."""
        return self.clean.argmax(1) == self.labels

    @property
    def held(self) -> np.ndarray:
        """bool (m,): right on the clean image and on the point found."""
        return self.right & (self.attacked.argmax(1) == self.labels)


def attack(
    request: AttackRequest | None = None,
    sources: Sources | None = None,
    where: Surroundings | None = None,
    *,
    alpha: float | None = None,
    save: Path | None = None,
) -> StudyResult:
    """Attack the robust model of the sources, or the mix of both at `alpha`.

    Parameters
    ----------
    request
        Attack and images.
    sources, where
        Data and models; where and how to run.
    alpha
        Mixing weight in [0, 1]; None attacks the robust model alone.
    save
        Write the points found to this ``.npz`` file, which ``--data`` reads.

    Returns
    -------
    StudyResult
        ``.table`` is the table, ``.data`` the `AttackOutcome`.

    Raises
    ------
    CertmixError
        For anything the user can mend.
    """
    request = request or AttackRequest()
    alpha = None if alpha is None else check_weight(alpha)
    if save is not None and save.suffix.lower() != ".npz":
        raise RunError(f"{save}: adversarial images are saved as .npz: name such a file")
    with open_study(
        "attack", request, sources or Sources(standard=None), where or Surroundings(),
        asked={"alpha": alpha, "save": None if save is None else str(save)}, identity={"alpha": alpha},
        mixes=alpha is not None,
    ) as study:  # fmt: skip
        model, name = _model(study, alpha)
        cell = _cell(study, model, save is not None)
        held, complete = fill_some(study.bench, [cell])
        found = _outcome(study, held, cell, save is not None)
        if save is not None:
            _save(save, study, found)
        table = _table(study, name, found, complete, blind_notes(study.bench, ["model"]))
        return study.publish(table, {}, found, files={"images.tsv": _rows(found)})


def _model(study: Study, alpha: float | None) -> tuple[nn.Module, str]:
    loaded = study.loaded
    if alpha is None:
        return loaded.robust.module, loaded.robust.name
    assert loaded.standard is not None
    mix = MixedClassifier(loaded.standard.module, loaded.robust.module, alpha).eval()
    return mix, f"{loaded.standard.name} mixed with {loaded.robust.name} (alpha = {alpha:g})"


def _cell(study: Study, model: nn.Module, keep: bool) -> Cell:
    name = "attacked, with points" if keep else "attacked"
    return Cell(name, partial(_attacked, study.bench, model, keep), key="attacked")


def _attacked(bench: Bench, model: nn.Module, keep: bool, batch: Batch) -> FloatArray:
    """Return clean logits, attacked logits, the distance and, if they are kept, the points."""
    look_for_blindness(bench, "model", model, batch)
    points = attacked_points(bench, model, batch)
    order = {"linf": math.inf, "l2": 2, "l1": 1}[bench.request.norm]
    moved = (points.double() - batch.images.double()).flatten(1)
    distance = torch.linalg.vector_norm(moved, order, dim=1).cpu().numpy()[:, None]
    parts = [outputs([model], batch.images), outputs([model], points), distance]
    return np.concatenate([*parts, points.double().flatten(1).cpu().numpy()] if keep else parts, 1)


def _outcome(study: Study, held: IntArray, cell: Cell, keep: bool) -> AttackOutcome:
    dataset, c = study.bench.dataset, study.bench.dataset.classes
    indices = dataset.indices[held]
    kept = study.bench.store.read(cell.name, indices.tolist())
    points = None
    if keep:
        shape = dataset.read(int(held[0])).shape
        points = kept[:, 2 * c + 1 :].reshape(-1, *shape).astype(np.float32)
    return AttackOutcome(
        indices, dataset.labels[held], kept[:, :c], kept[:, c : 2 * c], kept[:, 2 * c], points
    )


def _save(path: Path, study: Study, found: AttackOutcome) -> None:
    assert found.points is not None
    buffer = io.BytesIO()
    names = np.array(study.bench.dataset.class_names)
    np.savez_compressed(
        buffer, inputs=found.points, labels=found.labels, indices=found.indices, class_names=names
    )
    write_atomically(path, buffer.getvalue())


def _rows(found: AttackOutcome) -> bytes:
    """Return one line an image, tab separated."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(["idx", "label", "clean_prediction", "attacked_prediction", "distance"])
    for index, label, clean, attacked, distance in zip(
        found.indices, found.labels, found.clean.argmax(1), found.attacked.argmax(1), found.distance,
        strict=True,
    ):  # fmt: skip
        writer.writerow([int(index), int(label), int(clean), int(attacked), repr(float(distance))])
    return text.getvalue().encode()


def _table(study: Study, name: str, found: AttackOutcome, complete: bool, blind: tuple[str, ...]) -> Table:
    request, images = study.bench.request, len(found.labels)
    broken = found.right & ~found.held
    mean = float(found.distance[broken].mean()) if broken.any() else None
    rows: tuple[tuple[Any, ...], ...] = (
        (
            name,
            estimated_accuracy(found.right),
            attacked_accuracy(found.held),
            int(broken.sum()),
            Quantity(mean, 4),
        ),
    )
    return Table(
        name="attack",
        title="Accuracy (%), clean and attacked, with 95 % intervals over images",
        settings=f"{request.words()}, {images:,} images",
        headings=("model", "clean", "attacked", "broken", "mean distance"),
        rows=rows,
        notes=(
            "Attacked accuracy is an upper bound of robust accuracy, not a certificate: "
            "a stronger attack may break more.",
            "Broken: right on the clean image, wrong on the point found; mean distance of those points, "
            f"in the {request.norm} norm.",
            *blind,
            f"Run: data {study.loaded.dataset.name}; model {name}; seed {request.seed}.",
        ),
        complete=complete,
    )
