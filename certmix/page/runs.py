"""What a page shows of a run folder: a certification, or tables and plots that a study left.  No torch."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from certmix.bounds import BOUNDS
from certmix.certification.evaluate import bounds_of, clean_accuracy, outcomes_of, radii_of_rows, reach_curve
from certmix.certification.publish import derive, opened, plots_of, repeat_command, show
from certmix.certification.request.population import Population
from certmix.certification.request.reading import KINDS
from certmix.certification.request.sampled import GOALS
from certmix.certification.stored import named
from certmix.errors import ParameterError, RunError, brief
from certmix.files import as_argument, read_file, remedy_of
from certmix.page.gallery import Inputs, gallery
from certmix.runs import InputRecord, read_run
from certmix.runs.folder import CERTIFY
from certmix.sampling.devices import PARTLY
from certmix.sampling.schedule import looks, share
from certmix.tables.table import Table
from certmix.text import as_given, plain_decimal
from certmix.types import FloatArray, Summary

Facts = tuple[tuple[str, str], ...]  #: names and values, both in print
WEIGHTS = tuple(k / 20 for k in range(11, 21))  # beside a run's own, at which its curves can be seen
LARGEST_PLOT = 300_000  # bytes
SPLIT = {
    "p": "lower bound p of the chosen class", "q": "upper bound q of every other class",
    "own": "distribution of the chosen class", "each rival": "distribution of each rival",
    "rest": "all other classes together",
}  # fmt: skip
NAMES = {
    "sigma": "noise level \u03c3", "alpha": "mixing weight \u03b1", "eps": "attack radius",
    "samples": "most samples an input", "radii": "radii of the table",
}  # fmt: skip


PLOTS = {
    "front": "What clean accuracy costs: certified accuracy against clean accuracy of the mix",
    "probabilities": "How sure h is: lower bounds of the probability of its class",
}
"""Plots of a certification beside its curves, and what the page calls them."""


class Weight(NamedTuple):
    """What a run says at one mixing weight; `reach`, as of `Curve`, is of each row what samples could add."""

    alpha: float
    rows: tuple[FloatArray, ...]
    clean: float | None
    reach: tuple[FloatArray, ...] = ()


@dataclass(frozen=True)
class Certified:
    """A certification: its figures, and the inputs behind them (none where none is finished).

    `split` says how the failure probability is divided, `looks` how many samples each look has and which
    share it may spend.
    """

    summary: Summary
    inputs: Inputs
    weights: tuple[Weight, ...]
    split: Facts = ()
    looks: tuple[tuple[int, float], ...] = ()

    @property
    def lead(self) -> int:
        """Which row the page speaks of: the mix by ``exact``, or else its first certificate."""
        mixed = [k for k, row in enumerate(self.summary.rows) if row.classifier == "mixed"]
        exact = [k for k in mixed if self.summary.rows[k].certificate == "exact"]
        return (exact or mixed or [0])[0]

    @property
    def column(self) -> int:
        """Which column the page speaks of: the smallest radius above 0, or else 0."""
        return next((k for k, r in enumerate(self.summary.radii) if r > 0), 0)

    @property
    def hits(self) -> int:
        """Inputs certified at that radius."""
        return int((self.inputs.certified(self.lead) >= self.summary.radii[self.column]).sum())


@dataclass(frozen=True)
class Run:
    """A run folder as a page shows it: tables and plots (name, SVG) of a study, or a certification."""

    name: str
    study: str
    tables: tuple[Table, ...]
    plots: tuple[tuple[str, bytes], ...]
    certified: Certified | None
    gallery: dict[str, Any]
    parameters: Facts
    provenance: Facts
    data_checksum: str
    commands: Facts


def read_page_run(folder: Path, inputs: int) -> Run:
    """Return what a page shows of one run folder; see `certmix.page.report_page`."""
    described = read_run(folder)
    try:
        study, found = str(described["identity"].get("study", CERTIFY)), None
        drawn: tuple[tuple[str, bytes], ...] = ()
        tables: tuple[Table, ...] = ()
        if KINDS.get(study) is Population:
            claim: Any = show(folder)
            tables = (claim,)
        elif study in KINDS:
            found, records, drawn = _certified(folder, described)
        else:
            from certmix.studies.study import show_study  # imports torch

            tables, drawn = (show_study(folder),), plots(folder)
        pictures: dict[str, Any] = {"groups": [], "note": ""}
        norm = None if found is None else found.summary.norm
        if found is not None and inputs and len(found.inputs.labels):
            pictures = gallery(found.inputs, found.lead, found.summary.norm, records, described, inputs)
        return Run(
            folder.resolve().name, study, tables, drawn, found, pictures,
            _parameters(described, norm), _provenance(described),
            str(described["identity"]["data_checksum"]), _commands(described, folder, study),
        )  # fmt: skip
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, ParameterError):
            raise
        told = f"{folder}/run.json cannot be used ({type(error).__name__} {brief(error)})"
        raise RunError(f"{told}: only a run that began can be shown; run the command again") from None


def _certified(
    folder: Path, described: dict[str, Any]
) -> tuple[Certified, Sequence[InputRecord], tuple[tuple[str, bytes], ...]]:
    """Return a certification's newest request, derived from its numbers, its inputs' records, and plots.

    Plots are those beside the curves, which the page draws itself.
    """
    request: Any
    with opened(folder, described) as (request, store):
        found, checksum = derive(request, store, described), named(described["models"]["standard"])[1]
        draws = plots_of(found, request, store, described)
        probabilities = {} if found.bounds is None or checksum is None else store.standard(checksum)
    one, summary, bounds = found.outcomes, found.summary, found.bounds
    radii, status = tuple(r.radius for r in one.radii), tuple(r.status for r in one.radii)
    classes = tuple(one.answers(row.classifier)[0] for row in request.rows()) if radii else ()
    inputs = Inputs(one.indices, one.labels, classes, radii, status)
    if bounds is None:  # without noise
        if not summary.inputs:
            raise RunError(f"{folder} holds no results yet: repeat certmix certify to finish it")
        return (
            Certified(summary, inputs, (Weight(summary.alpha, radii, summary.clean_accuracy.mixed),)),
            (),
            (),
        )
    weights, ahead = [], found.prospects
    for alpha in sorted({request.alpha, *WEIGHTS}) if radii else ():
        own, reach = request.replace(alpha=alpha), []
        asked = own.rows()
        rows = [row.radius for row in radii_of_rows(bounds_of(found.views), own)]
        if ahead is not None:
            each = zip(asked, rows, radii_of_rows(bounds_of(ahead), own), strict=True)
            for k, (row, radius, likely) in enumerate(each):
                right = inputs.right(k)
                reach.append(reach_curve(radius, likely.radius, right, own.radii, ahead[row.gate]))
        clean = clean_accuracy(outcomes_of(found.records, probabilities, asked))
        weights.append(Weight(alpha, tuple(rows), clean.mixed, tuple(reach)))
    budget = described["failure_budget"]
    split = [("bound", str(budget["bound"]))]
    split += [(SPLIT.get(name, name), plain_decimal(value)) for name, value in budget["split"].items()]
    at_once = budget["looks"] is None or BOUNDS[request.bound].time_uniform
    shares = () if at_once else tuple((n, share(k)) for k, n in enumerate(looks(request.samples)))
    drawn = tuple((told, draws[name]("svg")) for name, told in PLOTS.items() if name in draws)
    return Certified(summary, inputs, tuple(weights), tuple(split), shares), found.records, drawn


def without_folders(value: str) -> str:
    """Return text with the folders of absolute paths left out: a page may be shown to others.

    >>> without_folders("/home/me/nets.py:linear"), without_folders("nuts:/a/b#g")
    ('nets.py:linear', 'nuts:b#g')
    """
    return re.sub(r"(^|(?<=nuts:))(?:[A-Za-z]:|~|\.\.?)?[/\\](?:[^/\\#]*[/\\])*", "", value)


def _parameters(described: dict[str, Any], norm: str | None) -> Facts:
    """Return what was asked for; parameters that had no effect are left out."""
    request = dict(described["request"])
    gone = {"batch_size", "seed", "precision", "save"}
    gone |= set() if request.get("scores") == "soft" else {"score_temperature"}
    gone |= set() if request.get("goal") == "radius" else {"relative_precision"}
    if norm is not None:
        request.setdefault("norm", norm)
    if request.get("goal") in GOALS:
        request["goal"] += f": {GOALS[request['goal']]}"
    facts = []
    for key, value in request.items():
        text = _shown(value, key in ("radii", "eps") or key.endswith("radius"))
        if text and key not in gone:
            facts.append((NAMES.get(key, key.replace("_", " ")), text))
    return tuple(facts)


def _shown(value: Any, radius: bool = False) -> str:
    """Return a parameter in print, empty where it was not given."""
    if isinstance(value, list | tuple):
        return ", ".join(_shown(one, radius) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(one)}" for key, one in value.items())
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, float):
        return as_given(value) if radius else plain_decimal(value)
    return f"{value:,}" if isinstance(value, int) else without_folders(str(value))


def _provenance(described: dict[str, Any]) -> Facts:
    """Return data, models, seed, device and versions."""
    data, request, models = described["data"], described["request"], described["models"]
    box = data.get("input_range")
    facts = [
        ("data", f"{data['name']}, {data['split']}, {data['inputs']:,} inputs"),
        ("input range", "unbounded" if box is None else f"{box[0]:g} to {box[1]:g}"),
        ("data checksum", str(data["checksum"])),
    ]
    for role, letter in (("standard", "g"), ("robust", "h")):
        if (model := models.get(role)) is None:
            facts.append((f"{role} ({letter})", "none"))
        else:
            facts.append((f"{role} ({letter})", without_folders(str(model["name"]))))
            facts.append((f"{role} checksum", str(model["checksum"])))
    if isinstance(noise := described.get("noise"), dict):
        grid, eps = _shown(noise.get("steps_per_unit")), _shown(noise.get("eps"))
        facts.append(("noise", f"multiples of 1/{grid}, law within {eps} of the Gaussian's"))
    if isinstance(independent := described.get("rows_independent"), bool):
        facts.append(("rows of a batch", "independent" if independent else "averaged over their places"))
    facts += [(name, text) for name in ("seed", "precision") if (text := _shown(request.get(name)))]
    facts.append(("device", f"{described['device']} ({described['device_name']})"))
    if how := described.get("compiled"):
        facts.append(("model", f"{'partly ' if how == PARTLY else ''}compiled by torch.compile"))
    facts.append(("models", "not checked for this page (certmix verify compares them with the run)"))
    return (*facts, *((name, str(number)) for name, number in described["versions"].items()))


def _commands(described: dict[str, Any], folder: Path, study: str) -> Facts:
    """Return what the commands do that make the run and its tables again, and the commands."""
    name, found = as_argument(folder.resolve().name), []
    if study == CERTIFY or study.startswith("certify-"):
        if not described["sources"].get("objects"):
            words = map(without_folders, shlex.split(repeat_command(folder.resolve(), described)))
            found.append(("The run itself (paths are shortened to their last part)", shlex.join(words)))
        if KINDS.get(study) is Population:
            found.append(("Draw some of it again, and prove the claim", f"certmix verify {name}"))
            return (*found, ("This page", f"certmix report {name}"))
        found.append(("Run it again and compare input by input", f"certmix reproduce {name}"))
        found.append(("Look for what would change a table", f"certmix audit {name}"))
    if study == CERTIFY:
        found.append(("Another mixing weight, without sampling", f"certmix recertify {name} --alpha 0.9"))
    return (*found, ("This page", f"certmix report {name}"))


def plots(folder: Path) -> tuple[tuple[str, bytes], ...]:
    """Return the plots at the top of a study's folder, but for very large ones and for links."""
    try:
        return tuple(
            (path.stem, read_file(path, LARGEST_PLOT))
            for path in sorted(folder.glob("*.svg"))
            if os.path.isfile(path) and not os.path.islink(path) and path.stat().st_size <= LARGEST_PLOT
        )
    except OSError as error:
        told = f"{error.filename} cannot be read ({error.strerror})"
        raise RunError(f"{told}: {remedy_of(error, 'restore it')}") from None
