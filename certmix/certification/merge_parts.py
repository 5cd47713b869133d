"""The folder of one shard, read, and whether two belong together.  No torch."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certmix.certification.expect import SETTLED
from certmix.certification.request import CertifyRequest
from certmix.certification.shard import Shard
from certmix.certification.stored_run import data_of, named, request_of
from certmix.errors import ParameterError, RunError
from certmix.plain_json import parse_json
from certmix.runs import Identity, Store, read_run
from certmix.runs.behaviour import logits_key, same_logits
from certmix.runs.folder import DATABASE
from certmix.runs.from_json import from_json
from certmix.types import FloatArray

__all__ = ["PLANNED", "Beside", "Part", "agree", "read_beside", "read_part", "remember_planned"]

PLANNED = "planned images"
"""Where a shard's database keeps the numbers of all images of its request, not of its share alone."""


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


def remember_planned(store: Store, indices: list[int]) -> None:
    """Keep the numbers of all images of a request beside a shard's records."""
    text = json.dumps(indices, separators=(",", ":"))
    if store.get(PLANNED) != text:
        store.put(PLANNED, text)


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
        planned = _planned(store, shard)
    except ValueError as error:
        store.close()
        raise RunError(
            f"{folder} does not say which images were asked for ({str(error)[:100]}): repeat its command"
        ) from None
    except RunError:
        store.close()
        raise
    return Part(folder, description, request, shard, store, planned, classes)


def _planned(store: Store, shard: Shard) -> list[int]:
    """Return the numbers of all images of the request; ValueError if they are none."""
    planned = parse_json((store.get(PLANNED) or "").encode())
    if not isinstance(planned, list) or not all(type(index) is int for index in planned):
        raise ValueError("no list of numbers")
    if len(set(planned)) < len(planned) or not all(0 <= index < 2**63 for index in planned):
        raise ValueError("a number twice, or out of range")
    if len(planned) < shard.of:
        raise ValueError(f"{len(planned)} images of {shard.of} shards")
    return planned


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
