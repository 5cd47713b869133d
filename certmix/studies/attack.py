"""Attack one classifier, or a mix: clean against attacked accuracy, and the points found."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from certmix.errors import RunError
from certmix.files import write_atomically
from certmix.models.mixture import MixedClassifier
from certmix.runs.attack_request import AttackRequest, check_weight
from certmix.runs.attacking import Bench, attacked_points, look_for_blindness, outputs
from certmix.runs.cells import Batch, Cell
from certmix.runs.sources import Sources
from certmix.studies.study import (
    Numbers,
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
        bench, dataset = study.bench, study.bench.dataset
        model = study.loaded.robust.module
        if alpha is not None:
            model = MixedClassifier(*study.pair, alpha).eval()
        compute = partial(_attacked, bench, model, save is not None)
        numbers = study.fill([Cell(_cell(save), compute, key="attacked")], ["model"])
        found = evaluate(numbers)
        if save is not None:
            flat = numbers.read(_cell(save))[:, 2 * dataset.classes + 1 :]
            shape = dataset.read(int(bench.positions[0])).shape
            points = flat.reshape(-1, *shape).astype(np.float32)
            found, buffer = replace(found, points=points), io.BytesIO()
            np.savez_compressed(
                buffer, inputs=points, labels=found.labels, indices=found.indices,
                class_names=np.array(dataset.class_names),
            )  # fmt: skip
            write_atomically(save, buffer.getvalue())
        columns = (
            found.indices, found.labels, found.clean.argmax(1), found.attacked.argmax(1),
            map(repr, found.distance.tolist()),
        )  # fmt: skip
        lines = ["idx\tlabel\tclean_prediction\tattacked_prediction\tdistance"]
        lines += ["\t".join(map(str, row)) for row in zip(*columns, strict=True)]
        files = {"images.tsv": ("\n".join(lines) + "\n").encode()}
        return study.publish(numbers, table(numbers, found), {}, found, files=files)


def _cell(save: object) -> str:
    return "attacked" if save is None else "attacked, with points"


def _attacked(bench: Bench, model: nn.Module, keep: bool, batch: Batch) -> FloatArray:
    """Return clean logits, attacked logits, the distance and, if they are kept, the points."""
    look_for_blindness(bench, "model", model, batch)
    points = attacked_points(bench, model, batch)
    order = {"linf": math.inf, "l2": 2, "l1": 1}[bench.request.norm]
    moved = (points.double() - batch.images.double()).flatten(1)
    distance = torch.linalg.vector_norm(moved, order, dim=1).cpu().numpy()[:, None]
    parts = [outputs([model], batch.images), outputs([model], points), distance]
    return np.concatenate([*parts, points.double().flatten(1).cpu().numpy()] if keep else parts, 1)


def evaluate(numbers: Numbers) -> AttackOutcome:
    """Return what stored numbers say; points found are left out."""
    c, kept = len(numbers.class_names), numbers.read(_cell(numbers.asked["save"]))
    clean, attacked, distance = kept[:, :c], kept[:, c : 2 * c], kept[:, 2 * c]
    return AttackOutcome(numbers.indices, numbers.labels, clean, attacked, distance, None)


def table(numbers: Numbers, found: AttackOutcome) -> Table:
    """Return the table: one row."""
    request, alpha, name = numbers.request, numbers.asked["alpha"], numbers.models["robust"]
    if alpha is not None:
        name = f"{numbers.models['standard']} mixed with {name} (alpha = {alpha:g})"
    broken = found.right & ~found.held
    mean = Quantity(float(found.distance[broken].mean()) if broken.any() else None, 4)
    return Table(
        name="attack",
        title="Accuracy (%), clean and attacked, with 95 % intervals over images",
        settings=f"{request.words()}, {len(found.labels):,} images",
        headings=("model", "clean", "attacked", "broken", "mean distance"),
        rows=(
            (name, estimated_accuracy(found.right), attacked_accuracy(found.held), int(broken.sum()), mean),
        ),
        notes=(
            "Attacked accuracy is an upper bound of robust accuracy, not a certificate: "
            "a stronger attack may break more.",
            "Broken: right on the clean image, wrong on the point found; mean distance of those points, "
            f"in the {request.norm} norm.",
            *numbers.blind,
            f"Run: data {numbers.data}; model {name}; seed {request.seed}.",
        ),
        complete=numbers.complete,
    )
