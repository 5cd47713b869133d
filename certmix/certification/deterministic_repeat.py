"""Run a certification without samples again from its description, and compare radii."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from certmix.certification.deterministic import RADII_FILE, DeterministicResult, run_deterministic
from certmix.certification.deterministic_request import DeterministicRequest
from certmix.errors import RunError
from certmix.runs import Store, read_run
from certmix.runs.behaviour import Original
from certmix.runs.folder import DATABASE
from certmix.runs.from_json import from_json
from certmix.runs.sources import Sources

__all__ = ["repeat"]


def repeat(
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
    before = _rows(folder)
    store = Store(folder / DATABASE, read_only=True)
    try:
        result = run_deterministic(
            request, sources, output=output, device=device, batch_size=batch_size, say=say,
            like=Original(folder, described, store),
        )  # fmt: skip
    finally:
        store.close()
    after = _rows(output)
    common = [index for index in before if index in after]
    changes = [
        f"image {index}: {column} {before[index].get(column)} before, {after[index][column]} now"
        for index in common
        for column in after[index]
        if before[index].get(column) != after[index][column]
    ]
    identity = read_run(output)["identity"]
    changes += [
        f"{part}: {described['identity'].get(part)} before, {identity[part]} now"
        for part in identity
        if described["identity"].get(part) != identity[part]
    ]
    if len(after) > len(common):
        changes.append(f"{len(after) - len(common)} images have no radii in {folder}")
    return result, common, changes


def _rows(folder: Path) -> dict[str, dict[str, str]]:
    """Return a run's table of radii by image index."""
    try:
        with open(Path(folder) / RADII_FILE, newline="", encoding="utf-8") as file:
            return {row["idx"]: row for row in csv.DictReader(file, delimiter="\t")}
    except (OSError, KeyError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise RunError(
            f"{folder}/{RADII_FILE} cannot be read ({reason}): only complete runs can be reproduced"
        ) from None
