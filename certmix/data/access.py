"""Taking inputs out of a data set: which positions, some of them, all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certmix.data._common import Reader
from certmix.errors import ParameterError
from certmix.types import Dataset, IntArray

__all__ = ["load_arrays", "restrict", "spread", "stack"]


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


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Reads position k of a part at position ``positions[k]`` of the whole."""

    read: Callable[[int], NDArray[np.float32]]
    positions: IntArray

    def __call__(self, position: int) -> NDArray[np.float32]:
        return self.read(int(self.positions[position]))


def restrict(dataset: Dataset, positions: Sequence[int] | IntArray) -> Dataset:
    """Return the part of a data set at these positions, in this order.

    Inputs keep their indices in the source, and with them the noise that is
    keyed by these.  The checksum covers the whole and the positions.

    Parameters
    ----------
    dataset
        The whole.
    positions
        Different positions from 0 to N - 1; none leaves an empty data set.

    Raises
    ------
    ParameterError
        If a position is out of range or given twice.

    Examples
    --------
    >>> from certmix.data import load
    >>> whole = load("cifar10-sample")
    >>> part = restrict(whole, [3, 1])
    >>> len(part), part.indices.tolist() == whole.indices[[3, 1]].tolist()
    (2, True)
    """
    chosen = np.asarray(positions, np.int64).reshape(-1)
    if len(np.unique(chosen)) < len(chosen) or np.any((chosen < 0) | (chosen >= len(dataset))):
        raise ParameterError(
            f"{len(chosen)} positions of {dataset.name}: each must lie in 0..{len(dataset) - 1} and come once"
        )
    digest = hashlib.sha256(f"part of {dataset.checksum}\0".encode() + chosen.astype("<i8").tobytes())
    return replace(
        dataset, labels=dataset.labels[chosen], indices=dataset.indices[chosen],
        read=_Chosen(dataset.read, chosen), checksum=digest.hexdigest(),
        settings={**dataset.settings, "part": f"{len(chosen)} of {len(dataset)} inputs"},
    )  # fmt: skip
