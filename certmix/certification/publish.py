"""The table of a run: what it says, whether it is whole, and made again from the numbers.  No torch."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from certmix.certification import population
from certmix.certification.evaluate import (
    Evaluation,
    began_with,
    bound_records,
    choice_notes,
    evaluate,
    expectations,
    log_columns,
)
from certmix.certification.fronts import fronts_of
from certmix.certification.proved_table import evaluate_proved, radii_by_input
from certmix.certification.request.population import Population
from certmix.certification.request.proved import Enumerated, needed_cells
from certmix.certification.request.reading import KINDS, Request
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.request.shard import Shard
from certmix.certification.stored import LOG, data_of, inputs_of, named, planned_inputs
from certmix.data.scales import about_scale
from certmix.errors import CertmixError, RunError, brief
from certmix.files import write_atomically
from certmix.runs import Run, Store, read_run
from certmix.runs.folder import DATABASE, DESCRIPTION, command_of
from certmix.runs.logs import log_text
from certmix.runs.records import Records
from certmix.runs.settings import arguments, from_json, settings
from certmix.runs.sources import Sources, named_split
from certmix.tables import write_files
from certmix.tables.curves import certified_plots
from certmix.tables.formats import texts_of
from certmix.tables.words import summary_table
from certmix.types import ConfidenceBounds, IntArray, Summary

RADII_FILE = "radii.tsv"


def derive(
    request: Request, store: Store, described: dict[str, Any], held: Records | None = None
) -> Evaluation:
    """Return what a run's numbers say of the inputs it was asked for; `described` is its ``run.json``.

    `held` are the store's records, where they were read before.
    """
    if isinstance(request, Population):
        claimed: Any = population.derive(request, store, described)
        return claimed  # type: ignore[no-any-return]
    names: dict[str, Any] = {"data": named(described["data"])[0]}
    names |= {role: named(model)[0] for role, model in described["models"].items()}
    try:
        planned = planned_inputs(store, request.inputs, described)
    except ValueError as error:
        raise RunError(
            f"the run does not say which inputs were asked for ({error}): repeat its command"
        ) from None
    if not isinstance(request, CertifyRequest):
        return evaluate_proved(request, store, planned, described, **names)
    shard = from_json(Shard, described["shard"]) if described.get("shard") else None
    _, classes = data_of(described)
    notes, details = expectations(request, classes)
    notes += choice_notes(began_with(store), request)
    if shard is not None:
        notes.append(f"Shard {shard}: a share of the inputs, to be merged with the others.")
    held = store.records(ballots=request.gated) if held is None else held
    checksum = named(described["models"]["standard"])[1]
    mine = planned if shard is None else planned[shard.number - 1 :: shard.of]
    records = held.of_inputs(mine)
    probabilities = {} if checksum is None else store.standard(checksum)
    names |= about_scale(described["data"].get("settings"), request.radii, notes, details, request.norm)
    return evaluate(records, probabilities, request, len(planned), **names)


def publish(run: Run, request: Request, evaluation: Evaluation) -> None:
    """Write the table, its plots and its log into the run's folder."""
    records, plots = evaluation.records, plots_of(evaluation, request, run.store, run.described())

    def write(folder: Path) -> None:
        write_files(folder, summary_table(evaluation.summary), plots)
        for name, text in log_of(request, evaluation).items():
            write_atomically(folder / name, text.encode())

    run.publish(
        write, {"rows_independent": bool(np.all(Records.of(records).places == 1))} if records else None
    )


def plots_of(
    evaluation: Evaluation, request: Request, store: Store, described: dict[str, Any]
) -> dict[str, Callable[[str], bytes]]:
    """Return what draws a run's plots, by the stems of their files."""
    if isinstance(request, Population):
        return {}
    fronts, shares = None, []
    if isinstance(request, CertifyRequest):
        _, checksum = named(described.get("models", {}).get("standard"))
        if checksum is not None:
            fronts = fronts_of(evaluation, store.standard(checksum), request)
        plain = "votes" if request.scores == "hard" else "scores"
        shares = [
            (f"votes behind gate {gate:g}" if gate else plain, view.bounds.p_lower[right])
            for gate, view in evaluation.views.items()
            if isinstance(view.bounds, ConfidenceBounds)
            and np.any(right := view.selected == evaluation.outcomes.labels)
        ]
    return certified_plots(evaluation.summary, evaluation.curves, fronts, shares)


def texts_in(request: Request, evaluation: Evaluation) -> dict[str, str]:
    """Return by its name the text of each table and log in a run's folder."""
    return {**texts_of(evaluation.summary), **log_of(request, evaluation)}


def log_of(request: Request, evaluation: Evaluation) -> dict[str, str]:
    """Return the text of a run's log, input by input, by the file's name."""
    if isinstance(request, Population):
        return {}
    if isinstance(request, CertifyRequest):
        rows = zip(*(column.tolist() for column in log_columns(evaluation)), strict=True)
        return {
            LOG: log_text(
                rows, request.bound_at(request.gate), request.gate, evaluation.summary.feature_scale
            )
        }
    found = radii_by_input(evaluation.outcomes).items()
    lines = ["idx\tlabel\tpredict\tradius_robust\tradius_mixed"]
    lines += ["\t".join([index, *row.values()]) for index, row in found]
    return {RADII_FILE: "\n".join(lines) + "\n"}


def unfinished(folder: Path, finished: IntArray | None = None) -> str | None:
    """Return why a run is not the whole of what it was asked for, and the remedy; None if it is.

    One of another study than ``certmix certify`` counts as whole.  `finished` are its finished inputs, where
    they are known: its numbers are not read again.
    """
    described = read_run(folder)
    if _study(described) not in KINDS:
        return None
    if "request" not in described:
        return f"{folder} is unfinished (it was stopped before its first input): repeat its command to go on"
    done, planned = _progress(folder, described, finished)
    shard = described.get("shard")
    words = f"shard {shard.get('number')} of {shard.get('of')}" if isinstance(shard, dict) else "a shard"
    if done >= planned:
        return None if shard is None else f"{folder} is {words}: merge it with the others (certmix merge)"
    whose = "" if shard is None else f", {words}"
    objects = isinstance(described.get("sources"), dict) and described["sources"].get("objects")
    again = "run its program" if objects else f"repeat its command ({repeat_command(folder, described)})"
    return f"{folder} is unfinished ({done:,} of {planned:,} inputs{whose}): {again} to go on"


def refuse_unfinished(folder: Path) -> None:
    """Refuse a run that is not whole: RunError, with the remedy."""
    told = unfinished(folder)
    if told is not None:
        raise RunError(told)


def is_finished(folder: Path) -> bool:
    """Return whether a run's numbers are those of all inputs that its description asks for, or its shard."""
    try:
        described = read_run(folder)
        done, planned = _progress(folder, described)
    except RunError:
        return False
    return done >= planned


def _study(described: dict[str, Any]) -> str:
    return str(described["identity"].get("study", "certify"))


def _progress(folder: Path, described: dict[str, Any], finished: IntArray | None = None) -> tuple[int, int]:
    """Return how many of the inputs that a run was asked for are done, of how many."""
    with opened(folder, described) as (request, store):
        if isinstance(request, Population):
            found = population.derive(request, store, described)
            return found.claim.draws, found.claim.draws if found.summary.complete else found.most
        try:
            asked = planned_inputs(store, request.inputs, described)
        except ValueError:  # it was stopped before it knew
            asked = []
        if isinstance(request, CertifyRequest):
            if finished is None:
                held = store.records(ballots=request.gated)
                finished = bound_records(held, request).records.indices
            done = set(finished.tolist())
        else:
            done = set.intersection(*map(store.known, needed_cells(request)))
    if asked:
        with suppress(KeyError, TypeError, ValueError):  # no shard, or none that can be read
            shard = from_json(Shard, described["shard"])
            asked = asked[shard.number - 1 :: shard.of]
        return len(done.intersection(asked)), len(asked)
    planned = inputs_of(request, data_of(described)[0])
    return min(len(done), planned), planned


@contextmanager
def opened(folder: Path, described: dict[str, Any]) -> Iterator[tuple[Request, Store]]:
    """Open the newest request and the numbers of a run of ``certmix certify``.

    A run of another command is a RunError; so is a damaged description, also as the block finds it.
    """
    study = _study(described)
    if study not in KINDS:
        raise RunError(f"{folder} is a run of {command_of(study)}: name a run of certmix certify")
    try:
        request: Any = from_json(KINDS[study], described["request"])
        with closing(Store(folder / DATABASE, data_of(described)[1], read_only=True)) as store:
            yield request, store
    except CertmixError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        told = brief(error)
        raise RunError(
            f"{folder}/{DESCRIPTION} does not say what was asked for ({told}): repeat its command, or "
            "name another run"
        ) from None


def repeat_command(folder: Path, described: dict[str, Any]) -> str:
    """Return the command that a run's description stands for, without what is as by default."""
    request: Any = settings(KINDS[_study(described)], described["request"])
    words = ["certmix", "certify", *arguments(request)]
    if isinstance(request, Enumerated):  # its kind says so
        at = words.index("--certificate")
        del words[at : at + 2]
    elif hasattr(request, "certificate") and "--certificate" not in words:
        words += ["--certificate", request.certificate]  # of the command, another is the default
    if isinstance(named := described.get("sources"), dict):
        told = {**named, "split": named_split(named.get("split")), "run_code": False}
        told.pop("objects", None)
        if isinstance(request, Population):  # g is not named there
            told.pop("standard", None)
        words += arguments(settings(Sources, told))
    if described.get("batch_size") is not None:
        words += ["--batch-size", str(described["batch_size"])]
    if described.get("compile", "auto") != "auto":
        words += ["--compile", str(described["compile"])]
    if isinstance(shard := described.get("shard"), dict):
        words += ["--shard", f"{shard.get('number')}/{shard.get('of')}"]
    return shlex.join([*words, "--output", str(folder)])


def show(folder: str | Path) -> Summary:
    """Return the table of a run of ``certmix certify``: that of its newest request, as far as it got."""
    described = read_run(Path(folder))
    with opened(Path(folder), described) as (request, store):
        return derive(request, store, described).summary


def shown(folder: str | Path) -> tuple[Summary, dict[str, Callable[[str], bytes]]]:
    """Return the table of `show`, and what draws its plots, by the stems of their files."""
    described = read_run(Path(folder))
    with opened(Path(folder), described) as (request, store):
        found = derive(request, store, described)
        return found.summary, plots_of(found, request, store, described)
