"""Shares of a run's inputs, and runs merged of them.  No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certmix.certification.evaluate import SETTLED, CertifyResult, bound_records
from certmix.certification.publish import derive, publish
from certmix.certification.request.proved import LABEL, Enumerated, standard_logits
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.request.shard import Shard
from certmix.certification.stored import (
    data_of,
    is_enumerated,
    named,
    planned_inputs,
    remember_planned,
    request_of,
)
from certmix.errors import ParameterError, RunError, brief
from certmix.runs import Identity, Run, Store, StudyIdentity, default_folder, read_run
from certmix.runs.behaviour import logits_key, same_logits
from certmix.runs.folder import CERTIFY, DATABASE
from certmix.runs.records import Records, having, pieces
from certmix.runs.settings import from_json
from certmix.runs.store import standard_cell
from certmix.sampling.ballots import Ballots

__all__ = ["Part", "agree", "merge", "read_part"]

SHOWN = 10
"""Input numbers that a message lists."""
DONE = ("shard", "engine", "device", "device_name", "batch_size", "compiled", "threads", "versions")
"""What a merged run keeps of each shard's description."""


@dataclass(frozen=True)
class Part:
    """A shard's folder: its run.json, its numbers, and which inputs the whole request is about."""

    folder: Path
    description: dict[str, Any]
    request: CertifyRequest | Enumerated
    shard: Shard
    store: Store
    planned: list[int]

    @property
    def standard(self) -> tuple[str, str]:
        """Name and checksum of the standard classifier, "none" and "" without one."""
        model = self.description["models"]["standard"]
        return ("none", "") if model is None else (model["name"], model["checksum"])

    @property
    def identity(self) -> Identity | StudyIdentity:
        """What the numbers depend on; a run of votes on all cases has no label here."""
        stored = self.description["identity"]
        if isinstance(self.request, CertifyRequest):
            return Identity(**stored)
        parts = {name: value for name, value in stored.items() if name != "study"}
        names = [self.description[role]["name"] for role in ("data",)]
        names.append(self.description["models"]["robust"]["name"])
        label = "-".join([*names, *map(str, self.request.identity().values())][:4])
        return StudyIdentity(str(stored["study"]), label, parts)


def read_part(folder: Path) -> Part:
    """Return what a shard's folder holds, RunError if it is none; its database stays open."""
    counted = is_enumerated(folder)
    description = read_run(folder, None if counted else CERTIFY)
    request: CertifyRequest | Enumerated
    try:
        request = (
            from_json(Enumerated, description["request"]) if counted else request_of(description, folder)
        )
        shard = from_json(Shard, description["shard"])
        _, classes = data_of(description)
        if not counted:
            from_json(Identity, description["identity"])
        for described in (description["data"], *description["models"].values()):
            named(described)
        if not {"standard", "robust"} <= set(description["models"]):
            raise KeyError("models")
    except (KeyError, TypeError, AttributeError, ParameterError):
        raise RunError(
            f"{folder} is not the folder of a shard: name folders of certmix certify --shard"
        ) from None
    with ExitStack() as opened:
        store = Store(folder / DATABASE, classes, read_only=True)
        opened.callback(store.close)
        try:
            planned = planned_inputs(store, request.inputs, description)
            if len(planned) < shard.of:
                raise ValueError(f"{len(planned)} inputs of {shard.of} shards")
        except ValueError as error:
            raise RunError(
                f"{folder} does not say which inputs were asked for ({brief(error, 100)}): repeat its command"
            ) from None
        opened.pop_all()
    return Part(folder, description, request, shard, store, planned)


def agree(first: Part, other: Part) -> None:
    """Refuse two folders that are not shards of one request: RunError, which says in what they differ."""
    where = f"{first.folder} and {other.folder} are not shards of one run: "
    differences = first.identity.differences(other.description["identity"])
    if differences:
        told = f"{where}{'; '.join(differences)}".replace("asked", "here")
        mixed = getattr(first.request, "precision", "") != getattr(other.request, "precision", "")
        raise RunError(told + ": do one of them again with the other's --precision" * mixed)
    one, two = first.request.as_dict(), other.request.as_dict()
    differences = [f"{key} is {one[key]} and {two[key]}" for key in one if one[key] != two[key]]
    if first.shard.of != other.shard.of:
        differences.append(f"they are {first.shard} and {other.shard}")
    if first.standard != other.standard:
        names = (f"{name} ({checksum[:12]})" for name, checksum in (first.standard, other.standard))
        differences.append(f"the standard classifier is {' and '.join(names)}".replace(" ()", ""))
    if first.store.classes != other.store.classes:
        differences.append(f"there are {first.store.classes} and {other.store.classes} classes")
    if first.planned != other.planned:
        differences.append("other inputs were asked for")
    if differences:
        raise RunError(f"{where}{'; '.join(differences)}")


def merge(
    folders: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    fresh: bool = False,
    say: Callable[[str], None] = lambda message: None,
) -> CertifyResult:
    """Merge the run folders of all shards of one request into one run, as if it had never been divided.

    Parameters
    ----------
    folders
        Folders of ``certmix certify --shard``; a shard may come twice if its counts agree.
    output, fresh
        Folder of the merged run, None for the one that the undivided run would have; whether to delete an
        earlier run in it.
    say
        Receives warnings, one line each.

    Raises
    ------
    RunError
        If inputs are missing or unfinished, if shards have other identities or requests, or if two folders
        hold different counts of one input.
    """
    if not folders:
        raise ParameterError("no folders to merge: name those of all shards")
    with ExitStack() as opened:
        parts: list[Part] = []
        for one in folders:
            parts.append(read_part(Path(one)))
            opened.callback(parts[-1].store.close)
            agree(parts[0], parts[-1])
        sampled = isinstance(parts[0].request, CertifyRequest)
        joined = _joined(parts) if sampled else []
        owners = {} if sampled else _owners(parts)
        _refuse_gaps(parts, set(owners) if not sampled else _finished(parts[0].request, joined))
        for what in ("versions", "device_name", "batch_size", "compiled"):
            found = {str(part.description.get(what)) for part in parts}
            if len(found) > 1:
                told = brief(" and ".join(sorted(found)), 300)
                say(
                    f"shards differ in {what.replace('_', ' ')} ({told}): the "
                    "merged run is valid, but one machine alone may count a few votes otherwise"
                )
        first = parts[0]
        identity, request = first.identity, first.request
        folder = default_folder(identity) if output is None else Path(output)
        if any(folder.resolve() == part.folder.resolve() for part in parts):
            raise ParameterError(f"{folder} is one of the shards: name another --output")
        facts, merged = _facts(parts), [(store, records.indices) for store, records in joined]
        every = np.concatenate([np.empty(0, np.int64), *(indices for _, indices in merged)])
        # all is read before anything is written
        standard = [part.store.standard(first.standard[1]) for part in parts if sampled]
        # The first shard's description, with where each shard was done instead of where it was.
        done = [{key: part.description.get(key) for key in DONE} for part in parts]
        gone = ("shard", "engine", "identity", "format_version")
        own = {key: value for key, value in first.description.items() if key not in gone}
        own["merged"] = done
        with Run(folder, identity, first.store.classes, fresh=fresh, say=say) as run:
            asked = run.described().get("request", own["request"])
            same = run.store.holds_only(merged) if sampled else _holds_only(run.store, parts, owners)
            if not (asked == own["request"] and same):  # else a merge goes on
                raise RunError(
                    f"{folder} holds a run already: name another --output, or use --fresh to start over"
                )
            for key, value in facts.items():
                run.store.put(key, value)
            remember_planned(run.store, request.inputs, first.planned)
            if merged:
                run.store.copy(merged)
            for part in parts:
                for cell in part.store.cells() if owners else ():
                    held = sorted(i for i in part.store.known(cell) if owners.get(i) is part)
                    if held:
                        run.store.write(cell, held, part.store.read(cell, held))
            for answers in standard:
                own_rows = np.isin(answers.indices, every)
                cell = standard_cell(first.standard[1])
                run.store.write(cell, answers.indices[own_rows].tolist(), answers.vectors[own_rows])
            run.describe(own)
            evaluation = derive(request, run.store, own)
            publish(run, request, evaluation)
            return CertifyResult(evaluation, folder)


def _owners(parts: Sequence[Part]) -> dict[int, Part]:
    """Return which part gives each input of votes on all cases; RunError where two have other votes."""
    found: dict[int, Part] = {}
    for part in parts:
        assert isinstance(part.request, Enumerated)
        wanted, cell = [part.request.cell, LABEL], part.request.cell
        wanted += [standard_logits(part.standard[1])] if part.standard[1] else []
        done = set.intersection(*map(part.store.known, wanted)) & set(part.planned)
        for index in sorted(done):
            if (before := found.setdefault(index, part)) is part:
                continue
            if not np.array_equal(before.store.read(cell, [index]), part.store.read(cell, [index])):
                raise _differing(before, part, index)
    return found


def _holds_only(store: Store, parts: Sequence[Part], owners: dict[int, Part]) -> bool:
    """Whether all votes that a store holds are those of the parts."""
    (cell,) = {part.request.cell for part in parts if isinstance(part.request, Enumerated)}
    return all(
        index in owners and np.array_equal(store.read(cell, [index]), owners[index].store.read(cell, [index]))
        for index in store.known(cell)
    )


def _finished(request: CertifyRequest | Enumerated, joined: Sequence[tuple[Store, Records]]) -> set[int]:
    assert isinstance(request, CertifyRequest)
    return {index for _, one in joined for index in bound_records(one, request).records.indices.tolist()}


def _differing(one: Part, other: Part, index: int) -> RunError:
    return RunError(
        f"{one.folder} and {other.folder} hold different counts of input {index}: leave one of the two out, "
        "or do its shard again with --fresh"
    )


def _facts(parts: Sequence[Part]) -> dict[str, str]:
    """Return what shards began with and the logits that tell both models; RunError where they contradict."""
    found: dict[str, str] = {}
    for key in (*SETTLED, "fixed_samples"):
        values = {value for part in parts if (value := part.store.get(key)) is not None}
        if len(values) > 1:
            told = " and ".join(sorted(brief(value, 60) for value in values))
            raise RunError(
                f"the shards began with different {key}, {told}: leave one of them out, or do its shard "
                "again with --fresh"
            )
        if values:
            found[key] = values.pop()
    for role, model in parts[0].description["models"].items():
        if model is None:
            continue
        told = logits_key(model["checksum"])
        if role == "robust" and parts[0].store.get(shown := logits_key(model["checksum"], shown=True)):
            told = shown
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


def _joined(parts: Sequence[Part]) -> list[tuple[Store, Records]]:
    """Return what each part gives to the whole: of two records the one with more looks, which holds the
    other's."""
    wanted, found = np.array(parts[0].planned, np.int64), list[tuple[Part, Records]]()
    for part in parts:
        own = part.store.records(ballots=True)
        own = own.take(np.flatnonzero(np.isin(own.indices, wanted)))
        for place, (origin, before) in enumerate(found):
            both = np.intersect1d(before.indices, own.indices)
            if not len(both):
                continue
            first, second = before.of_inputs(both), own.of_inputs(both)
            if (bad := np.flatnonzero(_differ(first, second))).size:
                raise _differing(origin, part, int(both[bad[0]]))
            more = second.drawn > first.drawn
            found[place] = origin, before.take(np.flatnonzero(~np.isin(before.indices, both[more])))
            own = own.take(np.flatnonzero(~np.isin(own.indices, both[~more])))
        found.append((part, own))
    return [(part.store, records) for part, records in found]


def _differ(first: Records, second: Records) -> NDArray[np.bool_]:
    """Return for which inputs (m,) two records contradict each other, or have no last look in common."""
    sums = np.array([first.checksum_of(row) != second.checksum_of(row) for row in range(len(first))])
    wrong = (first.labels != second.labels) | (first.selection != second.selection).any(1) | sums
    joined = (first.drawn == 0) | (second.drawn == 0)
    for samples in sorted(first.votes.keys() & second.votes.keys()):
        both = having(first.votes, samples, len(first)) & having(second.votes, samples, len(first))
        joined |= both & ((first.drawn == samples) | (second.drawn == samples))
        for some in pieces(np.flatnonzero(both), first.selection.shape[1]):
            votes = first.votes[samples].of(some), second.votes[samples].of(some)
            wrong[some] |= (votes[0] != votes[1]).any(1)
    for samples in first.ballots.keys() & second.ballots.keys():
        looks = first.ballots[samples], second.ballots[samples]
        for row in np.intersect1d(looks[0].rows, looks[1].rows).tolist():
            wrong[row] |= not _same(*(look.get(row) for look in looks))
    if first.chosen is not None and second.chosen is not None:
        wrong |= [not _same(first.chosen[row], second.chosen[row]) for row in range(len(first))]
    return wrong | ~joined


def _same(one: Ballots, other: Ballots) -> bool:
    return np.array_equal(one.as_vector(), other.as_vector())


def _refuse_gaps(parts: Sequence[Part], done: set[int]) -> None:
    """Refuse to merge while inputs are missing, or want more samples; say which shards to finish."""
    planned, of = parts[0].planned, parts[0].shard.of
    missing = [(place, index) for place, index in enumerate(planned) if index not in done]
    if not missing:
        return
    lacking = sorted({place % of + 1 for place, _ in missing})
    named = {part.shard.number: part.folder for part in parts}
    absent = [f"{number}/{of}" for number in lacking if number not in named]
    begun = [f"{number}/{of} ({named[number]})" for number in lacking if number in named]
    advice = [f"name the folder of shard {_some(absent)}"] if absent else []
    advice += [f"finish shard {_some(begun)} by repeating its command"] if begun else []
    inputs = _some([index for _, index in missing[: SHOWN + 1]])
    raise RunError(
        f"{len(missing):,} of {len(planned):,} inputs are missing or unfinished ({inputs}): "
        f"{'; '.join(advice)}"
    )


def _some(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values[:SHOWN])) + (", ..." if len(values) > SHOWN else "")
