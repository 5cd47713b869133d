"""A small summary with figures chosen to catch roundings, a realistic run, and tables of every kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.stats import norm

from certmix.bounds import clopper_pearson
from certmix.tables import Quantity, Share, Table
from certmix.tables.trade_off import Mix, Sweep, TradeOff
from certmix.tables.words import summary_table
from certmix.types import (
    AttackedAccuracy,
    CertifiedAccuracy,
    CleanAccuracy,
    Curve,
    EstimatedAccuracy,
    Summary,
)

SMALL = Summary(
    sigma=0.5,
    alpha=0.76,
    inputs=100,
    failure_probability=0.001,
    radii=(0.0, 0.25),
    clean_accuracy=CleanAccuracy(0.95, 0.57, None),
    rows=(
        CertifiedAccuracy("robust", "exact", (0.57, 0.29), ((0.4671, 0.6687), (0.2036, 0.38931)), 0.12367),
        CertifiedAccuracy("mixed", "smoothing", (0.07, 0.0), ((0.0286, 0.139), (0.0, 0.0363)), 0.0299999),
    ),
    planned_inputs=100,
    samples=10_000,
    selection_samples=100,
    seed=7,
    data="shapes_10",
    standard="std&co",
    robust="rob#1",
    abstained=1,
    notes=("alpha was chosen on 50% of the inputs",),
)


NOTHING = Summary(
    0.5, 0.76, 0, 0.001, (0.5,), CleanAccuracy(None, None, None),
    (CertifiedAccuracy("mixed", "exact", (math.nan,), ((math.nan, math.nan),), math.nan),),
)  # fmt: skip
CLEAN = EstimatedAccuracy(57, 100, (0.46713, 0.66861))
ATTACKED = AttackedAccuracy(2, 3, (0.09429, 0.99161))
HOSTILE = "a|b\n\n# c <x> \x1b[1m \udc80 \\end{table} 50% $ & _^~"


def table_of(*rows: tuple, headings: tuple[str, ...] = ("model", "clean", "attacked"), **changes) -> Table:
    fields = {"title": "Accuracy", "settings": "pgd, 3 inputs", **changes}
    return Table("demo", headings=headings, rows=rows, **fields)


def mix_sweep(lines: int = 5, alphas: int = 21) -> Table:
    """A table like that of the mix over alpha, every accuracy another figure."""
    rows = []
    for a in range(alphas):
        cells = []
        for k in range(lines):
            right = 7 * a + 150 * k + 3
            kind = AttackedAccuracy if k else EstimatedAccuracy
            cells.append(kind(right, 999, (right / 1100, (right + 80) / 1100)))
        rows.append((a / 20, *cells))
    names = tuple(f"attack number {k}" for k in range(1, lines))
    return Table("mix-sweep", "Accuracy (%)", "pgd", ("alpha", "clean", *names), tuple(rows))


UNITS = table_of(
    ("a", Quantity(2.5, 0, "inputs/s"), Quantity(1.0, 1, "s")),
    ("b", Quantity(None, 0, "inputs/s"), CLEAN),
    ("c", None, 3),
    headings=("model", "speed", "value"),
    groups=(("x", 1), ("y", 2)),
    complete=False,
)
MIXES = tuple(
    Mix(alpha, clean, (Share(exact, ends), Share(smoothing, ends)), (exact, smoothing))
    for alpha, clean, exact, smoothing, ends in (
        (0.5, 0.95, 0.0, 0.0, (0.0, 0.04)), (0.51, 0.94, 0.1, 0.1, (0.05, 0.17)), (0.55, 0.9, 0.2, 0.1999, (0.13, 0.29)),
    )
)  # fmt: skip
SWEEP = Sweep("log.tsv", 0.5, 100, "an estimate", MIXES)
TRADE_OFF = TradeOff(
    0.25, ("exact", "smoothing"), 0.94,
    (replace(SWEEP, match=Mix(0.512, 0.94, (Share(0.12, (0.06, 0.2)), Share(0.11, (0.05, 0.19), (0.16, 0.25))), (0.12, 0.16))), replace(SWEEP, sigma=1.0)),
    ("one note",),
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    summary: Summary
    curves: list[Curve]


def make_run(radii: tuple[float, ...], inputs: int = 200, **changes: object) -> Run:
    """Return a run with four certificates of the mix below the robust classifier."""
    sigma, alpha = 0.5, 0.76
    p = np.clip(np.random.default_rng(3).beta(1.5, 0.3, inputs), 1e-4, 0.9999)
    lipschitz = (alpha * (2 * p - 1) + alpha - 1) / (2 * alpha) * sigma * np.sqrt(2 * np.pi)
    columns = {
        ("robust", "exact"): sigma * norm.ppf(p),
        ("mixed", "exact"): sigma * (norm.ppf(p) - norm.ppf(1 / (2 * alpha))),
        ("mixed", "smoothing"): sigma / 2 * (norm.ppf(alpha * p) - norm.ppf(1 - alpha * p)),
        ("mixed", "lipschitz"): lipschitz,
        ("mixed", "lipschitz-paper"): lipschitz / 2,
    }
    rows, curves = [], []
    for name, raw in columns.items():
        radius = np.maximum(raw, 0.0)
        counts = np.array([int(np.sum(radius > 0 if r == 0 else radius >= r)) for r in radii])
        ends = tuple(zip(*(end.tolist() for end in clopper_pearson.interval(counts, inputs)), strict=True))
        shares = tuple((counts / inputs).tolist())
        rows.append(CertifiedAccuracy(*name, shares, ends, float(radius.mean())))
        curves.append(Curve(*name, radius, inputs, 0.9))
    fields: dict[str, object] = {"samples": 100_000, "data": "cifar10", "abstained": 3, **changes}
    clean = CleanAccuracy(0.95, 0.9, 0.92)
    return Run(Summary(sigma, alpha, inputs, 0.001, radii, clean, tuple(rows), **fields), curves)


@pytest.fixture(autouse=True, scope="module")
def unplotted() -> None:
    """Draw plots: they are what is tested here."""


@pytest.fixture
def run_with() -> Callable[..., Run]:
    return make_run


TABLES = {
    "small": summary_table(SMALL),
    "certified": summary_table(make_run((0.0, 0.25, 1.0)).summary),
    "l-inf": summary_table(replace(SMALL, norm="linf", radii=(0.0, 8 / 255))),
    "partial": summary_table(replace(SMALL, complete=False, planned_inputs=5000)),
    "nothing known": summary_table(NOTHING),
    "no rows": summary_table(replace(SMALL, rows=(), radii=())),
    "trade-off": TRADE_OFF.table,
    "swept": mix_sweep(),
    "wide": mix_sweep(12, alphas=3),
    "long": mix_sweep(2, alphas=60),
    "no lines": mix_sweep(2, alphas=0),
    "mixed units": UNITS,
    "hostile": table_of(
        (HOSTILE, CLEAN, HOSTILE), groups=((HOSTILE, 1),), title=HOSTILE, settings=HOSTILE, notes=(HOSTILE,)
    ),
    "not finite": table_of(("x", EstimatedAccuracy(0, 0, (0.0, 1.0)), None), ("y", math.nan, Quantity(math.inf, 2))),
    "empty": Table("none", "", "", (), ()),
}  # fmt: skip
"""Tables of every kind: certified, swept, grouped, hostile, without figures, without anything."""
