"""Which images a page shows, what it says of each, and their pictures.  No torch."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from certmix.bounds.statistics import SCALE
from certmix.data import load
from certmix.errors import CertmixError
from certmix.page import Group, Images, Result, Shown
from certmix.page.values import lead_row
from certmix.runs import ImageRecord
from certmix.runs.source_names import named_split
from certmix.text import floor_digits
from certmix.types import Dataset, IntArray

__all__ = ["gallery", "picture"]

SIDE = 72
"""Pixels of the longer side, from which on pictures are made smaller."""

Picture = Callable[[int], bytes | None]


def gallery(
    result: Result, records: Mapping[int, ImageRecord], described: dict[str, Any], most: int
) -> tuple[tuple[Group, ...], str]:
    """Return the groups of images to show, and a note; at most `most` images a group."""
    images, summary = result.images, result.summary
    if images is None or most == 0:
        return (), ""
    lead = lead_row(summary.rows)
    pictures, note = _pictures(described)
    names = [str(name) for name in described["data"]["class_names"]]

    def shown(place: int) -> Shown:
        index = int(images.indices[place])
        return Shown(
            index, _class(names, images.labels[place]), _class(names, images.predicted[place]),
            _outcome(images, place, lead, summary.norm), _votes(records.get(index), names), pictures(index),
        )  # fmt: skip

    groups = [
        Group(title, about, tuple(shown(place) for place in places))
        for title, about, places in _chosen(images, lead, most)
        if places
    ]
    return tuple(groups), note


def _chosen(images: Images, lead: int, most: int) -> list[tuple[str, str, list[int]]]:
    """Return title, note and places of each group; no image is in two."""
    radius = np.where(images.right, images.radius[lead], 0.0)
    order = [k for k in np.argsort(-radius, kind="stable").tolist() if radius[k] > 0]
    largest = order[:most]
    smallest = order[len(largest) :][::-1][:most]
    left_out = images.left_out(lead)
    rest = np.sum(list(left_out.values()), axis=0) > 0
    counted = ", ".join(f"{int(which.sum()):,} {why}" for why, which in left_out.items() if which.any())
    return [
        ("Largest certified radii", "", largest),
        ("Smallest certified radii", "", smallest),
        (
            "Not certified",
            f"{int(rest.sum()):,} of {len(rest):,} images: {counted}.",
            _mixed_up(left_out, most),
        ),
    ]


def _mixed_up(left_out: dict[str, np.ndarray], most: int) -> list[int]:
    """Take the first image of each reason in turn, then the second, and so on."""
    queues = [np.flatnonzero(which).tolist() for which in left_out.values()]
    turns = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(turns) for queue in queues if turn < len(queue)][:most]


def _class(names: Sequence[str], label: int) -> str:
    return names[label] if 0 <= label < len(names) else f"class {int(label)}"


def _outcome(images: Images, place: int, lead: int, norm: str) -> str:
    for reason, which in images.left_out(lead).items():
        if which[place]:
            return reason
    radius = float(images.radius[lead][place])
    if not np.isfinite(radius):
        return "radius unbounded"
    if norm == "linf":
        return f"radius {floor_digits(255 * radius, 2)}/255"
    return f"radius {floor_digits(radius, 3 if radius >= 0.01 else 5)}"


def _votes(record: ImageRecord | None, names: Sequence[str]) -> str:
    """Return what the samples said: the chosen class's votes and those of the next."""
    if record is None:
        return ""
    if record.scores:
        last = record.scores[max(record.scores)]
        mean = float(last.totals[record.selected]) / (last.samples * SCALE)
        return f"mean score {floor_digits(mean, 3)} of {last.samples:,} samples"
    estimated = record.estimation.get(record.drawn)
    counts: IntArray = record.selection if estimated is None else estimated
    total, kind = int(counts.sum()), "selection votes" if estimated is None else "votes"
    others = np.where(np.arange(len(counts)) == record.selected, -1, counts)
    rival = int(others.argmax())
    words = f"{int(counts[record.selected]):,} of {total:,} {kind}"
    return words + (f", {_class(names, rival)} {int(counts[rival]):,}" if others[rival] > 0 else "")


def _pictures(described: dict[str, Any]) -> tuple[Picture, str]:
    """Return what makes the picture of an image, and why there are none."""

    def nothing(index: int) -> None:
        return None

    try:
        dataset = _dataset(described)
    except (CertmixError, KeyError, TypeError, ValueError) as error:
        return nothing, f"Without pictures: the data set cannot be loaded ({_short(error)})."
    if dataset.checksum != described["identity"]["data_checksum"]:
        return (
            nothing,
            "Without pictures: the data set is no longer the one that the run saw (other checksum).",
        )
    shape = dataset.read(0).shape
    if len(shape) != 3 or shape[0] not in (1, 3) or dataset.input_range is None:
        return (
            nothing,
            f"Without pictures: inputs of shape {shape} in an unknown range are not pictures."
            if (dataset.input_range is None)
            else f"Without pictures: inputs of shape {shape} are not pictures.",
        )
    places = {int(index): place for place, index in enumerate(dataset.indices)}
    reduced = (
        f" Pictures are made smaller, {max(shape[1:])} pixels to {SIDE}." if max(shape[1:]) > SIDE else ""
    )

    def one(index: int) -> bytes | None:
        return picture(dataset, places[index]) if index in places else None

    return one, reduced.strip()


def _dataset(described: dict[str, Any]) -> Dataset:
    sources = described["sources"]
    if "data" in sources.get("objects", ()):
        raise ValueError("it was a Python object")
    box = sources["input_range"]
    return load(
        sources["data"], named_split(sources["split"]), input_range=None if box is None else (box[0], box[1]),
        resize=sources["resize"], crop=sources["crop"],
    )  # fmt: skip


def _short(error: Exception) -> str:
    """Return why data cannot be loaded, without the paths of this machine."""
    if isinstance(error, CertmixError):
        return "it is missing or damaged"
    return str(error) if isinstance(error, ValueError) else "run.json does not name it"


def picture(dataset: Dataset, place: int) -> bytes:
    """Return an input (C, H, W), C = 1 or 3, as PNG; the range of the data becomes 0 to 255."""
    from PIL import Image

    assert dataset.input_range is not None
    low, high = dataset.input_range
    scaled = (dataset.read(place).astype(np.float64) - low) * (255 / (high - low))
    pixels = np.clip(np.rint(scaled), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    if max(image.size) > SIDE:
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
