"""Bands (Levine and Feizi, 2020): what a patch does to the votes of an image's bands.

A band that does not meet the patch is seen as it was and keeps its vote; the others may all vote for a rival.
"""

from __future__ import annotations

import numpy as np

from certmix.errors import DataError, ParameterError
from certmix.radii._checks import Cases
from certmix.radii.counted import counts_of, enumerated, rival_margins
from certmix.types import IntArray


def _columns(width: float, shape: tuple[int, ...]) -> int:
    """Return the number of bands, which is that of the columns."""
    if len(shape) != 3:
        raise DataError(
            f"inputs of shape {shape} are no images (channels, rows, columns): bands need columns"
        )
    columns = shape[-1]
    if not (float(width).is_integer() and 1 <= width <= columns):
        raise ParameterError(
            f"scale = {width:g}: bands are 1 to {columns} whole columns wide, of as many in these images"
        )
    return columns


def bands_met(size: int, columns: int, width: int) -> int:
    """Return how many of the bands of `width` columns a patch meets: L = min(m + s - 1, W), 0 of no patch."""
    return min(size + width - 1, columns) if size > 0 else 0


def band_margins(votes: IntArray, selected: IntArray, classes: int, width: float) -> IntArray:
    """Return the least n_y - n_i, (m, t), after a patch of t columns, t = 0 .. W, from votes (m, W).

    The vote at w is that of the band from column w on.  Patches lie within the image; bands go on at the left
    edge after the right one.  Of rival i and patch: n_y - n_i, less what y leads by among the bands that meet
    it, less their number.
    """
    (inputs, columns), wide = votes.shape, int(width)
    counts, rows = counts_of(votes, classes), np.arange(inputs)
    least = np.full((inputs, columns + 1), np.iinfo(np.int64).max)
    least[:, 0] = rival_margins(counts, selected)
    own = votes == selected[:, None]
    for rival in range(classes):
        ahead = own.astype(np.int64) - (votes == rival)
        lead = counts[rows, selected] - counts[:, rival]
        sums = np.concatenate([np.zeros((inputs, 1), np.int64), np.tile(ahead, 3).cumsum(1)], 1)
        for size in range(1, columns + 1):
            met = bands_met(size, columns, wide)
            begin = columns + np.arange(columns - size + 1) - (wide - 1)  # of the bands that meet each patch
            worst = lead - (sums[:, begin + met] - sums[:, begin]).max(1) - met
            least[:, size] = np.where(selected == rival, least[:, size], np.minimum(least[:, size], worst))
    return least


def band_margins_anywhere(votes: IntArray, selected: IntArray, classes: int, width: float) -> IntArray:
    """Return n_y - n_i - 2 L, as if every band that a patch can meet had voted for y.

    This is what Theorem 3.5 gives, and Levine and Feizi's rule: it does not look at where the votes are.
    """
    columns = votes.shape[1]
    met = np.array([bands_met(size, columns, int(width)) for size in range(columns + 1)])
    return rival_margins(counts_of(votes, classes), selected)[:, None] - 2 * met


def _told(width: float) -> str:
    return (
        f"Each vote is of {width:g} neighbouring columns; a patch of m x m pixels, anywhere in the image and "
        f"of any content, meets m + {width - 1:g} of the bands."
    )


KIND = enumerated(
    "bands", "all bands of columns, against patches", "columns of a band", "patch",
    "certmix.sampling.bands:bands",
    Cases(4.0, 1, _columns, band_margins, band_margins_anywhere, _told), whole=True,
)  # fmt: skip
