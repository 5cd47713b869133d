"""Run folders that certmix made itself, as bytes by path."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

from forged import certified, sources
from fuzz.databases import as_one_file
from fuzz.harness import scratch

OPTIONS = {
    "sampled": {"sigma": 0.25, "samples": 200},
    "first": {"sigma": 0.25, "samples": 200, "shard": "1/2"},
    "second": {"sigma": 0.25, "samples": 200, "shard": "2/2"},
    "plain": {
        "sigma": None, "certificates": ("lipschitz-constant",), "lipschitz_constant": 7.0, "norm": "l2",
    },
}  # fmt: skip
SMALL = (".json", ".tsv", ".md", ".sqlite")


@cache
def made(kind: str) -> dict[str, bytes]:
    """The files of a run of six images, those that are read again."""
    with scratch() as place:
        run = certified(place / "run", sources(place), images=6, **OPTIONS[kind])
        for database in run.glob("*.sqlite"):
            database.write_bytes(as_one_file(database))
        return {
            str(path.relative_to(run)): path.read_bytes()
            for path in sorted(run.rglob("*"))
            if path.suffix in SMALL
        }


def lay(folder: Path, files: dict[str, bytes]) -> Path:
    """Write a run folder anew."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
