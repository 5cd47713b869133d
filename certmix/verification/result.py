"""How to verify, and what came out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from certmix.certification.request import check_batch_size
from certmix.errors import ParameterError
from certmix.verification.checks import CheckResult, Outcome, worst
from certmix.verification.guarantee.incremental import Sampling
from certmix.verification.guarantee.judging import CONFIDENCE, Judgement

__all__ = ["EXIT_CODES", "Settings", "Verification"]

SCHEMA_VERSION = 1
EXIT_CODES = {Outcome.HOLDS: 0, Outcome.FAILS: 1, Outcome.UNCHECKED: 2}
"""What a shell is told."""


def _nothing(*_: Any) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Settings:
    """How to verify.

    Parameters
    ----------
    runs
        Folder of run folders, for guarantees.
    images
        How many images are sampled again in depth; 0 for none.
    samples
        Samples that are drawn again for each of them, on average.
    new_seed, error_rate
        As for `certmix.verification.resample.resample`.  All numbers are
        checked at once, whether anything is sampled again or not.
    fresh
        Delete the guarantee's run and sample anew.
    device, batch_size
        As for `certmix.certify`.
    say, progress, again
        Receive remarks, the progress of sampling, and (done, total) of sampling again.
    """

    runs: Path = Path("runs")
    images: int = 5
    samples: int = 1000
    new_seed: int | None = None
    error_rate: float = 1e-3
    fresh: bool = False
    device: str = "auto"
    batch_size: int | None = None
    say: Callable[[str], None] = _nothing
    progress: Callable[[Any], None] | None = None
    again: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        check_batch_size(self.batch_size)
        if not 0 < self.error_rate < 1:
            raise ParameterError(
                f"error rate = {self.error_rate}: it must lie strictly between 0 and 1, such as 0.001"
            )
        if self.new_seed is not None and self.new_seed < 0:
            raise ParameterError(f"new seed = {self.new_seed}: give one of at least 0, or none")
        if self.images < 0:
            raise ParameterError(f"images to sample again = {self.images}: give at least 0, which is none")
        if self.images > 0 and self.samples < 1:
            raise ParameterError(f"samples to draw again = {self.samples}: give at least 1")


@dataclass(frozen=True)
class Verification:
    """What came out.

    Parameters
    ----------
    target, kind
        What was named, and ``"guarantee"`` or ``"run"``.
    run
        The run folder; None if none was reached.
    sampling
        What was reused and drawn; None for runs.
    checks, judgements
        Results of checks, and verdicts on requirements.
    lines
        Requirement text -> line in the guarantee file.
    """

    target: str
    kind: str
    run: Path | None
    sampling: Sampling | None
    checks: tuple[CheckResult, ...]
    judgements: tuple[Judgement, ...] = ()
    lines: dict[str, int] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """The gravest outcome of all."""
        judged = [CheckResult(str(j.requirement), j.outcome, j.message) for j in self.judgements]
        return worst([*self.checks, *judged])

    @property
    def exit_code(self) -> int:
        """0 holds, 1 falls short or was tampered with, 2 could not be checked."""
        return EXIT_CODES[self.outcome]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "schema_version": SCHEMA_VERSION, "target": self.target, "kind": self.kind,
            "outcome": str(self.outcome), "exit_code": self.exit_code,
            "run": None if self.run is None else str(self.run),
            "sampling": None if self.sampling is None else self.sampling.as_dict(),
            "requirements": [one.as_dict() for one in self.judgements],
            "confidence": CONFIDENCE if self.judgements else None,
            "checks": [check.as_dict() for check in self.checks],
        }  # fmt: skip
