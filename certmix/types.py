"""The frozen values that travel between the stations, arrays over inputs (m) and classes (c).

Probabilities are float64, counts int64, radii float64 in the units of the classifier's input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AccuracyShare", "AttackedAccuracy", "CertifiedAccuracy", "CertifiedRadii", "CertifiedShare",
    "CleanAccuracy", "ConfidenceBounds", "Curve", "Dataset", "EstimatedAccuracy", "FloatArray", "IntArray",
    "Status", "Summary",
]  # fmt: skip

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SCHEMA_VERSION = 1


class Status(IntEnum):
    """What a certificate says of one input."""

    ABSTAIN = 0  #: no class is established: p <= q
    NOT_CERTIFIED = 1  #: a class is established, but no radius > 0 at this alpha
    CERTIFIED = 2  #: a radius > 0 is proved


@dataclass(frozen=True)
class Dataset:
    """Inputs, labels and where they come from.

    Parameters
    ----------
    name, split, settings
        What the user asked for, with the preprocessing as plain data.
    labels, indices
        int64 (N,): classes from 0, and each input's index in its source.
    class_names, read
        One name a class, and position (0..N-1) -> float32 array of one input, e.g. (C, H, W).
    input_range
        Smallest and largest value an input can take, or None if unbounded.  Radii are in these units.
    checksum
        SHA-256 (hex) that changes when inputs, labels or preprocessing change.
    features
        Names of an input's values, with the unit in brackets (``temperature [K]``); empty where unknown.
    scale
        float64, of an input's shape: what noise and radii count in, value by value, or None where it is 1.
        See `certmix.data.scaled`.
    """

    name: str
    split: str
    labels: IntArray
    indices: IntArray
    class_names: tuple[str, ...]
    read: Callable[[int], NDArray[np.float32]] = field(repr=False)
    input_range: tuple[float, float] | None
    checksum: str
    settings: dict[str, Any] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    scale: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


@dataclass(frozen=True)
class ConfidenceBounds:
    """Bounds that hold together with probability >= 1 - failure_probability, input by input.

    `p_lower` and `q_upper`, float64 (m,), bound the selected class's smoothed probability from below and
    every other's from above; `split` says which share of the failure probability each part used; `method` is
    a name in `certmix.bounds.BOUNDS`.  `lost` is the l2 distance, a number or (m,), between each input and
    the point that its bounds are about: radii are that much smaller.
    """

    p_lower: FloatArray
    q_upper: FloatArray
    failure_probability: float
    method: str
    split: dict[str, float]
    lost: FloatArray | float = 0.0

    @cached_property
    def kinds(self) -> tuple[FloatArray, FloatArray, IntArray]:
        """p and q of each kind of input, (k,), and the kind (m,) of each input: many of them are alike."""
        p, q = np.broadcast_arrays(np.atleast_1d(self.p_lower), np.atleast_1d(self.q_upper))
        order, kind = np.lexsort((p, q)), np.empty(len(p), np.int64)
        begins = np.ones(len(p), bool)
        begins[1:] = (np.diff(p[order]) != 0) | (np.diff(q[order]) != 0)
        kind[order] = np.cumsum(begins) - 1
        return p[order][begins], q[order][begins], kind


@dataclass(frozen=True)
class CertifiedRadii:
    """Certified radii of one classifier under one certificate, a name in `certmix.radii.CERTIFICATES`.

    `norm` is that of the radii, ``"l2"`` for Gaussian noise of level `sigma`, which is the scale of noise of
    other kinds and NaN without noise; `radius`, float64 (m,), is rounded down, 0 where nothing is certified;
    `status` holds `Status` values (m,).
    """

    certificate: str
    norm: str
    sigma: float
    alpha: float
    radius: FloatArray
    status: IntArray


@dataclass(frozen=True)
class CertifiedAccuracy:
    """One row of the table: a classifier, a certificate, accuracies at radii.

    ``interval`` holds each accuracy's two-sided 95 % Clopper-Pearson interval over inputs, (low, high).
    ``could_reach`` and ``mean_radius_could_reach`` are what the figures could still become with all samples
    that were allowed, at most and with probability 97.5 %: estimates; where all were drawn, the figures
    themselves.  ``mean_radius_interval`` is the mean radius's two-sided 95 % interval over inputs by betting
    bounds, None where radii have no known largest value.  ``clean_accuracy`` is the classifier's own, None
    where unknown; so are ``alpha``, the ``gate`` of h's votes and g's temperature.
    """

    classifier: str
    certificate: str
    certified_accuracy: tuple[float, ...]
    interval: tuple[tuple[float, float], ...]
    mean_certified_radius: float
    clean_accuracy: float | None = None
    could_reach: tuple[float, ...] = ()
    mean_radius_could_reach: float = float("nan")
    mean_radius_interval: tuple[float, float] | None = None
    alpha: float | None = None
    gate: float = 0.0
    standard_temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.could_reach:
            object.__setattr__(self, "could_reach", self.certified_accuracy)
        if math.isnan(self.mean_radius_could_reach):
            object.__setattr__(self, "mean_radius_could_reach", self.mean_certified_radius)


@dataclass(frozen=True)
class CleanAccuracy:
    """Accuracy without perturbation; None where unknown.

    ``robust`` and ``mixed`` rest on vote frequencies: plug-in estimates, not certificates.
    """

    standard: float | None
    robust: float | None
    mixed: float | None


@dataclass(frozen=True)
class Curve:
    """What a plot needs of one row: the radii of rightly classified inputs.

    ``reach``, float64 (k, 2), holds radii and shares of inputs that could reach them, None if all were drawn.
    ``alpha``, ``gate`` and ``standard_temperature`` are as of `CertifiedAccuracy`.
    """

    classifier: str
    certificate: str
    radii: FloatArray
    inputs: int
    clean_accuracy: float | None
    reach: FloatArray | None = None
    alpha: float | None = None
    gate: float = 0.0
    standard_temperature: float = 1.0


@dataclass(frozen=True)
class Summary:
    """The result of a run as tables and JSON show it; None for what is unknown.

    `failure_probability` is that of one input's certificate, and `sigma` None where rows come from several,
    or the noise is of another kind, `noise`, and `scale`.
    `inputs` are those behind the figures, `planned_inputs` those asked for: they differ, and the result is
    not `complete`, when interrupted.  `radii` are those of the columns, `norm` is that of all radii, which
    count `feature_scale` where there is one, and come from `converted_from` if they were proved in that norm;
    `abstained` counts inputs whose class could not be established.
    `notes` say what a reader must know, `details` what tells more, an entry a sentence or more.
    """

    sigma: float | None
    alpha: float
    inputs: int
    failure_probability: float | None
    radii: tuple[float, ...]
    clean_accuracy: CleanAccuracy
    rows: tuple[CertifiedAccuracy, ...]
    complete: bool = True
    goal: str | None = "fixed"
    planned_inputs: int | None = None
    bound: str | None = "clopper-pearson"
    samples: int | None = None
    selection_samples: int | None = None
    mean_samples: float | None = None
    seed: int | None = None
    data: str | None = None
    standard: str | None = None
    robust: str | None = None
    abstained: int | None = None
    notes: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    norm: str = "l2"
    feature_scale: tuple[float, ...] = ()
    noise: str | None = None
    scale: float | None = None
    converted_from: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object: plain data, None for unknown."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


@dataclass(frozen=True)
class AccuracyShare:
    """Share `correct` / `inputs` that are right in some sense; what it proves, its subclasses say.

    ``interval`` is the two-sided 95 % Clopper-Pearson interval over inputs, (low, high).
    """

    correct: int
    inputs: int
    interval: tuple[float, float]

    @property
    def accuracy(self) -> float:
        """The share, NaN without inputs."""
        return self.correct / self.inputs if self.inputs else float("nan")


@dataclass(frozen=True)
class EstimatedAccuracy(AccuracyShare):
    """Share of inputs that are classified right, an estimate over a sample of inputs."""


@dataclass(frozen=True)
class AttackedAccuracy(EstimatedAccuracy):
    """Share of inputs that are right under attack: an upper bound of robust accuracy, never a certificate."""


@dataclass(frozen=True)
class CertifiedShare(AccuracyShare):
    """Share of inputs that are right and certified at a radius; made of certifications alone.

    Each input's certificate has its own failure probability; the interval is over inputs.
    """
