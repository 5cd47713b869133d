"""Every file that a command reads is a regular one of bounded size: all else is one line and exit code 2."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from forged import certified, sources

from certmix.errors import ModelError
from certmix.files import BULK, TEXT, open_file, read_file, refuse_special
from certmix.nuts.description import MixSettings
from certmix.nuts.folder import BaseModel, load_model, save_nuts
from certmix.nuts.grid import TransformSettings

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no pipes and devices by path")


def sparse(path: Path) -> None:
    """Make a file of 10 GB that takes no space."""
    with path.open("wb") as file:
        file.truncate(10 * 10**9)


def listening(path: Path) -> None:
    """Make a socket."""
    here = Path.cwd()
    os.chdir(path.parent)  # its path is short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


SPECIAL: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "zeros": lambda path: path.symlink_to("/dev/zero"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "folder": lambda path: path.mkdir(),
    "loop": lambda path: path.symlink_to(path.name),
    "socket": listening,
    "10 GB": sparse,
}

MODELS = (
    "--data",
    "points.npz",
    "--standard",
    "none",
    "--sigma",
    0.25,
    "--alpha",
    0.8,
    "--inputs",
    1,
    "--samples",
    100,
)
READERS: dict[str, tuple[str, tuple[object, ...]]] = {
    "run.json": ("run/run.json", ("verify", "run")),
    "run.json, shown": ("run/run.json", ("show", "run")),
    "numbers": ("run/numbers.sqlite", ("show", "run")),
    "numbers, verified": ("run/numbers.sqlite", ("verify", "run", "--resample", 0)),
    "what was not yet written": ("run/numbers.sqlite-wal", ("show", "run")),
    "guarantee": ("guarantee.toml", ("guarantee", "check", "guarantee.toml")),
    "guarantee, verified": ("guarantee.toml", ("verify", "guarantee.toml")),
    "log": ("log.tsv", ("audit", "log.tsv")),
    "data": ("points.npz", ("certify", *MODELS, "--robust", "nets.py:linear")),
    "code": ("nets.py", ("certify", *MODELS, "--robust", "nets.py:linear")),
    "program": ("net.pt2", ("certify", *MODELS, "--robust", "net.pt2")),
    "weights": ("w.pt", ("certify", *MODELS, "--robust", "nets.py:linear", "--robust-weights", "w.pt")),
    "safetensors": ("w.safetensors", ("certify", *MODELS, "--robust", "nets.py:linear", "--robust-weights", "w.safetensors")),
    "declared file": ("c.json", ("certify", *MODELS, "--robust", "nets.py:linear", "--robust-file", "c.json")),
    "card": ("card.json", ("certify", *MODELS, "--robust", "card.json")),
    "mix": ("mix/nuts.json", ("certify", *MODELS, "--robust", "nuts:mix")),
    "logits": ("logits.npz", ("nuts", "fit", "--logits", "logits.npz")),
    "finding": ("finding.json", ("falsify", "--replay", "finding.json")),
    "page": ("page.html", ("report", "run", "--output", "page.html")),
    # Special files among inputs are passed over: tests/fuzz/test_fuzz_paths.py.
    "class names": ("cifar/batches.meta.txt", ("certify", "--data", "cifar", *MODELS[2:], "--robust", "cifar10-gaussian-0.25")),
    "batch": ("cifar/test_batch.bin", ("certify", "--data", "cifar", *MODELS[2:], "--robust", "cifar10-gaussian-0.25")),
    "pickle": ("python/test_batch", ("certify", "--data", "python", *MODELS[2:], "--robust", "cifar10-gaussian-0.25")),
    "scenario": ("log.tsv", ("plan", "--like", "log.tsv", "--throughput", 9)),
}  # fmt: skip
"""A file, and a command that reads it."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("special")
    named = sources(folder)
    certified(folder / "run", named, samples=100, inputs=2)
    pair = [BaseModel(load_model(named[role])) for role in ("standard", "robust")]
    save_nuts(folder / "mix", MixSettings(TransformSettings(1.0, 1.0, 0.0), 0.8), *pair)
    for name in ("inputs/a", "inputs/b", "cifar", "python"):
        (folder / name).mkdir(parents=True)
    from PIL import Image

    for place in ("a/0", "b/0"):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "inputs" / f"{place}.png")
    (folder / "cifar" / "test_batch.bin").write_bytes(bytes(2 * 3073))
    (folder / "python" / "data_batch_1").write_bytes(b"")
    return folder


@pytest.fixture
def folder(made: Path, command: object) -> Path:
    """The working folder, with copies of all that is read."""
    shutil.copytree(made, Path.cwd(), dirs_exist_ok=True)
    return Path.cwd()


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_regular_file_is_one_line(command, folder, soon, reader):
    file, words = READERS[reader]
    for kind, make in SPECIAL.items():
        if (kind, Path(file).suffix) == ("10 GB", ".sqlite-wal"):
            continue  # SQLite finds nothing in it and takes the database as it is
        path = folder / file
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        make(path)
        done = command(*words)
        told = done.err.strip().splitlines()
        assert done.code == 2, (kind, done)
        assert sum(line.startswith("Error: ") for line in told) == 1, (kind, done.err)
        assert told[-1].startswith("Error: "), (kind, done.err)
        assert "Traceback" not in done.err, kind
        assert Path(file).name.removesuffix("-wal") in told[-1] or Path(file).parts[0] in told[-1], (
            kind,
            told[-1],
        )


@pytest.mark.parametrize("kind", SPECIAL)
def test_the_one_opener(tmp_path, soon, kind):
    path = tmp_path / "file"
    SPECIAL[kind](path)
    for most in (TEXT, BULK):
        with pytest.raises(OSError):
            open_file(path, most)
        with pytest.raises(OSError):
            read_file(path, most)
    if kind not in ("10 GB", "folder"):
        with pytest.raises(OSError):
            refuse_special(path)


def test_a_file_of_the_most_bytes_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_file(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="it has 5 bytes, at most 4 are read"):
        read_file(tmp_path / "file", 4)
    refuse_special(tmp_path / "none")
    sparse(tmp_path / "w.pt")
    with pytest.raises(ModelError, match="it has 10,000,000,000 bytes"):
        load_model("cifar10-standard", files=[tmp_path / "w.pt"])
