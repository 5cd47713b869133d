"""The table of a run of certify, made again from its numbers.  No torch, no models, no data."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from certmix.certification.deterministic_request import DETERMINISTIC, DeterministicRequest
from certmix.certification.deterministic_table import derived
from certmix.certification.evaluate import evaluate
from certmix.certification.products import particulars, remarks
from certmix.certification.request import Shard
from certmix.certification.stored import open_run, planned_images
from certmix.errors import RunError
from certmix.runs import Store, read_run
from certmix.runs.folder import DATABASE
from certmix.runs.from_json import from_json
from certmix.runs.identity import CERTIFY, command_of
from certmix.types import Summary

__all__ = ["show"]


def show(folder: str | Path) -> Summary:
    """Return the table of a run: that of the request in its ``run.json``, as far as it got.

    Raises
    ------
    RunError
        If the folder cannot be read, or is not that of a run of ``certmix certify``.
    """
    folder = Path(folder)
    described = read_run(folder)
    study = str(described["identity"].get("study", CERTIFY))
    try:
        if study.removeprefix("certify-") in DETERMINISTIC:
            with closing(Store(folder / DATABASE, read_only=True)) as store:
                return derived(from_json(DeterministicRequest, described["request"]), store, described)[1]
        if study != CERTIFY:
            raise RunError(f"{folder} is a run of {command_of(study)}: name a run of certmix certify")
        run = open_run(folder)
        with closing(Store(folder / DATABASE, run.classes, read_only=True)) as store:
            planned = planned_images(store, run.request.images)
        shard = from_json(Shard, described["shard"]) if described.get("shard") else None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        told = " ".join(str(error).split())[:100]
        raise RunError(
            f"{folder} does not say what was asked for ({told}): repeat its command, or name another run"
        ) from None
    held = {record.index: record for record in run.records}
    mine = planned if shard is None else planned[shard.number - 1 :: shard.of]
    records = [held[index] for index in mine if index in held]
    about = particulars(run.request, run.classes, run.about, remarks(run.first, run.request, shard))
    return evaluate(records, run.probabilities, run.request, len(planned), **about).summary
