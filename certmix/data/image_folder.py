"""A folder with a sub-folder of images for each class, read one image at a time."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from certmix.data.dataset import Request, Source, check_position, to_float
from certmix.errors import DataError, describe
from certmix.files import open_file
from certmix.types import Dataset

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of what is decoded, whatever a file is called: others, such as EPS, start programs."""
MOST_PIXELS = 1 << 26
"""Of an image, as its header says before it is decoded, and as it is after resizing."""
FEW_PIXELS, PIXELS_A_BYTE = 1 << 22, 1 << 15
"""An image of more than so many pixels in all, and for each byte of its file, is taken to be damaged.

A blank page in a TIFF of group 4 has 11,600 for each byte, a WebP of one colour 21,300.
"""
_UNHEARD = logging.NullHandler()  # else Pillow's log goes to stderr; what was wrong is in its exception
BILINEAR = 2  #: PIL.Image.Resampling.BILINEAR, which is antialiased
NO_CLASSES = frozenset(("__MACOSX", "__pycache__", "@eaDir", "lost+found"))
"""Folders that programs leave among others."""
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def _folders(path: Path) -> list[Path]:
    """Return the sub-folders by name, without hidden ones and those of archivers and file servers."""
    return sorted(
        p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name not in NO_CLASSES
    )


def _images(path: Path) -> Iterator[Path]:
    seen = (p for p in path.iterdir() if not p.name.startswith("."))
    return (p for p in seen if p.suffix.lower() in SUFFIXES and p.is_file())


def _holds_classes(path: Path) -> bool:
    return path.is_dir() and any(next(_images(folder), None) for folder in _folders(path))


def find(path: Path) -> Path | None:
    """Return the folder if it, or a sub-folder of it (a split), holds class folders."""
    if not path.is_dir():
        return None
    return path if _holds_classes(path) or any(map(_holds_classes, _folders(path))) else None


def _root(path: Path, request: Request) -> tuple[Path, list[str]]:
    """Return PATH/split where it holds class folders, else PATH; and the classes of all splits."""
    split = request.split
    if _holds_classes(path / split):
        others = [folder for folder in _folders(path) if _holds_classes(folder)]
        return path / split, sorted({one.name for folder in others for one in _folders(folder)})
    splits = [folder.name for folder in _folders(path) if _holds_classes(folder)]
    if splits and _holds_classes(path):
        raise DataError(
            f"{path} holds images one and two levels down (in {splits[0]}): "
            "arrange them as CLASS/image or SPLIT/CLASS/image"
        )
    if splits:
        raise DataError(f"{path} has no split {split!r}: use {' or '.join(splits)}")
    request.refuse_split(str(path), "give two folders, or arrange one as SPLIT/CLASS/image")
    return path, [folder.name for folder in _folders(path)]


@dataclass(frozen=True, eq=False)
class ImageReader:
    """Reads uint8 (3, H, W) images; each must have the shape of the first, `shape`."""

    paths: tuple[Path, ...]
    resize: int | None
    crop: int | None
    shape: tuple[int, ...]

    def __call__(self, position: int) -> NDArray[np.float32]:
        """Return float32 (3, H, W) in [0, 1]."""
        return to_float(self._pixels(position))

    def everything(self) -> NDArray[np.uint8]:
        """Return uint8 (N, 3, H, W)."""
        return np.stack(list(map(self._pixels, range(len(self.paths)))))

    def _pixels(self, position: int) -> NDArray[np.uint8]:
        path = self.paths[check_position(position, len(self.paths))]
        pixels = _prepare(path, self.resize, self.crop)
        if pixels.shape != self.shape:
            size, first = (f"{width}x{height}" for _, height, width in (pixels.shape, self.shape))
            raise DataError(
                f"{path} is {size}, but {self.paths[0].name} is {first}: "
                "give all images one shape with --resize and --crop"
            )
        return pixels


def refuse_size(size: tuple[int, int], count: int) -> None:
    """Refuse an image that `count` bytes do not hold, or that is too large to decode: ValueError."""
    width, height = size
    if width * height > MOST_PIXELS:
        raise ValueError(f"{width}x{height} are more than {MOST_PIXELS:,} pixels")
    if width * height > max(FEW_PIXELS, PIXELS_A_BYTE * count):
        raise ValueError(f"{width}x{height} pixels are not in {count:,} bytes")


def _decode(path: Path) -> Image.Image:
    """Return the image as 8-bit RGB; transparency is dropped."""
    from PIL import Image

    logging.getLogger("PIL").addHandler(_UNHEARD)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_file(path) as file, Image.open(file, formats=FORMATS) as image:
                mode = image.mode
                refuse_size(image.size, os.fstat(file.fileno()).st_size)
                if "transparency" in image.info:
                    return image.convert("RGBA").convert("RGB")
                if mode[0] not in "IF":
                    return image.convert("RGB")
    except PermissionError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): give this user the right to") from error
    except Exception as error:  # Pillow's decoders share no base class of errors
        raise DataError(f"{path} is not a readable image ({describe(error)}): replace it") from error
    raise DataError(f"{path} has more than 8 bits a pixel (mode {mode}): convert it to 8 bits, or use .npz")


def _prepare(path: Path, resize: int | None, crop: int | None) -> NDArray[np.uint8]:
    """Return uint8 (3, H, W): shorter side resized (bilinear, antialiased), then the centre square."""
    image = _decode(path)
    if resize is not None:
        shorter = min(image.size)
        width, height = (max(resize, resize * side // shorter) for side in image.size)
        if width * height > MOST_PIXELS:
            raise DataError(f"{path} would be {width}x{height} after --resize {resize}: take a smaller one")
        image = image.resize((width, height), resample=BILINEAR)
    if crop is not None:
        width, height = image.size
        if crop > min(width, height):
            raise DataError(
                f"{path} is {width}x{height}, smaller than --crop {crop}: pass --resize {crop} or more"
            )
        left, top = round((width - crop) / 2), round((height - crop) / 2)
        image = image.crop((left, top, left + crop, top + crop))
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def load(path: Path, request: Request) -> Dataset:
    """List the images; each is read, and its shape checked, when it is asked for."""
    root, names = _root(path, request)
    if len(names) < 2:
        raise DataError(f"{root} has one class folder, {names[0]}: a classifier needs at least 2")
    folders = [(k, root / name) for k, name in enumerate(names) if (root / name).is_dir()]
    files = [(image, k) for k, folder in folders for image in sorted(_images(folder))]
    first = _prepare(files[0][0], request.resize, request.crop)
    # The checksum covers preparation, relative paths, file sizes and labels, not contents.
    digest = hashlib.sha256(json.dumps([request.resize, request.crop]).encode())
    for image, label in files:
        line = [image.relative_to(root).as_posix(), image.stat().st_size, label]
        digest.update(json.dumps(line).encode())
    return Dataset(
        request.short_name, request.split, np.array([k for _, k in files], np.int64),
        np.arange(len(files), dtype=np.int64), tuple(names),
        ImageReader(tuple(image for image, _ in files), request.resize, request.crop, first.shape),
        request.input_range, digest.hexdigest(),
        {"source": "images", "resize": request.resize, "crop": request.crop},
    )  # fmt: skip


SOURCE = Source(
    description="folder of images, a sub-folder a class: PATH/class/*.png, or PATH/split/class/*.png",
    load=load,
    find=find,
    options=("resize", "crop"),
)
