"""Arrays in .npz files: what is accepted, what is refused and how."""

from __future__ import annotations

import gc
import io
import os
import pickle
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy

from certmix.data import load, load_arrays
from certmix.data.in_file import RowsReader
from certmix.errors import DataError


def test_floats_of_any_shape(save_npz):
    inputs = np.random.default_rng(0).random((4, 2, 5))
    dataset = load(save_npz(inputs=inputs))
    np.testing.assert_array_equal(dataset.read(2), inputs[2].astype(np.float32))
    assert dataset.read(2).dtype == np.float32
    assert dataset.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(dataset.indices, np.arange(4))
    np.testing.assert_array_equal(dataset.labels, [0, 1, 2, 1])
    whole, _ = load_arrays(dataset)
    assert whole.dtype == np.float32 and whole.shape == (4, 2, 5)


def changed(at, byte):
    return lambda raw: raw[:at] + bytes([raw[at] ^ byte]) + raw[at + 1 :]


def archive(name, content=b""):
    def make(raw):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr(name, content)
        return buffer.getvalue()

    return make


FILES = {
    "empty": (lambda raw: b"", "is not an .npz archive: it is empty: download it again"),
    "web page": (
        lambda raw: b"\n <html>quota",
        "is not an .npz archive: it is a web page: download it again",
    ),
    "pointer": (lambda raw: b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS"),
    "cut": (lambda raw: raw[:-30], "is not an .npz archive, or a truncated one"),
    "an array alone": (lambda raw: raw[raw.index(b"\x93NUMPY") :][:99], "is not an .npz archive"),
    "damaged": (changed(1000, 255), "cannot be read ("),
    "damaged directory": (lambda raw: raw.replace(b"PK\x01\x02", b"PK\x01\x03"), "cannot be read ("),
    "odd member": (archive("in\nputs.npy"), "has no 'inputs'"),
    "no array": (archive("inputs.npy", b"text"), "cannot be read ("),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_archive_of_arrays(name, save_npz, refusal):
    spoil, words = FILES[name]
    path = save_npz(inputs=np.random.default_rng(0).random((4, 300)))
    path.write_bytes(spoil(path.read_bytes()))
    message = refusal(path)
    assert words in message and "mine.npz" in message
    gc.collect()  # no file is left open


def test_position_outside_is_an_error(save_npz):
    for position in (-1, 4):
        with pytest.raises(IndexError, match="use 0 to 3"):
            load(save_npz()).read(position)


def test_kinds_of_floats_read_alike(save_npz):
    inputs = np.array([[0, 0.25], [0.5, 1], [1, 1], [0, 0]])
    kinds = ("f8", "<f4", ">f4", "f2", ">f8")
    assert len({load(save_npz(inputs=inputs.astype(kind))).checksum for kind in kinds}) == 1


def test_uint8_images_become_channels_first(save_npz):
    grey = load(save_npz(inputs=np.full((4, 5, 6), 255, np.uint8)))
    np.testing.assert_array_equal(grey.read(3), np.ones((1, 5, 6), np.float32))
    inputs = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8)
    dataset = load(save_npz(inputs=inputs, labels=np.zeros(4, np.int8)))
    assert dataset.classes == 2
    dataset.read(1)[:] = 7  # it was a copy
    np.testing.assert_array_equal(
        dataset.read(1), inputs[1].transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    )
    whole, _ = load_arrays(dataset)
    assert whole.dtype == np.uint8 and whole.shape == (4, 3, 5, 6)


def test_indices_and_class_names(save_npz):
    for kind in ("U", "S"):
        names = np.array(["cat", "dog", "eel", "fox"]).astype(kind)
        dataset = load(save_npz(indices=np.array([9, 3, 5, 7], np.uint16), class_names=names))
        np.testing.assert_array_equal(dataset.indices, [9, 3, 5, 7])
        assert dataset.class_names == ("cat", "dog", "eel", "fox") and dataset.classes == 4


def test_checksum_follows_each_array(save_npz):
    inputs = [{"inputs": np.zeros(shape, np.float32)} for shape in ((4, 3), (4, 3, 1))]
    changes = [{}, *inputs, {"labels": np.array([0, 1, 2, 2])}, {"indices": np.array([1, 2, 3, 4])}]
    assert len({load(save_npz(**change)).checksum for change in changes}) == len(changes)


def test_range_is_checked_and_recorded(save_npz, refusal):
    pixels = save_npz(inputs=np.linspace(0, 255, 12).reshape(4, 3))
    assert "from 0 to 255, outside 0,1: divide them by 255" in refusal(pixels)
    path = save_npz(inputs=np.linspace(-1, 2, 12).reshape(4, 3))
    assert "run from -1 to 2, outside 0,1: pass --input-range" in refusal(path)
    assert "outside -1,1.5" in refusal(path, input_range=(-1.0, 1.5))
    assert "outside -0.5,2" in refusal(path, input_range=(-0.5, 2.0))
    assert load(path, input_range=(-1.0, 2.0)).input_range == (-1.0, 2.0)
    assert load(path, input_range=None).input_range is None


NAN = np.zeros((4, 3))
NAN[2, 1] = np.nan


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"labels": None}, "has no 'labels', only inputs"),
        ({"inputs": None}, "has no 'inputs', only labels"),
        ({"inputs": NAN}, "inputs[2] holds NaN"),
        ({"inputs": np.where(np.isnan(NAN), np.inf, NAN)}, "inputs[2] holds NaN or values that are infinite"),
        ({"inputs": np.where(np.isnan(NAN), 1e300, NAN)}, "inputs[2] holds NaN or values that are infinite"),
        ({"inputs": np.full((4, 3), 2**24 + 2)}, "whole numbers beyond 16,777,216, which float32 rounds"),
        ({"inputs": np.zeros((4, 3), complex)}, "inputs are complex128"),
        ({"inputs": np.zeros(4)}, "inputs are float64 of shape (4,), expected numbers (N, ...)"),
        ({"inputs": np.float32(1)}, "inputs has shape (), so it is empty"),
        ({"inputs": np.zeros((0, 3))}, "inputs has shape (0, 3), so it is empty"),
        ({"inputs": np.zeros((4, 0))}, "inputs has shape (4, 0), so it is empty"),
        ({"inputs": np.full((4, 3), 255, np.uint8)}, "from 255 to 255, outside 0,1: divide them by 255"),
        ({"labels": np.zeros(3, int)}, "labels has shape (3,), expected (4,)"),
        ({"labels": np.zeros((4, 2), int)}, "labels has shape (4, 2), and its rows are not one-hot"),
        ({"labels": np.full(4, 0.5)}, "labels holds float64 values: store integers"),
        ({"labels": np.array([0, 1, -2, 1])}, "labels[2] = -2 is negative"),
        ({"labels": np.full(4, 2**63, np.uint64)}, "more than int64"),
        ({"class_names": np.array(["a", "b"])}, "label 2 of input 2 is out of range: expected 0 to 1"),
        ({"class_names": np.array(["a"])}, "expected at least 2 texts"),
        ({"class_names": np.arange(3)}, "class_names is int64 of shape (3,)"),
        ({"class_names": np.array([["a", "b", "c"]])}, "expected at least 2 texts"),
        ({"class_names": np.array(["a", "b", "c"], object)}, "save plain arrays"),
        ({"labels": np.array([0, 1, 2, 1], object)}, "save plain arrays"),
        ({"indices": np.arange(3)}, "indices has shape (3,), expected (4,)"),
        ({"indices": np.array([0, 1, 5, 5])}, "index 5 occurs more than once"),
        ({"indices": np.array([0, 1, 2, -1])}, "indices[3] = -1 is negative"),
    ],
)
def test_bad_arrays(change, expected, save_npz, refusal):
    message = refusal(save_npz(**change))
    assert expected in message and "mine.npz" in message


def test_labels_that_count_from_one_are_recognised(save_npz, refusal):
    names = np.array(["a", "b", "c"])
    dataset = load(save_npz(labels=np.array([1, 2, 3, 2]), class_names=names))
    np.testing.assert_array_equal(dataset.labels, [0, 1, 2, 1])
    assert "labels run from 1 to 3" in dataset.settings["labels"]
    for labels in ([0, 2, 3, 1], [2, 2, 3, 2], [1, 2, 4, 2]):
        message = refusal(save_npz(labels=np.array(labels), class_names=names))
        assert "mend the labels or the class names" in message


@pytest.mark.parametrize("label", [100_000, 2**40, 2**63 - 1])
def test_a_label_that_is_no_class_is_refused_before_names_are_made(label, save_npz, refusal):
    path = save_npz(labels=np.array([0, 1, label, 1]))
    assert f"label {label} of input 2 would make {label + 1:,} classes: number classes" in refusal(path)
    assert load(save_npz(labels=np.array([0, 1, 99_999, 1]))).classes == 100_000


@pytest.mark.parametrize("limits", [(0.0, 1.0), (-3.0, 5e6)])
@pytest.mark.parametrize("part", [-3e-8, -9e-7, 9e-7, 3e-8])
def test_what_rounding_left_outside_the_range_is_clipped_and_said(limits, part, save_npz):
    low, high = limits
    edge = low if part < 0 else high
    inputs = np.full((4, 3), (low + high) / 2)
    inputs[1, 2] = edge + part * (high - low)
    dataset = load(save_npz(inputs=inputs), input_range=limits)
    assert dataset.read(1).min() >= low
    assert dataset.read(1).max() <= high
    assert dataset.input_range == limits
    if np.float32(inputs[1, 2]) != edge:
        assert "by rounding outside" in dataset.settings["clipped"]
    plain = load(save_npz(inputs=np.clip(inputs, low, high)), input_range=limits)
    assert plain.checksum == dataset.checksum
    assert "clipped" not in plain.settings


@settings(max_examples=50, deadline=None)
@given(st.floats(-1e4, 1e4, width=32), st.floats(-1e4, 1e4, width=32))
def test_the_range_that_is_advised_is_taken(low, high):
    inputs = np.array([[low, high], [0.2, 0.3]], np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.npz"
        np.savez(path, inputs=inputs, labels=np.array([0, 1]))
        try:
            load(path)
        except DataError as error:
            advised = re.search(r"--input-range (\S+?),(\S+), which holds them", str(error))
            load(path, input_range=(float(advised[1]), float(advised[2])))


def test_an_unreadable_file_is_called_that(save_npz, refusal, monkeypatch):
    def denied(path, *mode, **options):
        raise PermissionError(13, "Permission denied", str(path))

    path = save_npz()
    monkeypatch.setattr("os.open", denied)
    assert "mine.npz cannot be read (Permission denied)" in refusal(path)


@pytest.mark.parametrize("name", ["inputs", "labels", "indices", "class_names"])
@pytest.mark.parametrize("shape", [(2**40,), (2**31, 2**31, 2**31), (-1, -4)])
def test_a_header_that_claims_more_than_the_file_holds_is_refused(name, shape, save_npz, refusal):
    path = save_npz(indices=np.arange(4), class_names=np.array(["a", "b", "c"]))
    with np.load(path) as held:
        arrays = dict(held)
    with zipfile.ZipFile(path, "w") as archive:
        for key, array in arrays.items():
            buffer = io.BytesIO()
            header = np.lib.format.header_data_from_array_1_0(array)
            np.lib.format.write_array_header_1_0(
                buffer, {**header, "shape": shape if key == name else array.shape}
            )
            archive.writestr(f"{key}.npy", buffer.getvalue() + array.tobytes())
    assert "mine.npz cannot be read" in refusal(path)


KINDS = {
    "images": lambda rng: rng.integers(0, 256, (40, 6, 5, 3), np.uint8),
    "grey": lambda rng: rng.integers(0, 256, (40, 6, 5), np.uint8),
    "float64": lambda rng: rng.random((40, 7)),
    "float16": lambda rng: rng.random((40, 2, 3)).astype(np.float16),
    "clipped": lambda rng: rng.random((40, 7)) * (1 + 1e-7),
    "by column": lambda rng: np.asfortranarray(rng.random((40, 7))),
    "images by column": lambda rng: np.asfortranarray(rng.integers(0, 256, (40, 6, 5, 3), np.uint8)),
    "float32 by column": lambda rng: np.asfortranarray(rng.random((40, 2, 3, 2)).astype(">f4")),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_that_stay_in_their_file_are_the_same(kind, save, tmp_path, monkeypatch):
    inputs = KINDS[kind](np.random.default_rng(0))
    if kind == "clipped":
        inputs[3, 3] = 1 + 1e-7
    save(tmp_path / "x.npz", labels=np.arange(40) % 3, inputs=inputs)
    whole = load(tmp_path / "x.npz")
    monkeypatch.setattr("certmix.data.arrays.LARGE", 0)
    monkeypatch.setattr("certmix.data.in_file.BLOCK", 100)
    left = load(tmp_path / "x.npz")
    assert isinstance(left.read, RowsReader) == (save is np.savez or "by column" not in kind)
    assert (left.checksum, left.settings) == (whole.checksum, whole.settings)
    for dataset in (left, pickle.loads(pickle.dumps(left))):
        for place in (0, 7, 0, 39, 21, 8):
            np.testing.assert_array_equal(dataset.read(place), whole.read(place))
        np.testing.assert_array_equal(*(load_arrays(one)[0] for one in (dataset, whole)))
        with pytest.raises(IndexError):
            dataset.read(40)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_that_changes_or_is_damaged_is_said(save, order, tmp_path, refusal, monkeypatch):
    monkeypatch.setattr("certmix.data.arrays.LARGE", 0)
    path, inputs = tmp_path / "x.npz", np.asarray(np.random.default_rng(0).random((400, 7)), order=order)
    save(path, inputs=inputs, labels=np.arange(400) % 3)
    raw = path.read_bytes()
    path.write_bytes(raw[:9000] + bytes([raw[9000] ^ 1]) + raw[9001:])
    assert "cannot be read (" in refusal(path)
    path.write_bytes(raw)
    dataset = load(path)
    dataset.read(0)
    save(path, inputs=inputs[::-1], labels=np.arange(400) % 3)
    os.utime(path, ns=(1, 1))
    if save is np.savez_compressed and order == "F":  # it was read whole
        return
    with pytest.raises(DataError, match="was changed while it was in use"):
        dataset.read(300) if save is np.savez else pickle.loads(pickle.dumps(dataset)).read(300)


def test_forms_without_parts_are_read_whole_up_to_a_limit(tmp_path, refusal, monkeypatch):
    inputs = np.asfortranarray(np.random.default_rng(0).random((40, 7)))
    np.savez_compressed(tmp_path / "x.npz", inputs=inputs, labels=np.arange(40) % 3)
    monkeypatch.setattr("certmix.data.arrays.LARGE", 0)
    monkeypatch.setattr("certmix.data.arrays.LARGEST_WHOLE", 1000)
    told = refusal(tmp_path / "x.npz")
    assert "inputs has 2,368 bytes, compressed in Fortran order, of which no part can be read" in told
    assert told.endswith("save np.ascontiguousarray(inputs) with np.savez")


PEAK = """
import resource, sys
from certmix.data import load, spread, stack
for path in sys.argv[1:]:
    dataset = load(path)
    assert stack(dataset, spread(len(dataset), 10)).shape[0] == 10
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def large(folder: Path, kind: str, count: int) -> Path:
    """Return the path of a file of so many inputs."""
    if kind == "binary":
        folder = folder / "cifar-10-batches-bin"
        folder.mkdir()
        with (folder / "test_batch.bin").open("wb") as file:
            file.truncate(count * 3073)
        return folder
    how = zipfile.ZIP_DEFLATED if kind == "compressed" else zipfile.ZIP_STORED
    with zipfile.ZipFile(folder / f"{kind}.npz", "w", how, compresslevel=1) as archive:
        for name, shape, dtype in (("labels", (count,), "<i8"), ("inputs", (count, 32, 32, 3), "|u1")):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array_header_1_0(member, {
                    "descr": dtype, "fortran_order": kind == "by column", "shape": shape,
                })  # fmt: skip
                member.write(bytes(8 * count) if name == "labels" else b"")
                noise = np.random.default_rng(0).bytes(3072) if kind == "compressed" else bytes(3072)
                for _ in range(count if name == "inputs" else 0):
                    member.write(noise)
    return folder / f"{kind}.npz"


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units")
def test_ten_inputs_of_a_large_file_take_little_memory(tmp_path):
    """138 MB of them in each form, against a file of ten inputs."""
    peaks = []
    for count in (10, 45_000):
        (tmp_path / str(count)).mkdir()
        paths = [
            large(tmp_path / str(count), kind, count)
            for kind in ("stored", "by column", "compressed", "binary")
        ]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *paths], capture_output=True, text=True, check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] - peaks[0] < 60, peaks
