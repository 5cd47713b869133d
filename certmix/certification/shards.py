"""Shares of a run's images, and runs merged of them.  No torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certmix.certification.evaluate import SETTLED, Evaluation, bound_records
from certmix.certification.publish import derive, publish
from certmix.certification.request import CertifyRequest, Shard
from certmix.certification.stored import data_of, named, planned_images, remember_planned, request_of
from certmix.errors import ParameterError, RunError
from certmix.runs import Identity, ImageRecord, Run, Store, default_folder, read_run
from certmix.runs.behaviour import logits_key, same_logits
from certmix.runs.folder import DATABASE
from certmix.runs.settings import from_json
from certmix.types import FloatArray, Summary

__all__ = [
    "Beside",
    "MergeResult",
    "Part",
    "agree",
    "merge",
    "read_beside",
    "read_part",
]


@dataclass(frozen=True)
class Part:
    """A shard's folder: its run.json, its database, and the numbers of all images of the request."""

    folder: Path
    description: dict[str, Any]
    request: CertifyRequest
    shard: Shard
    store: Store
    planned: list[int]
    classes: int


@dataclass(frozen=True)
class Beside:
    """What shards hold besides records: remembered values, g's checksum ("" for none) and probabilities."""

    values: dict[str, str]
    checksum: str
    probabilities: dict[int, FloatArray]


def read_part(folder: Path) -> Part:
    """Return what a shard's folder holds; its database stays open.

    Raises
    ------
    RunError
        If it is not the folder of a shard.
    """
    description = read_run(folder, "certify")
    request = request_of(description, folder)
    try:
        shard = from_json(Shard, description["shard"])
        _, classes = data_of(description)
        from_json(Identity, description["identity"])
        for described in (description["data"], *description["models"].values()):
            named(described)
        if not {"standard", "robust"} <= set(description["models"]):
            raise KeyError("models")
    except (KeyError, TypeError, AttributeError, ParameterError):
        raise RunError(
            f"{folder} is not the folder of a shard: name folders of certmix certify --shard"
        ) from None
    store = Store(folder / DATABASE, classes, read_only=True)
    try:
        planned = planned_images(store, request.images)
        if len(planned) < shard.of:
            raise ValueError(f"{len(planned)} images of {shard.of} shards")
    except ValueError as error:
        store.close()
        raise RunError(
            f"{folder} does not say which images were asked for ({str(error)[:100]}): repeat its command"
        ) from None
    except RunError:
        store.close()
        raise
    return Part(folder, description, request, shard, store, planned, classes)


def agree(first: Part, other: Part) -> None:
    """Refuse two folders that are not shards of one request.

    Raises
    ------
    RunError
        If they differ in identity, request, standard classifier, classes or number of shards;
        it says in what.
    """
    where = f"{first.folder} and {other.folder} are not shards of one run: "
    differences = Identity(**first.description["identity"]).differences(other.description["identity"])
    if differences:
        raise RunError(f"{where}{'; '.join(differences)}".replace("asked", "here"))
    one, two = first.request.as_dict(), other.request.as_dict()
    differences = [f"{key} is {one[key]} and {two[key]}" for key in one if one[key] != two[key]]
    if first.shard.of != other.shard.of:
        differences.append(f"they are {first.shard} and {other.shard}")
    if _standard(first) != _standard(other):
        differences.append(f"the standard classifier is {_standard(first)} and {_standard(other)}")
    if first.classes != other.classes:
        differences.append(f"there are {first.classes} and {other.classes} classes")
    if first.planned != other.planned:
        differences.append("other images were asked for")
    if differences:
        raise RunError(f"{where}{'; '.join(differences)}")


def _logits(parts: Sequence[Part]) -> dict[str, str]:
    """Return the logits that tell both models; RunError if shards lack them, or were made with others."""
    found = {}
    for role, model in parts[0].description["models"].items():
        if model is None:
            continue
        told = logits_key(model["checksum"])
        stored = [(part.folder, part.store.get(told)) for part in parts]
        for folder, text in stored:
            if text is None or stored[0][1] is None:
                raise RunError(f"{folder} keeps no logits to know its {role} model by: do the shard again")
            if differs := same_logits(stored[0][1], text):
                raise RunError(
                    f"{stored[0][0]} and {folder} were made with two {role} models of one checksum: "
                    f"{differs}: give all shards the same files and environment, and do one again"
                )
        found[told] = str(stored[0][1])
    return found


def _standard(part: Part) -> str:
    model = part.description["models"]["standard"]
    return "none" if model is None else f"{model['name']} ({model['checksum'][:12]})"


def read_beside(parts: Sequence[Part], wanted: Collection[int]) -> Beside:
    """Return what shards hold besides the records of the wanted images.

    Raises
    ------
    RunError
        If it cannot be read, or if the shards began with different values.
    """
    found: dict[str, str] = {}
    for key in (*SETTLED, "fixed_samples"):
        values = {value for part in parts if (value := part.store.get(key)) is not None}
        if len(values) > 1:
            raise RunError(f"the shards began with different values of {key} ({', '.join(sorted(values))})")
        if values:
            found[key] = values.pop()
    standard = parts[0].description["models"]["standard"]
    checksum = "" if standard is None else standard["checksum"]
    found |= _logits(parts)
    probabilities = {
        index: row
        for part in parts
        for index, row in part.store.standard(checksum).items()
        if index in wanted
    }  # fmt: skip
    return Beside(found, checksum, probabilities)


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
        beside = read_beside(parts, records)  # all is read before anything is written
        with Run(folder, identity, parts[0].classes, fresh=fresh) as run:
            return MergeResult(_write(run, parts, records, beside), folder)
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


def _write(run: Run, parts: Sequence[Part], records: dict[int, ImageRecord], beside: Beside) -> Evaluation:
    """Write the merged run and return its table."""
    first, store, request = parts[0], run.store, parts[0].request
    if store.images():
        raise RunError(f"{run.path} holds a run already: name another --output, or use --fresh to start over")
    for key, value in beside.values.items():
        store.put(key, value)
    remember_planned(store, request.images, first.planned)
    store.write_images(records.values())
    for index, row in sorted(beside.probabilities.items()):
        store.write_standard(beside.checksum, [index], row[None])
    described = _description(parts)
    run.describe(described)
    evaluation = derive(request, store, described)
    publish(run, request, evaluation)
    return evaluation


def _description(parts: Iterable[Part]) -> dict[str, Any]:
    """Return the first shard's description, with where each shard was done instead of where it was."""
    kept = ("shard", "engine", "device", "device_name", "batch_size", "compiled", "threads", "versions")
    done = [{key: part.description.get(key) for key in kept} for part in parts]
    first = next(iter(parts)).description
    own = {key: first[key] for key in first if key not in ("shard", "engine", "identity", "format_version")}
    return {**own, "merged": done}
