"""What a verification found: one result a check."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

INPUTS_NAMED = 5

SAMPLED_AGAIN = ("same seed", "new seed", "radii again")
"""Checks that computed something anew: what they say is told even where they hold."""

Faults = list[tuple[int | None, str]]
"""What is wrong: the input concerned or None, and a sentence."""


class Outcome(StrEnum):
    """How a check ended; in order of gravity."""

    HOLDS = "holds"
    UNCHECKED = "unchecked"
    FAILS = "fails"


@dataclass(frozen=True)
class CheckResult:
    """The result of one check, of a name that does not change between runs, in one line.

    ``inputs`` are the first of the ``count`` inputs concerned, by index.
    """

    check: str
    outcome: Outcome
    message: str
    inputs: tuple[int, ...] = ()
    count: int = 0

    @classmethod
    def about(cls, check: str, outcome: Outcome, message: str, inputs: Iterable[int]) -> CheckResult:
        """Return a result that names the first of the inputs concerned and counts all."""
        concerned = [int(input) for input in inputs]
        return cls(check, outcome, message, tuple(concerned[:INPUTS_NAMED]), len(concerned))

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "outcome": str(self.outcome), "inputs": list(self.inputs)}


def worst(results: Iterable[Any]) -> Outcome:
    """Return the gravest outcome of checks and judgements; HOLDS of nothing at all."""
    return max((result.outcome for result in results), key=list(Outcome).index, default=Outcome.HOLDS)


def judged(check: str, faults: Iterable[tuple[int | None, str]], good: str) -> CheckResult:
    """Return HOLDS with `good`, or FAILS with the first of the faults and all inputs concerned."""
    found = list(faults)
    if not found:
        return CheckResult(check, Outcome.HOLDS, good)
    more = f" (and {len(found) - 1:,} more)" if len(found) > 1 else ""
    inputs = dict.fromkeys(input for input, _ in found if input is not None)
    return CheckResult.about(check, Outcome.FAILS, f"{found[0][1]}{more}", inputs)


def unchecked(check: str, why: str) -> CheckResult:
    """Return UNCHECKED with the reason, in one line."""
    return CheckResult(check, Outcome.UNCHECKED, " ".join(why.split()))
