"""Pickles that run code, grow without end, or take for ever to hash: read by an allow-list, or not at all."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from fuzz.harness import accepted, fuzz, judged, lay, little_memory, refused
from fuzz.readers import PIXELS, batch
from hypothesis import given
from hypothesis import strategies as st

from certmix.data.cifar import read_pickle

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
    content = b"".join(parts)
    lay(place, {"any": b"\x80\x02}(U\x04data" + content + b"u." if in_order else content + b"."})
    judged(lambda: read_pickle(place / "any"), place)


DOUBLED = b"".join(b"](h%ch%ceq%c" % (k, k, k + 1) for k in range(1, 60))
LONG = b"X" + struct.pack("<I", 50_000) + b"x" * 50_000
BOMBS = {
    "lists of one list": b"\x80\x02}U\x04data]q\x01" + DOUBLED + b"s.",
    "labels of labels": b"\x80\x02}U\x06labels]q\x01" + DOUBLED + b"s.",
    "a list after BUILD": b"\x80\x02}U\x04data]Nbq\x01(h\x01h\x01es.",
    "text again and again": b"\x80\x02}U\x04data" + LONG + b"q\x01(" + b"h\x01" * 50_000 + b"ls.",
    "encoded again and again": b"\x80\x02}U\x04data](c_codecs\nencode\nq\x02" + LONG + b"q\x03U\x06latin1q\x04\x86R"
    + b"h\x02h\x03h\x04\x86R" * 50_000 + b"es.",
    "bytes that claim 2^62": b"\x80\x04}U\x04data\x8e" + struct.pack("<Q", 2**62) + b"s.",
    "an array of 2^40": b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    b"(K\x01\x8a\x06\x00\x00\x00\x00\x00\x01\x85cnumpy\ndtype\nU\x02u1\x85R\x89U\x01atbs.",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_pickles_that_grow_are_refused(place: Path, name: str) -> None:
    lay(place, {"any": BOMBS[name]})
    with little_memory():
        refused(lambda: read_pickle(place / "any"), place)


@pytest.mark.parametrize("content", [b"\x80\x02}r\xff\xff\xff\x0f.", b"}p999999999\n."])
def test_places_far_out_in_the_memo_cost_nothing(place: Path, content: bytes) -> None:
    lay(place, {"any": content})
    with little_memory():
        assert accepted(lambda: read_pickle(place / "any"), place) == {}


def test_a_pickle_changes_nothing_for_the_next(place: Path) -> None:
    lay(place, {"any": b"\x80\x02}U\x04datacnumpy\ndtype\n(N}U\x0c__defaults__)stbs."})
    judged(lambda: read_pickle(place / "any"), place)
    lay(place, {"any": batch(2)})
    assert accepted(lambda: read_pickle(place / "any"), place)["data"].tolist() == PIXELS.tolist()
