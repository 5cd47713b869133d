"""Arrays in .npz archives, and paths of data sets."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fuzz.datasets import little_memory, whole
from fuzz.harness import Payload, fuzz, judged, mutated, raw, refused, scratch
from hypothesis import given
from hypothesis import strategies as st

from certmix.data import load


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


def archive(compressed: bool = False, **arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    good = {
        "inputs": np.linspace(0, 1, 24, dtype=np.float32).reshape(6, 4),
        "labels": np.arange(6) % 3,
        "indices": 10 * np.arange(6),
        "class_names": np.array(["cat", "dog", "owl"]),
    }
    (np.savez_compressed if compressed else np.savez)(buffer, **{**good, **arrays})
    return buffer.getvalue()


NPZ = (archive(), archive(compressed=True), archive(inputs=np.zeros((6, 2, 2, 3), np.uint8)))


def npy(header: bytes, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """An .npy file with any header."""
    padded = header + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(padded)) + padded + body


def zipped(method: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return buffer.getvalue()


@given(st.sampled_from(NPZ).flatmap(lambda valid: mutated(valid, NPZ[0])) | raw)
@fuzz
def test_archives(place: Path, content: bytes) -> None:
    path = place / "mine.npz"
    path.write_bytes(content)
    judged(lambda: whole(path), place)


DESCRIPTIONS = (
    "<f4", "<f8", "<f2", ">f4", "<f16", "|u1", "<i8", "<u8", "|b1", "|O", "|V0", "|V8", "<U0", "<U3", "|S0", "|S5", "<c8",
    "<M8[s]", "<m8", "<U2147483647", "|S2147483647", "x", "", "i" * 300, "f4,f4", "O,f4",
)  # fmt: skip
SHAPES = (
    "()", "(6,)", "(6, 4)", "(4, 6)", "(0,)", "(-1,)", "(6, 0)", "(1000000000000,)", "(6, 1000000000000)",
    "(4611686018427387904, 4)", "(6L,)", "[6]", "6", "'6'", "(6.0,)", "(True, 4)", "(1,) * 40", "None", "(6, 1, 2, 2)",
    "(" * 500 + ")" * 500, "(" + "1," * 70 + ")", "__import__('os').abort()",
)  # fmt: skip


@given(
    st.sampled_from(("inputs", "labels", "indices", "class_names")),
    st.sampled_from(DESCRIPTIONS),
    st.sampled_from(SHAPES),
    st.binary(max_size=64) | st.just(b"\0" * 96) | st.just(b"\xff" * 96) | st.just(b"\x01\x00\x80\x7f" * 24),
)
@fuzz
def test_headers_of_arrays(place: Path, name: str, kind: str, shape: str, body: bytes) -> None:
    described = f"{kind!r}" if "," not in kind else f"{[(k, k) for k in kind.split(',')]!r}"
    header = f"{{'descr': {described}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    members = {
        "inputs": npy(
            b"{'descr': '<f4', 'fortran_order': False, 'shape': (6, 4), }",
            np.linspace(0, 1, 24, dtype="<f4").tobytes(),
        ),
        "labels": npy(
            b"{'descr': '|u1', 'fortran_order': False, 'shape': (6,), }", bytes([0, 1, 2, 0, 1, 2])
        ),
    }
    path = place / "mine.npz"
    path.write_bytes(zipped(**{**members, name: npy(header, body)}))
    judged(lambda: whole(path), place)


@pytest.mark.parametrize("kind", ["<f4", "<U0", "|V0", "|S0", "|u1", "<i8"])
@pytest.mark.parametrize("name", ["inputs", "labels", "indices", "class_names"])
def test_an_array_that_claims_too_much(place: Path, kind: str, name: str) -> None:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': (1000000000000,), }}".encode()
    good = {
        "inputs": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }", bytes(8)),
        "labels": npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }", b"\0"),
    }
    (place / "mine.npz").write_bytes(zipped(**{**good, name: npy(header)}))
    with little_memory():
        refused(lambda: load(place / "mine.npz"), place)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_that_expand_without_end(place: Path, method: int) -> None:
    labels = npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }", b"\0")
    rows = (300 << 20) // 1024
    header = npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({rows}, 32, 32), }}".encode())
    path = place / "mine.npz"
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as file:
        file.writestr("labels.npy", labels)
        with file.open("inputs.npy", "w") as member:
            member.write(header)
            if method == zipfile.ZIP_DEFLATED:
                for _ in range(300):
                    member.write(bytes(1 << 20))
    content = path.read_bytes()
    if method != zipfile.ZIP_DEFLATED:  # a smaller body that claims as much
        small = struct.pack("<I", len(header))
        content = content.replace(small, struct.pack("<I", 300 << 20))
        path.write_bytes(content)
    with little_memory():
        assert "expand" in refused(lambda: load(path), place)
    path.unlink()


@pytest.mark.parametrize("protocol", [2, 4])
def test_objects_in_an_archive_are_not_unpickled(tmp_path: Path, protocol: int) -> None:
    witness = tmp_path / "witness"
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    payload = Payload(witness).pickled(protocol)
    good = {"inputs": npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }", bytes(8))}
    good["labels"] = npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }", b"\0")
    for name in ("inputs", "labels", "indices", "class_names"):
        (tmp_path / "mine.npz").write_bytes(zipped(**{**good, name: npy(header, payload)}))
        assert "objects" in refused(lambda: load(tmp_path / "mine.npz"), tmp_path)
    (tmp_path / "mine.npz").write_bytes(payload)
    refused(lambda: load(tmp_path / "mine.npz"), tmp_path)
    assert not witness.exists()


@pytest.mark.parametrize("name", ["../../inputs", "/tmp/inputs", "..\\inputs", "inputs\n", "a/../inputs"])
def test_names_of_members_lead_nowhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.npz").write_bytes(zipped(**{name: npy(b"{}"), "labels": npy(b"{}")}))
    refused(lambda: load(tmp_path / "mine.npz"), tmp_path)


@pytest.mark.parametrize("spec", ["~\0", "a\0b", "\ud800", "~\ud800", "x\ny.npz", ""])
def test_paths_that_are_none(tmp_path: Path, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(lambda: load(spec), tmp_path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="everything may be read here")
def test_files_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "mine.npz").write_bytes(NPZ[0])
    (tmp_path / "mine.npz").chmod(0)
    assert "cannot be read" in refused(lambda: load(tmp_path / "mine.npz"))
