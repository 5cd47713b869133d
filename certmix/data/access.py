"""Taking inputs out of a data set: which positions, some of them, all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certmix.data._common import Reader
from certmix.errors import ParameterError
from certmix.types import Dataset, IntArray

__all__ = ["load_arrays", "spread", "stack"]


def spread(dataset_length: int, count: int | str) -> IntArray:
    """Return positions spread evenly over a data set: floor(k N / count), k = 0 .. count - 1.

    Parameters
    ----------
    dataset_length
        N, the number of inputs.
    count
        How many positions, or ``"all"``.  More than N gives all N.

    Returns
    -------
    IntArray
        Strictly increasing int64 positions.

    Raises
    ------
    ParameterError
        If the count is below 1 or is another text.

    Examples
    --------
    >>> spread(10, 4)
    array([0, 2, 5, 7])
    """
    if count == "all":
        return np.arange(dataset_length, dtype=np.int64)
    if isinstance(count, str) or count < 1:
        raise ParameterError(f"{count!r} images: ask for at least 1, or for all")
    taken = min(int(count), dataset_length)
    return np.arange(taken, dtype=np.int64) * dataset_length // max(taken, 1)


def stack(dataset: Dataset, positions: Sequence[int] | IntArray) -> NDArray[np.float32]:
    """Read inputs at positions (n,) into one float32 array (n, ...).

    Raises
    ------
    DataError
        If an input cannot be read, or its shape differs from the others'.
    """
    if len(positions) == 0:
        return np.empty((0, *dataset.read(0).shape), np.float32)
    return np.stack([dataset.read(int(position)) for position in positions])


def load_arrays(dataset: Dataset) -> tuple[NDArray[Any], IntArray]:
    """Return the whole data set in memory: inputs (N, ...) and int64 labels (N,).

    Inputs are uint8 where the source is (0 to 255, channels first), else
    float32.  They are the data set's own memory: do not write into them.

    Raises
    ------
    DataError
        If an input cannot be read, or its shape differs from the others'.
    """
    if isinstance(dataset.read, Reader):
        return dataset.read.everything(), dataset.labels
    return stack(dataset, range(len(dataset))), dataset.labels
