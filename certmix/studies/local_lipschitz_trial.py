"""A claimed Lipschitz constant against the steepest pair of points that a search found.  No torch."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certmix.margins.estimates import LipschitzEstimate
from certmix.types import FloatArray, IntArray

__all__ = ["ClaimTrial", "try_claim", "witness_file"]


@dataclass(frozen=True, eq=False)
class ClaimTrial:
    """Whether a search contradicts a claim; that it does not proves nothing.

    Parameters
    ----------
    claimed
        The claimed global constant.
    of, ratio, norm
        Of which outputs, in which sense, and the norm of the input.
    slope
        The steepest slope found, rounding errors taken off.
    index
        The index of its image.
    point
        (D,): the other point of the pair, flat.
    """

    claimed: float
    of: str
    ratio: str
    norm: str
    slope: float
    index: int
    point: FloatArray

    @property
    def contradicted(self) -> bool:
        """Whether a pair of points is steeper than the claim allows, beyond rounding."""
        return self.slope > self.claimed


def try_claim(
    claimed: float, constants: LipschitzEstimate, indices: IntArray, kept: FloatArray
) -> ClaimTrial:
    """Return the trial of a claim by the slopes and points (m, 1 + D) that a search kept."""
    steepest = int(kept[:, 0].argmax())
    return ClaimTrial(
        claimed, constants.of, constants.ratio, constants.norm, float(kept[steepest, 0]),
        int(indices[steepest]), kept[steepest, 1:],
    )  # fmt: skip


def witness_file(trial: ClaimTrial, image: NDArray[np.float32]) -> bytes:
    """Return an ``.npz`` file of the pair of points and of what it contradicts."""
    buffer = io.BytesIO()
    perturbed = trial.point.reshape(image.shape).astype(image.dtype)
    np.savez_compressed(
        buffer, image=image, perturbed=perturbed, index=trial.index,
        slope=trial.slope, claimed=trial.claimed, of=trial.of, ratio=trial.ratio, norm=trial.norm,
    )  # fmt: skip
    return buffer.getvalue()
