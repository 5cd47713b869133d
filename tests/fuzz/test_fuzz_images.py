"""Folders of images."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.datasets import little_memory, whole
from fuzz.harness import accepted, fuzz, judged, mutated, raw, refused, scratch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from certmix.errors import DataError


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


def picture(kind: str, size: tuple[int, int] = (5, 4), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 7).save(buffer, kind)
    return buffer.getvalue()


SUFFIXES = {
    "PNG": "png",
    "JPEG": "jpg",
    "BMP": "bmp",
    "GIF": "gif",
    "PPM": "ppm",
    "TIFF": "tif",
    "WEBP": "webp",
}
PICTURES = {kind: picture(kind) for kind in SUFFIXES}


@pytest.fixture
def images(place: Path) -> Path:
    return made(place / "images")


def made(folder: Path) -> Path:
    """Two classes of one picture each."""
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "0.png").write_bytes(PICTURES["PNG"])
    return folder


@given(
    st.sampled_from(list(SUFFIXES)).flatmap(
        lambda kind: st.tuples(st.just(kind), mutated(PICTURES[kind], PICTURES["PNG"]) | raw)
    ),
    st.sampled_from([{}, {"resize": 3}, {"crop": 4}, {"resize": 200, "crop": 3}]),
)
@fuzz
def test_images(place: Path, content: tuple[str, bytes], options: dict[str, int]) -> None:
    folder = made(place / "images")
    path = folder / "dog" / f"0.{SUFFIXES[content[0]]}"
    path.write_bytes(content[1])
    if content[0] != "PNG":
        (folder / "dog" / "0.png").unlink(missing_ok=True)
    judged(lambda: whole(folder, **options), folder)
    path.unlink()


def png(width: int, height: int, body: bytes = b"") -> bytes:
    """A grey picture that claims any size."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", body),
        (b"IEND", b""),
    ]
    packed = [
        struct.pack(">I", len(c)) + name + c + struct.pack(">I", zlib.crc32(name + c)) for name, c in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(
    ("width", "height"),
    [(0, 5), (5, 0), (2**31 - 1, 2**31 - 1), (100_000, 100_000), (10_000, 10_000), (2**31, 1)],
)
def test_images_of_absurd_size(images: Path, width: int, height: int) -> None:
    (images / "cat" / "0.png").write_bytes(png(width, height))
    with little_memory():
        refused(lambda: whole(images), images)


def test_images_that_grow_when_resized(images: Path) -> None:
    (images / "cat" / "0.png").write_bytes(picture("PNG", (1, 60_000), "L"))
    with little_memory():
        assert "smaller" in refused(lambda: whole(images, resize=224), images)


def test_no_other_decoder_is_tried(images: Path) -> None:
    """PostScript would be handed to a program."""
    drawing = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 4\n%%EndComments\nshowpage\n"
    (images / "cat" / "0.png").write_bytes(drawing)
    assert "not a readable image" in refused(lambda: whole(images), images)


def test_images_that_pillow_warns_of_are_read_in_silence(images: Path) -> None:
    buffer = io.BytesIO()
    palette = Image.new("P", (5, 4))
    palette.putpalette([9] * 768)
    palette.save(buffer, "PNG", transparency=b"\x00\x80")
    (images / "cat" / "0.png").write_bytes(buffer.getvalue())
    accepted(lambda: whole(images), images)


def test_links_among_images(tmp_path: Path) -> None:
    """Links are followed, as collections of links are common; what is there is only decoded as an image."""
    folder, outside = made(tmp_path / "images"), tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.png").write_text("not an image")
    (outside / "fine.png").write_bytes(PICTURES["PNG"])
    (folder / "cat" / "1.png").symlink_to(outside / "fine.png")
    assert len(accepted(lambda: whole(folder), tmp_path)) == 3
    (folder / "cat" / "2.png").symlink_to(outside / "secret.png")
    assert "not a readable image" in refused(lambda: whole(folder), tmp_path)
    (folder / "cat" / "2.png").unlink()
    (folder / "cat" / "3.png").symlink_to(folder / "cat" / "3.png")
    (folder / "cat" / "4.png").symlink_to(outside / "missing.png")
    (folder / "dog" / "loop").symlink_to(folder)
    (folder / "dog" / "5.png").mkdir()
    assert len(accepted(lambda: whole(folder), tmp_path)) == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_are_not_waited_for(images: Path) -> None:
    os.mkfifo(images / "cat" / "pipe.png")
    assert len(accepted(lambda: whole(images))) == 2
    (images / "cat" / "pipe.png").unlink()


def test_names_that_are_no_text(tmp_path: Path) -> None:
    folder = made(tmp_path / "images")
    try:
        os.rename(os.fsencode(folder / "cat"), os.fsencode(folder) + b"/c\xff\nt")
    except OSError:
        pytest.skip("file names are text here")
    assert len(accepted(lambda: whole(folder), tmp_path)) == 2
    (folder / "dog" / "0.png").write_bytes(b"")
    refused(lambda: whole(folder), tmp_path)
    assert isinstance(judged(lambda: whole(folder, "a\nb")), DataError)
