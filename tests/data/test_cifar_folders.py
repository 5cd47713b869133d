"""CIFAR-10 and CIFAR-100 folders in their two official layouts, their faults, and pickles that would run code."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from certmix.data import load, load_arrays
from certmix.data.cifar import CIFAR10, CIFAR100, Family, read_pickle
from certmix.errors import DataError

FAMILIES = [CIFAR10, CIFAR100]
ROWS = 3


def content(family: Family, part: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (ROWS, 3072) and labels of a synthetic part, the extreme classes among them."""
    generator = np.random.default_rng(part)
    classes = len(family.class_names)
    labels = np.array([part % classes, classes - 1, 0])
    return generator.integers(0, 256, (ROWS, 3072), np.uint8), labels


def parts(family: Family) -> list[str]:
    return [stem for stems in family.parts.values() for stem in stems]


def names(family: Family) -> list[str]:
    return [f"kind_{k}" for k in range(len(family.class_names))]


def write_binary(family: Family, folder: Path) -> None:
    folder.mkdir(parents=True)
    for k, stem in enumerate(parts(family)):
        pixels, labels = content(family, k)
        columns = [labels[:, None].astype(np.uint8), pixels]
        if family.label_bytes == 2:
            columns.insert(0, np.full((ROWS, 1), 255, np.uint8))
        (folder / f"{stem}.bin").write_bytes(np.concatenate(columns, axis=1).tobytes())
    (folder / family.names_text).write_text("\n".join(names(family)) + "\n\n")


def old_numpy(pickled: bytes) -> bytes:
    """Rename the module as numpy 1, with which the official files were written."""
    return pickled.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def write_python(family: Family, folder: Path, encode: Callable[[Any], bytes]) -> None:
    folder.mkdir(parents=True)
    for k, stem in enumerate(parts(family)):
        pixels, labels = content(family, k)
        batch = {"data": pixels, family.labels_key: labels.tolist(), "batch_label": f"part {k}"}
        (folder / stem).write_bytes(encode(batch))
    (folder / family.names_pickle).write_bytes(encode({family.names_key: names(family)}))


def python_2(value: Any) -> bytes:
    """Pickle as Python 2 did with protocol 2: byte strings for text and for the array's memory."""
    if isinstance(value, dict):
        items = b"".join(python_2(k) + python_2(v) for k, v in value.items())
        return b"\x80\x02}(" + items + b"u."
    if isinstance(value, list):
        return b"](" + b"".join(map(python_2, value)) + b"e"
    if isinstance(value, str | bytes):
        raw = value.encode() if isinstance(value, str) else value
        return b"T" + len(raw).to_bytes(4, "little") + raw
    if isinstance(value, int):
        return b"J" + value.to_bytes(4, "little", signed=True)
    rows, columns = (python_2(int(n)) for n in value.shape)
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    return empty + b"(K\x01" + rows + columns + b"\x86" + dtype + b"\x89" + python_2(value.tobytes()) + b"tb"


ENCODERS = {
    "python 2": python_2,
    "protocol 2": lambda value: pickle.dumps(value, 2),
    "protocol 2, numpy 1": lambda value: old_numpy(pickle.dumps(value, 2)),
    "protocol 4": lambda value: pickle.dumps(value, 4),
}


def check(family: Family, path: Path) -> str:
    """Compare both splits with what was written; return the checksums."""
    sums = []
    for split, stems in family.parts.items():
        dataset = load(path, split)
        written = [content(family, parts(family).index(stem)) for stem in stems]
        inputs, labels = load_arrays(dataset)
        assert inputs.dtype == np.uint8
        np.testing.assert_array_equal(inputs, np.concatenate([w[0] for w in written]).reshape(-1, 3, 32, 32))
        np.testing.assert_array_equal(labels, np.concatenate([w[1] for w in written]))
        np.testing.assert_array_equal(dataset.indices, np.arange(ROWS * len(stems)))
        assert dataset.class_names == tuple(names(family))
        assert dataset.settings["source"] == family.name
        last = dataset.read(len(dataset) - 1)
        np.testing.assert_array_equal(last, inputs[-1].astype(np.float32) / np.float32(255))
        sums.append(dataset.checksum)
    return " ".join(sums)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_both_layouts_read_alike(family, tmp_path):
    write_binary(family, tmp_path / "bin" / family.binary_folder)
    sums = {check(family, tmp_path / "bin" / family.binary_folder), check(family, tmp_path / "bin")}
    for k, encode in enumerate(ENCODERS.values()):
        folder = tmp_path / str(k) / family.python_folder
        write_python(family, folder, encode)
        sums |= {check(family, folder), check(family, folder.parent)}
    assert len(sums) == 1, "the checksum depends on the content, not on the layout"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_known_names_where_the_names_are_absent_and_stray_images_beside_the_folder(family, tmp_path):
    write_binary(family, tmp_path / family.binary_folder)
    (tmp_path / family.binary_folder / family.names_text).unlink()
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "one.png").write_bytes(b"")
    assert load(tmp_path).settings["source"] == family.name
    assert load(tmp_path).class_names == family.class_names


def test_faults_of_binary_folders(tmp_path, refusal):
    binary = tmp_path / "bin"
    write_binary(CIFAR10, binary)
    (binary / "data_batch_3.bin").unlink()
    assert "data_batch_3.bin is missing" in refusal(binary, "train")
    assert len(load(binary, "test")) == ROWS
    path = binary / "test_batch.bin"
    raw = path.read_bytes()
    path.write_bytes(raw[:3073] + b"\x0a" + bytes(3072))
    assert "label 10 of input 1 is out of range: expected 0 to 9" in refusal(binary)
    for keep in (2 * 3073 + 1, 3074, 3072, 0):
        path.write_bytes(raw[:keep])
        message = refusal(binary)
        assert f"has {keep} bytes, expected a multiple of 3073" in message and str(path) in message
    (binary / "batches.meta.txt").write_text("cat\ndog\n")
    assert "has 2 class names, expected 10" in refusal(binary)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"data": None}, "has no 'data', only labels"),
        ({"labels": None}, "has no 'labels', only data"),
        ({"data": [1, 2]}, "data is list, expected uint8"),
        ({"data": np.zeros((2, 3072), np.int64)}, "data is int64 (2, 3072), expected uint8"),
        ({"data": np.zeros((2, 3000), np.uint8)}, "data is uint8 (2, 3000), expected uint8"),
        ({"data": np.zeros((0, 3072), np.uint8)}, "data is uint8 (0, 3072), expected uint8"),
        ({"labels": [1, 2, 3]}, "labels has shape (3,), expected (2,)"),
        ({"labels": [1, 10]}, "label 10 of input 1 is out of range: expected 0 to 9"),
        ({"labels": [-1, 0]}, "labels[0] = -1 is negative"),
        ({"labels": [0.5, 1.0]}, "labels holds float64 values"),
        ({"labels": [[1], [1, 2]]}, "a list of other things than numbers and texts"),
    ],
)
def test_wrong_content_of_a_pickle(change, expected, tmp_path, refusal):
    batch = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]} | change
    batch = {key: value for key, value in batch.items() if value is not None}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, 4))
    message = refusal(tmp_path)
    assert expected in message and "test_batch" in message


def test_wrong_class_names_in_a_pickle(tmp_path, refusal):
    write_python(CIFAR10, tmp_path / "py", python_2)
    (tmp_path / "py" / "batches.meta").write_bytes(python_2({"label_names": ["cat"]}))
    assert "has 1 class names, expected 10" in refusal(tmp_path / "py")
    (tmp_path / "py" / "batches.meta").write_bytes(python_2({"other": ["cat"]}))
    assert "has 0 class names, expected 10" in refusal(tmp_path / "py")


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (OrderedDict(data=1), "collections.OrderedDict"),
        ({"data": Path("a")}, "pathlib."),
        ({"data": eval}, "builtins.eval"),
        ({"data": np.load}, "numpy.load"),
        ({"data": np.float64(1)}, "multiarray.scalar"),
        ({"data": np.random.default_rng(0)}, "numpy.random"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_globals_are_refused_by_name(value, named, tmp_path):
    (tmp_path / "batch").write_bytes(pickle.dumps(value, 4))
    with pytest.raises(DataError, match=f"{named}.*forbidden"):
        read_pickle(tmp_path / "batch")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        pickle.dumps({"data": 1}, 2)[:-3],
        pickle.dumps({"data": np.zeros(50, np.uint8)}, 2)[:-40],
        b"\x80\x02}X\x04\x00\x00\x00datacnumpy\ndtype\nX\x01\x00\x00\x00O\x85Rs.\n",
        b"\x80\x02}X\x04\x00\x00\x00datacnumpy\nndarray\nK\x05\x85Rs.",
        b"\x80\x02}X\x04\x00\x00\x00datac_codecs\nencode\nX\x01\x00\x00\x00aX\x06\x00\x00\x00rot_13\x86Rs.",
        b"\x80\x02]K\x01.",
        pickle.dumps({"data": np.array([{}, 1], object)}, 2),
        pickle.dumps({"data": np.zeros(3, "M8[s]")}, 2),
    ],
)
def test_damaged_or_foreign_pickle_is_refused(content, tmp_path):
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(DataError, match=r"^[^\n]*batch[^\n]*official archive[^\n]*$"):
        read_pickle(tmp_path / "batch")
