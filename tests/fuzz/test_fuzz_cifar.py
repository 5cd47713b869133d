"""CIFAR folders in both versions."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from fuzz.datasets import little_memory, whole
from fuzz.harness import Payload, accepted, fuzz, judged, mutated, raw, refused, scratch
from hypothesis import given
from hypothesis import strategies as st

from certmix.data import load
from certmix.data.cifar import read_pickle


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


PIXELS = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)
BINARY = b"".join(bytes([label]) + row.tobytes() for label, row in zip((3, 9), PIXELS, strict=True))


@cache
def batch(protocol: int) -> bytes:
    content = {"data": PIXELS, "labels": [3, 9], "filenames": ["a.png", "b.png"], b"batch_label": b"test"}
    return pickle.dumps(content, protocol)


@given(mutated(BINARY) | raw | st.integers(0, 3).map(lambda n: BINARY[: 3073 * n]))
@fuzz
def test_binary_batches(place: Path, content: bytes) -> None:
    folder = place / "binary"
    folder.mkdir(exist_ok=True)
    (folder / "test_batch.bin").write_bytes(content)
    judged(lambda: whole(folder), place)


@given(st.sampled_from([0, 1, 2, 3, 4]).map(batch).flatmap(lambda valid: mutated(valid, batch(2))) | raw)
@fuzz
def test_python_batches(place: Path, content: bytes) -> None:
    folder = place / "python"
    folder.mkdir(exist_ok=True)
    (folder / "test_batch").write_bytes(content)
    judged(lambda: whole(folder), place)


opcodes = st.sampled_from(
    [
        b"(", b"0", b"1", b"2", b"N", b"K\x01", b"J\xff\xff\xff\xff", b"I01\n", b"L5L\n", b"F1.5\n", b"G" + b"\x7f" * 8, b"]", b"}",
        b")", b"t", b"\x85", b"\x86", b"\x87", b"l", b"d", b"a", b"e", b"s", b"u", b"\x8f", b"\x90", b"\x91", b"\x88", b"R", b"b", b"o",
        b"\x81", b"\x92", b"q\x00", b"q\x01", b"h\x00", b"h\x01", b"r\xff\xff\xff\x7f", b"j\xff\xff\xff\x7f", b"\x94", b"p999999999\n",
        b"g0\n", b"X\x04\x00\x00\x00data", b"U\x04data", b"C\x01a", b"T\xff\xff\xff\x7f", b"B\xff\xff\xff\xff", b"\x8b\xff\xff\xff\x7f",
        b"\x8e" + b"\xff" * 7 + b"\x7f", b"\x8d" + b"\x00" * 7 + b"\x01", b"\x96\xff\xff\xff\xff\x00\x00\x00\x00", b"\x82\x01",
        b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"c_codecs\nencode\n",
        b"cos\nsystem\n", b"c__builtin__\neval\n", b"i__builtin__\neval\n", b"\x8c\x02os\x8c\x06system\x93", b"Pid\n", b"Q", b"\x95" + b"\xff" * 8,
        b"U\x06latin1", b"U\x02u1", b"Va\n", b"\x97", b"\x98", b".",
    ]
)  # fmt: skip


@given(st.lists(opcodes, max_size=30), st.booleans())
@fuzz
def test_pickles_made_of_any_instructions(place: Path, parts: list[bytes], in_order: bool) -> None:
    content = b"".join(parts) + b"."
    path = place / "any"
    path.write_bytes(b"\x80\x02}(U\x04data" + content[:-1] + b"u." if in_order else content)
    judged(lambda: read_pickle(path), place)


BOMBS = {
    "lists of one list": b"\x80\x02}U\x04data]q\x01" + b"".join(b"](h%ch%ceq%c" % (k, k, k + 1) for k in range(1, 60)) + b"s.",
    "labels of labels": b"\x80\x02}U\x06labels]q\x01" + b"".join(b"](h%ch%ceq%c" % (k, k, k + 1) for k in range(1, 60)) + b"s.",
    "a key of tuples": b"\x80\x02})q\x01" + b"".join(b"h%c\x86q%c" % (k, k + 1) for k in range(1, 60)) + b"K\x01s.",
    "a key of copies": b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s.",
    "a key of nested tuples": b"\x80\x02})" + b"\x85" * 500_000 + b"K\x01s.",
    "a list after BUILD": b"\x80\x02}U\x04data]Nbq\x01(h\x01h\x01es.",
    "text again and again": b"\x80\x02}U\x04dataX" + struct.pack("<I", 50_000) + b"x" * 50_000 + b"q\x01(" + b"h\x01" * 50_000 + b"ls.",
    "encoded again and again": b"\x80\x02}U\x04data]("
    + b"c_codecs\nencode\nq\x02X" + struct.pack("<I", 50_000) + b"x" * 50_000 + b"q\x03U\x06latin1q\x04\x86R"
    + b"h\x02h\x03h\x04\x86R" * 50_000 + b"es.",
    "bytes that claim 2^62": b"\x80\x04}U\x04data\x8e" + struct.pack("<Q", 2**62) + b"s.",
    "an array of 2^40": b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    b"(K\x01\x8a\x06\x00\x00\x00\x00\x00\x01\x85cnumpy\ndtype\nU\x02u1\x85R\x89U\x01atbs.",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_pickles_that_grow_are_refused(place: Path, name: str) -> None:
    path = place / "any"
    path.write_bytes(BOMBS[name])
    with little_memory():
        refused(lambda: read_pickle(path), place)


@pytest.mark.parametrize("content", [b"\x80\x02}r\xff\xff\xff\x0f.", b"}p999999999\n."])
def test_places_far_out_in_the_memo_cost_nothing(place: Path, content: bytes) -> None:
    (place / "any").write_bytes(content)
    with little_memory():
        assert accepted(lambda: read_pickle(place / "any"), place) == {}


def test_a_pickle_changes_nothing_for_the_next(place: Path) -> None:
    path = place / "any"
    path.write_bytes(b"\x80\x02}U\x04datacnumpy\ndtype\n(N}U\x0c__defaults__)stbs.")
    judged(lambda: read_pickle(path), place)
    path.write_bytes(batch(2))
    assert accepted(lambda: read_pickle(path), place)["data"].tolist() == PIXELS.tolist()


@pytest.mark.parametrize("protocol", range(5))
def test_pickles_of_cifar_are_not_run(tmp_path: Path, protocol: int) -> None:
    witness = tmp_path / "witness"
    (tmp_path / "test_batch").write_bytes(batch(2))
    for name in ("test_batch", "batches.meta"):
        (tmp_path / name).write_bytes(Payload(witness).pickled(protocol))
        assert "forbidden" in refused(lambda: load(tmp_path), tmp_path)
    assert not witness.exists()


@given(
    raw | st.text(max_size=80).map(str.encode) | mutated(pickle.dumps({"label_names": list("abcdefghij")}, 2))
)
@fuzz
def test_class_names(place: Path, content: bytes) -> None:
    for folder, batches, names in (
        ("b", "test_batch.bin", "batches.meta.txt"),
        ("p", "test_batch", "batches.meta"),
    ):
        (place / folder).mkdir(exist_ok=True)
        (place / folder / batches).write_bytes(BINARY if folder == "b" else batch(2))
        (place / folder / names).write_bytes(content)
        judged(lambda folder=folder: whole(place / folder))
