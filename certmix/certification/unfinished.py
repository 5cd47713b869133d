"""Whether a run of certify is whole, and what goes on with one that is not.  No torch, of a sampled run."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

from certmix.certification.deterministic_request import DETERMINISTIC, DeterministicRequest
from certmix.certification.published_summary import TABLE
from certmix.certification.request import CertifyRequest
from certmix.certification.shards import Shard
from certmix.certification.stored import open_run
from certmix.errors import RunError
from certmix.files import parse_json
from certmix.runs import Store, read_run
from certmix.runs.folder import DATABASE, RESULTS
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
    shard = described.get("shard")
    table = _table(folder, described)
    if _is_whole(table, shard):
        merge = f"{folder} is {_words(shard)}: merge it with the others (certmix merge)"
        return None if shard is None else merge
    done, planned = _counts(folder, described)
    if table is None and shard is None and done == planned:
        return None  # nothing is lacking but the table, which follows
    whose = "" if shard is None else f", {_words(shard)}"
    how = f"{done:,} of {planned:,} images" if done < planned else "its table is still to come"
    objects = isinstance(described.get("sources"), dict) and described["sources"].get("objects")
    again = "run its program" if objects else f"repeat its command ({repeat_command(folder, described)})"
    return f"{folder} is unfinished ({how}{whose}): {again} to go on"


def refuse_unfinished(folder: Path) -> None:
    """Refuse a run that is not whole: RunError, with the remedy."""
    told = unfinished(folder)
    if told is not None:
        raise RunError(told)


def is_finished(folder: Path) -> bool:
    """Return whether the request in a run's description has its table: the whole one, or all of a shard's."""
    try:
        described = read_run(folder)
    except RunError:
        return False
    return _is_whole(_table(folder, described), described.get("shard"))


def _table(folder: Path, described: dict[str, Any]) -> dict[str, Any] | None:
    """Return the table of the request in a description, None if it has none that can be read."""
    try:
        request = from_json(_KINDS[_study(described)], described["request"])
        standard = described["models"]["standard"]
        name = request.name("" if standard is None else standard["checksum"])
        table = parse_json((folder / RESULTS / name / TABLE).read_bytes())
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        return None
    return table if isinstance(table, dict) else None


def _is_whole(table: dict[str, Any] | None, shard: Any) -> bool:
    """Return whether a table is of all images, or of all of a shard's."""
    try:
        if table is None or shard is None:
            return table is not None and table["complete"] is True
        return int(table["images"]) >= _share(from_json(Shard, shard), int(table["planned_images"]))
    except (KeyError, TypeError, ValueError):
        return False


def _study(described: dict[str, Any]) -> str:
    return str(described["identity"].get("study", "certify"))


def _share(shard: Shard, planned: int) -> int:
    """Return how many of all images belong to a shard."""
    return len(range(shard.number - 1, planned, shard.of))


def _words(shard: Any) -> str:
    if not isinstance(shard, dict):
        return "a shard"
    return f"shard {shard.get('number')} of {shard.get('of')}"


def _counts(folder: Path, described: dict[str, Any]) -> tuple[int, int]:
    """Return how many images are done, of how many."""
    asked: Any
    if _study(described) == "certify":
        run = open_run(folder)
        inputs, asked, known = int(described["data"]["inputs"]), run.request.images, len(run.records)
    else:
        inputs, asked, known = _without_samples(folder, described)
    planned = inputs if asked == "all" else min(int(asked), inputs)
    with suppress(KeyError, TypeError, ValueError):  # no shard, or none that can be read
        planned = _share(from_json(Shard, described["shard"]), planned)
    return min(known, planned), planned


def _without_samples(folder: Path, described: dict[str, Any]) -> tuple[int, Any, int]:
    """Return the inputs of the data, the images asked for, and those that a run without samples holds."""
    from certmix.certification.deterministic_fill import ROBUST, margin_cell

    try:
        request = from_json(DeterministicRequest, described["request"])
        inputs = int(described["data"]["inputs"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{folder}/run.json lacks {error}: restore it, or run it again") from None
    if not (folder / DATABASE).is_file():
        return inputs, request.images, inputs  # whoever reads it will say so
    store = Store(folder / DATABASE, read_only=True)
    try:
        cells = [margin_cell(alpha) for alpha in request.weights()] if request.certificate == "margin" else []
        return inputs, request.images, len(set.intersection(*map(store.known, [ROBUST, *cells])))
    finally:
        store.close()


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
