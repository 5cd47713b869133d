"""Once more, and plainly: votes behind a gate, and what classifiers answer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from certmix.runs.records import Records, pieces
from certmix.sampling.ballots import Cast
from certmix.types import FloatArray, IntArray


def softmax_margin(logits: FloatArray) -> float:
    """Return h_y - max_i h_i of softmax(logits (c,)), y the largest."""
    ordered = np.sort(np.exp(logits - logits.max()))[::-1] / np.exp(logits - logits.max()).sum()
    return float(ordered[0] - ordered[1])


def votes_behind(cast: Cast, classes: int, gate: float) -> IntArray:
    """Return votes (m, c + 1) of ballots, 20 class + level: those of level / 20 >= gate, then the rest."""
    owner = np.repeat(np.arange(len(cast)), np.diff(cast.ends))
    of = np.where(cast.codes % 20 >= 20 * gate - 1e-6, cast.codes // 20, classes)
    found = np.zeros((len(cast), classes + 1), np.int64)
    np.add.at(found, (owner, of), cast.counts)
    return found


def shares_behind(records: Records, gate: float) -> FloatArray:
    """Return the shares (m, c) of the selection samples' votes behind a gate."""
    votes = records.selection
    if gate and records.chosen is not None:
        votes = votes_behind(records.chosen, votes.shape[1], gate)
    shares: FloatArray = votes / votes.sum(1, keepdims=True)
    return shares[:, :-1] if gate else shares


def other_votes(records: Records, gate: float) -> Iterator[int]:
    """Yield the inputs, by row, whose votes behind a gate are not those of their ballots."""
    classes = records.selection.shape[1]
    for n, look in records.behind(gate).votes.items():
        ballots = records.ballots[n]
        for part in pieces(look.rows, classes):
            again = votes_behind(
                ballots.kept.take(ballots.at[np.searchsorted(ballots.rows, part)]), classes, gate
            )
            yield from part[(again != look.of(part)).any(1)].tolist()


def sharpened(probabilities: FloatArray, temperature: float) -> FloatArray:
    """Return softmax(log probabilities / temperature), one-hot at temperature 0, row by row (m, c)."""
    rows = []
    for row in probabilities:
        if temperature == 0:
            rows.append(np.arange(len(row)) == np.argmax(row))
            continue
        powers = (row / row.max()) ** (1 / temperature)
        rows.append(powers / powers.sum())
    return np.array(rows, np.float64) if temperature != 1 else probabilities
