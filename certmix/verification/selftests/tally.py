"""Counting cases: a property that thousands of cases were held against, and by how much they hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from certmix.verification.checks import Outcome

__all__ = ["Property", "SuiteResult", "Tally"]

EXAMPLES = 3
"""Failing cases that are kept in words."""


@dataclass(frozen=True)
class Property:
    """One property and the cases that it was held against.

    Parameters
    ----------
    name
        What is claimed, in words that do not change between runs.
    unit
        What slack is measured in.
    cases, failures
        How many cases there were, and how many broke the claim.
    worst_slack
        By how much the claim held in the worst case; negative where it failed.
    examples
        The first failing cases.
    """

    name: str
    unit: str
    cases: int
    failures: int
    worst_slack: float
    examples: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        """UNCHECKED of no cases at all."""
        if self.failures:
            return Outcome.FAILS
        return Outcome.HOLDS if self.cases else Outcome.UNCHECKED

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; None for a slack that is not finite."""
        slack = self.worst_slack if math.isfinite(self.worst_slack) else None
        fields = {**vars(self), "worst_slack": slack, "examples": list(self.examples)}
        return {"outcome": str(self.outcome), **fields}


@dataclass(frozen=True)
class SuiteResult:
    """All properties of one suite; ``error`` where it could not be run to its end."""

    suite: str
    title: str
    properties: tuple[Property, ...]
    seconds: float
    error: str | None = None

    @property
    def outcome(self) -> Outcome:
        """FAILS if any property does, or the suite broke off."""
        outcomes = [one.outcome for one in self.properties]
        if self.error is not None or Outcome.FAILS in outcomes:
            return Outcome.FAILS
        return Outcome.UNCHECKED if Outcome.UNCHECKED in outcomes or not outcomes else Outcome.HOLDS

    @property
    def cases(self) -> int:
        """Cases of all properties together."""
        return sum(one.cases for one in self.properties)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "suite": self.suite, "title": self.title, "outcome": str(self.outcome), "cases": self.cases,
            "seconds": round(self.seconds, 3), "error": self.error,
            "properties": [one.as_dict() for one in self.properties],
        }  # fmt: skip


class Tally:
    """Collects the cases of a suite, property by property, in order of first mention."""

    def __init__(self) -> None:
        self._found: dict[str, Property] = {}

    def __iter__(self) -> Iterator[Property]:
        return iter(self._found.values())

    def record(
        self,
        name: str,
        slack: ArrayLike,
        case: Callable[..., str] = str,
        *,
        unit: str,
        strict: bool = False,
    ) -> None:
        """Add cases: one a slack, which holds where it is at least 0; where NaN, it fails.

        Parameters
        ----------
        name
            The property.
        slack
            Any shape; flattened.
        case
            Position in the flattened slack -> the case in words, asked of failures only.
        unit
            What slack is measured in.
        strict
            A slack of 0 fails.
        """
        values = np.asarray(slack, np.float64).ravel()
        holds = values > 0 if strict else values >= 0
        failed = np.flatnonzero(~holds)
        before = self._found.get(name, Property(name, unit, 0, 0, math.inf, ()))
        room = EXAMPLES - len(before.examples)
        examples = tuple(f"{case(int(k))}: slack {values[k]:.3g}" for k in failed[:room])
        worst = float(np.where(np.isnan(values), -math.inf, values).min(initial=math.inf))
        self._found[name] = Property(
            name, unit, before.cases + values.size, before.failures + len(failed),
            min(before.worst_slack, worst), before.examples + examples,
        )  # fmt: skip
