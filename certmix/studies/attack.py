"""Attack one classifier, or a mix: clean against attacked accuracy, and the points found."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from certmix.errors import ParameterError, RunError
from certmix.files import write_atomically
from certmix.models.temperature import check_mix
from certmix.runs.attack_request import AttackRequest, check_weight
from certmix.runs.attacking import attacked_points, look_for_blindness, outputs
from certmix.runs.cells import Batch, Cell
from certmix.runs.sources import Sources
from certmix.studies.shares import attacked_accuracy, estimated_accuracy, inputs_file
from certmix.studies.study import Numbers, StudyResult, Surroundings, open_study, surrogate_notes
from certmix.tables.table import Quantity, Table
from certmix.tables.words import temperature_words
from certmix.types import FloatArray, IntArray

__all__ = ["AttackOutcome", "attack"]


@dataclass(frozen=True)
class AttackOutcome:
    """What an attack did to each input: indices, labels (m,); logits (m, c), clean and at its point.

    ``distance``, float64 (m,), is the norm of the perturbation; ``points``, float32 (m, ...), are None if
    unasked.
    """

    indices: IntArray
    labels: IntArray
    clean: FloatArray
    attacked: FloatArray
    distance: FloatArray
    points: np.ndarray | None

    @property
    def right(self) -> np.ndarray:
        """bool (m,): right on the clean input."""
        return self.clean.argmax(1) == self.labels

    @property
    def held(self) -> np.ndarray:
        """bool (m,): right on the clean input and on the point found."""
        return self.right & (self.attacked.argmax(1) == self.labels)


def attack(
    request: AttackRequest | None = None,
    sources: Sources | None = None,
    where: Surroundings | None = None,
    *,
    alpha: float | None = None,
    standard_temperature: float = 1.0,
    save: Path | None = None,
) -> StudyResult:
    """Attack the robust model of the sources, or the mix of both at a weight `alpha` in [0, 1].

    g's logits are divided by `standard_temperature` there, and at 0 its class counts alone: no gradient flows
    through that, so the attack follows the gradient of the mix with g as it is
    (`certmix.nuts.adaptive.direct_bypass`), and what it finds is judged by the mix itself.

    ``.data`` of the result is the `AttackOutcome`; `save` is an ``.npz`` file for the points found, which
    ``--data`` reads.
    """
    request = request or AttackRequest()
    alpha = None if alpha is None else check_weight(alpha)
    if alpha is not None:
        check_mix(alpha, standard_temperature)
    elif standard_temperature != 1.0:
        raise ParameterError(f"standard temperature = {standard_temperature:g}: it is of the mix: give alpha")
    sharp = {} if alpha is None else {"standard_temperature": float(standard_temperature)}
    if save is not None and save.suffix.lower() != ".npz":
        raise RunError(f"{save}: adversarial inputs are saved as .npz: name such a file")
    cell = _cell(save)
    with open_study(
        "attack", request, sources or Sources(standard=None), where,
        asked={"alpha": alpha, **sharp, "save": None if save is None else str(save)},
        identity={"alpha": alpha, **sharp},
        mixes=alpha is not None,
    ) as study:  # fmt: skip
        bench, dataset = study.bench, study.bench.dataset
        model = study.loaded.robust.module
        if alpha is not None:
            model = study.mix(alpha, standard_temperature)

        def attacked(batch: Batch) -> FloatArray:
            """Return clean logits, attacked logits, the distance and, if they are kept, the points."""
            look_for_blindness(bench, "model", model, batch)
            points = attacked_points(bench, model, batch)
            order = {"linf": math.inf, "l2": 2, "l1": 1}[request.norm]
            moved = (points.double() - batch.inputs.double()).flatten(1)
            distance = torch.linalg.vector_norm(moved, order, dim=1).cpu().numpy()[:, None]
            parts = [outputs([model], batch.inputs), outputs([model], points), distance]
            if save is not None:
                parts.append(points.double().flatten(1).cpu().numpy())
            return np.concatenate(parts, 1)

        numbers = study.fill([Cell(cell, attacked, key="attacked")], ["model"])
        found = view(numbers)
        if save is not None:
            flat = numbers.read(cell)[:, 2 * dataset.classes + 1 :]
            shape = dataset.read(int(bench.positions[0])).shape
            points = flat.reshape(-1, *shape).astype(np.float32)
            found, buffer = replace(found, data=replace(found.data, points=points)), io.BytesIO()
            np.savez_compressed(
                buffer, inputs=points, labels=numbers.labels, indices=numbers.indices,
                class_names=np.array(dataset.class_names),
            )  # fmt: skip
            write_atomically(save, buffer.getvalue())
        return numbers.publish(study.run, found)


def _cell(save: object) -> str:
    return "attacked" if save is None else "attacked, with points"


def view(numbers: Numbers) -> StudyResult:
    """Return the table, one row, and what happened to each input; points found are left out."""
    c, kept = len(numbers.class_names), numbers.read(_cell(numbers.asked["save"]))
    clean, attacked, distance = kept[:, :c], kept[:, c : 2 * c], kept[:, 2 * c]
    found = AttackOutcome(numbers.indices, numbers.labels, clean, attacked, distance, None)
    request, alpha, name = numbers.request, numbers.asked["alpha"], numbers.models["robust"]
    surrogate: tuple[str, ...] = ()
    if alpha is not None:
        surrogate = surrogate_notes(numbers.asked["standard_temperature"])
        parts = [f"alpha = {alpha:g}", *temperature_words(numbers.asked["standard_temperature"])]
        name = f"{numbers.models['standard']} mixed with {name} ({', '.join(parts)})"
    broken = found.right & ~found.held
    mean = Quantity(float(distance[broken].mean()) if broken.any() else None, 4)
    table = Table(
        name="attack",
        title="Accuracy (%), clean and attacked, with 95 % intervals over inputs",
        settings=f"{request.words()}, {len(found.labels):,} inputs",
        headings=("model", "clean", "attacked", "broken", "mean distance"),
        rows=(
            (name, estimated_accuracy(found.right), attacked_accuracy(found.held), int(broken.sum()), mean),
        ),
        notes=(
            "Attacked accuracy is an upper bound of robust accuracy, not a certificate: "
            "a stronger attack may break more.",
            "Broken: right on the clean input, wrong on the point found; mean distance of those points, "
            f"in the {request.norm} norm.",
            *surrogate,
            *numbers.blind,
            f"Run: data {numbers.data}; model {name}; seed {request.seed}.",
        ),
        complete=numbers.complete,
    )
    columns = (
        found.indices, found.labels, clean.argmax(1), attacked.argmax(1), map(repr, distance.tolist()),
    )  # fmt: skip
    headings = ("idx", "label", "clean_prediction", "attacked_prediction", "distance")
    return StudyResult(table, data=found, files=inputs_file(headings, columns))
