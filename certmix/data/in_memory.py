"""Data that a program holds: arrays, tensors, tables, map-style data sets and loaders of torch.

Torch is never imported here: its objects are known by what they have.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certmix import guard
from certmix.data.arrays import from_arrays
from certmix.data.dataset import Request, begin_digest, check_position, checked, to_float
from certmix.data.frames import from_frame
from certmix.data.labels import INPUT_NAMES, LABEL_NAMES, named, understand_labels
from certmix.errors import DataError, describe
from certmix.types import Dataset

IN_MEMORY = 1 << 30
"""Bytes of inputs that are kept; more are asked for again, one by one, when they are wanted."""
_FORMS = (
    "give a pair (inputs, labels) of tensors or arrays, a map-style Dataset or DataLoader of torch, a table "
    "of pandas with a label column, a name or a path"
)


def from_object(data: Any, request: Request) -> Dataset:
    """Return the data set that an object is: see `certmix.data.dataset_of`."""
    where = request.name
    if isinstance(data, Mapping):
        return _of_mapping(data, request)
    if hasattr(data, "iloc") and hasattr(data, "columns"):
        return from_frame(data, request, where)
    request.refuse_split(where, "give two")
    tensors = getattr(data, "tensors", None)  # of a TensorDataset
    pair = tensors if isinstance(tensors, tuple) and len(tensors) == 2 else data
    if isinstance(pair, tuple | list) and len(pair) == 2:
        return of_pair(pair[0], pair[1], request, {"source": "memory"})
    if hasattr(data, "dataset") and hasattr(data, "collate_fn"):
        return _of_loader(data, request)
    has = (callable(getattr(data, name, None)) for name in ("__getitem__", "__len__"))
    if all(has) and not isinstance(data, bytes | np.ndarray | tuple | list) and not is_torch(data):
        return of_items(data, list(range(_length(data, where))), request, _class_names(data))
    kind = type(data).__name__
    alone = " hold no labels" if hasattr(data, "shape") else " are no data set"
    raise DataError(f"data of type {kind}{alone}: {_FORMS}")


def of_pair(
    inputs: Any,
    labels: Any,
    request: Request,
    settings: dict[str, Any],
    class_names: Sequence[str] = (),
    features: Sequence[str] = (),
) -> Dataset:
    """Return the data set of inputs and labels, arrays or what can be made one; they are copied."""
    if not features and hasattr(inputs, "columns"):
        features = tuple(map(str, inputs.columns))
    values, numbers = _array(inputs, "inputs", request.name), _array(labels, "labels", request.name)
    if is_torch(inputs) and values.dtype == np.uint8 and values.ndim == 4:
        values = values.transpose(0, 2, 3, 1)  # torch's images have channels first
    if values.dtype.kind == "O" and values.ndim == 2:
        raise DataError(f"{request.name}: inputs hold other things than numbers: encode or leave these out")
    return from_arrays(
        request, np.array(values), numbers, request.name, class_names=class_names, features=features,
        settings=settings,
    )  # fmt: skip


def is_torch(value: object) -> bool:
    """Whether a value is a tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _array(value: Any, what: str, where: str) -> NDArray[Any]:
    """Return an array of a tensor, an array, a list or a column."""
    if is_torch(value):
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    try:
        return np.asarray(value)
    except Exception as error:  # whoever made the value decides what it raises
        raise DataError(f"{where}: {what} are no array ({describe(error)}): {_FORMS}") from error


def _of_mapping(data: Mapping[Any, Any], request: Request) -> Dataset:
    """Take a dictionary of arrays, such as an open ``.npz`` file or a data set of scikit-learn."""
    keys = [key for key in data if isinstance(key, str)]
    inputs, labels = named(keys, INPUT_NAMES), named(keys, LABEL_NAMES)
    if inputs is None or labels is None:
        raise DataError(
            f"{request.name} holds {', '.join(map(str, keys[:6])) or 'nothing'}: call its parts inputs and "
            "labels"
        )
    request.refuse_split(request.name, "give two")
    names = next((data[key] for key in ("class_names", "target_names") if data.get(key) is not None), ())
    given = data.get("feature_names")
    features = () if given is None else tuple(map(str, given))
    return of_pair(
        data[inputs], data[labels], request, {"source": "memory"}, tuple(map(str, names)), features
    )


def _length(data: Any, where: str) -> int:
    try:
        count = len(data)
    except Exception as error:  # a data set of somebody else's
        raise DataError(f"{where} tells no length ({describe(error)}): {_FORMS}") from error
    if count == 0:
        raise DataError(f"{where} is empty: give at least one input")
    return count


def _class_names(data: Any) -> tuple[str, ...]:
    """Return the names that data sets of torchvision have for their classes; () where there are none."""
    names: Any = getattr(data, "classes", None)
    if names is None and hasattr(data, "dataset"):
        return _class_names(data.dataset)
    good = isinstance(names, tuple | list) and len(set(map(str, names))) == len(names) >= 2
    return tuple(str(" / ".join(one) if isinstance(one, tuple) else one) for one in names) if good else ()


def _of_loader(loader: Any, request: Request) -> Dataset:
    """Take what a DataLoader loads: its data set in its own order, each input once, without shuffling."""
    data, where = loader.dataset, request.name
    sampler: Any = loader.sampler
    if "IterableDataset" in (one.__name__ for one in type(data).__mro__):
        batches = [_split(batch, where) for batch in loader]
        if not batches:
            raise DataError(f"{where} is empty: give at least one input")
        inputs, labels = (
            np.concatenate([_array(batch[part], what, where) for batch in batches])
            for part, what in enumerate(("inputs", "labels"))
        )
        return from_arrays(request, inputs, labels, where, settings={"source": "memory"})
    if loader.batch_size is None and loader.batch_sampler is not None:
        sampler = getattr(loader.batch_sampler, "sampler", loader.batch_sampler)
    kind, places = type(sampler).__name__, list(range(_length(data, where)))
    if kind in ("SubsetRandomSampler", "DistributedSampler"):
        places = sorted({int(k) for k in sampler})
    elif kind not in ("SequentialSampler", "RandomSampler") or getattr(sampler, "replacement", False):
        raise DataError(
            f"{where} has a {kind}, which may repeat or leave out inputs: give its data set, loader.dataset"
        )
    alone = loader.batch_size is None and loader.batch_sampler is None  # it makes no batches
    read = _Collated(data, None if alone else loader.collate_fn)
    return of_items(read, places, request, _class_names(data))


@dataclass(frozen=True)
class _Collated:
    """Items as a loader gives them, in batches of one."""

    data: Any
    collate: Callable[[list[Any]], Any] | None

    def __getitem__(self, place: int) -> Any:
        if self.collate is None:
            return self.data[place]
        return tuple(part[0] for part in _split(self.collate([self.data[place]]), "the batch of a loader"))


def _split(item: Any, where: str) -> tuple[Any, Any]:
    """Return the input and the label of an item of a data set."""
    if isinstance(item, Mapping):
        inputs, labels = named(list(item), INPUT_NAMES), named(list(item), LABEL_NAMES)
        if inputs is not None and labels is not None:
            return item[inputs], item[labels]
        told = f"a dictionary of {', '.join(map(str, list(item)[:6]))}"
    elif isinstance(item, tuple | list) and len(item) >= 2:
        return item[0], item[1]
    else:
        told = f"of type {type(item).__name__}"
    raise DataError(
        f"{where}: an item is {told}: give pairs (input, label), or call the parts input and label"
    )


def _value(given: Any, where: str) -> NDArray[Any]:
    """Return an input as an array; 8-bit ones are images, channels first."""
    if hasattr(given, "getbands"):  # of Pillow
        given = given if given.mode in ("L", "RGB") else given.convert("RGB")
        value = np.asarray(given)
        return value[None] if value.ndim == 2 else value.transpose(2, 0, 1)
    value = _array(given, "inputs", where)
    if value.dtype == np.uint8 and value.ndim == 2:
        return value[None]
    if value.dtype == np.uint8 and value.ndim == 3 and not is_torch(given):
        first = value.shape[0] in (1, 3, 4) and value.shape[2] not in (1, 3, 4)
        return value if first else value.transpose(2, 0, 1)
    if value.dtype.kind not in "fiub" or value.ndim == 0:
        raise DataError(
            f"{where}: an input is {value.dtype} of shape {value.shape}: give numbers, such as the tensor "
            "that torchvision.transforms.ToTensor() makes of an image"
        )
    return value if value.dtype == np.uint8 else value.astype(np.float32)


@dataclass(frozen=True, eq=False)
class ItemsReader:
    """Reads inputs of somebody else's data set, items at `places`; each has the shape of the first."""

    data: Any
    places: Sequence[int]
    where: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def __call__(self, position: int) -> NDArray[np.float32]:
        """Return one input as float32."""
        place = check_position(position, len(self.places))
        return to_float(self.value(place, item(self.data, self.places[place], self.where)[0]))

    def value(self, place: int, given: Any) -> NDArray[Any]:
        """Return an item's input; DataError if it is not as the first one is."""
        value = _value(given, self.where)
        if value.shape != self.shape[1:] or value.dtype != self.dtype:
            raise DataError(
                f"{self.where}: input {place} is {value.dtype} of shape {value.shape}, the first one "
                f"{self.dtype} of shape {self.shape[1:]}: give all one shape and type"
            )
        return value

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield all inputs, one at a time."""
        for place, at in enumerate(self.places):
            yield self.value(place, item(self.data, at, self.where)[0])[None]

    def everything(self) -> NDArray[Any]:
        """Return all inputs, in memory."""
        return np.concatenate(list(self.blocks()))


def item(data: Any, place: int, where: str) -> tuple[Any, Any]:
    """Return the input and the label at a place; DataError if somebody else's code fails."""
    try:
        with guard.foreign(where):
            found = data[place]
    except Exception as error:
        guard.keep_interrupt(error)
        raise DataError(f"{where}: item {place} cannot be read ({describe(error)}): mend the data") from error
    return _split(found, where)


def of_items(
    data: Any,
    places: Sequence[int],
    request: Request,
    class_names: Sequence[str] = (),
    source: str = "memory",
) -> Dataset:
    """Read items once, for labels and checksum; their inputs stay in memory if they fit."""
    where, count = request.name, len(places)
    first = _value(item(data, places[0], where)[0], where)
    reader = ItemsReader(data, places, where, first.dtype, (count, *first.shape))
    again = reader.value(0, item(data, places[0], where)[0])
    if not np.array_equal(first, again, equal_nan=first.dtype.kind == "f"):
        raise DataError(
            f"{where} gives another input each time that it is asked for the first: leave random transforms "
            "out"
        )
    kept = np.empty(reader.shape, reader.dtype) if first.nbytes * count <= IN_MEMORY else None
    labels: list[Any] = []
    digest: Any = None if kept is not None else begin_digest(None, reader.dtype, reader.shape)
    low, high = np.inf, -np.inf
    for place, at in enumerate(places):
        given, label = item(data, at, where)
        value = reader.value(place, given)
        labels.append(_array(label, "labels", where).tolist())
        if kept is not None:
            kept[place] = value
            continue
        digest.update(np.ascontiguousarray(value, reader.dtype.newbyteorder("<")).data)
        low, high = min(low, float(value.min())), max(high, float(value.max()))
    settings = {"source": source}
    if kept is not None:
        if kept.dtype == np.uint8 and kept.ndim == 4:
            kept = kept.transpose(0, 2, 3, 1)
        return from_arrays(request, kept, labels, where, class_names=class_names, settings=settings)
    limits = request.input_range
    if reader.dtype == np.uint8:
        request.refuse_range("uint8 images")
    elif not np.isfinite([low, high]).all():
        raise DataError(f"{where}: inputs hold NaN or infinite values: remove or mend such inputs")
    elif limits is not None and not limits[0] <= low <= high <= limits[1]:
        raise DataError(
            f"{where}: inputs run from {low:g} to {high:g}, outside {limits[0]:g},{limits[1]:g}: pass the "
            "input range that holds them, or clip them"
        )
    found = understand_labels(labels, count, class_names, where)
    told = {"labels": found.told} if found.told else {}
    return checked(request, reader, found.values, found.class_names, settings=settings | told, digest=digest)
