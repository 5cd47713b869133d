"""g's temperature, and the mix of its probabilities with h's shares of votes.  No torch."""

from __future__ import annotations

import numpy as np

from certmix.errors import ParameterError
from certmix.types import FloatArray, IntArray

__all__ = ["answer_of", "check_mix", "check_temperature", "mix_shares", "sharpened"]

COLDEST, HOTTEST = 1e-6, 1e6


def check_temperature(standard_temperature: float) -> float:
    """Return a temperature of g, which is 0 or within what float64 can divide logits by: ParameterError."""
    if standard_temperature != 0.0 and not COLDEST <= standard_temperature <= HOTTEST:
        found = f"standard temperature = {standard_temperature}"
        raise ParameterError(f"{found}: give 0 (the class alone) or a number from {COLDEST:g} to {HOTTEST:g}")
    return float(standard_temperature)


def check_mix(alpha: float, standard_temperature: float) -> None:
    """Refuse a mixing weight or a temperature of g out of range, and both at 0, with `ParameterError`."""
    if not 0.0 <= alpha <= 1.0:
        raise ParameterError(f"alpha = {alpha}: the mixing weight must lie in [0, 1]")
    check_temperature(standard_temperature)
    if alpha == 0.0 and standard_temperature == 0.0:
        raise ParameterError(
            "alpha = 0 at standard temperature 0: a one-hot output has no finite logarithm: "
            "raise one of them, or use the standard model itself"
        )


def sharpened(probabilities: FloatArray, standard_temperature: float) -> FloatArray:
    """Return g's probabilities (m, c) with its logits divided by a temperature.

    At temperature 0 they are one-hot: 1 at the largest, the lowest class where several are largest.
    """
    if standard_temperature == 1.0:
        return probabilities
    if standard_temperature == 0.0:
        return np.eye(probabilities.shape[1])[probabilities.argmax(1)]
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities) - np.log(probabilities.max(1, keepdims=True))
    powers = np.exp(logits / standard_temperature)
    return np.asarray(powers / powers.sum(1, keepdims=True), np.float64)


def mix_shares(
    probabilities: FloatArray, shares: FloatArray, alpha: float, standard_temperature: float = 1.0
) -> FloatArray:
    """Return ``(1 - alpha) g + alpha h``, float64 (m, c), g at a temperature and h as shares of votes.

    Where noisy copies abstain the `shares` (m, c) add up to less than 1: an abstention is nobody's vote.

    >>> g, h = np.array([[0.7, 0.2, 0.1]]), np.array([[0.1, 0.5, 0.0]])
    >>> mix_shares(g, h, 0.6, standard_temperature=0.0)
    array([[0.46, 0.3 , 0.  ]])
    """
    mixed = (1.0 - alpha) * sharpened(probabilities, standard_temperature) + alpha * shares
    return np.asarray(mixed, np.float64)


def answer_of(shares: FloatArray | IntArray) -> IntArray:
    """Return the class (m,) of shares or votes (m, c), -1 where all are 0: h alone that abstains."""
    return np.where(shares.any(1), shares.argmax(1), -1)
