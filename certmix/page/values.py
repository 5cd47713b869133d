"""What a page shows of runs: frozen values, read from folders elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from certmix.types import CertifiedAccuracy, FloatArray, IntArray, Status, Summary

__all__ = [
    "CertifiedRun",
    "Command",
    "Facts",
    "Group",
    "Images",
    "Result",
    "Shown",
    "StudyRun",
    "Table",
    "lead_row",
]

Facts = tuple[tuple[str, str], ...]  #: names and values, both plain text


@dataclass(frozen=True)
class Images:
    """The images (m,) behind one result.

    Parameters
    ----------
    indices, labels, predicted
        int64 (m,): index in the data, class, and the class that h gives.
    radius, status
        (rows, m): certified radii and `Status` values, a row of the table each.
    """

    indices: IntArray
    labels: IntArray
    predicted: IntArray
    radius: FloatArray
    status: IntArray

    @property
    def right(self) -> np.ndarray:
        """bool (m,): the class is the label."""
        return np.asarray(self.predicted == self.labels)

    def certified(self, row: int) -> FloatArray:
        """Return the radii above 0 of the rightly classified images."""
        return np.asarray(self.radius[row][self.right & (self.radius[row] > 0)])

    def left_out(self, row: int) -> dict[str, np.ndarray]:
        """Return bool (m,) of the images that count as not certified, by reason."""
        status, right = self.status[row], self.right
        return {
            "wrong class": ~right,
            "abstained": right & (status == Status.ABSTAIN),
            "no radius at this \u03b1": right & (status != Status.ABSTAIN) & (self.radius[row] <= 0),
        }


@dataclass(frozen=True)
class Result:
    """One request's table, and its images where they are known.

    Parameters
    ----------
    name
        Of its folder.
    summary
        The table as it was published.
    images
        What the run's records say; None where they do not give this table.
    """

    name: str
    summary: Summary
    images: Images | None


@dataclass(frozen=True)
class Shown:
    """One image of the gallery: words, and its picture as PNG (None where there is none)."""

    index: int
    label: str
    predicted: str
    outcome: str
    votes: str
    png: bytes | None


@dataclass(frozen=True)
class Group:
    """Images that belong together in the gallery."""

    title: str
    note: str
    shown: tuple[Shown, ...]


@dataclass(frozen=True)
class Command:
    """A line for the shell, and what it does."""

    what: str
    line: str


@dataclass(frozen=True)
class CertifiedRun:
    """A certification run; its newest result comes first.

    Parameters
    ----------
    name
        Of the folder, without the folders above.
    study
        The command that made it, and its certificate where it draws no samples.
    results
        At least one.
    parameters, provenance
        What was asked for; what it rests on.
    looks
        Of sequential sampling: numbers of samples and the share of the failure
        probability that each look may spend; empty otherwise.
    split
        How the failure probability is divided, empty without samples.
    data_checksum
        Of the data set.
    gallery, gallery_note
        Images of the newest result, and what a reader should know of them.
    commands
        How to make it again.
    """

    name: str
    study: str
    results: tuple[Result, ...]
    parameters: Facts
    provenance: Facts
    split: Facts
    looks: tuple[tuple[int, float], ...]
    data_checksum: str
    gallery: tuple[Group, ...]
    gallery_note: str
    commands: tuple[Command, ...]

    @property
    def newest(self) -> Result:
        """The result that the page speaks of."""
        return self.results[0]


@dataclass(frozen=True)
class Table:
    """An empirical study's table in print: its words, and of each cell its text and its kind.

    ``numeric`` says of each column whether it is flush right.
    """

    title: str
    settings: str
    headings: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[tuple[str, str], ...], ...]
    notes: tuple[str, ...]
    complete: bool
    groups: tuple[tuple[str | None, int], ...]


@dataclass(frozen=True)
class StudyRun:
    """An empirical study: tables, plots (name, SVG), settings."""

    name: str
    study: str
    tables: tuple[Table, ...]
    plots: tuple[tuple[str, bytes], ...]
    parameters: Facts
    provenance: Facts
    commands: tuple[Command, ...]


def lead_row(rows: Sequence[CertifiedAccuracy]) -> int:
    """Return which row a page speaks of: the mix by ``exact``, or else its first certificate."""
    mixed = [k for k, row in enumerate(rows) if row.classifier == "mixed"]
    exact = [k for k in mixed if rows[k].certificate == "exact"]
    return (exact or mixed or [0])[0]
