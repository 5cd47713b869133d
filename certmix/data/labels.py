"""Labels as people have them: numbers from 0 or from 1, texts, one-hot rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certmix.errors import DataError
from certmix.types import IntArray


@dataclass(frozen=True)
class Labels:
    """Labels as classes from 0, int64 (N,), the classes' names, and in words how they were understood."""

    values: IntArray
    class_names: tuple[str, ...]
    told: str = ""


INPUT_NAMES = ("inputs", "input", "images", "image", "img", "data", "x", "pixel_values", "features")
LABEL_NAMES = ("labels", "label", "targets", "target", "y", "class", "fine_label")
"""What inputs and labels are usually called; the first that is there counts, in either case."""
MOST_CLASSES = 100_000
"""Below this, classes that are not named are named by their numbers."""


def named(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """Return the first of the usual names that there is, in either case."""
    lower = {str(name).lower(): name for name in reversed(names)}
    return next((lower[one] for one in wanted if one in lower), None)


def understand_labels(values: Any, count: int, class_names: Sequence[str], where: str) -> Labels:
    """Return labels that count from 0: of numbers, texts, or one-hot rows; DataError if they are none.

    Without `class_names` there are as many classes as the labels show, at least 2.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{where}: labels is ragged: give one integer an input") from error
    if array.ndim == 2 and array.shape == (count, 1):
        array = array[:, 0]
    names, told = tuple(class_names), ""
    if array.ndim == 2 and len(array) == count:
        array, names, told = _one_hot(array, names, where)
    if array.dtype.kind in "OUS" and array.shape == (count,):
        array, names, told = _texts(array, names, where)
    if array.dtype.kind == "b" or (array.dtype.kind == "f" and np.array_equal(array, np.rint(array))):
        array = array.astype(np.int64)
    labels = check_integers(array, count, "labels", where)
    if names and count and labels.min() == 1 and labels.max() == len(names):
        return Labels(labels - 1, names, counted_from_1(len(names)))
    if not names:
        if count and labels.max() >= MOST_CLASSES:  # it cannot be a class's number
            at = int(np.argmax(labels))
            raise DataError(
                f"{where}: label {labels[at]} of input {at} would make {int(labels[at]) + 1:,} classes: "
                f"number classes from 0 without gaps; for {MOST_CLASSES:,} or more, store class_names"
            )
        names = tuple(str(k) for k in range(max(2, int(labels.max(initial=0)) + 1)))
    return Labels(check_labels(labels, count, len(names), where), names, told)


def counted_from_1(classes: int) -> str:
    """Say that labels were shifted."""
    return f"labels run from 1 to {classes} and were read as classes 0 to {classes - 1}"


def _one_hot(
    array: NDArray[Any], names: tuple[str, ...], where: str
) -> tuple[IntArray, tuple[str, ...], str]:
    classes = array.shape[1]
    ones = array == 1
    if array.dtype.kind not in "biuf" or np.any(ones.sum(1) != 1) or np.any(array[~ones] != 0):
        raise DataError(
            f"{where}: labels has shape {array.shape}, and its rows are not one-hot (one 1, zeros else): "
            "give one integer or text an input"
        )
    if names and len(names) != classes:
        raise DataError(
            f"{where}: one-hot labels tell {classes} classes apart, and {len(names)} are named: mend one"
        )
    told = f"one-hot labels were read as classes 0 to {classes - 1}"
    return ones.argmax(1), names or tuple(map(str, range(classes))), told


def _texts(
    array: NDArray[Any], names: tuple[str, ...], where: str
) -> tuple[NDArray[Any], tuple[str, ...], str]:
    """Number texts by their place among `names`, or in their sorted order; numbers as texts are numbers."""
    if any(one is None or one != one for one in array.tolist()):
        at = next(k for k, one in enumerate(array.tolist()) if one is None or one != one)
        raise DataError(f"{where}: labels[{at}] is missing: leave such inputs out")
    texts = [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in array]
    if all(text.strip().isdecimal() and len(text) < 19 for text in texts) and not set(names) & set(texts):
        return np.array([int(text) for text in texts], object).astype(np.int64), names, ""
    known = names or tuple(sorted(set(texts)))
    if len(known) < 2:
        raise DataError(f"{where}: all labels are {known[0]!r}: a classifier needs at least 2 classes")
    if unknown := sorted(set(texts) - set(known)):
        raise DataError(
            f"{where}: label {unknown[0]!r} is none of the class names ({', '.join(known[:5])}"
            f"{', ...' if len(known) > 5 else ''}): mend the labels or the class names"
        )
    number = {name: k for k, name in enumerate(known)}
    shown = ", ".join(f"{k} = {name}" for k, name in enumerate(known[:5]))
    told = f"labels are texts: {shown}{', ...' if len(known) > 5 else ''}"
    return np.array([number[text] for text in texts], np.int64), known, told


def check_labels(values: Any, count: int, classes: int, where: str) -> IntArray:
    """Return int64 labels (count,), each from 0 to classes - 1."""
    labels = check_integers(values, count, "labels", where)
    if count and labels.max() >= classes:
        at = int(np.argmax(labels))
        raise DataError(
            f"{where}: label {labels[at]} of input {at} is out of range: expected 0 to {classes - 1}; "
            "mend the labels or the class names"
        )
    return labels


def check_integers(values: Any, count: int, what: str, where: str) -> IntArray:
    """Return `count` non-negative int64 values, or say what is wrong with them."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{where}: {what} is ragged: give one integer an input") from error
    if array.shape != (count,):
        raise DataError(f"{where}: {what} has shape {array.shape}, expected ({count},): one integer an input")
    if array.dtype.kind not in "iu":
        raise DataError(f"{where}: {what} holds {array.dtype} values: store integers, e.g. astype('int64')")
    if count and array.min() < 0:
        at = int(np.argmin(array))
        raise DataError(f"{where}: {what}[{at}] = {array[at]} is negative: count from 0")
    if count and array.max() > np.iinfo(np.int64).max:
        raise DataError(f"{where}: {what} holds {array.max()}, more than int64 holds: store smaller ones")
    return array.astype(np.int64)
