"""Fair ratios: contenders take turns within one run, and each turn gives one ratio."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Timed", "compare", "table"]


@dataclass(frozen=True)
class Timed:
    """Seconds of one contender, a value a round, and its work a second."""

    name: str
    seconds: np.ndarray
    work: float

    @property
    def rate(self) -> float:
        """Work a second, at the median time."""
        return self.work / float(np.median(self.seconds))


def compare(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 7,
    work: float | Sequence[float] = 1.0,
    clock: Callable[[], float] = time.process_time,
    warm_up: int = 1,
) -> list[Timed]:
    """Time contenders in turn, `rounds` times.

    Parameters
    ----------
    contenders
        Name -> what to run; the first is what the others are compared with.
    rounds, warm_up
        Rounds that count, and rounds before them that do not.
    work
        What one call does, in any unit; one number or one a contender.
    clock
        CPU time of this process by default, which other work on the machine
        disturbs least; wall time where a GPU or other processes compute.
    """
    names = list(contenders)
    units = [work] * len(names) if isinstance(work, float | int) else list(work)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for k in range(rounds + warm_up):
        for name in names:
            begun = clock()
            contenders[name]()
            if k >= warm_up:
                taken[name].append(clock() - begun)
    return [Timed(name, np.array(taken[name]), unit) for name, unit in zip(names, units, strict=True)]


def table(timed: list[Timed], unit: str = "calls") -> str:
    """Return a Markdown table: time a unit of work relative to the first contender's, with quartiles."""
    first = timed[0].seconds / timed[0].work
    lines = [f"| | {unit} a second | time, relative (quartiles) |", "| --- | --- | --- |"]
    for one in timed:
        low, middle, high = np.quantile(one.seconds / one.work / first, [0.25, 0.5, 0.75])
        lines.append(f"| {one.name} | {one.rate:,.4g} | {middle:.3g} ({low:.3g} to {high:.3g}) |")
    return "\n".join(lines)
