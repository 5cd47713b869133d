"""What every source shares (request, readers, checks, checksum), and taking inputs out of a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from certmix.errors import DataError, ParameterError
from certmix.types import Dataset, IntArray

UNIT_RANGE = (0.0, 1.0)
SUFFIXES = (".npz", ".npy", ".csv", ".tsv", ".parquet")
"""Of files that hold a data set."""


@dataclass(frozen=True)
class Request:
    """What the user asked `certmix.data.load` for; `split_given` where the split was named, not assumed."""

    name: str
    split: str = "test"
    input_range: tuple[float, float] | None = UNIT_RANGE
    resize: int | None = None
    crop: int | None = None
    split_given: bool = False
    label_column: str | None = None

    @property
    def short_name(self) -> str:
        """The name without the folders of a path and without its suffix: what records and tables show."""
        name = Path(self.name).expanduser().resolve().name
        return next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), name)

    def refuse_range(self, where: str) -> None:
        """Refuse an --input-range other than 0,1 for images, which are always scaled to it."""
        if self.input_range != UNIT_RANGE:
            asked = "none" if self.input_range is None else "{:g},{:g}".format(*self.input_range)
            raise DataError(
                f"--input-range {asked} does not apply to {where}: images are scaled to 0,1; leave it out"
            )

    def refuse_split(self, where: str, remedy: str) -> None:
        """Refuse a split that was named for data without splits: every split would be the same inputs."""
        if self.split_given:
            raise DataError(
                f"{where} is one set without splits, so --split {self.split} would be all of it: "
                f"leave --split out; to tune on some inputs and report on others, {remedy}"
            )


@dataclass(frozen=True)
class Source:
    """One kind of data set: a line for lists and errors, and (place found, request) -> data set.

    `find` takes a path to the place this source would read, or None if it is of another kind; itself None for
    what is part of the package.  `splits` are empty where the data decide; `options` are those that apply.
    """

    description: str
    load: Callable[[Path, Request], Dataset]
    find: Callable[[Path], Path | None] | None = None
    splits: Sequence[str] = ()
    options: Sequence[str] = ("input_range",)

    def read(self, place: Path, request: Request) -> Dataset:
        """Return the data set, or refuse a split that it lacks and options that do not apply."""
        where = request.name if self.find is None else str(place)
        if self.splits and request.split not in self.splits:
            raise DataError(f"{where} has no split {request.split!r}: use {' or '.join(self.splits)}")
        for option in ("resize", "crop"):
            value = getattr(request, option)
            if value is not None and option not in self.options:
                raise DataError(
                    f"--{option} {value} does not apply to {where}: it is for image folders; leave it out"
                )
        if request.label_column is not None and "label_column" not in self.options:
            raise DataError(
                f"--label-column {request.label_column} does not apply to {where}: it is for tables: leave "
                "it out"
            )
        if "input_range" not in self.options:
            request.refuse_range(where)
        return self.load(place, request)


@dataclass(frozen=True, eq=False)
class ArrayReader:
    """Read from memory: uint8 is scaled to [0, 1], float32 is copied."""

    inputs: NDArray[Any]

    def __call__(self, position: int) -> NDArray[np.float32]:
        """Return one input as float32."""
        return to_float(self.inputs[check_position(position, len(self.inputs))])

    def everything(self) -> NDArray[Any]:
        """Return the memory itself."""
        return self.inputs

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield all inputs at once."""
        yield self.inputs

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the inputs."""
        return self.inputs.dtype

    @property
    def shape(self) -> Sequence[int]:
        """Shape of all inputs together."""
        return self.inputs.shape


class Reader(Protocol):
    """What reads inputs: one as float32, all, and all some at a time, of a type and a shape together."""

    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def shape(self) -> Sequence[int]: ...
    def __call__(self, position: int) -> NDArray[np.float32]: ...
    def blocks(self) -> Iterator[NDArray[Any]]: ...
    def everything(self) -> NDArray[Any]: ...


def to_float(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return a float32 copy; uint8 becomes [0, 1]."""
    return values.astype(np.float32) / np.float32(255 if values.dtype == np.uint8 else 1)


def check_position(position: int, length: int) -> int:
    """Return the position, or raise IndexError: a negative one would read from the end."""
    if not 0 <= position < length:
        raise IndexError(f"position {position} is outside the data set: use 0 to {length - 1}")
    return int(position)


def checked(
    request: Request,
    inputs: NDArray[Any] | Reader,
    labels: IntArray,
    class_names: Sequence[str],
    *,
    indices: IntArray | None = None,
    settings: dict[str, Any],
    features: Sequence[str] = (),
    digest: Any = None,
) -> Dataset:
    """Return the data set of inputs and labels that were already checked; `digest` has seen the inputs."""
    if indices is None:
        indices = np.arange(len(labels), dtype=np.int64)
    reader = ArrayReader(inputs) if isinstance(inputs, np.ndarray) else inputs
    parts = (ArrayReader(labels), ArrayReader(indices))
    for one in (*(() if digest is not None else (reader,)), *parts):
        digest = begin_digest(digest, one.dtype, one.shape)
        for block in one.blocks():
            digest.update(np.ascontiguousarray(block, one.dtype.newbyteorder("<")).data)
    return Dataset(
        request.short_name, request.split, labels, indices, tuple(class_names), reader,
        request.input_range, digest.hexdigest(), settings, tuple(features),
    )  # fmt: skip


def begin_digest(digest: Any, dtype: np.dtype[Any], shape: Sequence[int]) -> Any:
    """Let a SHA-256, a new one for None, know the type and the shape of an array whose numbers follow."""
    digest = hashlib.sha256() if digest is None else digest
    digest.update(f"{dtype.newbyteorder('<').str}{tuple(shape)}".encode())
    return digest


def spread(dataset_length: int, count: int | str) -> IntArray:
    """Return positions spread evenly over a data set: floor(k N / count), k = 0 .. count - 1, int64.

    `count` may be ``"all"``; more than N gives all N.  ParameterError if it is below 1 or another text.

    >>> spread(10, 4)
    array([0, 2, 5, 7])
    """
    if count == "all":
        return np.arange(dataset_length, dtype=np.int64)
    if isinstance(count, str) or count < 1:
        raise ParameterError(f"{count!r} inputs: ask for at least 1, or for all")
    taken = min(int(count), dataset_length)
    return np.arange(taken, dtype=np.int64) * dataset_length // max(taken, 1)


def stack(dataset: Dataset, positions: Sequence[int] | IntArray) -> NDArray[np.float32]:
    """Read inputs at positions (n,) into one float32 array (n, ...).

    DataError if an input cannot be read, or its shape differs from the others'.
    """
    if len(positions) == 0:
        return np.empty((0, *dataset.read(0).shape), np.float32)
    return np.stack([dataset.read(int(position)) for position in positions])


def load_arrays(dataset: Dataset) -> tuple[NDArray[Any], IntArray]:
    """Return the whole data set in memory: inputs (N, ...) and int64 labels (N,).

    Inputs are uint8 where the source is (0 to 255, channels first), else float32: the data set's own memory,
    not to be written into.  DataError as of `stack`.
    """
    everything = getattr(dataset.read, "everything", None)  # of readers of this package
    inputs = stack(dataset, range(len(dataset))) if everything is None else everything()
    return inputs, dataset.labels


def _read_chosen(read: Callable[[int], NDArray[np.float32]], at: IntArray, k: int) -> NDArray[np.float32]:
    return read(int(at[k]))


def restrict(dataset: Dataset, positions: Sequence[int] | IntArray) -> Dataset:
    """Return the part of a data set at these positions, in this order.

    They are different and from 0 to N - 1, else ParameterError; none leaves an empty data set.  Inputs keep
    their indices in the source, and with them their noise.  The checksum covers the whole and the positions.
    """
    chosen = np.asarray(positions, np.int64).reshape(-1)
    if len(np.unique(chosen)) < len(chosen) or np.any((chosen < 0) | (chosen >= len(dataset))):
        raise ParameterError(
            f"{len(chosen)} positions of {dataset.name}: each must lie in 0..{len(dataset) - 1} and come once"
        )
    digest = hashlib.sha256(f"part of {dataset.checksum}\0".encode() + chosen.astype("<i8").tobytes())
    return replace(
        dataset, labels=dataset.labels[chosen], indices=dataset.indices[chosen],
        read=partial(_read_chosen, dataset.read, chosen), checksum=digest.hexdigest(),
        settings={**dataset.settings, "part": f"{len(chosen)} of {len(dataset)} inputs"},
    )  # fmt: skip
