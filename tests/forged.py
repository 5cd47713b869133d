"""Small runs of a linear model in the plane, and hands that change what lies in their folders."""

from __future__ import annotations

import json
import shutil
import sqlite3
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import certmix
from certmix.runs import InputRecord, Store
from certmix.sampling.ballots import LEVELS, Ballots

NETS = '''
import os
import time
import torch
from torch import nn


def linear():
    """Three classes in the plane; the first wins where the first input exceeds 0.2."""
    net = nn.Linear(2, 3)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[4.0, 0.0], [-4.0, 1.0], [-4.0, -1.0]]))
        net.bias.copy_(torch.tensor([-0.8, 0.8, 0.8]))
    return net


class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = linear()

    def forward(self, x):
        time.sleep(float(os.environ.get("SECONDS_A_PASS", 0)))
        return self.net(x)


def two_classes():
    return nn.Linear(2, 2)


class Wrong(nn.Module):
    def forward(self, x):
        return torch.full((len(x), 3), float("nan"))
'''


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
    """Run (or resume) a certification in a folder; return the folder."""
    defaults: dict[str, Any] = {"inputs": 10, "device": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        certmix.certify(
            sigma=sigma, alpha=options.pop("alpha", 0.76), output=folder, **{**defaults, **named, **options}
        )
    return folder


def copied(run: Path, to: Path) -> Path:
    """Return a copy of a run folder."""
    return Path(shutil.copytree(run, to))


def edit_json(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content, indent=2) + "\n")


def sql(run: Path, statement: str, *values: Any) -> list[Any]:
    """Run one statement on the run's database."""
    with closing(sqlite3.connect(run / "numbers.sqlite")) as database:
        with database:
            rows = database.execute(statement, values).fetchall()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return rows


def inputs_in(database: Path) -> int:
    """Count the inputs of which a database, perhaps being written, holds samples."""
    if not database.exists():
        return 0
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as db:
        try:
            return int(db.execute("SELECT count(*) FROM cells WHERE cell = 'selection'").fetchone()[0])
        except sqlite3.OperationalError:  # no table yet
            return 0


def records(run: Path, *, ballots: bool = False) -> dict[int, InputRecord]:
    """Return what was sampled of each input."""
    with closing(Store(run / "numbers.sqlite", read_only=True)) as store:
        return store.inputs(ballots=ballots)


def edit_record(run: Path, index: int, **changes: Any) -> None:
    """Change fields of one input's record; its looks are replaced as a whole."""
    with closing(Store(run / "numbers.sqlite")) as store:
        changed = replace(store.inputs(ballots=True)[index], **changes)
        if changes.keys() & {"selection", "estimation"} and not changed.scores:  # a forger is consistent
            chosen = _as_sure(changed.selection, changed.selection_ballots)
            changed = replace(changed, ballots=_cast(changed), selection_ballots=chosen)
        for kind in ("votes", "ballots"):
            sql(run, f"DELETE FROM cells WHERE idx = ? AND cell GLOB '{kind}@*'", index)
        store.write_inputs([changed])


def _cast(record: InputRecord) -> dict[int, Ballots]:
    """Return ballots of changed votes, look by look as sure as those that were."""
    found, before, cast = {}, np.zeros_like(record.selection), Ballots.of([])
    for n, votes in sorted(record.estimation.items()):
        cast = cast + _as_sure(np.maximum(votes - before, 0), record.ballots.get(n))
        found[n], before = cast, votes
    return found


def _as_sure(votes: np.ndarray, like: Ballots | None) -> Ballots:
    """Return ballots of votes with each class's levels as in others, level 10 where it has none there."""
    codes: list[int] = []
    for label in np.flatnonzero(votes > 0).tolist():
        ours = (like.codes // LEVELS == label) if like is not None else np.zeros(0, bool)
        levels = np.zeros(0, np.int64) if like is None else np.repeat(like.codes[ours], like.counts[ours])
        pick = np.linspace(0, len(levels) - 1, int(votes[label])).round().astype(int)
        codes += levels[pick].tolist() if len(levels) else [label * LEVELS + 10] * int(votes[label])
    return Ballots.of(codes)


def edit_vectors(run: Path, cell: str, edit: Callable[[Any], Any], at: Sequence[int] | None = None) -> None:
    """Change the vectors of a cell, of all inputs or of some."""
    with closing(Store(run / "numbers.sqlite")) as store:
        for index in sorted(store.known(cell)) if at is None else at:
            store.write(cell, [index], [edit(store.read(cell, [index])[0].copy())])


def edit_counts(
    run: Path, edit: Callable[[dict[str, Any], dict[str, Any]], object], at: Sequence[int] | None = None
) -> None:
    """Change selection and estimation (by number of samples), class -> votes, of all inputs or of some."""
    for index, record in records(run).items():
        if at is not None and index not in at:
            continue
        chosen = _named(record.selection)
        looks = {str(n): _named(votes) for n, votes in record.estimation.items()}
        edit(chosen, looks)
        classes = len(record.selection)
        counts = {int(n): _counted(votes, classes) for n, votes in looks.items()}
        edit_record(run, index, selection=_counted(chosen, classes), estimation=counts)


def _named(votes: np.ndarray) -> dict[str, int]:
    return {str(label): int(votes[label]) for label in np.flatnonzero(votes)}


def _counted(votes: dict[str, int], classes: int) -> np.ndarray:
    return np.array([votes.get(str(label), 0) for label in range(classes)], np.int64)


def inflate(votes: dict[str, int], share: float = 1.0, top: str | None = None) -> None:
    """Move a share of all other votes to the class that has most, or to `top`."""
    top = max(votes, key=lambda label: votes[label]) if top is None else top
    for label in [label for label in votes if label != top]:
        moved = int(votes[label] * share)
        votes[label] -= moved
        votes[top] = votes.get(top, 0) + moved
    for label in [label for label in votes if not votes[label]]:
        del votes[label]


def more_votes(run: Path, share: float, after: int = 0, at: Sequence[int] | None = None) -> None:
    """Give the selected class a share more of the votes of samples after so many, of all inputs or of some."""

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

    edit_counts(run, edit, at)


def swap(run: Path, one: int, other: int) -> None:
    """Exchange all counts of two inputs; index, label, checksum and what is lost to the grid stay."""
    found = records(run)
    for index, rival in ((one, found[other]), (other, found[one])):
        edit_record(run, index, selection=rival.selection, estimation=rival.estimation, scores=rival.scores)
