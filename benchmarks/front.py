"""Certified against clean accuracy of four families of mixes, on inputs that nothing was tuned on.

Each RUN is a run of `certmix certify` with the inputs that are judged, each TUNING one of `certmix tune`
at its sigma on other inputs. TUNING's stored logits choose gate, temperature of g and alpha of each
family, once for each radius and floor of clean accuracy there; RUN's ballots then certify the choice. The
second table gives each rival every advantage: its alpha is the one that certifies most of the judged
inputs while the mix is right on at least as many of them as gated votes are.

MixedNUTS' transforms need noisy logits of the judged inputs, which no run of votes holds. With --noisy
FOLDER they are drawn there once (200 copies an input; an interrupted drawing goes on when the command is
repeated), and the transforms, with gated votes beside them, are *planned* from them: nothing of those
lines is certified.

    certmix certify --sigma 0.5 --alpha 0.76 --data INPUTS --inputs all --output runs/out-0.5
    certmix tune --sigma 0.5 --at-radius 0.5 --output runs/tuned-0.5
    python benchmarks/front.py runs/out-0.5=runs/tuned-0.5 --noisy runs/noisy --output front
"""

from __future__ import annotations

import argparse
import math
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from certmix.certification.analysis.compare import paired_shares
from certmix.certification.analysis.trade_off import Mixable, read_mixable
from certmix.certification.fronts import margins_at, needed
from certmix.certification.publish import unfinished
from certmix.certification.tuned import TuneRequest
from certmix.errors import CertmixError, ParameterError
from certmix.models.temperature import answer_of, mix_shares, sharpened
from certmix.nuts.grid import parse_grid
from certmix.nuts.margins import softmax_numpy
from certmix.runs import read_run
from certmix.runs.folder import DATABASE, DESCRIPTION
from certmix.runs.settings import settings
from certmix.runs.sources import Sources, named_split
from certmix.studies.nuts_certified import noisy_logits
from certmix.studies.nuts_certified_plan import ALPHAS, NoisyLogits, first_of
from certmix.studies.shares import estimated_accuracy
from certmix.studies.study import Surroundings, some, stored_numbers
from certmix.studies.tune import tune
from certmix.studies.tune_plan import GATED, GRID, Candidate, Family, families_of
from certmix.tables import Quantity, Table, render, write_files
from certmix.tables.table import Cell, Share
from certmix.types import FloatArray

RADII = {0.25: (0.25, 0.5), 0.5: (0.25, 0.5, 1.0), 1.0: (0.5, 1.0)}
"""By sigma, where --at-radius says nothing."""
WEIGHTS = np.array(ALPHAS)


class Logits(NamedTuple):
    """What a run of `certmix tune` holds."""

    logits: NoisyLogits
    asked: TuneRequest
    checksum: str


class Judge(NamedTuple):
    """A choice on the judged inputs: which are right at an alpha, bool (m,), and h's margins there (m,)."""

    right: Callable[[float], NDArray[np.bool_]]
    margins: FloatArray
    certified: bool
    mixable: Mixable | None = None

    def held(self, alpha: float) -> NDArray[np.bool_]:
        """Which inputs are certified, bool (m,), or planned to be."""
        return np.asarray(self.margins > needed(np.array([alpha]))[0])


class Chosen(NamedTuple):
    """A family's best on the tuning inputs, with shares of these; `place` is that of its candidate."""

    family: str
    candidate: Candidate
    place: int
    alpha: float
    clean: float
    certified: float


def read_tuning(folder: Path) -> Logits:
    """Return the stored logits of a run of `certmix tune`."""
    with stored_numbers(folder, "tune") as numbers:
        asked = some(TuneRequest, numbers.asked)
        return Logits(noisy_logits(numbers, asked), asked, str(numbers.asked["data_checksum"]))


def choices(families: Sequence[Family], logits: NoisyLogits, floor: float) -> Iterable[Chosen]:
    """Yield each family's candidate and alpha that certify most tuning inputs under a floor."""
    standard, inputs = softmax_numpy(logits.standard), len(logits.labels)
    for family in families:
        held, clean = family.counts(standard, logits.labels)
        at = first_of(held, clean, clean >= np.ceil(round(floor * inputs, 9)))
        if at is not None:
            place, one = at[0] % len(family.names), family.candidates[at[0]]
            yield Chosen(family.name, one, place, ALPHAS[at[1]], clean[at] / inputs, held[at] / inputs)


@dataclass
class Judged:
    """The judged inputs of one sigma: a run, and noisy logits of them, or None."""

    run: Path
    noisy: Logits | None
    votes: dict[tuple[float, float], Mixable] = field(default_factory=dict)

    def stored(self, one: Chosen, at_radius: float) -> Judge:
        """Judge votes by the run's bounds."""
        key = one.candidate.gate, one.candidate.temperature
        if key not in self.votes:
            self.votes[key] = read_mixable(self.run, gate=key[0], standard_temperature=key[1])
        mixable = self.votes[key]
        stored, g, h = mixable.stored, mixable.standard, mixable.stored.frequencies
        if g is None or h is None:
            raise ParameterError(f"{self.run} holds no probabilities of g: certify with --standard")
        margins = np.where(
            stored.right, margins_at(stored.bounds, at_radius, stored.smoothing.sigma or math.nan), -1.0
        )
        return Judge(lambda alpha: answer_of(mix_shares(g, h, alpha)) == stored.label, margins, True, mixable)

    def planned(self, one: Chosen, asked: TuneRequest, families: dict[str, Family]) -> Judge:
        """Judge a family by planned margins; `families` are those of the judged inputs so far."""
        assert self.noisy is not None
        logits, place, family = self.noisy.logits, one.place, families.get(one.family)
        if family is None:  # a transform: its grid is one point
            axes = parse_grid(asked.grid or GRID)
            i, j, k = np.unravel_index(place, axes.shape)
            point = zip("spc", (axes.s[i], axes.p[j], axes.c[k]), strict=True)
            grid = ",".join(f"{name}={float(value)!r}:{float(value)!r}:1" for name, value in point)
            family, place = families_of(logits, asked.replace(grid=grid))[-1], 0
        h, g = family.shares[place], sharpened(softmax_numpy(logits.standard), one.candidate.temperature)
        right = (h.argmax(1) == logits.labels) & (h.max(1) > 0)
        margins = np.where(right, family.margins[place], -1.0)
        return Judge(lambda alpha: answer_of(mix_shares(g, h, alpha)) == logits.labels, margins, False)


def best_at(judge: Judge, least: int) -> float | None:
    """Return the alpha that certifies most inputs of those with at least so many right."""
    held = len(judge.margins) - np.searchsorted(np.sort(judge.margins), needed(WEIGHTS), "right")
    right = np.array([judge.right(alpha).sum() for alpha in ALPHAS])
    return ALPHAS[int(np.argmax(np.where(right >= least, held, -1)))] if (right >= least).any() else None


def certified_cell(judge: Judge, alpha: float, at_radius: float) -> Cell:
    """Return the certified share; a range where more samples could have added to it."""
    if judge.mixable is not None:
        return judge.mixable.mixes([alpha], ("exact",), at_radius)[0].certified[0]
    return estimated_accuracy(judge.held(alpha))


def noisy_of(run: Path, asked: TuneRequest, folder: Path, inputs: int | None) -> Logits:
    """Draw noisy logits of a run's inputs, or read them where they lie."""
    described = read_run(run, "certify")
    told = dict(described["sources"])
    told = {**told, "split": named_split(told.get("split")), "run_code": True}
    told.pop("objects", None)
    where = folder / f"sigma-{asked.sigma:g}"
    print(f"noisy logits of {run}: {where}", file=sys.stderr)
    count = inputs or described["request"]["inputs"]
    tune(
        asked.replace(grid="none", inputs=count, lose=None, clean_accuracy=None),
        settings(Sources, told), Surroundings(output=where, say=lambda text: None),
    )  # fmt: skip
    return read_tuning(where)


def measure(
    run: Path,
    tuning: Path,
    floors: Sequence[float],
    lose: Sequence[float],
    radii: Sequence[float],
    noisy: Path | None,
    noisy_inputs: int | None = None,
) -> list[Table]:
    """Return the table of the choices, and that of paired comparisons at equal clean accuracy."""
    logits, asked, tuned_on = read_tuning(tuning)
    described, told = read_run(run, "certify"), unfinished(run)
    identity, inputs = described["identity"], described["data"]["name"]
    if identity["sigma"] != asked.sigma:
        raise ParameterError(
            f"{run} has sigma {identity['sigma']}, {tuning} {asked.sigma}: tune for the run's"
        )
    if identity["data_checksum"] == tuned_on:
        raise ParameterError(f"{run} has the inputs of {tuning}: judge others than were tuned on")
    asked = asked.replace(
        grid=None if noisy else "none", failure_probability=described["request"]["failure_probability"]
    )
    seen = None if noisy is None else noisy_of(run, asked, noisy, noisy_inputs)
    if seen is not None and seen.checksum != identity["data_checksum"]:
        raise ParameterError(f"{noisy} holds logits of other inputs than {run}: name another folder")
    judged = Judged(run, seen)
    own = float(np.mean(logits.standard.argmax(1) == logits.labels))
    wanted = {f"{100 * floor:g} %": floor for floor in floors}
    wanted |= {
        f"g's less {points:g} points ({100 * own - points:.1f} %)": own - points / 100 for points in lose
    }
    rows, pairs = list[tuple[Cell, ...]](), list[tuple[Cell, ...]]()
    groups, pair_groups = list[tuple[str, int]](), list[tuple[str, int]]()
    count, planned = 0, 0
    for at in radii or RADII.get(asked.sigma, (asked.at_radius,)):
        here = asked.replace(at_radius=at)
        families = families_of(logits, here)
        theirs = {} if seen is None else {
            one.name: one for one in families_of(seen.logits, here.replace(grid="none"))
        }  # fmt: skip
        for words, floor in wanted.items():
            begun, paired = len(rows), len(pairs)
            found: dict[tuple[str, bool], tuple[Chosen, Judge]] = {}
            for one in choices(families, logits, floor):
                if one.family in ("votes, g as it is", "votes, g one-hot", GATED):
                    found[one.family, True] = one, judged.stored(one, at)
                if seen is not None:
                    found[one.family, False] = one, judged.planned(one, here, theirs)
            for (name, proved), (one, judge) in found.items():
                right = judge.right(one.alpha)
                count = max(count, len(right))
                planned = max(planned, 0 if judge.mixable is None else judge.mixable.stored.planned or 0)
                rows.append((
                    name if proved else f"{name} (planned)", one.candidate.name,
                    Quantity(one.candidate.temperature, 2), Quantity(one.alpha, 3), Share(one.clean),
                    Share(one.certified), estimated_accuracy(right), certified_cell(judge, one.alpha, at),
                ))  # fmt: skip
            for proved in (True, False):
                if (GATED, proved) not in found:
                    continue
                one, gated = found[GATED, proved]
                for (name, kind), (_, rival) in found.items():
                    if kind == proved and name != GATED:
                        told_as = name if proved else f"{name} (planned)"
                        pairs.append((told_as, *compared(rival, gated, one.alpha, at)))
            if not found:
                print(f"no family reaches {words} at {tuning}: left out", file=sys.stderr)
                continue
            groups.append((f"radius {at:g}, clean accuracy of at least {words} there", len(rows) - begun))
            pair_groups.append((f"radius {at:g}, gated votes chosen at {words}", len(pairs) - paired))
    line = f"sigma = {asked.sigma:g}, {count:,} inputs of {inputs}, chosen on {len(logits.labels):,} others"
    delta = f"{asked.failure_probability:g}"
    plans = "Planned: from noisy copies, what bounds are expected to give; nothing of it is certified."
    first = Table(
        f"front-{asked.sigma:g}", "Clean and certified accuracy (%), chosen on other inputs", line,
        ("family", "chosen", "T of g", "alpha", "clean, tuning", "planned, tuning", "clean", "certified"),
        tuple(rows), (
            f"Each input's certificate is wrong with probability at most {delta}, each line by itself. Clean "
            "accuracies are estimates. A range: what more samples of this run's inputs could still give.",
            *([] if seen is None else [plans]),
        ), told is None, tuple(groups), extent=f"{count:,} of {planned:,} inputs",
    )  # fmt: skip
    second = Table(
        f"front-paired-{asked.sigma:g}",
        "Gated votes against others (%) at equal clean accuracy on these inputs", line,
        (
            "rival", "alpha", "clean, rival", "certified, rival", "clean, gated", "certified, gated",
            "difference", "only rival", "only gated", "p",
        ),
        tuple(pairs), (
            "The rival's alpha is chosen on these inputs, to certify most of them with a clean accuracy of "
            "at least that of gated votes, which were chosen on others: the comparison favours the rival. A "
            "dash: no alpha is as accurate.",
            "p: McNemar's exact test, of its line alone. Differences: 95 % BCa bootstrap over inputs.",
            *([] if seen is None else [plans]),
        ), told is None, tuple(pair_groups), extent=f"{count:,} of {planned:,} inputs",
    )  # fmt: skip
    return [first, second]


def compared(rival: Judge, gated: Judge, alpha: float, at: float) -> tuple[Cell, ...]:
    """Return a rival at its best alpha beside gated votes, and their difference."""
    right, held = gated.right(alpha), gated.held(alpha)
    own = estimated_accuracy(right), certified_cell(gated, alpha, at)
    weight = best_at(rival, int(right.sum()))
    if weight is None:
        return (
            Quantity(None, 3),
            Share(None),
            Share(None),
            *own,
            Quantity(None, 1),
            None,
            None,
            Quantity(None, 4),
        )
    found = paired_shares(rival.held(weight), held)
    ends = None if found.interval is None else (100 * found.interval[0], 100 * found.interval[1])
    apart = Quantity(100 * found.difference, 1, "points", interval=ends)
    there = estimated_accuracy(rival.right(weight)), certified_cell(rival, weight, at)
    only = found.only or (None, None)
    return Quantity(weight, 3), *there, *own, apart, *only, Quantity(found.p_value, 4, rounding="up")


def copied(run: Path, place: Path) -> Path:
    """Return a copy of a run as it is now, which may be growing."""
    place.mkdir()
    shutil.copy(run / DESCRIPTION, place)
    with (
        closing(sqlite3.connect(f"file:{run / DATABASE}?mode=ro", uri=True)) as growing,
        closing(sqlite3.connect(place / DATABASE)) as still,
    ):
        growing.backup(still)
    return place


def main() -> int:
    """Print the tables, and write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", metavar="RUN=TUNING", nargs="+")
    parser.add_argument("--at-radius", type=float, nargs="*", default=[], help="[default: by sigma]")
    parser.add_argument("--clean-accuracy", type=float, nargs="*", default=[0.8, 0.85])
    parser.add_argument("--lose", type=float, nargs="*", default=[5.0], help="points below g")
    parser.add_argument("--noisy", type=Path, metavar="FOLDER", help="noisy logits of the judged inputs")
    parser.add_argument("--noisy-inputs", type=int, metavar="N", help="of so many [default: as the run]")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write the tables, in every format")
    parser.add_argument("--format", default="table")
    given = parser.parse_args()
    try:
        for run, equals, tuning in (one.partition("=") for one in given.pairs):
            if not equals:
                raise ParameterError(f"{run} names no tuning run: write RUN=TUNING")
            print(f"{run}: {unfinished(Path(run)) or 'all inputs are finished'}", file=sys.stderr)
            how = given.clean_accuracy, given.lose, given.at_radius, given.noisy, given.noisy_inputs
            with TemporaryDirectory() as place:
                tables = measure(copied(Path(run), Path(place, "run")), Path(tuning), *how)
            for table in tables:
                print(render(table, given.format), flush=True)
                if given.output is not None:
                    write_files(given.output, table)
    except CertmixError as error:
        sys.exit(f"Error: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
