"""The attacked points that an evaluation stored: both base models' logits there, for judging other mixes."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from certmix.errors import RunError
from certmix.runs import VectorStore
from certmix.runs.folder import VECTORS
from certmix.studies.nuts_suite import CLEAN, Contender
from certmix.types import FloatArray, IntArray

__all__ = ["AttackedPoints", "read_points"]

IMAGES = "images.tsv"
SWEEP = "sweep "
"""Cells of the obfuscation check begin so: they cover some images only."""


@dataclass(frozen=True)
class AttackedPoints:
    """Logits of g and h, side by side, on images and at every point that an evaluation found.

    Parameters
    ----------
    folder, data_checksum
        Where they are from.
    labels, indices
        int64 (m,).
    base
        Cell -> float64 (m, 2 c); NaN where an image was not attacked.
    """

    folder: Path
    data_checksum: str
    labels: IntArray
    indices: IntArray
    base: dict[str, FloatArray]

    def right(self, mix: Callable[[Tensor, Tensor], Tensor]) -> np.ndarray:
        """Return bool (m,): right on the image and on each of its points."""
        judge = Contender("", mix)
        return np.logical_and.reduce([judge.right(base, self.labels) for base in self.base.values()])

    def take(self, rows: IntArray) -> AttackedPoints:
        """Return some of the images."""
        base = {name: vectors[rows] for name, vectors in self.base.items()}
        return dataclasses.replace(self, labels=self.labels[rows], indices=self.indices[rows], base=base)


def read_points(folder: Path, run: dict[str, Any]) -> AttackedPoints:
    """Read an evaluation's points: of the images in its table, all attacks but the obfuscation check.

    Raises
    ------
    RunError
        If the evaluation is not finished, or its files are damaged.
    """
    indices, labels = _read_images(folder / IMAGES)
    store = VectorStore(folder / VECTORS, read_only=True)
    try:
        names = [name for name in store.cells() if not name.startswith(SWEEP)]
        base = {name: store.read(name, indices) for name in names}
    finally:
        store.close()
    widths = {vectors.shape[1] for vectors in base.values()}
    if CLEAN not in base or len(widths) != 1 or max(widths) % 2 or max(labels) >= max(widths) // 2:
        raise RunError(f"{folder / VECTORS} does not hold both models' logits: evaluate again with --fresh")
    checksum = str(run["identity"].get("data_checksum"))
    return AttackedPoints(folder, checksum, np.array(labels, np.int64), np.array(indices, np.int64), base)


def _read_images(path: Path) -> tuple[list[int], list[int]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(int(row["idx"]), int(row["label"])) for row in csv.DictReader(file, delimiter="\t")]
        if not all(0 <= number < 2**63 for row in rows for number in row):
            raise ValueError("numbers out of range")
    except FileNotFoundError:
        raise RunError(f"{path.parent} has no {path.name}, it did not finish: evaluate again") from None
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise RunError(f"{path} is damaged ({type(error).__name__}): evaluate again") from None
    if not rows:
        raise RunError(f"{path} names no image: evaluate again")
    return [index for index, _ in rows], [label for _, label in rows]
