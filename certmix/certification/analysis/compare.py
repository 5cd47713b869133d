"""Whether two certifications of the same inputs differ by more than chance: paired tests.  No torch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from certmix.certification.publish import derive, opened, unfinished
from certmix.certification.request.population import Population
from certmix.errors import ParameterError, RunError, one_line
from certmix.runs import read_run
from certmix.tables.table import Cell, Quantity, Share, Table
from certmix.tables.words import certificate_label, classifier_label, radius_heading
from certmix.types import FloatArray, IntArray

__all__ = ["Judged", "Paired", "compare", "judged", "paired", "paired_shares"]

RESAMPLES = 9999
_SEED = 0  # of resampling: the same runs give the same table
_TESTS = (
    "p: exact McNemar test of shares, sign flips of paired differences of means; of its line alone, not "
    "corrected for the number of lines. Differences: 95 % BCa bootstrap."
)
_ALONE = (
    "For p and intervals to speak of other inputs, these must be a random sample. Certificates are taken as "
    "right."
)
_HOW = (
    "McNemar: only the inputs on which the two differ count. Sign flips and bootstrap over inputs: "
    f"{RESAMPLES:,} resamples, seed 0. A radius counts as 0 where the answer is wrong."
)


class Paired(NamedTuple):
    """One figure of two classifiers on the same inputs: b minus a, its interval, and the p of no difference.

    ``only`` counts the inputs for which just a, and just b, has it; None of means.  No interval where the two
    nowhere differ.
    """

    first: float
    second: float
    interval: tuple[float, float] | None
    p_value: float
    only: tuple[int, int] | None = None

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first


@dataclass(frozen=True)
class Judged:
    """What a certification says of each input: radii (m,) by (classifier, certificate), 0 where it is wrong.

    ``right`` are bool (m,) by classifier, where known, ``labels`` how rows are called, by the same pair.
    """

    name: str
    indices: IntArray
    radii: dict[tuple[str, str], FloatArray]
    right: dict[str, NDArray[np.bool_]]
    labels: dict[tuple[str, str], str]
    columns: tuple[float, ...]
    norm: str
    data_checksum: str
    notes: tuple[str, ...] = ()


def paired_shares(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Paired:
    """Return what two classifiers have of the same inputs, bool (m,) each, with McNemar's exact test.

    Under no difference an input on which just one of them is right is as likely to be the one's as the
    other's.  Inputs are taken to be independent.

    >>> a, b = np.arange(20) < 8, np.arange(20) < 14
    >>> found = paired_shares(a, b)
    >>> found.only, round(found.p_value, 4), found.difference
    ((0, 6), 0.0312, 0.29999999999999993)
    """
    from statsmodels.stats.contingency_tables import mcnemar

    only = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    p_value = float(mcnemar([[0, only[0]], [only[1], 0]], exact=True).pvalue) if any(only) else 1.0
    return Paired(float(first.mean()), float(second.mean()), _spread(first, second), min(1.0, p_value), only)


def paired_means(first: FloatArray, second: FloatArray) -> Paired:
    """Return the means of two figures (m,) of the same inputs, with a test by sign flips.

    Under no difference either sign of each input's difference is as likely as the other.
    """
    from scipy.stats import permutation_test

    p_value = 1.0
    if np.any(first != second):
        p_value = permutation_test(
            (second - first,), lambda x, axis: np.mean(x, axis), permutation_type="samples",
            n_resamples=RESAMPLES, vectorized=True, rng=_SEED,
        ).pvalue  # fmt: skip
    return Paired(float(first.mean()), float(second.mean()), _spread(first, second), float(p_value))


def _spread(first: Any, second: Any) -> tuple[float, float] | None:
    """Return the 95 % BCa bootstrap interval of a mean difference (m,); None where all are alike."""
    from scipy.stats import bootstrap

    apart = np.asarray(second, np.float64) - first
    if np.ptp(apart) == 0.0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a bootstrap that meets one value alone
        found = bootstrap(
            (apart,), np.mean, n_resamples=RESAMPLES, batch=max(1, 4_000_000 // len(apart)), rng=_SEED
        ).confidence_interval
    ends = float(found.low), float(found.high)
    return ends if np.isfinite(ends).all() else (float(apart.min()), float(apart.max()))


def judged(folder: str | Path) -> Judged:
    """Return what the newest request of a run of ``certmix certify`` says, made from its numbers."""
    folder = Path(folder)
    described = read_run(folder)
    with opened(folder, described) as (request, store):
        if isinstance(request, Population):
            claim = f"{folder} is a claim about a population, without radii of inputs"
            raise RunError(f"{claim}: name a run of certmix certify without --goal population")
        evaluation = derive(request, store, described)
    found, summary, told = evaluation.outcomes, evaluation.summary, unfinished(folder)
    radii, right, labels = {}, {}, {}
    for row, one in zip(summary.rows, found.radii, strict=True):
        selected, predicted = found.answers(row.classifier)
        key = row.classifier, row.certificate
        radii[key] = np.where(selected == found.labels, one.radius, 0.0)
        labels[key] = classifier_label(row, summary.alpha)
        if predicted is not None:
            right[row.classifier] = predicted == found.labels
    if not radii:
        raise ParameterError(f"{folder} holds no finished input: run certmix certify first")
    checksum = str(described["identity"]["data_checksum"])
    notes = () if told is None else (f"{told}.",)
    name = one_line(str(folder))
    return Judged(name, found.indices, radii, right, labels, summary.radii, summary.norm, checksum, notes)


def compare(
    first: str | Path,
    second: str | Path,
    *,
    certificate: str | None = None,
    radii: Sequence[float] | None = None,
) -> Table:
    """Compare two runs of ``certmix certify`` on the inputs that both have, as paired samples.

    Parameters
    ----------
    first, second
        Run folders about the same data.  Differences are second minus first.
    certificate
        The one whose radii are compared; None takes the first that both have for each classifier.
    radii
        At which certified accuracy is compared; None takes those of both runs' tables.

    Returns
    -------
    Table
        A group a classifier; clean accuracy, certified accuracy at each radius, and mean radius.

    Raises
    ------
    ParameterError
        If the runs are about different data or norms, share no input, or have no row in common.
    RunError
        If a folder holds no certification.
    """
    return paired(judged(first), judged(second), certificate=certificate, radii=radii)


def paired(
    first: Judged, second: Judged, *, certificate: str | None = None, radii: Sequence[float] | None = None
) -> Table:
    """Return the table of `compare`, of what is judged already."""
    both_names = f"{first.name} and {second.name}"
    if first.data_checksum != second.data_checksum or first.norm != second.norm:
        what = "data" if first.norm == second.norm else f"norms ({first.norm}, {second.norm})"
        raise ParameterError(f"{both_names} are about different {what}: compare runs of one")
    common, *at = np.intersect1d(first.indices, second.indices, return_indices=True)
    if not len(common):
        raise ParameterError(f"{both_names} share no input: certify the same ones")
    columns = tuple(radii) if radii is not None else tuple(sorted({*first.columns} & {*second.columns}))
    if not all(np.isfinite(r) and r >= 0 for r in columns):
        raise ParameterError(f"radii {list(columns)}: give numbers of at least 0, such as 0.5")
    both = [key for key in first.radii if key in second.radii and certificate in (None, key[1])]
    rows: list[tuple[Cell, ...]] = []
    groups, data = [], []
    for classifier in dict.fromkeys(name for name, _ in both):
        key = next(key for key in both if key[0] == classifier)
        lines = _lines(first, second, key, columns, at)
        rows += [_row(name, found, first.norm) for name, found in lines]
        words = dict.fromkeys((first.labels[key], second.labels[key]))
        groups.append((f"{' against '.join(words)}, {certificate_label(key[1])}", len(lines)))
        data += [
            {"classifier": classifier, "certificate": key[1], "figure": name, **found._asdict(),
             "difference": found.difference}
            for name, found in lines
        ]  # fmt: skip
    if not rows:
        named = "" if certificate is None else f" by {certificate}"
        raise ParameterError(f"{both_names} have no classifier in common{named}: name others")
    notes = [*first.notes, *second.notes]
    for one in (first, second):
        if alone := len(one.indices) - len(common):
            notes.append(
                f"Left out of {one.name}: {alone:,} {'input' if alone == 1 else 'inputs'} that only it has."
            )
    return Table(
        name="comparison",
        title=f"Two runs on the same inputs: accuracies (%) and {first.norm} radii, second minus first",
        settings=f"first {first.name}, second {second.name}, {len(common):,} inputs",
        headings=("figure", "first", "second", "difference", "only first", "only second", "p"),
        rows=tuple(rows),
        notes=(*notes, _TESTS, _ALONE),
        doubts=len(notes) + 2,
        details=(_HOW,),
        groups=tuple(groups),
        extra={"comparisons": data, "inputs": len(common)},
    )


def _lines(
    first: Judged, second: Judged, key: tuple[str, str], columns: Sequence[float], at: Sequence[IntArray]
) -> list[tuple[str, Paired]]:
    """Return each figure of a classifier by name."""
    own, other = (one.radii[key][places] for one, places in zip((first, second), at, strict=True))
    lines = []
    if key[0] in first.right and key[0] in second.right:
        answers = first.right[key[0]][at[0]], second.right[key[0]][at[1]]
        lines.append(("clean accuracy", paired_shares(*answers)))
    for radius in columns:
        held = ((radii >= radius) & (radii > 0) for radii in (own, other))
        lines.append((f"certified {radius_heading(radius)}", paired_shares(*held)))
    if np.isfinite(own).all() and np.isfinite(other).all():
        lines.append(("mean radius", paired_means(own, other)))
    return lines


def _row(name: str, found: Paired, norm: str) -> tuple[Cell, ...]:
    p_value = Quantity(found.p_value, 4, rounding="up")
    if found.only is None:
        digits = 5 if norm == "linf" else 3
        means = (Quantity(value, digits, rounding="down") for value in (found.first, found.second))
        return name, *means, Quantity(found.difference, digits, interval=found.interval), None, None, p_value
    ends = None if found.interval is None else (100 * found.interval[0], 100 * found.interval[1])
    apart = Quantity(100 * found.difference, 1, "points", interval=ends)
    return name, Share(found.first), Share(found.second), apart, *found.only, p_value
