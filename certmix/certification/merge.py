"""Shards back into one run: checked for gaps and contradictions, then evaluated as a whole.  No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certmix.certification.bounding import bound_records
from certmix.certification.evaluate import Evaluation, evaluate
from certmix.certification.merge_parts import Beside, Part, agree, read_beside, read_part
from certmix.certification.products import particulars, publish
from certmix.errors import ParameterError, RunError
from certmix.runs import Identity, ImageRecord, RunFolder, default_folder
from certmix.types import Summary

__all__ = ["MergeResult", "merge"]

SHOWN = 10
"""Image numbers that a message lists."""


@dataclass(frozen=True)
class MergeResult:
    """The merged run: its table with all records, and its folder."""

    evaluation: Evaluation
    folder: Path

    @property
    def summary(self) -> Summary:
        """The table."""
        return self.evaluation.summary


def merge(
    folders: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    fresh: bool = False,
    say: Callable[[str], None] = lambda message: None,
) -> MergeResult:
    """Merge the run folders of all shards of one request into one run, as if it had never been divided.

    Parameters
    ----------
    folders
        Folders of ``certmix certify --shard``; a shard may come twice if its counts agree.
    output
        Folder of the merged run; None for the one that the undivided run would have.
    fresh
        Delete an earlier run in that folder.
    say
        Receives warnings, one line each.

    Returns
    -------
    MergeResult
        ``.summary`` is the table.

    Raises
    ------
    RunError
        If images are missing or unfinished, if shards have other identities or
        requests, or if two folders hold different counts of one image.
    """
    if not folders:
        raise ParameterError("no folders to merge: name those of all shards")
    parts: list[Part] = []
    try:
        for one in folders:
            parts.append(read_part(Path(one)))
            agree(parts[0], parts[-1])
        records = _joined(parts)
        _refuse_gaps(parts, records)
        _point_out_versions(parts, say)
        identity = Identity(**parts[0].description["identity"])
        folder = default_folder(identity) if output is None else Path(output)
        if any(folder.resolve() == part.folder.resolve() for part in parts):
            raise ParameterError(f"{folder} is one of the shards: name another --output")
        classes, beside = (
            parts[0].classes,
            read_beside(parts, records),
        )  # all is read before anything is written
        with RunFolder(folder, identity, classes, fresh=fresh) as run:
            return MergeResult(_write(run, parts, records, beside), run.path)
    finally:
        for part in parts:
            part.store.close()


def _joined(parts: Sequence[Part]) -> dict[int, ImageRecord]:
    """Return all wanted images' records; of two the one with more looks, which holds the other's.

    Raises
    ------
    RunError
        If two contradict each other.
    """
    wanted = set(parts[0].planned)
    found: dict[int, ImageRecord] = {}
    origin: dict[int, Part] = {}
    for part in parts:
        for index, record in part.store.images().items():
            if index not in wanted:
                continue
            if index in found and not _consistent(found[index], record):
                raise RunError(
                    f"{origin[index].folder} and {part.folder} hold different counts of image {index}: leave "
                    "one of the two out, or do its shard again with --fresh"
                )
            if index not in found or record.drawn > found[index].drawn:
                found[index], origin[index] = record, part
    return {index: found[index] for index in sorted(found)}


def _consistent(one: ImageRecord, other: ImageRecord) -> bool:
    """Whether two records of an image say the same where both say something."""
    both = one.estimation.keys() & other.estimation.keys()
    return (
        (one.label, one.input_checksum) == (other.label, other.input_checksum)
        and bool((one.selection == other.selection).all())
        and all((one.estimation[n] == other.estimation[n]).all() for n in both)
        and (one.drawn in both or other.drawn in both or not (one.drawn and other.drawn))
    )


def _refuse_gaps(parts: Sequence[Part], records: dict[int, ImageRecord]) -> None:
    request, planned, of = parts[0].request, parts[0].planned, parts[0].shard.of
    held = list(records.values())
    waiting = bound_records(held, request).waiting.tolist() if held else []
    done = {record.index for record, waits in zip(held, waiting, strict=True) if not waits}
    missing = [index for index in planned if index not in done]
    if not missing:
        return
    lacking = sorted({planned.index(index) % of + 1 for index in missing[:1000]})
    named = {part.shard.number: part.folder for part in parts}
    absent = [f"{number}/{of}" for number in lacking if number not in named]
    begun = [f"{number}/{of} ({named[number]})" for number in lacking if number in named]
    advice = [f"name the folder of shard {_some(absent)}"] if absent else []
    advice += [f"finish shard {_some(begun)} by repeating its command"] if begun else []
    raise RunError(
        f"{len(missing):,} of {len(planned):,} images are missing or unfinished ({_some(missing)}): "
        f"{'; '.join(advice)}"
    )


def _some(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values[:SHOWN])) + (", ..." if len(values) > SHOWN else "")


def _point_out_versions(parts: Sequence[Part], say: Callable[[str], None]) -> None:
    """Say where shards were made by other versions, or on other kinds of device."""
    for what in ("versions", "device_name", "batch_size", "compiled"):
        found = {str(part.description.get(what)) for part in parts}
        if len(found) > 1:
            say(
                f"shards differ in {what.replace('_', ' ')} ({' and '.join(sorted(found))[:300]}): the "
                "merged run is valid, but one machine alone may count a few votes otherwise"
            )


def _write(
    run: RunFolder, parts: Sequence[Part], records: dict[int, ImageRecord], beside: Beside
) -> Evaluation:
    """Write the merged run and return its table."""
    first, store, request = parts[0], run.store, parts[0].request
    if store.images():
        raise RunError(f"{run.path} holds a run already: name another --output, or use --fresh to start over")
    for key, value in beside.values.items():
        store.put(key, value)
    store.write_images(records.values())
    for index, row in sorted(beside.probabilities.items()):
        store.write_standard(beside.checksum, [index], row[None])
    run.describe(_description(parts))
    models = first.description["models"]
    names = {role: models[role] and models[role]["name"] for role in ("standard", "robust")}
    about = particulars(request, first.classes, {"data": first.description["data"]["name"], **names})
    evaluation = evaluate(list(records.values()), beside.probabilities, request, len(first.planned), **about)
    publish(run, request, beside.checksum, evaluation)
    return evaluation


def _description(parts: Iterable[Part]) -> dict[str, Any]:
    """Return the first shard's description, with where each shard was done instead of where it was."""
    kept = ("shard", "engine", "device", "device_name", "batch_size", "compiled", "threads", "versions")
    done = [{key: part.description.get(key) for key in kept} for part in parts]
    first = next(iter(parts)).description
    own = {key: first[key] for key in first if key not in ("shard", "engine", "identity", "format_version")}
    return {**own, "merged": done}
