"""Guarantees that do not trust the run they check."""

from certmix.verification.checks import CheckResult, Outcome, worst

__all__ = ["CheckResult", "Outcome", "worst"]
