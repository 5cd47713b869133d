"""Is the most voted class the most probable one?  The test behind `predict`."""

from __future__ import annotations

from certmix.bounds._checks import check_failure_probability

__all__ = ["is_established"]


def is_established(top: int, runner_up: int, failure_probability: float) -> bool:
    """Return whether the top class beats the runner-up at this failure probability.

    A two-sided binomial test of equal probability on the votes of the two: a
    wrong class is returned with at most `failure_probability`.

    Parameters
    ----------
    top, runner_up
        Votes of the two most voted classes, from the same samples.

    References
    ----------
    K. Hung, W. Fithian, Rank Verification for Exponential Families, Annals of
    Statistics 47 (2019), as used by Cohen et al., ICML 2019.

    Examples
    --------
    >>> is_established(80, 20, 0.001), is_established(52, 48, 0.001)
    (True, False)
    """
    from scipy.stats import binomtest  # slow to import, and only needed here

    check_failure_probability(failure_probability)
    if top <= runner_up:
        return False
    return bool(binomtest(top, top + runner_up, 0.5).pvalue <= failure_probability)
