"""Small runs of a linear model in the plane, and hands that change what lies in their folders."""

from __future__ import annotations

import json
import shutil
import sqlite3
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import certmix

NETS = """
import torch
from torch import nn


def linear():
    net = nn.Linear(2, 3)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[4.0, 0.0], [-4.0, 1.0], [-4.0, -1.0]]))
        net.bias.copy_(torch.tensor([-0.8, 0.8, 0.8]))
    return net
"""


def sources(folder: Path) -> dict[str, str]:
    """Write twelve points and a linear model; return them as options."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nets.py").write_text(NETS)
    inputs = np.random.default_rng(0).random((12, 2)).astype(np.float32)
    scores = np.stack([4 * inputs[:, 0] - 0.8, 0.8 - 4 * inputs[:, 0] + inputs[:, 1]], 1)
    np.savez(folder / "points.npz", inputs=inputs, labels=scores.argmax(1), class_names=list("abc"))
    net = f"{folder / 'nets.py'}:linear"
    return {"data": str(folder / "points.npz"), "standard": net, "robust": net}


def certified(folder: Path, named: dict[str, Any], sigma: float | None = 0.25, **options: Any) -> Path:
    """Run (or resume) a certification in a folder, without drawing plots; return the folder."""
    defaults: dict[str, Any] = {"images": 10, "device": "cpu"}
    with patch("certmix.tables.files.curve_plot", lambda *a, **k: b"plot"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        certmix.certify(sigma, options.pop("alpha", 0.76), output=folder, **{**defaults, **named, **options})
    return folder


def copied(run: Path, to: Path) -> Path:
    """Return a copy of a run folder."""
    return Path(shutil.copytree(run, to))


def products(run: Path, name: str) -> list[Path]:
    """Return a product's copies: at the top and in each request's folder."""
    return [run / name, *sorted(run.glob(f"results/*/{name}"))]


def edit_json(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content, indent=2) + "\n")


def edit_log(run: Path, name: str, edit: Callable[[list[str]], list[str]]) -> None:
    """Change the lines after the heading of a log, in all copies."""
    for path in products(run, name):
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], *edit(lines[1:])]) + "\n")


def sql(run: Path, statement: str, *values: Any) -> list[Any]:
    """Run one statement on the run's database."""
    name = "counts.sqlite" if (run / "counts.sqlite").exists() else "vectors.sqlite"
    database = sqlite3.connect(run / name)
    with database:
        rows = database.execute(statement, values).fetchall()
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return rows


def edit_counts(run: Path, edit: Callable[[dict[str, Any], dict[str, Any]], None], where: str = "1") -> None:
    """Change selection and estimation (by number of samples) of the images that SQL selects."""
    query = f"SELECT idx, selection, estimation FROM images WHERE {where}"
    for index, selection, estimation in sql(run, query):
        chosen, looks = json.loads(selection), json.loads(estimation)
        edit(chosen, looks)
        sql(
            run, "UPDATE images SET selection = ?, estimation = ? WHERE idx = ?",
            json.dumps(chosen), json.dumps(looks), index,
        )  # fmt: skip


def inflate(votes: dict[str, int], share: float = 1.0, top: str | None = None) -> None:
    """Move a share of all other votes to the class that has most, or to `top`."""
    top = max(votes, key=lambda label: votes[label]) if top is None else top
    for label in [label for label in votes if label != top]:
        moved = int(votes[label] * share)
        votes[label] -= moved
        votes[top] = votes.get(top, 0) + moved
    for label in [label for label in votes if not votes[label]]:
        del votes[label]


def more_votes(run: Path, share: float, after: int = 0, where: str = "1") -> None:
    """Give the selected class a share more of the votes of all samples that come after so many."""

    def edit(selection: dict[str, int], looks: dict[str, Any]) -> None:
        top, before = max(selection, key=lambda label: selection[label]), 0
        honest, forged = Counter[str](), Counter[str]()
        for n in sorted(map(int, looks)):
            new, left = Counter(looks[str(n)]) - honest, round(share * (n - before)) if n > after else 0
            for label in [label for label in new if label != top]:
                moved = min(new[label], left)
                new[label], new[top], left = new[label] - moved, new[top] + moved, left - moved
            before, honest = n, Counter(looks[str(n)])
            forged += new
            looks[str(n)] = dict(forged)

    edit_counts(run, edit, where)


def swap(run: Path, one: int, other: int) -> None:
    """Exchange all counts of two images; index, label, checksum and what is lost to the grid stay."""
    columns = "selection, estimation, scores"
    query = f"SELECT {columns} FROM images WHERE idx = ?"
    rows = [sql(run, query, index)[0] for index in (one, other)]
    for index, row in ((one, rows[1]), (other, rows[0])):
        sql(run, f"UPDATE images SET ({columns}) = (?, ?, ?) WHERE idx = ?", *row, index)
