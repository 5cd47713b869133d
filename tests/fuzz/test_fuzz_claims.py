"""What must be refused, in one line and in little memory: planted faults, huge claims, what expands without end."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz.harness import accepted, judged, lay, little_memory, refused
from fuzz.readers import GUARANTEE, READERS, STATE, checkpoint, picture, resume, run, saved, trained

from certmix.certification.analysis.audit import audit

# fields of JSON

PLANTED: dict[tuple[str, str], dict[str, list[Any]]] = {
    ("card and weights", "tiny.json"): {
        "classes": [2.5, True, 10**12], "class_names": ["abc", [1, 2, 3]], "input_range": [["a", "b"], [0, 1, 2]],
        "noise_sigma": ["0.5"], "accuracy": [{"x": "0.5"}, {"x": float("nan")}, []], "recipe": ["x"],
        "name": ["../../x", "a\nb"], "architecture": ["os.system", []], "notes": ["\ud800"], "sha256": [None, "0" * 64],
    },
    ("finding, sigma=0.5", "f.json"): {
        "format_version": [2, 20**400, True, "1"], "run": [5, ["a"]], "input": ["3", -3], "alpha": ["0.76", float("nan")],
        "certificate": [{}], "votes": [5, ["1"]], "samples": [1.5], "device": [None], "sigma": ["0.5"],
        "point_checksum": [5, "0" * 64], "worst_standard_classifier": [{"one_hot": -1}, {"one_hot": "2"}, None],
    },
    ("description", "run.json"): {
        "format_version": [True, 0, 3, 1e999], "identity": [[], {"study": ["certify"]}, {"study": "a\nb"}],
    },
    ("sampled run, judged", "run.json"): {
        "request sigma": [10**400, float("nan")], "request samples": [1.5, True], "request radii": ["0.5"],
        "request a\nb": [1], "request seed": ["0"], "request alpha": [0.25], "data inputs": ["12", float("inf")],
        "data class_names": ["abc", []], "data name": ["a\nb", "\ud800"], "models standard": ["big"],
        "models robust": [{"name": 1, "checksum": "h"}], "models standard checksum": [["one"]],
    },
    ("shards", "first/run.json"): {
        "shard": [[1, 2], None, {"number": 1}], "shard number": [0, 3, True, 1.0], "shard of": [7], "identity": [{}],
        "models": [{}, [], {"standard": {}, "robust": {}}, {"standard": None, "robust": 5}], "data": [{"name": "points"}],
        "data class_names": [["a", "b"], list("abcd"), [], ["a"], "abc", None, 3, {"a": 0, "b": 1, "c": 2}],
    },
}  # fmt: skip


@pytest.mark.parametrize(("reader", "name"), PLANTED)
def test_planted_faults_of_fields(place: Path, reader: str, name: str) -> None:
    good, read = READERS[reader].made(), READERS[reader].reads[-1 if name == "tiny.json" else 0]
    for where, values in PLANTED[reader, name].items():
        for value in values:
            plain = parent = json.loads(good[name])
            *inner, last = (int(key) if key.isdigit() else key for key in where.split(" "))
            for key in inner:
                parent = parent[key]
            parent[last] = copy.deepcopy(value)
            folder = lay(place, {**good, name: json.dumps(plain).encode()})
            with little_memory():
                outcome = judged(partial(read, folder), place)
            assert isinstance(outcome, Exception) and len(str(outcome)) < 500, (where, value)


def test_a_claim_of_many_soft_samples_takes_no_memory(place: Path) -> None:
    described = json.loads(run("soft")["run.json"])
    described["request"]["samples"] = 2**40
    lay(place, {**run("soft"), "run.json": json.dumps(described).encode()})
    with little_memory():
        assert "samples" in refused(lambda: audit(place / "records.tsv"), place)


# whole files


def npy(kind: str, shape: str, body: bytes = b"") -> bytes:
    """An .npy file with any header."""
    header = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    padded = header + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + body


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


ARRAYS = ("inputs.npy", "labels.npy", "indices.npy", "class_names.npy")
GOOD = {
    "inputs.npy": npy("'<f4'", "(6, 4)", np.linspace(0, 1, 24, dtype="<f4").tobytes()),
    "labels.npy": npy("'|u1'", "(6,)", bytes([0, 1, 2, 0, 1, 2])),
}


def expanding(name: str, others: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive whose one member is 300 MiB of zeros after its header, or claims as much."""
    buffer, header = io.BytesIO(), npy("'|u1'", f"({(300 << 20) // 1024}, 32, 32)")
    with zipfile.ZipFile(buffer, "w", method, compresslevel=1) as file:
        for other, content in others.items():
            file.writestr(other, content)
        with file.open(name, "w") as member:
            member.write(header)
            for _ in range(300 if method == zipfile.ZIP_DEFLATED else 0):
                member.write(bytes(1 << 20))
    small = struct.pack("<I", len(header))
    return buffer.getvalue().replace(small, struct.pack("<I", 300 << 20))


def png(width: int, height: int) -> bytes:
    """A grey picture that claims any size."""
    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", size), (b"IDAT", b""), (b"IEND", b"")]
    packed = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def safetensors(length: int | None = None, kind: str = "F32", shape: tuple[int, int] = (3, 2)) -> bytes:
    """A matrix that claims any size after a header that claims any length."""
    end = 4 * shape[0] * shape[1]
    weight = {"dtype": kind, "shape": shape, "data_offsets": [0, end]}
    described = {"weight": weight, "bias": {"dtype": kind, "shape": [3], "data_offsets": [end, end + 12]}}
    header = json.dumps(described).encode()
    return (length or len(header)).to_bytes(8, "little") + header + bytes(36)


def recursive() -> dict[str, Any]:
    state: dict[str, Any] = {"epoch": 1}
    state["model"] = state
    return state


def optimizer_state(**settings: Any) -> dict[str, Any]:
    """The state of an optimizer with other settings, or else with buffers of another shape."""
    state = trained()[2].state_dict()
    if not settings:
        state["state"][0]["momentum_buffer"] = torch.zeros(7)
    for group in state["param_groups"]:
        group.update(settings)
    return state


BIAS = {"bias": torch.zeros(3)}
STATES: tuple[Any, ...] = (
    {}, [torch.ones(3)], torch.ones(3, 2), recursive(), {0: torch.ones(3, 2), 1: torch.zeros(3)},
    {"wei\nght": torch.ones(3, 2), **BIAS}, {"weight": torch.ones(3, 2, device="meta"), **BIAS},
    {"weight": torch.ones(3, 2, dtype=torch.complex64), **BIAS}, {"weight": "x", **BIAS},
    {"weight": torch.ones(1).expand(10**6, 10**6), **BIAS}, {"weight": torch.ones(2, 3), **BIAS},
)  # fmt: skip
TRAININGS: tuple[dict[str, Any], ...] = (
    {"epoch": -1}, {"epoch": 10**6}, {"epoch": "1"}, {"epoch": 1.5}, {"model": {}}, {"model": STATE["bias"]},
    {"average": None}, {"optimizer": {}}, {"identity": torch.ones(3)}, {"identity": {"seed": torch.ones(2)}},
)  # fmt: skip
LOG = READERS["log"].made()["log.tsv"]
METHODS = (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
SCRIPT = dict.fromkeys(("a/constants.pkl", "a/data.pkl"), b"\x80\x02}.") | dict.fromkeys(("a/version", "a/code/__torch__.py"), b"3\n")  # fmt: skip

WRONG: dict[tuple[str, str], list[bytes | Callable[[], bytes]]] = {
    ("description", "run.json"): [
        b"", b"[" * 200_000, b'{"format_version": 2, "format_version": 2}', b'{"format_version": ' + b"9" * 10_000 + b"}",
        b'\xef\xbb\xbf{"format_version": 2}', '{"format_version": 2}'.encode("utf-16"), b'{"format_version": 2, "x": "\xff"}',
    ],
    ("guarantee", "guarantee.toml"): [
        b"", b"version = 1\nversion = 1\n", b"\0" * 64, b"version = 2\n" + GUARANTEE[12:], GUARANTEE.replace(b"0.76", b"nan"),
        GUARANTEE.replace(b"10000", b"1e400"), GUARANTEE.replace(b"[data]", b"[data]\nrun = 'rm'"), b"x" * (1 << 21),
    ],
    ("class counts", "counts.txt"): [
        b"1 2 3\n-1 2 1\n", b"9 0 5\n", b"0 0 1\n", b"1 1 " + b"9" * 5000, b"9" * 19 + b" 1 0", b"1 2\n", b"\xff\xff",
    ],
    ("log", "log.tsv"): [
        LOG.replace(b"0.250000", b"nan", 1), LOG.replace(b"0.250000", b"-1", 1), LOG.replace(b"\n20\t", b"\n-20\t"),
        LOG.replace(b"0.250000\t1", b"0.250000\tinf", 1),
    ],
    ("arrays, plain", "m.npz"): [
        *(
            zipped({**GOOD, name: npy(repr(kind), "(1000000000000,)")})
            for kind in ("<f4", "<U0", "|V0", "|S0", "|u1", "<i8") for name in ARRAYS
        ),
        *(zipped({f"{name}.npy": GOOD["inputs.npy"], "labels.npy": GOOD["labels.npy"]}) for name in (
            "../../inputs", "/tmp/inputs", "..\\inputs", "inputs\n", "a/../inputs"
        )),
        *(partial(expanding, "inputs.npy", {"labels.npy": GOOD["labels.npy"]}, method) for method in METHODS),
    ],
    ("images", "cat/0.png"): [
        *(png(*size) for size in ((0, 5), (5, 0), (2**31 - 1, 2**31 - 1), (100_000, 100_000), (10_000, 10_000), (2**31, 1))),
        picture("PNG", (1, 60_000), "L"),  # grows when it is resized
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 4\n%%EndComments\nshowpage\n",  # would be handed to a program
    ],
    ("safetensors", "w.safetensors"): [safetensors(length, shape=(2**20, 2**20)) for length in (2**63, 2**40, 2**31, 100, None)],
    ("torch", "w.pt"): [
        *(partial(saved, state, legacy) for state in STATES for legacy in (False, True)),
        partial(saved, {"weight": torch.ones(3, 2).to_sparse(), **BIAS}), zipped(SCRIPT),
        partial(expanding, "a/data/0", {"a/data.pkl": b"\x80\x02}.", "a/version": b"3\n"}),
    ],
    ("checkpoint", "c.checkpoint"): [
        *(partial(checkpoint, **changes) for changes in TRAININGS), lambda: checkpoint(optimizer=optimizer_state()),
    ],
    ("finding, sigma=0.5", "f.npz"): [partial(expanding, "point.npy", {})],
}  # fmt: skip


@pytest.mark.parametrize(("reader", "name"), WRONG)
def test_files_that_are_none(place: Path, reader: str, name: str) -> None:
    good, reads = READERS[reader].made(), READERS[reader].reads
    for content in WRONG[reader, name]:
        lay(place, {**good, name: content if isinstance(content, bytes) else content()})
        for read in reads[: 3 if reader == "images" else 1]:
            with little_memory():
                refused(partial(read, place), place)


@pytest.mark.parametrize("kind", [">f4", "<f8", "<c8", "|u1", "<U4", "<f4"])
def test_points_are_finite_float32(place: Path, kind: str) -> None:
    reader, buffer = READERS["finding, sigma=0.5"], io.BytesIO()
    point = np.full(4, np.nan, kind) if kind == "<f4" else np.zeros(4, kind)
    np.savez(buffer, point=point)
    checksum = hashlib.sha256(point.tobytes()).hexdigest()
    said = {**json.loads(reader.made()["f.json"]), "point_checksum": checksum}
    lay(place, {"f.json": json.dumps(said).encode(), "f.npz": buffer.getvalue()})
    assert "float32" in refused(lambda: reader.reads[0](place), place)


def test_a_checkpoint_does_not_change_settings(place: Path) -> None:
    lay(place, {"c.checkpoint": checkpoint(optimizer=optimizer_state(weight_decay="boom", momentum=7.0))})
    optimizer = accepted(lambda: resume(place), place)
    assert [group["momentum"] for group in optimizer.param_groups] == [0.9, 0.9]
