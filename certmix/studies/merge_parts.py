"""The folder of one shard, read, and whether two belong together.  No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certmix.errors import ParameterError, RunError
from certmix.plain_json import parse_json
from certmix.records import Identity, Store, read_run
from certmix.records.folder import DATABASE
from certmix.studies.from_json import from_json
from certmix.studies.request import CertifyRequest
from certmix.studies.shard import Shard
from certmix.studies.stored_run import data_of, request_of

__all__ = ["PLANNED", "Part", "agree", "read_part", "remember_planned"]

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

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.store.classes


@dataclass(frozen=True)
class _Model:
    """What is needed of a model's description."""

    name: str = ""
    checksum: str = ""


def remember_planned(store: Store, indices: list[int]) -> None:
    """Keep the numbers of all images of a request beside a shard's records."""
    store.put(PLANNED, json.dumps(indices, separators=(",", ":")))


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
        for model in description["models"].values():
            from_json(_Model, {key: model[key] for key in ("name", "checksum")} if model else {})
    except (KeyError, TypeError, AttributeError, ParameterError):
        raise RunError(
            f"{folder} is not the folder of a shard: name folders of certmix certify --shard"
        ) from None
    store = Store(folder / DATABASE, classes, read_only=True)
    try:
        planned = parse_json((store.get(PLANNED) or "").encode())
        if not all(isinstance(index, int) for index in planned) or len(planned) < shard.of:
            raise ValueError
    except (TypeError, ValueError):
        store.close()
        raise RunError(f"{folder} does not say which images were asked for: repeat its command") from None
    return Part(folder, description, request, shard, store, planned)


def agree(first: Part, other: Part) -> None:
    """Refuse two folders that are not shards of one request.

    Raises
    ------
    RunError
        If they differ in identity, request, standard classifier or number of shards; it says in what.
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
    if first.planned != other.planned:
        differences.append("other images were asked for")
    if differences:
        raise RunError(f"{where}{'; '.join(differences)}")


def _standard(part: Part) -> str:
    model = part.description["models"]["standard"]
    return "none" if model is None else f"{model['name']} ({model['checksum'][:12]})"
