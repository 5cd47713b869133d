"""Run a finished run again from its description and compare, image by image."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from certmix.certification.evaluate import CertifyResult
from certmix.certification.proved_table import radii_by_image
from certmix.certification.publish import derive, refuse_unfinished
from certmix.certification.request import KINDS
from certmix.certification.run import Progress, run_certify
from certmix.certification.stored import data_of
from certmix.errors import RunError
from certmix.runs import ImageRecord, Store, read_run
from certmix.runs.behaviour import hold_original
from certmix.runs.folder import CERTIFY, DATABASE
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

    result: CertifyResult
    compared: int
    differences: tuple[Difference, ...]
    changed: tuple[str, ...]
    compares: str = "counts"

    @property
    def equal(self) -> bool:
        """Whether all counts and all figures agree."""
        return not self.differences and not self.changed


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
    study = str(read_run(folder)["identity"].get("study", CERTIFY))
    described = read_run(folder, study if study in KINDS else CERTIFY)
    sampled = study == CERTIFY
    try:
        request = from_json(KINDS[study], described["request"])
        sources = Sources.from_dict(described["sources"])
        batch_size, (_, classes) = described.get("batch_size"), data_of(described)
        if not isinstance(batch_size, int | None) or batch_size == 0:
            raise TypeError("a good batch size")
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder}/run.json lacks {error}: only complete runs can be reproduced") from None
    with closing(Store(folder / DATABASE, classes if sampled else None, read_only=True)) as store:
        try:
            before: dict[Any, Any] = dict(store.images()) if sampled else {}
            if not sampled:
                before = radii_by_image(derive(request, store, described).outcomes)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            told = f"{type(error).__name__} {' '.join(str(error).split())[:200]}"
            raise RunError(f"{folder}/run.json lacks {told}: only complete runs can be reproduced") from None
        result = run_certify(
            request, sources, output=output, device=device, batch_size=batch_size,
            progress=progress, say=say, like=partial(hold_original, folder, described, store),
        )  # fmt: skip
    after: dict[Any, Any] = {record.index: record for record in result.records}
    if not sampled:
        after = radii_by_image(result.outcomes)
    common = [index for index in after if index in before]
    differences, changed = [], list[str]()
    for index in common:
        old, new = before[index], after[index]  # records, or figures by name
        if not sampled:
            changed += [
                f"image {index}: {column} {old.get(column)} before, {new[column]} now"
                for column in new
                if old.get(column) != new[column]
            ]
        elif (found := _difference(old, new)).selection or found.estimation:
            differences.append(found)
    now = read_run(output)["identity"]
    changed += [
        f"{part}: {described['identity'].get(part)} before, {now.get(part)} now"
        for part in now
        if described["identity"].get(part) != now.get(part)
    ]
    compares = "counts" if sampled else "radii"
    if len(after) > len(common):
        changed.append(f"{len(after) - len(common)} images have no {compares} in {folder}")
    return Reproduction(result, len(common), tuple(differences), tuple(changed), compares)


def _difference(before: ImageRecord, after: ImageRecord) -> Difference:
    """Return how many samples voted for another class, as far as counts can tell."""

    def moved(one: np.ndarray, other: np.ndarray) -> int:
        return int(np.abs(one - other).sum() // 2)

    last = max(before.estimation.keys() & after.estimation.keys(), default=None)
    estimation = 0 if last is None else moved(before.estimation[last], after.estimation[last])
    return Difference(before.index, moved(before.selection, after.selection), estimation)
