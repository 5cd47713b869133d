"""Which inputs a page shows, what it says of each, and their pictures.  No torch."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from certmix.bounds.statistics import SCALE
from certmix.data import is_fetched
from certmix.errors import CertmixError
from certmix.runs import InputRecord
from certmix.runs.sources import Sources, load_data
from certmix.text import floor_digits
from certmix.types import Dataset, FloatArray, IntArray, Status

SIDE = 72  # pixels of the longer side, from which on pictures are made smaller


@dataclass(frozen=True)
class Inputs:
    """The inputs (m,) of a certification: index, class; of each row predicted class, radii and `Status`."""

    indices: IntArray
    labels: IntArray
    predicted: Sequence[IntArray]
    radius: Sequence[FloatArray]
    status: Sequence[IntArray]

    def right(self, row: int) -> np.ndarray:
        """Return bool (m,): the class is the label."""
        return np.asarray(self.predicted[row] == self.labels)

    def certified(self, row: int) -> FloatArray:
        """Return the radii above 0 of the rightly classified inputs."""
        return np.asarray(self.radius[row][self.right(row) & (self.radius[row] > 0)])

    def left_out(self, row: int) -> dict[str, np.ndarray]:
        """Return bool (m,) of the inputs that count as not certified, by reason."""
        status, right = self.status[row], self.right(row)
        return {
            "wrong class": ~right,
            "abstained": right & (status == Status.ABSTAIN),
            "no radius at this \u03b1": right & (status != Status.ABSTAIN) & (self.radius[row] <= 0),
        }


def gallery(
    inputs: Inputs, row: int, norm: str, records: Sequence[InputRecord], run: dict[str, Any], most: int
) -> dict[str, Any]:
    """Return groups of at most `most` inputs each, none in two, and a note on their pictures.

    `row` is the row of the table whose radii are shown; `records` are those of the inputs, or none.
    """
    picture_of, note = _pictures(run)
    names = [str(name) for name in run["data"]["class_names"]]
    radius, left_out = np.where(inputs.right(row), inputs.radius[row], 0.0), inputs.left_out(row)

    def named(label: int) -> str:
        if label < 0:
            return "none"
        return names[label] if label < len(names) else f"class {label}"

    def card(k: int) -> dict[str, Any]:
        index = int(inputs.indices[k])
        outcome = next((why for why, which in left_out.items() if which[k]), "")
        if not np.isfinite(radius[k]):
            outcome = "radius unbounded"
        elif not outcome and norm == "linf":
            outcome = f"radius {floor_digits(255 * radius[k], 2)}/255"
        elif not outcome:
            outcome = f"radius {floor_digits(radius[k], 3 if radius[k] >= 0.01 else 5)}"
        png = picture_of(index)
        return {
            "index": index, "label": named(int(inputs.labels[k])),
            "predicted": named(int(inputs.predicted[row][k])), "outcome": outcome,
            "votes": _votes(records[k] if records else None, named),
            "png": None if png is None else b64encode(png).decode("ascii"),
        }  # fmt: skip

    order = [k for k in np.argsort(-radius, kind="stable").tolist() if radius[k] > 0]
    queues = [np.flatnonzero(which).tolist() for which in left_out.values()]
    in_turn = [queue[turn] for turn in range(most) for queue in queues if turn < len(queue)]
    counted = ", ".join(f"{len(queue):,} {why}" for why, queue in zip(left_out, queues, strict=True) if queue)
    groups = (
        ("Largest certified radii", "", order[:most]),
        ("Smallest certified radii", "", order[most:][::-1][:most]),
        ("Not certified", f"{sum(map(len, queues)):,} of {len(radius):,} inputs: {counted}.", in_turn[:most]),
    )
    shown = [
        {"title": title, "note": told, "cards": [card(k) for k in places]}
        for title, told, places in groups
        if places
    ]
    return {"groups": shown, "note": note}


def _votes(record: InputRecord | None, named: Callable[[int], str]) -> str:
    """Return what the samples said: the chosen class's votes and those of the next."""
    if record is None:
        return ""
    if record.scores:
        last = record.scores[max(record.scores)]
        mean = float(last.totals[record.selected]) / (last.samples * SCALE)
        return f"mean score {floor_digits(mean, 3)} of {last.samples:,} samples"
    estimated = record.estimation.get(record.drawn)
    counts: IntArray = record.selection if estimated is None else estimated
    rival = int(np.where(np.arange(len(counts)) == record.selected, -1, counts).argmax())
    kind = "selection votes" if estimated is None else "votes"
    second = f", {named(rival)} {int(counts[rival]):,}" if counts[rival] and rival != record.selected else ""
    return f"{int(counts[record.selected]):,} of {int(counts.sum()):,} {kind}{second}"


def _pictures(described: dict[str, Any]) -> tuple[Callable[[int], bytes | None], str]:
    """Return what makes the picture of an input, and why there are none."""
    try:
        sources = described["sources"]
        if "data" in sources.get("objects", ()):
            return lambda _: None, "Without pictures: the data set cannot be loaded (it was a Python object)."
        dataset = load_data(Sources.from_dict(sources, Path("run.json")))
    except (CertmixError, KeyError, TypeError, ValueError) as error:
        why = "it is missing or damaged" if isinstance(error, CertmixError) else "run.json does not name it"
        if isinstance(described.get("sources"), dict) and is_fetched(described["sources"].get("data")):
            why = "it is on a network"
        return lambda _: None, f"Without pictures: the data set cannot be loaded ({why})."
    shape = dataset.read(0).shape
    if dataset.checksum != described["identity"]["data_checksum"]:
        note = "Without pictures: the data set is no longer the one that the run saw (other checksum)."
    elif len(shape) != 3 or shape[0] not in (1, 3) or dataset.input_range is None:
        unknown = " in an unknown range" if dataset.input_range is None else ""
        note = f"Without pictures: inputs of shape {shape}{unknown} are not pictures."
    else:
        places = {int(index): place for place, index in enumerate(dataset.indices)}
        large = max(shape[1:]) > SIDE
        smaller = f"Pictures are made smaller, {max(shape[1:])} pixels to {SIDE}." if large else ""
        return lambda index: picture(dataset, places[index]) if index in places else None, smaller
    return lambda _: None, note


def picture(dataset: Dataset, place: int) -> bytes:
    """Return an input (C, H, W), C = 1 or 3, as PNG; the range of the data becomes 0 to 255."""
    from PIL import Image

    assert dataset.input_range is not None
    low, high = dataset.input_range
    scaled = (dataset.read(place).astype(np.float64) - low) * (255 / (high - low))
    pixels = np.clip(np.rint(scaled), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    input = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    input.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)  # leaves smaller ones as they are
    buffer = io.BytesIO()
    input.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
