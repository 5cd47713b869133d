"""What the template draws of runs: curves and histograms over the radius, tables, runs side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from certmix.bounds import clopper_pearson
from certmix.page.runs import Certified, Run
from certmix.tables.table import Cell, Table, printed, printed_columns, printed_notes
from certmix.tables.words import (
    certificate_label,
    classifier_label,
    mean_radius,
    radius_heading,
    settled,
    share_of,
    symbols,
)
from certmix.text import accuracy, ceil_percent, floor_percent, interval_ends, known, plain_decimal
from certmix.types import AccuracyShare, AttackedAccuracy, CertifiedShare, EstimatedAccuracy, FloatArray

MOST_STEPS = 128  # of a curve; of more distinct radii each is rounded down to a grid of so many
BINS = 24
MOST_COLUMNS = 10
NO_ENDS = (math.nan, math.nan)
COLOURS = ("exact", "smoothing", "lipschitz", "lipschitz-paper", "margin", "lipschitz-constant")
NORMS = {"l1": "\u2113\u2081", "l2": "\u2113\u2082", "linf": "\u2113\u221e"}
KINDS = {
    "estimate": "estimated over these inputs, with a 95 % interval over inputs",
    "attacked": "under attack: an upper bound of robust accuracy, never a certificate",
    "certified": "certified: inputs that are right and proved, each with its own failure probability",
}
"""What a figure may be, and what that means."""
Steps = tuple[list[int], list[int]]
"""A curve (units, counts): ``counts[i]`` inputs hold at radii up to ``units[i]``, none beyond the last."""


@dataclass(frozen=True)
class Axis:
    """Radii of a norm from 0 to `end`, in whole units: 10^-5, or 0.001/255 in linf."""

    norm: str
    end: int

    @property
    def scale(self) -> int:
        """What a radius is multiplied by for print."""
        return 255 if self.norm == "linf" else 1

    @property
    def digits(self) -> int:
        """A unit is ``10 ** -digits`` of a scaled radius."""
        return 3 if self.norm == "linf" else 5

    @property
    def stride(self) -> int:
        """Units between two places of the cursor."""
        return _nice(self.end / 240)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places in percent, and their labels."""
        places = range(0, self.end + 1, _nice(self.end / 7))
        return [(round(100 * units / self.end, 3), self.label(units)) for units in places]

    def units(self, radius: Any) -> Any:
        """Return radii in units, int64, rounded down, and no more than the end."""
        unit, scaled = 10**self.digits, np.minimum(radius, self.end) * self.scale  # a radius may be infinite
        if self.scale > 1:
            scaled = np.where(np.rint(scaled) / self.scale == radius, np.rint(scaled), scaled)
        units = np.floor(scaled * unit)  # off by one where the product was rounded
        units += ((units + 1) / unit <= scaled) * 1.0 - (units / unit > scaled)
        return np.minimum(self.end, units).astype(np.int64)

    def label(self, units: int) -> str:
        """Return units in print: ``0.25``, or ``2/255``."""
        whole, rest = divmod(units, 10**self.digits)
        decimal = f"{whole}.{rest:0{self.digits}d}".rstrip("0").rstrip(".")
        return f"{decimal}/{self.scale}" if self.scale > 1 and units else decimal


def _nice(step: float) -> int:
    """Return the least of 1, 2, 5, 10, 20, 25, 50, ... that is not below step."""
    power = 10 ** max(0, math.floor(math.log10(max(step, 1.0))))
    return next(int(k * power) for k in (1, 2, 2.5, 5, 10) if k * power >= step and (k * power) % 1 == 0)


def axis(radii: Sequence[FloatArray], norm: str, least: float) -> Axis:
    """Return an axis that holds all finite radii, and `least`."""
    unit = Axis(norm, 1).scale * 10 ** Axis(norm, 1).digits
    largest = max([least, *(float(part[np.isfinite(part)].max(initial=0.0)) for part in radii)])
    return Axis(norm, max(40, math.ceil(1.03 * largest * unit)) if largest > 0 else unit)


def steps(radii: FloatArray, along: Axis) -> Steps:
    """Return the curve of certified radii (> 0), never above the true one."""
    units = along.units(radii)
    if len(np.unique(units)) > MOST_STEPS:
        grid = -(-along.end // MOST_STEPS)
        units = units // grid * grid
    values, counts = np.unique(units, return_counts=True)
    return values.tolist(), counts[::-1].cumsum()[::-1].tolist()


def count_at(curve: Steps, units: int) -> int:
    """Return how many inputs hold at a radius, in units."""
    return next((count for end, count in zip(*curve, strict=True) if end >= units), 0)


def share_text(count: int, inputs: int) -> tuple[str, str, str]:
    """Return a share in percent and its 95 % interval over inputs, rounded outwards.

    >>> share_text(2, 3)
    ('66.6', '9.4', '99.2')
    """
    if inputs < 1:
        return "-", "-", "-"
    low, high = clopper_pearson.interval(np.array([count]), inputs)
    return floor_percent(count / inputs), *interval_ends((float(low[0]), float(high[0])))


def outline(curve: Steps, above: Steps, inputs: int, end: int) -> str:
    """Return the area between two curves as an SVG path, 1000 by 1000; page.js draws it the same way."""

    def corners(units: list[int], counts: list[int]) -> list[str]:
        found, before = [], 0
        for unit, count in zip([*units, end], [*counts, 0], strict=True):
            height = round(1000 - 1000 * count / max(inputs, 1), 1)
            found += [f"{round(1000 * before / end, 1)} {height}", f"{round(1000 * unit / end, 1)} {height}"]
            before = unit
        return found

    return "M" + "L".join([*corners(*above), *reversed(corners(*curve))]) + "Z"


def read_out(
    curve: Steps, above: Steps | None, units: int, inputs: int, figures: dict[str, tuple[str, str, str]]
) -> tuple[str, str, str]:
    """Return the figure at a radius and its interval; a range where it is not settled."""
    count = count_at(curve, units)
    share, low, high = figures[f"{inputs}:{count}"]
    if above is None or settled(count / inputs, (most := count_at(above, units)) / inputs, inputs):
        return share, low, high
    return f"{share}-{ceil_percent(most / inputs)}", low, figures[f"{inputs}:{most}"][2]


class Series(NamedTuple):
    """One line of a chart; labels, radii and clean accuracies have an entry a mixing weight, or one for all.

    `under` is a smaller line below the label, `radii` (> 0) are those of rightly classified inputs, `band`
    draws the 95 % intervals, and `reach`, as of `Curve`, is what more samples could give.
    """

    labels: Sequence[str]
    under: str
    colour: str
    radii: Sequence[FloatArray]
    clean: Sequence[float | None]
    inputs: int
    band: bool = False
    reach: Sequence[FloatArray] = ()


def chart(
    key: str, series: Sequence[Series], norm: str, start: float, weights: Sequence[str] = (), at: int = 0
) -> dict[str, Any]:
    """Return a chart as plain data, for the template to draw and for the page's script to read.

    Lines that lie on one another at all weights become one.  `start` is the radius that is read out first,
    `at` the place of the mixing weight that is shown first.
    """
    along = axis([radii for one in series for radii in one.radii], norm, start)
    first = int(along.units(start)) // along.stride * along.stride
    lines: list[dict[str, Any]] = []
    figures: dict[str, tuple[str, str, str]] = {}
    for one in series:
        curves = [steps(radii, along) for radii in one.radii]
        twin = [line for line in lines if curves and (line["steps"], line["labels"]) == (curves, one.labels)]
        if twin:
            twin[0]["under"] += f", {one.under}"
            continue
        reach = [  # how many inputs could reach radii, never below the true number
            (along.units(part[1:, 0]).tolist(), np.rint(part[:-1, 1] * one.inputs).astype(np.int64).tolist())
            for part in one.reach
        ]
        for count in {0, *(count for _, counts in (*curves, *reach) for count in counts)}:
            figures.setdefault(f"{one.inputs}:{count}", share_text(count, one.inputs))
        shown = curves[min(at, len(curves) - 1)] if curves else None
        above = reach[min(at, len(reach) - 1)] if reach else None
        lines.append({
            "key": f"{key}-s{len(lines)}", "labels": one.labels, "under": one.under, "colour": one.colour,
            "inputs": one.inputs, "steps": curves, "band": one.band and one.inputs > 0, "reach": reach,
            "area": outline(shown, above, one.inputs, along.end) if shown and above else "",
            "clean": [accuracy(share) if known(share) else "" for share in one.clean],
            "value": read_out(shown, above, first, one.inputs, figures) if shown else None,
        })  # fmt: skip
    return {
        "key": key, "norm": norm, "end": along.end, "stride": along.stride, "digits": along.digits,
        "scale": along.scale, "ticks": along.ticks, "start": first, "start_text": along.label(first),
        "weights": weights, "at": at, "series": lines, "figures": figures,
    }  # fmt: skip


def run_chart(found: Certified, key: str) -> dict[str, Any]:
    """Return the curves of h and of the mix, each certificate and mixing weight, and g's clean accuracy."""
    summary, clean = found.summary, found.summary.clean_accuracy
    alphas = [weight.alpha for weight in found.weights]
    series = []
    for k, row in enumerate(summary.rows):
        mixed, right = row.classifier == "mixed", found.inputs.right(k)
        radii = [one.rows[k][right & (one.rows[k] > 0)] for one in found.weights]
        reach = [one.reach[k] for one in found.weights if one.reach]
        colour = row.certificate if row.certificate in COLOURS else "other"
        series.append(Series(
            [symbols(classifier_label(row, alpha)) for alpha in (alphas if mixed else alphas[:1])],
            certificate_label(row.certificate), colour if mixed else row.classifier,
            radii if mixed else radii[:1],
            [one.clean for one in found.weights] if mixed else [row.clean_accuracy],
            summary.inputs, k == found.lead, reach if mixed else reach[:1],
        ))  # fmt: skip
    if known(clean.standard):
        series.append(Series(["standard (g)"], "nothing certified", "standard", (), [clean.standard], 0))
    weights = [plain_decimal(alpha) for alpha in alphas]
    start, at = summary.radii[found.column], alphas.index(summary.alpha)
    return chart(key, series, summary.norm, start, weights if len(weights) > 1 else (), at)


def run_histogram(found: Certified) -> dict[str, Any] | None:
    """Return how many radii above 0, of the mix and of h alone, are in each bin; None where all are 0."""
    norm, groups = found.summary.norm, [found.inputs.certified(row) for row in (found.lead, 0)]
    along = axis(groups, norm, found.summary.radii[found.column])
    places = (np.minimum(along.units(radii) * BINS // along.end, BINS - 1) for radii in groups)
    counts = [np.bincount(part, minlength=BINS) for part in places]
    most = int(np.max(counts))
    top = next(t for k in range(12) for t in (10**k * n for n in (2, 4, 6, 8, 10)) if t >= most)
    edges = [along.label(-(-along.end * k // BINS)) for k in range(BINS)]
    bins = list(zip(edges, *(part.tolist() for part in counts), strict=True))
    left = ((why, int(which.sum())) for why, which in found.inputs.left_out(found.lead).items())
    rest = ", ".join(f"{count:,} {why}" for why, count in left if count)
    return {"norm": norm, "ticks": along.ticks, "top": top, "bins": bins, "rest": rest} if most else None


def table_view(table: Table) -> dict[str, Any]:
    """Return a table in print; a column's heading tells of what kind its figures are, if all are of one."""
    columns = printed_columns(table)
    kinds = [{kind for cell in table.column(k) if (kind := _kind(cell))} for k in range(len(columns))]
    once = [next(iter(found)) if len(found) == 1 else "" for found in kinds]

    def shown(cell: Cell, k: int) -> dict[str, Any]:
        one, kind = printed(cell), "" if once[k] else _kind(cell)
        text = one.shown(columns[k].unit)
        return {"text": text, "interval": one.interval, "kind": kind, "number": not columns[k].words}

    headings = [(one.heading, kind, not one.words) for one, kind in zip(columns, once, strict=True)]
    bodies = [
        (name, [[shown(c, k) for k, c in enumerate(row)] for row in rows]) for name, rows in table.blocks()
    ]
    meanings = [(kind, KINDS[kind]) for kind in sorted(set().union(*kinds))]
    return {"table": table, "headings": headings, "bodies": bodies, "kinds": meanings,
            "notes": [*printed_notes(table), *table.details]}  # fmt: skip


def _kind(cell: Any) -> str:
    kinds = {CertifiedShare: "certified", AttackedAccuracy: "attacked"}
    return kinds.get(type(cell), "estimate") if isinstance(cell, AccuracyShare) else ""


def letter(place: int) -> str:
    """Return A, B, ..., Z, then A2, B2, ..."""
    turn, rest = divmod(place, 26)
    return f"{chr(65 + rest)}{turn + 1 if turn else ''}"


def compared(runs: Sequence[Run]) -> dict[str, Any]:
    """Return runs side by side: whether they can be compared, the mixes' curves, figures, and parameters."""
    named = [(letter(k), run, run.certified) for k, run in enumerate(runs)]
    certified = [(name, run, found) for name, run, found in named if found is not None]
    parts: dict[str, Any] = {"parameters": _parameters(runs), "said": [], "chart": None, "figures": None}
    if len(certified) < 2:
        return parts
    parts["said"] = _comparability(certified)
    filled = [(name, found) for name, _, found in certified if found.summary.rows]
    if filled and len({found.summary.norm for _, _, found in certified}) == 1:
        series = []
        for k, (name, found) in enumerate(filled):
            label, under = _named(name, found, found.lead)
            radii, clean = [found.inputs.certified(found.lead)], [found.summary.clean_accuracy.mixed]
            series.append(Series([label], under, f"run-{k % 6}", radii, clean, found.summary.inputs))
        first = filled[0][1]
        parts["chart"] = chart("all", series, first.summary.norm, first.summary.radii[first.column])
        parts["figures"] = _figures(filled)
    return parts


def _named(name: str, found: Certified, k: int) -> tuple[str, str]:
    row, alpha = found.summary.rows[k], found.summary.alpha
    return f"{name}: {symbols(classifier_label(row, alpha))}", certificate_label(row.certificate)


def _comparability(runs: Sequence[tuple[str, Run, Certified]]) -> list[tuple[bool, str]]:
    """Return sentences: whether each is a reason not to compare, and what it says."""
    told: list[tuple[bool, str]] = []
    if len({found.summary.norm for _, _, found in runs}) > 1:
        each = "; ".join(f"{name} {found.summary.norm}" for name, _, found in runs)
        told.append((True, f"Not comparable: radii are in different norms ({each})."))
    indices = [set(found.inputs.indices.tolist()) for _, _, found in runs]
    common = set.intersection(*indices)
    if len({run.data_checksum for _, run, _ in runs}) > 1:
        each = "; ".join(f"{name} {found.summary.data} {run.data_checksum[:12]}" for name, run, found in runs)
        told.append((True, f"Not comparable: the runs are about different data ({each})."))
    elif any(part != common for part in indices):
        each = "; ".join(f"{name} {len(part):,}" for (name, _, _), part in zip(runs, indices, strict=True))
        words = f"the runs are about different inputs of the same data ({each}; {len(common):,} in common)"
        told.append((True, f"Not comparable: {words}."))
    if partial := [name for name, _, found in runs if not found.summary.complete]:
        told.append((True, f"Partial results: {', '.join(partial)}."))
    return told or [(False, "All runs are about the same data, inputs and norm.")]


def _figures(runs: Sequence[tuple[str, Certified]]) -> Table:
    """Return h alone and the mix of each run, at the radii of all runs' tables."""
    radii = sorted({r for _, found in runs for r in found.summary.radii})
    columns = radii if len(radii) <= MOST_COLUMNS else list(runs[0][1].summary.radii)
    rows: list[tuple[Cell, ...]] = []
    norm = runs[0][1].summary.norm
    for name, found in runs:
        inputs = found.summary.inputs
        for k in dict.fromkeys((0, found.lead)):
            row, held = found.summary.rows[k], found.inputs.certified(k)
            counts = np.array([int((held >= radius).sum()) for radius in columns])
            ends = zip(*(end.tolist() for end in clopper_pearson.interval(counts, inputs)), strict=True)
            at = next(one for one in found.weights if one.alpha == found.summary.alpha)
            most = [_most_at(at.reach[k], radius) if at.reach else 0.0 for radius in columns]
            shares = [
                CertifiedShare(n, inputs, e)
                if settled(n / inputs, max(m, n / inputs), inputs)
                else share_of(n / inputs, e, m, inputs)
                for n, e, m in zip(counts.tolist(), ends, most, strict=True)
            ]
            told = row.clean_accuracy
            clean = None if told is None else EstimatedAccuracy(round(told * inputs), inputs, NO_ENDS)
            mean = mean_radius(row, norm=norm)
            rows.append((*_named(name, found, k), *shares, mean, clean))
    headings = (
        "run",
        "certificate",
        *(symbols(radius_heading(r, norm)) for r in columns),
        "mean radius",
        "clean",
    )
    title = f"Certified accuracy (%) at {NORMS.get(norm, norm)} radius, h alone and the mix of each run"
    return Table("comparison", title, "", headings, tuple(rows))


def _most_at(reach: FloatArray, radius: float) -> float:
    """Return the share that could reach a radius, or one a little below."""
    if radius > reach[-1, 0]:
        return 0.0
    return float(reach[max(0, int(np.searchsorted(reach[:, 0], radius, "right")) - 1), 1])


def _parameters(runs: Sequence[Run]) -> list[tuple[str, bool, list[str]]]:
    """Return each parameter, whether it differs (lacking tells nothing of other studies), and its values."""
    tables: list[dict[str, str]] = [dict(run.parameters + run.provenance) for run in runs]
    alike, rows = len({run.study for run in runs}) == 1, []
    for name in dict.fromkeys(name for table in tables for name in table):
        values = [table[name] for table in tables if name in table]
        differs = len(set(values)) > 1 or (alike and len(values) < len(tables))
        rows.append((name, differs, [table.get(name, "-") for table in tables]))
    return sorted(rows, key=lambda row: not row[1])
