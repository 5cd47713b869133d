"""What attacks on a run's certificates found, and what follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from certmix.verification.checks import CheckResult, Outcome
from certmix.verification.falsification.claims import Claims
from certmix.verification.falsification.evidence import chance_of, findings_needed, threshold
from certmix.verification.falsification.judge import Attacked
from certmix.verification.falsification.request import FalsifyRequest

__all__ = ["Falsification"]

CHECK = "attacks inside the certified balls"


@dataclass(frozen=True)
class Falsification:
    """The attacks on a run's certificates and their verdict.

    Parameters
    ----------
    source
        The run, as it was named.
    claims, request
        What was attacked, and how.
    attacked
        One entry for each certificate that was attacked.
    files
        Where findings were written.
    """

    source: str
    claims: Claims
    request: FalsifyRequest
    attacked: tuple[Attacked, ...]
    files: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all certificates that were looked at were attacked."""
        return len(self.attacked) == len(self.claims.claims)

    @cached_property
    def findings(self) -> tuple[Attacked, ...]:
        """The certificates shown to be wrong; all are, except with probability `error_rate`."""
        return tuple(one for one in self.attacked if one.found)

    @property
    def rate(self) -> float:
        """Most findings an image that honest certificates have on average."""
        if self.claims.sigma is None or not self.claims.looked_at:
            return 0.0
        return self.claims.failure_probability + self.request.error_rate / self.claims.looked_at

    @property
    def needed(self) -> int:
        """Findings from which on the run is falsified."""
        return findings_needed(self.claims.looked_at, self.rate, self.request.error_rate)

    @property
    def chance(self) -> float:
        """Probability of so many findings or more among honest certificates."""
        return chance_of(len(self.findings), self.claims.looked_at, self.rate)

    @property
    def falsified(self) -> bool:
        """Whether there are more findings than the failure probability allows."""
        return len(self.findings) >= self.needed

    @property
    def closest(self) -> tuple[Attacked, ...]:
        """The attacks in order of the margin found: an estimate, and no certificate."""
        return tuple(sorted(self.attacked, key=lambda one: one.margin))

    @property
    def check(self) -> CheckResult:
        """The verdict as the result of one check."""
        found, claims = [one.claim.index for one in self.findings], self.claims
        if not self.attacked:
            none = "none was attacked" if claims.claims else "nothing is certified"
            return CheckResult(CHECK, Outcome.UNCHECKED, f"{claims.looked_at} images: {none}")
        of = f"{len(self.attacked)} certificates ({claims.certificate}, alpha {claims.alpha:g})"
        if not found:
            message = f"no point found where some g flips the mix, in {of}: no proof that there is none"
            return CheckResult(CHECK, Outcome.HOLDS, message)
        beyond = "more than" if self.falsified else "not more than"
        message = (
            f"{len(found)} of {of} are wrong, {beyond} failure probability {claims.failure_probability:g} "
            f"allows in {claims.looked_at} images"
        )
        outcome = Outcome.FAILS if self.falsified else Outcome.HOLDS
        return CheckResult.about(CHECK, outcome, message, found)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        claims = self.claims
        return {
            "schema_version": 1,
            "source": self.source,
            "certificate": claims.certificate,
            "alpha": claims.alpha,
            "threshold": threshold(claims.alpha),
            "norm": claims.norm,
            "sigma": claims.sigma,
            "failure_probability": claims.failure_probability,
            "request": self.request.as_dict(),
            "images": claims.looked_at,
            "certified": len(claims.claims),
            "attacked": len(self.attacked),
            "complete": self.complete,
            "findings": len(self.findings),
            "findings_needed": self.needed,
            "chance_if_honest": self.chance,
            "falsified": self.falsified,
            "check": self.check.as_dict(),
            "attacks": [_row(one) for one in self.attacked],
            "files": list(self.files),
        }


def _row(one: Attacked) -> dict[str, Any]:
    return {
        "image": one.claim.index,
        "predicted": one.claim.predicted,
        "radius": one.claim.radius if math.isfinite(one.claim.radius) else None,
        "distance": one.distance,
        "rival": one.rival,
        "margin": one.margin,
        "margin_upper": one.upper,
        "samples": one.samples,
        "found": one.found,
    }
