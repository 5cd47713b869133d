"""Folders of images: order, splits, resizing, cropping, and their faults."""

from __future__ import annotations

import io
import logging
import shutil
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from certmix.data import load, load_arrays
from certmix.errors import DataError

RNG = np.random.default_rng(0)


def save(path: Path, height: int = 6, width: int = 6, mode: str = "RGB") -> np.ndarray:
    """Save a random image and return its pixels (height, width[, channels])."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"RGB": (3,), "RGBA": (4,), "LA": (2,), "L": ()}[mode]
    pixels = RNG.integers(0, 256, (height, width, *channels), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def folder(tmp_path):
    """Return a folder: two cats, one dog, and an ant class without images."""
    root = tmp_path / "zoo"
    for name in ("cat/b.png", "cat/a.png", "dog/c.png"):
        save(root / name)
    (root / "ant").mkdir()
    (root / ".hidden").mkdir()
    (root / "cat" / "notes.txt").write_text("no image")
    return root


def test_classes_are_sorted_folders_and_images_sorted_files(folder):
    pixels = save(folder / "cat" / "a.png")
    dataset = load(folder)
    assert dataset.class_names == ("ant", "cat", "dog")
    np.testing.assert_array_equal(dataset.labels, [1, 1, 2])
    np.testing.assert_array_equal(dataset.indices, [0, 1, 2])
    expected = pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(dataset.read(0), expected)
    assert dataset.settings == {"source": "images", "resize": None, "crop": None}
    inputs, labels = load_arrays(dataset)
    assert inputs.dtype == np.uint8 and inputs.shape == (3, 3, 6, 6)
    np.testing.assert_array_equal(inputs[0], pixels.transpose(2, 0, 1))
    np.testing.assert_array_equal(labels, dataset.labels)


def test_splits_are_sub_folders_over_which_classes_are_numbered(folder, tmp_path, refusal):
    assert len(load(folder)) == len(load(folder, default_split="train")) == 3
    root = tmp_path / "splits"
    for name in ["train/a/1", "train/b/2", "train/c/3", "val/a/1", "val/c/2", "more/d/1"]:
        save(root / f"{name}.png")
    for split, labels in (("train", [0, 1, 2]), ("val", [0, 2]), ("more", [3])):
        dataset = load(root, split)
        assert dataset.class_names == ("a", "b", "c", "d")
        assert dataset.labels.tolist() == load(root, default_split=split).labels.tolist() == labels
    assert load(root / "val").labels.tolist() == [0, 1]
    assert "has no split 'test': use more or train or val" in refusal(root)
    before = load(root, "val").checksum
    (root / "val" / "b").mkdir()  # what to do where no split has an image of a class
    assert load(root, "val").labels.tolist() == [0, 2]
    assert load(root, "val").checksum == before


def test_other_modes_become_rgb(tmp_path):
    grey, rgba, la = (save(tmp_path / "a" / f"{mode}.png", mode=mode) for mode in ("L", "RGBA", "LA"))
    palette = save(tmp_path / "b" / "P.png")
    Image.fromarray(palette).quantize(4).save(tmp_path / "b" / "P.png", transparency=b"\x00\x80")
    read = load(tmp_path).read
    np.testing.assert_array_equal(read(0) * 255, np.stack([grey] * 3))
    np.testing.assert_array_equal(read(1) * 255, np.stack([la[..., 0]] * 3))
    np.testing.assert_allclose(read(2) * 255, rgba[..., :3].transpose(2, 0, 1), atol=1e-4)
    assert read(3).shape == (3, 6, 6)


def put(root, pixels):
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        Image.fromarray(pixels).save(root / name / "1.png")


def test_shorter_side_is_resized_with_antialiasing_then_the_centre_cropped(tmp_path):
    # a chessboard of single pixels averages to grey; plain bilinear sampling would alias
    put(tmp_path / "board", (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8))
    np.testing.assert_allclose(load(tmp_path / "board", resize=8).read(0), 0.5, atol=0.02)
    # left half black, right half white: 40 wide, 20 high, becomes 20 x 10
    tmp_path = tmp_path / "halves"
    put(tmp_path, np.kron(np.array([[0, 255]], np.uint8), np.ones((20, 20), np.uint8)))
    assert load(tmp_path, resize=10).read(1).shape == (3, 10, 20)
    cropped = load(tmp_path, resize=10, crop=8)
    image = cropped.read(0)
    assert image.shape == (3, 8, 8)
    assert (image[..., :3] == 0).all() and (image[..., 5:] == 1).all()
    assert cropped.settings == {"source": "images", "resize": 10, "crop": 8}


def test_images_of_different_shapes_need_resizing(folder):
    save(folder / "dog" / "d.png", height=8, width=9)
    dataset = load(folder)
    with pytest.raises(DataError, match=r"d\.png is 9x8, but a\.png is 6x6: .*--resize and --crop"):
        dataset.read(3)
    with pytest.raises(DataError, match="--resize and --crop"):
        load_arrays(dataset)
    assert load(folder, resize=6, crop=6).read(3).shape == (3, 6, 6)


def test_checksum_follows_files_and_preparation(folder):
    sums = [load(folder, **options).checksum for options in ({}, {"resize": 6}, {"crop": 6}, {"crop": 5})]
    (folder / "dog" / "c.png").rename(folder / "dog" / "d.png")
    sums.append(load(folder).checksum)
    save(folder / "dog" / "d.png", height=9)
    sums.append(load(folder).checksum)
    save(folder / "dog" / "e.png")
    sums.append(load(folder).checksum)
    assert len(set(sums)) == len(sums)
    assert load(folder).checksum == sums[-1]


def sixteen_bits(root):
    Image.fromarray(np.full((6, 6), 40_000, np.uint16)).save(root / "cat" / "a.png")


REFUSED = {
    "crop": (lambda root: None, {"crop": 7}, "is 6x6, smaller than --crop 7: pass --resize 7"),
    "range": (lambda root: None, {"input_range": None}, "--input-range none does not apply"),
    "split": (lambda root: None, {"split": "val"}, "--split val would be all of it: leave --split out; to tune"),
    "first image": (lambda root: (root / "cat" / "a.png").write_bytes(b"x"), {}, "a.png is not a readable image"),
    "16 bits": (sixteen_bits, {}, "more than 8 bits"),
    "two depths": (lambda root: save(root / "val" / "cat" / "1.png"), {}, "one and two levels down (in val)"),
    "one class": (
        lambda root: [shutil.rmtree(root / name) for name in ("ant", "cat")], {}, "one class folder, dog",
    ),
    "no images": (
        lambda root: [path.unlink() for path in root.rglob("*.png")], {}, "holds no data set (found .hidden, ant,",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_folders_that_are_refused(name, folder, refusal):
    spoil, options, words = REFUSED[name]
    spoil(folder)
    assert words in refusal(folder, **options)


def test_corrupt_image_is_named(folder):
    path, dataset = folder / "dog" / "c.png", load(folder)
    for content in (path.read_bytes()[:60], b"", b"not an image"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"^[^\n]*c\.png is not a readable image[^\n]*replace it$"):
            dataset.read(2)


@pytest.mark.parametrize("name", ["__MACOSX", "__pycache__", "@eaDir", "lost+found", ".DS_Store"])
def test_what_programs_leave_is_no_class(name, folder, tmp_path):
    before = load(folder)
    save(folder / name / "cat" / "a.png")
    save(folder / name / "b.png")
    after = load(folder)
    assert after.class_names == before.class_names
    assert after.checksum == before.checksum
    splits = tmp_path / "splits"
    for image in ("test/a/1.png", "test/b/1.png", f"{name}/q/1.png"):
        save(splits / image)
    assert load(splits).class_names == ("a", "b")


@pytest.mark.parametrize(
    ("side", "told"), [(9000, "are more than 67,108,864 pixels"), (2050, "pixels are not in 65 bytes")]
)
def test_a_header_of_too_many_pixels_is_refused_before_decoding(folder, side, told):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (folder / "dog" / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"c\.png .*{side}x{side} {told}"):
        load(folder).read(2)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_large_image_of_one_colour_is_read(folder):
    for name in ("cat/a.png", "cat/b.png", "dog/c.png"):
        Image.new("RGB", (2050, 2050), (1, 2, 3)).save(folder / name)
    pixels = load(folder).read(2)
    assert pixels.shape == (3, 2050, 2050) and pixels.min((1, 2)).tolist() == pixels.max((1, 2)).tolist()


def test_a_damaged_image_is_told_in_one_line(folder, capfd, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # of pytest: without any, logs go to stderr
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4)).save(buffer, "TIFF")
    tag = struct.pack("<HHI", 277, 3, 1)  # samples per pixel
    assert tag in buffer.getvalue()
    content = buffer.getvalue().replace(tag + b"\x03", tag + b"\xff")
    (folder / "dog" / "c.png").write_bytes(content)
    with pytest.raises(DataError, match=r"c\.png is not a readable image"):
        load(folder).read(2)
    assert capfd.readouterr() == ("", "")


def test_an_unreadable_image_is_called_that(folder, monkeypatch):
    dataset = load(folder)

    def denied(path, *options, **named):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", denied)
    with pytest.raises(DataError, match=r"c\.png cannot be read \(Permission denied\)"):
        dataset.read(2)
