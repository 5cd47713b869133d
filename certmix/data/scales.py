"""Units of an input's values: noise and radii count in them, and inputs stay as they are given."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any

import numpy as np

from certmix.errors import DataError, ParameterError
from certmix.files import digest_of, parse_json, read_file, remedy_of
from certmix.text import plain_decimal
from certmix.types import Dataset, FloatArray

__all__ = ["about_scale", "parse_feature_scale", "scaled"]

SPREAD = "std"
_JOINTLY = {"l2": "have squares that add up to", "l1": "add up to"}
_LISTED = 24
"""Features whose tolerances are told one by one."""


def parse_feature_scale(text: str) -> str | tuple[float, ...]:
    """Return numbers that a text lists, else the text: ``std`` or the name of a file."""
    parts = [part.partition("/") for part in text.split(",")]
    try:
        return tuple(
            float(above) / float(below) if stroke else float(above) for above, stroke, below in parts
        )
    except (ValueError, ZeroDivisionError):
        return text


def scaled(dataset: Dataset, given: str | Path | Sequence[float] | FloatArray) -> Dataset:
    """Return a data set whose noise and radii count in units of its features; inputs stay as they are.

    Parameters
    ----------
    given
        A scale for each value of an input, for each channel (first axis), or one for all; the name of a file
        that holds them, as numbers, a JSON list or a JSON object by the names of features; or ``"std"``, the
        standard deviations of these data.

    Returns
    -------
    Dataset
        Noise of level sigma then has the standard deviation sigma times scale, and a radius r is about all
        inputs x' with ``sum(((x' - x) / scale)**2) <= r**2``.  The checksum is another one.  ParameterError
        or DataError if there are not as many positive numbers as needed.

    Examples
    --------
    >>> from certmix.data import dataset_of
    >>> rooms = dataset_of(([[290.0, 0.4], [294.0, 0.6]], [0, 1]), input_range=None)
    >>> scaled(rooms, [0.8, 0.05]).scale.tolist()
    [0.8, 0.05]
    """
    if dataset.scale is not None:
        raise ParameterError(f"{dataset.name} has feature scales already: leave --feature-scale out")
    shape = dataset.read(0).shape
    numbers, where = _numbers(dataset, shape, given), "feature scale"
    if isinstance(given, str | Path):
        where = str(given)
        if given == SPREAD and not numbers.all():
            what = _name_of(dataset.features, int(np.argmin(numbers)), len(numbers))[0]
            raise ParameterError(f"{what} does not vary in {dataset.name}: give feature scales as numbers")
    scale = spread_scale(check_scale(numbers, where), shape, where)
    told = {"feature_scale": numbers.tolist(), "features": list(dataset.features)}
    return replace(
        dataset, scale=scale, settings={**dataset.settings, **told},
        checksum=digest_of(f"scaled {dataset.checksum}\0".encode() + scale.astype("<f8").tobytes()),
    )  # fmt: skip


def refuse_scale(dataset: Dataset, where: str) -> None:
    """Refuse data with scales where nothing is measured in them."""
    if dataset.scale is not None:
        raise ParameterError(
            f"feature scales do not apply to {where}: they are for certificates by noise: leave "
            "--feature-scale out"
        )


def _numbers(dataset: Dataset, shape: tuple[int, ...], given: Any) -> FloatArray:
    """Return the scales (k,) that were asked for, as many as there are values, channels, or one."""
    if isinstance(given, str) and given == SPREAD:
        return _spread(dataset, shape)
    if isinstance(given, str | Path):
        given = _in_file(Path(given).expanduser(), dataset.features)
    return check_scale(given, positive=False)


def check_scale(given: Any, where: str = "feature scale", positive: bool = True) -> FloatArray:
    """Return scales as float64 (k,); ParameterError for others than finite numbers above 0."""
    try:
        given = given.detach().cpu().numpy() if hasattr(given, "detach") else given
        numbers = np.array(given, np.float64).reshape(-1)
    except (TypeError, ValueError, RuntimeError):
        raise ParameterError(f"{where}: give numbers, such as 0.8,5,0.02") from None
    least = 2.0**-80  # the network sees float32
    bad = [one for one in numbers.tolist() if not (least <= one <= 1 / least)]
    if bad and positive:
        raise ParameterError(f"{where} holds {bad[0]:g}: a scale is a number above 0, up to 1e24")
    return numbers


def spread_scale(numbers: FloatArray, shape: tuple[int, ...], where: str = "feature scale") -> FloatArray:
    """Return scales of the shape of an input; ParameterError unless there are as many as needed."""
    size = math.prod(shape)
    if len(numbers) not in (size, *shape[:1], 1):
        wanted = f"{size:,}, one for each value of an input"
        wanted += f", {shape[0]}, one a channel" if len(shape) > 1 and shape[0] not in (1, size) else ""
        raise ParameterError(f"{where} holds {len(numbers)} scales: give {wanted}, or one for all")
    if len(numbers) == size:
        return numbers.reshape(shape).copy()
    return np.broadcast_to(numbers.reshape(-1, *[1] * (len(shape) - 1)), shape).copy()


def _spread(dataset: Dataset, shape: tuple[int, ...]) -> FloatArray:
    """Return the standard deviation of each value over a data set; of inputs with channels, of each."""
    total = np.zeros(shape)
    square, first = np.zeros(shape), dataset.read(0).astype(np.float64)
    for position in range(len(dataset)):  # shifted by the first input: large means cancel nothing
        value = dataset.read(position) - first
        total, square = total + value, square + value**2
    if len(shape) == 1:
        mean = total / len(dataset)
        return np.sqrt(np.maximum(square / len(dataset) - mean**2, 0.0))
    axes = tuple(range(1, len(shape)))
    mean = (total / len(dataset) + first).mean(axes, keepdims=True)
    off = first - mean
    each = (square + 2 * off * total) / len(dataset) + off**2
    return np.sqrt(np.maximum(each.mean(axes), 0.0))


def _in_file(path: Path, features: Sequence[str]) -> Any:
    """Return the numbers of a file; DataError if it holds none."""
    try:
        raw = read_file(path)
        text = raw.decode()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        remedy = remedy_of(error, "give std, numbers, or a text file of numbers")
        raise DataError(f"--feature-scale {path} cannot be read ({reason}): {remedy}") from None
    try:
        found = parse_json(raw) if text.lstrip()[:1] in ("[", "{") else None
        if isinstance(found, dict):
            if odd := set(found) ^ set(features):
                raise DataError(
                    f"{path}: {min(odd)!r} is {'no feature' if min(odd) in found else 'without a scale'}: "
                    f"name these ({', '.join(features[:8]) or 'the data name none'})"
                )
            return [float(found[name]) for name in features]
        return [float(one) for one in (re.split(r"[\s,;]+", text.strip()) if found is None else found)]
    except (TypeError, ValueError):
        raise DataError(f"{path} holds other things than numbers: give one scale a feature") from None


def _name_of(features: Sequence[str], number: int, count: int) -> tuple[str, str]:
    """Return a feature's name and its unit, as ``temperature [K]`` has one."""
    if count == 1:
        return "each value", ""
    if len(features) != count:
        return f"value {number + 1}", ""
    found = re.fullmatch(r"(.*\S)\s*[\[(]([^\[\]()]+)[\])]", features[number].strip())
    return (found[1], f" {found[2].strip()}") if found else (features[number], "")


def _tolerance(radius: float, scale: float) -> str:
    """Return radius times scale, both as they are printed, rounded down to three digits."""
    value = Decimal(repr(float(radius))) * Decimal(repr(float(scale)))
    places = max(0, 2 - value.adjusted())
    rounded = value.quantize(Decimal(1).scaleb(-places), ROUND_FLOOR)
    text = f"{rounded:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def scaled_norm(norm: str) -> str:
    """Return what the norm of changes is called that are each divided by their scale."""
    return f"scaled {norm}"


def about_scale(
    settings: Any,
    radii: Sequence[float],
    notes: Iterable[str] = (),
    details: Iterable[str] = (),
    norm: str = "l2",
) -> dict[str, Any]:
    """Return fields of a `Summary` with these columns: notes and details, and what its radii count in.

    `settings` are those of a described data set.  The tolerance of one feature is how far it alone may
    change: the half-axis of the ellipsoid along it.
    """
    numbers = settings.get("feature_scale") if isinstance(settings, dict) else None
    if not isinstance(numbers, list) or not all(isinstance(one, float | int) for one in numbers):
        return {"notes": tuple(notes), "details": tuple(details)}
    features, count = [str(one) for one in settings.get("features") or ()], len(numbers)
    names = [_name_of(features, k, count) for k in range(count)]
    at = next((radius for radius in radii if radius > 0), 1.0)
    shown = [
        f"|{name}| <= {_tolerance(at, scale)}{unit}"
        for (name, unit), scale in zip(names[:3], numbers, strict=False)
    ]
    more = f", or {count - 3} more (see --details)" if count > 3 else ""
    note = (
        f"Radii count feature scales: radius {plain_decimal(at)} allows changes of "
        f"{' or '.join(shown)} alone{more}; "
        f"jointly the changes over their scales {_JOINTLY.get(norm, 'are')} at most {plain_decimal(at)}"
        f"{'^2' if norm == 'l2' else ''}."
    )
    columns = [radius for radius in radii if radius > 0]
    each = [
        f"{name}: scale {plain_decimal(scale)}{unit}; alone "
        + ", ".join(f"{_tolerance(radius, scale)}{unit} at {plain_decimal(radius)}" for radius in columns)
        + "."
        for (name, unit), scale in zip(names[:_LISTED], numbers, strict=False)
    ]
    if count > _LISTED:
        each.append(f"The scales of {count - _LISTED:,} more values stand in run.json.")
    return {
        "norm": scaled_norm(norm), "feature_scale": tuple(map(float, numbers)), "notes": (note, *notes),
        "details": (*each, *details),
    }  # fmt: skip
