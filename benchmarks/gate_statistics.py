"""Which statistic of a noisy copy's logits a gate should threshold: planned, on tuning inputs.

RUN is a run of `certmix tune`: its noisy logits are read, nothing is drawn.  Votes behind a gate on each
statistic have the same number of thresholds, at its quantiles over all copies, and choose threshold, g's
temperature and alpha for most certified inputs under a floor of clean accuracy: on one half of the inputs,
seen on the other, 20 times.

    python benchmarks/gate_statistics.py RUN... --clean-accuracy 0.85 0.9
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.special import logsumexp, xlogy

from certmix.certification.tuned import TuneRequest
from certmix.errors import CertmixError, ParameterError
from certmix.nuts.margins import normalize_numpy, softmax_numpy
from certmix.studies.nuts_certified import noisy_logits
from certmix.studies.nuts_certified_plan import NoisyLogits, ScoreSums, planned_margins
from certmix.studies.study import some, stored_numbers
from certmix.studies.tune_plan import GATED, SPLITS, Family, families_of, plan_tuned
from certmix.tables import Share, Table, render
from certmix.tables.table import Cell

LEVELS = 20
TEMPERATURES = (0.0, 0.5)


def gap(values: np.ndarray) -> np.ndarray:
    """Return how far the largest is above the second, (..., c) to (...)."""
    second, first = np.moveaxis(np.partition(values, -2, -1)[..., -2:], -1, 0)
    return np.asarray(first - second)


STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "largest probability": lambda z: softmax_numpy(z).max(-1),
    "gap of the two largest probabilities": lambda z: gap(softmax_numpy(z)),
    "gap of the two largest logits": gap,
    "largest logit": lambda z: z.max(-1),
    "largest normalised logit": lambda z: (
        normalize_numpy(z.reshape(-1, z.shape[-1])).max(1).reshape(z.shape[:2])
    ),
    "log of the sum of exponentials": lambda z: logsumexp(z, -1),
    "negative entropy": lambda z: xlogy(p := softmax_numpy(z), p).sum(-1),
}  # fmt: skip
"""Of logits (m, n, c), (m, n), larger where the network is surer."""


def family(name: str, values: np.ndarray, logits: NoisyLogits, asked: TuneRequest) -> Family:
    """Return votes behind gates on a statistic's values (m, n); the first threshold lets all pass."""
    votes = np.eye(logits.noisy.shape[-1])[logits.noisy.argmax(-1)]
    levels = np.quantile(values, np.arange(LEVELS) / LEVELS)
    counts = np.stack([(votes * (values >= level)[..., None]).sum(1) for level in levels])
    sums = ScoreSums(counts, counts, values.shape[1])
    margins = planned_margins(
        sums, bound="clopper-pearson-two-sided", gated=True, samples=asked.samples,
        failure_probability=asked.failure_probability, distance=asked.at_radius / asked.sigma,
    )  # fmt: skip
    names = tuple(f"{level:.3g}" for level in levels)
    return Family(name, sums.means, margins, (0.0,) * LEVELS, names, TEMPERATURES)


def measure(folders: list[Path], floors: list[float]) -> Table:
    """Return a row a statistic, for each run: certified and clean shares on other halves, at each floor."""
    rows, groups = list[tuple[Cell, ...]](), list[tuple[str, int]]()
    for folder in folders:
        with stored_numbers(folder, "tune") as numbers:
            asked = some(TuneRequest, numbers.asked).replace(grid="none", clean_accuracy=None, lose=None)
            logits = noisy_logits(numbers, asked)
        votes = families_of(logits, asked)[1]
        tried = [votes]
        for name, statistic in STATISTICS.items():
            own = GATED if not tried[1:] else name  # the plan wants one of this name
            tried.append(family(own, statistic(logits.noisy), logits, asked))
        found: dict[str, list[Cell]] = {one.name: [] for one in tried}
        for floor in floors:
            plan = plan_tuned(logits, asked.replace(clean_accuracy=floor), tried)
            for name, cells in found.items():
                seen = next((one.seen for one in plan.choices if one.family == name), None)
                cells += [Share(None), Share(None)] if seen is None else [Share(seen[0]), Share(seen[1])]
        first = next(iter(STATISTICS))
        rows += [(f"gate on the {first}" if name == GATED else name, *cells) for name, cells in found.items()]
        inputs = f"{len(logits.labels):,} inputs, {logits.noisy.shape[1]:,} copies each"
        groups.append((f"sigma = {asked.sigma:g}, radius {asked.at_radius:g}, {inputs}", len(found)))
    headings = [f"{what}, floor {floor:g}" for floor in floors for what in ("certified", "clean")]
    return Table(
        "gate-statistics",
        "Planned certified and clean accuracy (%) of votes behind a gate, on halves that did not choose",
        f"means over {SPLITS} halvings, {LEVELS} thresholds each, T of g in {TEMPERATURES}",
        ("gate on", *headings), tuple(rows),
        ("Nothing is certified here: plans, from noisy copies. A dash: some half reaches no such floor.",),
        groups=tuple(groups),
    )  # fmt: skip


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+")
    parser.add_argument("--clean-accuracy", type=float, nargs="*", default=[0.8, 0.85])
    parser.add_argument("--format", default="table")
    given = parser.parse_args()
    try:
        if not given.clean_accuracy:
            raise ParameterError("no floor of clean accuracy: give one, such as --clean-accuracy 0.85")
        print(render(measure(given.runs, given.clean_accuracy), given.format))
    except CertmixError as error:
        sys.exit(f"Error: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
