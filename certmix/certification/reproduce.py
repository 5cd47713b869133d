"""Run a finished run again from its description and compare, image by image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from certmix.certification.deterministic_request import DeterministicRequest
from certmix.certification.proved import STUDIES, DeterministicResult, run_deterministic
from certmix.certification.proved_table import derived, radii_by_image
from certmix.certification.publish import refuse_unfinished
from certmix.certification.request import CertifyRequest
from certmix.certification.run import CertifyResult, Progress, run_certify
from certmix.certification.stored import data_of
from certmix.errors import RunError
from certmix.runs import ImageRecord, Store, read_run
from certmix.runs.behaviour import Original
from certmix.runs.folder import DATABASE
from certmix.runs.settings import from_json
from certmix.runs.sources import Sources

__all__ = ["Difference", "Reproduction", "reproduce"]


@dataclass(frozen=True)
class Difference:
    """One image whose counts differ: how many of the compared samples voted otherwise."""

    index: int
    selection: int
    estimation: int


@dataclass(frozen=True)
class Reproduction:
    """The new result, images compared, and where their counts differ.

    Without samples ``compares`` is ``radii``, and what differs is in ``changed``.
    """

    result: CertifyResult | DeterministicResult
    compared: int
    differences: tuple[Difference, ...]
    changed: tuple[str, ...]
    compares: str = "counts"

    @property
    def equal(self) -> bool:
        """Whether all counts and all figures agree."""
        return not self.differences and not self.changed


def _moved(before: np.ndarray, after: np.ndarray) -> int:
    """Samples that voted for another class, as far as counts can tell."""
    return int(np.abs(before - after).sum() // 2)


def _compare(before: ImageRecord, after: ImageRecord) -> Difference | None:
    common = set(before.estimation) & set(after.estimation)
    last = max(common, default=0)
    estimation = _moved(before.estimation[last], after.estimation[last]) if common else 0
    difference = Difference(before.index, _moved(before.selection, after.selection), estimation)
    return difference if difference.selection or difference.estimation else None


def _identity_changes(described: dict[str, Any], result: dict[str, Any]) -> list[str]:
    return [
        f"{part}: {described.get(part)} before, {result.get(part)} now"
        for part in result
        if described.get(part) != result.get(part)
    ]


def reproduce(
    folder: Path,
    output: Path,
    *,
    device: str = "auto",
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> Reproduction:
    """Do what a run's ``run.json`` says once more, in another folder, and compare.

    Parameters
    ----------
    folder
        The run to reproduce; it is only read.
    output
        Folder of the new run.
    device, progress, say
        As for `certmix.certify`.  Noise is equal on one device type only.

    Raises
    ------
    RunError
        If the run cannot be read, or is not complete.
    """
    refuse_unfinished(Path(folder))
    if read_run(folder)["identity"].get("study") in STUDIES:
        repeated, indices, changes = _repeat(folder, output, device, say)
        return Reproduction(repeated, len(indices), (), tuple(changes), "radii")
    described = read_run(folder, "certify")
    try:
        request = from_json(CertifyRequest, described["request"])
        sources = Sources.from_dict(described["sources"])
        batch_size, (_, classes) = described.get("batch_size"), data_of(described)
        if not isinstance(batch_size, int | None) or batch_size == 0:
            raise TypeError("a good batch size")
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder}/run.json lacks {error}: only complete runs can be reproduced") from None
    store = Store(folder / DATABASE, classes, read_only=True)
    before = store.images()
    try:
        result = run_certify(
            request, sources, output=output, device=device, batch_size=batch_size,
            progress=progress, say=say, like=Original(folder, described, store),
        )  # fmt: skip
    finally:
        store.close()
    compared = [(before[r.index], r) for r in result.records if r.index in before]
    differences = [found for pair in compared if (found := _compare(*pair)) is not None]
    changed = _identity_changes(described["identity"], read_run(output)["identity"])
    missing = len(result.records) - len(compared)
    if missing:
        changed.append(f"{missing} images have no counts in {folder}")
    return Reproduction(result, len(compared), tuple(differences), tuple(changed))


def _repeat(
    folder: Path, output: Path, device: str, say: Callable[[str], None]
) -> tuple[DeterministicResult, list[str], list[str]]:
    """Do what a run's ``run.json`` says once more; return the result, the images compared, what differs.

    Raises
    ------
    RunError
        If the run cannot be read, or holds no radii.
    """
    described = read_run(folder)
    try:
        request = from_json(DeterministicRequest, described["request"])
        sources = Sources.from_dict(described["sources"])
        batch_size = described["batch_size"]
        if not isinstance(batch_size, int) or batch_size < 1:
            raise TypeError("a good batch size")
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder}/run.json lacks {error}: only complete runs can be reproduced") from None
    store = Store(folder / DATABASE, read_only=True)
    try:
        try:
            before = radii_by_image(derived(request, store, described)[0])
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            told = f"{type(error).__name__} {' '.join(str(error).split())[:200]}"
            raise RunError(f"{folder}/run.json lacks {told}: only complete runs can be reproduced") from None
        result = run_deterministic(
            request, sources, output=output, device=device, batch_size=batch_size, say=say,
            like=Original(folder, described, store),
        )  # fmt: skip
    finally:
        store.close()
    after = radii_by_image(result.outcomes)
    common = [index for index in before if index in after]
    changes = [
        f"image {index}: {column} {before[index].get(column)} before, {after[index][column]} now"
        for index in common
        for column in after[index]
        if before[index].get(column) != after[index][column]
    ]
    changes += _identity_changes(described["identity"], read_run(output)["identity"])
    if len(after) > len(common):
        changes.append(f"{len(after) - len(common)} images have no radii in {folder}")
    return result, common, changes
