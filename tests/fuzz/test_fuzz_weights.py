"""Weights as safetensors and as torch files."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzz.harness import Payload, accepted, fuzz, judged, mutated, odd_json, raw, refused, scratch
from fuzz.networks import STATE, linear, little_memory, torch_file
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from certmix.models.weights import apply_weights, read_weights


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


def use(path: Path) -> None:
    """Read weights and put them into a module."""
    state = read_weights(path)
    assert state and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    )
    apply_weights(linear(), state, path)


@given(mutated(save(STATE)) | raw)
@fuzz
def test_safetensors(place: Path, content: bytes) -> None:
    (place / "w.safetensors").write_bytes(content)
    judged(lambda: use(place / "w.safetensors"), place)


HEADER = {
    "weight": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]},
    "bias": {"dtype": "F32", "shape": [3], "data_offsets": [24, 36]},
}
KINDS = ("F64", "F16", "BF16", "I64", "I8", "BOOL", "C64", "F8_E4M3", "F8_E5M2", "U64", "U16", "F4", "x")


@given(
    odd_json(HEADER)
    | st.sampled_from(KINDS).map(lambda kind: json.dumps(HEADER).replace("F32", kind).encode())
)
@fuzz
def test_headers_of_safetensors(place: Path, header: bytes) -> None:
    (place / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(36))
    judged(lambda: use(place / "w.safetensors"), place)


@pytest.mark.parametrize("length", [2**63, 2**40, 2**31, 100])
def test_safetensors_that_claim_too_much(place: Path, length: int) -> None:
    header = json.dumps(
        {"weight": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}}
    ).encode()
    (place / "w.safetensors").write_bytes(length.to_bytes(8, "little") + header)
    with little_memory():
        refused(lambda: use(place / "w.safetensors"), place)


@given(st.sampled_from([(False, False), (True, False), (False, True)]), st.data())
@fuzz
def test_torch_files(place: Path, kind: tuple[bool, bool], data: st.DataObject) -> None:
    (place / "w.pt").write_bytes(data.draw(mutated(torch_file(*kind), torch_file()) | raw))
    judged(lambda: use(place / "w.pt"), place)


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_weights_are_good_to_begin_with(tmp_path: Path, protocol: int, legacy: bool, nested: bool) -> None:
    betas = (0.9, 0.999)
    state = {"state_dict": STATE, "groups": [{"betas": betas}, {"betas": betas}] * 2000} if nested else STATE
    torch.save(state, tmp_path / "w.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    accepted(lambda: use(tmp_path / "w.pt"), tmp_path)
    (tmp_path / "w.safetensors").write_bytes(save(STATE))
    accepted(lambda: use(tmp_path / "w.safetensors"), tmp_path)


def recursive() -> dict[str, Any]:
    state: dict[str, Any] = {"epoch": 1}
    state["model"] = state
    return state


CONTENTS: dict[str, Callable[[], Any]] = {
    "nothing": dict,
    "a list": lambda: [torch.ones(3)],
    "one tensor": lambda: torch.ones(3, 2),
    "a dictionary in itself": recursive,
    "numbers for keys": lambda: {0: torch.ones(3, 2), 1: torch.zeros(3)},
    "a line break in a key": lambda: {"wei\nght": torch.ones(3, 2), "bias": torch.zeros(3)},
    "sparse tensors": lambda: {"weight": torch.ones(3, 2).to_sparse(), "bias": torch.zeros(3)},
    "tensors without data": lambda: {"weight": torch.ones(3, 2, device="meta"), "bias": torch.zeros(3)},
    "imaginary parts": lambda: {"weight": torch.ones(3, 2, dtype=torch.complex64), "bias": torch.zeros(3)},
    "a million million numbers": lambda: {
        "weight": torch.ones(1).expand(10**6, 10**6),
        "bias": torch.zeros(3),
    },
    "text for a tensor": lambda: {"weight": "x", "bias": torch.zeros(3)},
    "another shape": lambda: {"weight": torch.ones(2, 3), "bias": torch.zeros(3)},
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_of_something_else(place: Path, name: str, legacy: bool) -> None:
    buffer = io.BytesIO()
    try:
        torch.save(CONTENTS[name](), buffer, _use_new_zipfile_serialization=not legacy)
    except (RuntimeError, NotImplementedError):
        pytest.skip("the old format has no such thing")
    (place / "w.pt").write_bytes(buffer.getvalue())
    with little_memory():
        refused(lambda: use(place / "w.pt"), place)


def test_a_torchscript_is_told_on_one_line(place: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in ("constants.pkl", "data.pkl", "version", "code/__torch__.py"):
            file.writestr(f"archive/{name}", b"\x80\x02}." if name.endswith("pkl") else b"3\n")
    (place / "w.pt").write_bytes(buffer.getvalue())
    refused(lambda: use(place / "w.pt"), place)


def test_torch_files_that_expand_without_end(place: Path) -> None:
    with zipfile.ZipFile(place / "w.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("archive/data.pkl", b"\x80\x02}.")
        file.writestr("archive/version", b"3\n")
        with file.open("archive/data/0", "w") as member:
            for _ in range(300):
                member.write(bytes(1 << 20))
    with little_memory():
        assert "expand" in refused(lambda: use(place / "w.pt"), place)
    (place / "w.pt").unlink()


HASHED = {
    "nested": b"\x80\x02})" + b"\x85" * 500_000 + b"K\x01s.",
    "repeated": b"\x80\x02})q\x01" + b"".join(b"h%c\x86q%c" % (k, k + 1) for k in range(1, 60)) + b"K\x01s.",
    "copied": b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s.",
    "in a set": b"\x80\x04\x8f()q\x01"
    + b"".join(b"h%c\x86q%c" % (k, k + 1) for k in range(1, 60))
    + b"\x90.",
}


@pytest.mark.parametrize("name", HASHED)
@pytest.mark.parametrize("kind", ["archive", "old format", "old format before an archive"])
def test_keys_that_take_for_ever(place: Path, name: str, kind: str) -> None:
    body = HASHED[name]
    if kind != "archive":
        head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
        (place / "w.pt").write_bytes(b"".join(head) + body + pickle.dumps([], 2))
        if "before" in kind:
            with zipfile.ZipFile(place / "w.pt", "a") as file:
                file.writestr("archive/data.pkl", b"\x80\x02}.")
    else:
        with zipfile.ZipFile(place / "w.pt", "w") as file:
            for member, content in (("data.pkl", body), ("version", b"3\n"), ("byteorder", b"little")):
                file.writestr(f"archive/{member}", content)
    refused(lambda: use(place / "w.pt"), place)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ".tar"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_in_weights_are_not_run(tmp_path: Path, suffix: str, protocol: int) -> None:
    witness = tmp_path / "witness"
    payload = Payload(witness)
    contents = [payload.pickled(protocol)]
    for legacy in (False, True):
        buffer = io.BytesIO()
        torch.save(
            {"weight": payload}, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy
        )
        contents.append(buffer.getvalue())
    for content in contents:
        (tmp_path / f"w{suffix}").write_bytes(content)
        refused(lambda: read_weights(tmp_path / f"w{suffix}"), tmp_path)
    assert not witness.exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w", "card.json"])
def test_weights_that_are_folders_or_missing(tmp_path: Path, name: str) -> None:
    refused(lambda: read_weights(tmp_path / name), tmp_path)
    (tmp_path / name).mkdir()
    refused(lambda: read_weights(tmp_path / name), tmp_path)
