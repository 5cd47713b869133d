"""Whether a run of certify is whole, and what goes on with one that is not.  No torch, of a sampled run."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

from certmix.certification.deterministic_request import DETERMINISTIC, DeterministicRequest, needed_cells
from certmix.certification.evaluate import bound_records
from certmix.certification.request import CertifyRequest, Shard
from certmix.certification.stored import data_of, planned_images
from certmix.errors import RunError
from certmix.runs import Store, read_run
from certmix.runs.folder import DATABASE
from certmix.runs.from_json import from_json
from certmix.runs.settings import arguments, settings
from certmix.runs.source_names import Sources, named_split

__all__ = ["is_finished", "refuse_unfinished", "repeat_command", "unfinished"]

_KINDS: dict[str, Any] = {
    "certify": CertifyRequest,
    **{f"certify-{name}": DeterministicRequest for name in DETERMINISTIC},
}


def unfinished(folder: Path) -> str | None:
    """Return why a run is not the whole of what it was asked for, and the remedy; None if it is.

    Parameters
    ----------
    folder
        Of any run; one of another study than ``certmix certify`` counts as whole.

    Raises
    ------
    RunError
        If it cannot be read.
    """
    described = read_run(folder)
    if _study(described) not in _KINDS:
        return None
    if "request" not in described:
        return f"{folder} is unfinished (it was stopped before its first image): repeat its command to go on"
    done, planned = _progress(folder, described)
    shard = described.get("shard")
    words = f"shard {shard.get('number')} of {shard.get('of')}" if isinstance(shard, dict) else "a shard"
    if done >= planned:
        return None if shard is None else f"{folder} is {words}: merge it with the others (certmix merge)"
    whose = "" if shard is None else f", {words}"
    objects = isinstance(described.get("sources"), dict) and described["sources"].get("objects")
    again = "run its program" if objects else f"repeat its command ({repeat_command(folder, described)})"
    return f"{folder} is unfinished ({done:,} of {planned:,} images{whose}): {again} to go on"


def refuse_unfinished(folder: Path) -> None:
    """Refuse a run that is not whole: RunError, with the remedy."""
    told = unfinished(folder)
    if told is not None:
        raise RunError(told)


def is_finished(folder: Path) -> bool:
    """Return whether a run's numbers are those of all images that its description asks for, or its shard."""
    try:
        described = read_run(folder)
        done, planned = _progress(folder, described)
    except (KeyError, RunError):
        return False
    return done >= planned


def _study(described: dict[str, Any]) -> str:
    return str(described["identity"].get("study", "certify"))


def _progress(folder: Path, described: dict[str, Any]) -> tuple[int, int]:
    """Return how many of the images that a run was asked for are done, of how many."""
    try:
        request = from_json(_KINDS[_study(described)], described["request"])
        inputs, classes = data_of(described)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{folder}/run.json lacks {error}: restore it, or run it again") from None
    store = Store(folder / DATABASE, classes, read_only=True)
    try:
        try:
            asked = planned_images(store, request.images)
        except ValueError:  # it was stopped before it knew
            asked = []
        if isinstance(request, CertifyRequest):
            records = list(store.images().values())
            waiting = bound_records(records, request).waiting.tolist() if records else []
            done = {record.index for record, waits in zip(records, waiting, strict=True) if not waits}
        else:
            done = set.intersection(*map(store.known, needed_cells(request)))
    finally:
        store.close()
    planned = inputs if request.images == "all" else min(int(request.images), inputs)
    if asked:
        with suppress(KeyError, TypeError, ValueError):  # no shard, or none that can be read
            shard = from_json(Shard, described["shard"])
            asked = asked[shard.number - 1 :: shard.of]
        return len(done.intersection(asked)), len(asked)
    return min(len(done), planned), planned


def repeat_command(folder: Path, described: dict[str, Any]) -> str:
    """Return the command that a run's description stands for, without what is as by default.

    Raises
    ------
    ParameterError
        If it is none of a run of ``certmix certify``.
    """
    request = settings(_KINDS[_study(described)], described["request"])
    words = ["certmix", "certify", *arguments(request)]
    if isinstance(request, DeterministicRequest) and "--certificate" not in words:
        words += ["--certificate", request.certificate]  # of the command, another is the default
    if isinstance(named := described.get("sources"), dict):
        told = {**named, "split": named_split(named.get("split"))}
        told.pop("objects", None)
        words += arguments(settings(Sources, told))
    if described.get("batch_size") is not None:
        words += ["--batch-size", str(described["batch_size"])]
    if described.get("compiled"):
        words.append("--compile")
    if isinstance(shard := described.get("shard"), dict):
        words += ["--shard", f"{shard.get('number')}/{shard.get('of')}"]
    return shlex.join([*words, "--output", str(folder)])
