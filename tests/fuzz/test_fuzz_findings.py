"""Findings: what is said of a point, and the point."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz.datasets import little_memory
from fuzz.harness import Payload, accepted, fuzz, judged, mutated, odd_json, raw, refused, scratch
from hypothesis import given
from hypothesis import strategies as st

from certmix.errors import RunError
from certmix.verification.falsify.attack import Attacked, Claim, Claims, FalsifyRequest, Target
from certmix.verification.falsify.falsify import replay
from certmix.verification.falsify.findings import Finding, Sampled, read_finding, write_finding

POINT = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 2, 2)


@cache
def made(sigma: float | None) -> tuple[bytes, bytes]:
    """Both files of a finding, with noise or without."""
    run = {"identity": {"data_checksum": "d" * 64, "robust_checksum": "h" * 64}}
    claim = Claim(3, 1, 0.5)
    claims = Claims("exact", 0.76, "l2", sigma, 0.001 if sigma else 0.0, 4, (claim,), run=run)
    votes = np.array([100, 80, 20]) if sigma else None
    one = Attacked(claim, 2, 0.25, 0.1, 0.2, 0.3, 200 if sigma else 0, votes, True, POINT)
    target = Target(torch.nn.Identity(), 3, torch.device("cpu"))
    with scratch() as folder:
        path = write_finding(folder, folder / "run", one, claims, FalsifyRequest(), target)
        said = {**json.loads(path.read_bytes()), "run": "/nowhere/run"}
        return json.dumps(said).encode(), path.with_suffix(".npz").read_bytes()


SAID = [json.loads(made(sigma)[0]) for sigma in (0.5, None)]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


def lay(place: Path, said: bytes | None = None, points: bytes | None = None) -> Path:
    (place / "finding.json").write_bytes(made(0.5)[0] if said is None else said)
    (place / "finding.npz").write_bytes(made(0.5)[1] if points is None else points)
    return place / "finding.json"


@pytest.mark.parametrize("sigma", [0.5, None])
@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_the_finding_is_good_to_begin_with(place: Path, sigma: float | None, suffix: str) -> None:
    path = lay(place, *made(sigma))
    found = accepted(lambda: read_finding(path.with_suffix(suffix)), place)
    assert found.said.image == 3 and found.point.tolist() == POINT.tolist()


def is_sound(found: Any) -> None:
    """A replay takes it as it is."""
    if not isinstance(found, Finding):
        return
    assert found.point.dtype == np.float32 and np.isfinite(found.point).all()
    assert 0.5 <= found.said.alpha <= 1
    if found.said.sigma is not None:
        assert isinstance(found.said, Sampled)
        assert found.said.votes is None or all(type(votes) is int for votes in found.said.votes)


@given(st.sampled_from(SAID).flatmap(odd_json) | mutated(*(made(sigma)[0] for sigma in (0.5, None))) | raw)
@fuzz
def test_what_is_said_of_a_point(place: Path, content: bytes) -> None:
    path = lay(place, content)
    is_sound(judged(lambda: read_finding(path), place))
    refused(lambda: replay(path), place)  # its run is nowhere


@given(mutated(made(0.5)[1], made(0.5)[0]) | raw)
@fuzz
def test_files_of_points(place: Path, content: bytes) -> None:
    path = lay(place, None, content)
    found = judged(lambda: read_finding(path), place)
    if isinstance(found, Finding):
        assert found.point.tobytes() == POINT.tobytes()


WIDE = st.floats(width=64) | st.integers(-(2**62), 2**62) | st.booleans()
KINDS = (
    "<f4", ">f4", "<f8", "<f2", "<f16", "<c8", "|u1", "<i8", "|b1", "<U4", "|S4", "<M8[s]", "<m8[s]", "|O", "|V3",
)  # fmt: skip


@given(st.lists(WIDE, max_size=6), st.sampled_from(KINDS), st.sampled_from([(), (-1,), (1, -1), (-1, 1)]))
@fuzz
def test_points_of_other_types_with_the_right_checksum(
    place: Path, values: list[Any], kind: str, shape: tuple[int, ...]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            point = np.array(values[0] if shape == () and values else values).astype(kind).reshape(shape)
        except (OverflowError, TypeError, ValueError):
            point = np.zeros(4, "<f8" if kind == "|O" else kind)
        as_read = point.astype(np.float32) if kind in KINDS[:9] else point
    content = np.ascontiguousarray(as_read).tobytes() if kind != "|O" else b""
    buffer = io.BytesIO()
    np.savez(buffer, point=point)
    said = {**SAID[0], "point_checksum": hashlib.sha256(content).hexdigest()}
    path = lay(place, json.dumps(said).encode(), buffer.getvalue())
    found = judged(lambda: read_finding(path), place)
    is_sound(found)
    assert not isinstance(found, Finding) or kind == "<f4"


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_point_that_is_a_program(tmp_path: Path, protocol: int) -> None:
    witness = tmp_path / "witness"
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    member = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("point.npy", member + Payload(witness).pickled(protocol))
    for content in (buffer.getvalue(), Payload(witness).pickled(protocol), pickle.dumps([1])):
        refused(lambda content=content: read_finding(lay(tmp_path, None, content)))
    assert not witness.exists()


def test_a_point_that_expands_without_end(place: Path) -> None:
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (300 << 18,)}
    deflated = zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with deflated as file, file.open("point.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(300):
            member.write(bytes(1 << 20))
    path = lay(place, None, buffer.getvalue())
    with little_memory():
        assert "expand" in refused(lambda: read_finding(path), place)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format_version": 2}, "update certmix"), ({"format_version": 20**400}, "update certmix"),
        ({"format_version": True}, "format_version"), ({"format_version": "1"}, "format_version"),
        ({"run": 5}, "run"), ({"run": ["a"]}, "run"), ({"image": "3"}, "image"), ({"image": -3}, ">= 0"),
        ({"alpha": "0.76"}, "alpha"), ({"alpha": float("nan")}, "alpha"), ({"certificate": {}}, "certificate"),
        ({"votes": 5}, "votes"), ({"votes": ["1"]}, "votes"), ({"samples": 1.5}, "samples"),
        ({"device": None}, "device"), ({"sigma": "0.5"}, "sigma"), ({"point_checksum": 5}, "point_checksum"),
        ({"worst_standard_classifier": {"one_hot": -1}}, ">= 0"),
        ({"worst_standard_classifier": {"one_hot": "2"}}, "one_hot"), ({"worst_standard_classifier": None}, "object"),
    ],
    ids=str,
)  # fmt: skip
def test_planted_faults_of_a_finding(place: Path, change: dict[str, Any], told: str) -> None:
    path = lay(place, json.dumps({**SAID[0], **change}).encode())
    line = refused(lambda: read_finding(path), place)
    assert told in line and len(line) < 400


@pytest.mark.parametrize(
    "key", sorted(set(SAID[0]) & {"run", "image", "alpha", "sigma", "votes", "noise_seed"})
)
def test_a_finding_that_lacks_something(place: Path, key: str) -> None:
    said = {name: value for name, value in SAID[0].items() if name != key}
    assert f"lacks '{key}'" in refused(lambda: read_finding(lay(place, json.dumps(said).encode())))


def test_findings_that_are_folders_or_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.json").mkdir()
    for path in ("folder.json", "missing", "", ".", "/", "a\0b", "\ud800"):
        assert isinstance(judged(lambda path=path: read_finding(path), tmp_path), RunError), path
    (tmp_path / "alone.json").write_bytes(made(0.5)[0])
    assert "no point" in refused(lambda: read_finding(tmp_path / "alone.json"), tmp_path)
