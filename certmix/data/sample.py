"""Every 20th image of the CIFAR-10 test set, 500 in all, part of the package.

The images are one lossless PNG sheet, 25 across and 20 down; the labels, the
original indices and the provenance stand in the JSON file beside it.

References
----------
A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

from __future__ import annotations

import io
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from certmix.data.dataset import Request, Source, check_split, in_memory, refuse_range, refuse_resizing
from certmix.errors import DataError
from certmix.files import digest_of
from certmix.types import Dataset

NAME = "cifar10-sample"


def load(place: Path, request: Request) -> Dataset:
    """Load the sample; `place` is not used."""
    check_split(request, ("test",), NAME)
    refuse_resizing(request, NAME)
    refuse_range(request, NAME)
    folder = files("certmix.data")
    try:
        facts = json.loads((folder / "cifar10_sample.json").read_text(encoding="utf-8"))
        pixels = _cut((folder / "cifar10_sample.png").read_bytes())
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{NAME}: its files are missing or damaged: install certmix again") from error
    found = digest_of(pixels.tobytes())
    if found != facts["sha256"]:
        raise DataError(
            f"{NAME}: sha256 of the pixels is {found[:12]}..., expected {facts['sha256'][:12]}...: "
            "install certmix again"
        )
    return in_memory(
        request,
        pixels,
        np.array(facts["labels"], np.int64),
        facts["class_names"],
        indices=np.array(facts["indices"], np.int64),
        settings={"source": NAME},
    )


def _cut(sheet: bytes) -> NDArray[np.uint8]:
    """Cut the PNG sheet into uint8 (500, 3, 32, 32)."""
    from PIL import Image

    with Image.open(io.BytesIO(sheet)) as image:
        pixels = np.asarray(image.convert("RGB"))
    rows, columns = pixels.shape[0] // 32, pixels.shape[1] // 32
    tiles = pixels.reshape(rows, 32, columns, 32, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(tiles.reshape(rows * columns, 3, 32, 32))


SOURCE = Source(
    description="500 CIFAR-10 test images (indices 0, 20, ..., 9980) inside the package; split test",
    load=load,
)
