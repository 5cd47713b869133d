"""Written by tests/stub.py from the fields of settings."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from os import PathLike
from pathlib import Path
from typing import Literal

from torch import nn

from certmix.certification.evaluate import CertifyResult as CertifyResult
from certmix.errors import CertmixWarning as CertmixWarning
from certmix.models.mixture import MixedClassifier as MixedClassifier
from certmix.models.smoothed import SmoothedClassifier as SmoothedClassifier
from certmix.models.smoothed import SmoothedMixture as SmoothedMixture
from certmix.radii import certify_radii as certify_radii
from certmix.radii import exact_radius as exact_radius
from certmix.radii import lipschitz_radius as lipschitz_radius
from certmix.radii import smoothing_radius as smoothing_radius
from certmix.runs.cells import Progress
from certmix.runs.sources import Data, Models

__all__ = [
    "CertifyResult",
    "CertmixWarning",
    "MixedClassifier",
    "SmoothedClassifier",
    "SmoothedMixture",
    "assert_certified",
    "certify",
    "certify_radii",
    "exact_radius",
    "lipschitz_radius",
    "smoothing_radius",
]

def assert_certified(
    models: Models = None,
    data: Data = None,
    *,
    radius: float,
    at_least: float,
    sigma: float | None = None,
    alpha: float | None = None,
    on: str = "lower-bound",
    runs: str | Path | None = None,
    certificate: str = "exact",
    device: str = "auto",
    batch_size: int | None = None,
    images: Literal["all"] | int = 100,
    samples: int = 10000,
    selection_samples: int = 100,
    goal: str = "radii",
    settle: str = "exact",
    relative_precision: float = 0.1,
    failure_probability: float = 0.001,
    scores: str = "hard",
    score_temperature: float = 1.0,
    gate: float = 0.0,
    standard_temperature: float = 1.0,
    tuned: str | PathLike[str] = "auto",
    bound: str | None = None,
    radii: float | Sequence[float] | None = None,
    seed: int = 0,
    precision: str = "auto",
    norm: str | float | None = None,
    bound_method: str = "crown-ibp",
    max_radius: float | None = None,
    lipschitz_constant: float | None = None,
    constant_of: str = "logits",
    split: str | PathLike[str] | None = None,
    input_range: tuple[float, float] | None = (0.0, 1.0),
    resize: int | None = None,
    crop: int | None = None,
    label_column: str | PathLike[str] | None = None,
    feature_scale: tuple[float, ...] | str | PathLike[str] | None = None,
    standard: nn.Module | str | PathLike[str] | None = "cifar10-standard",
    standard_weights: str | PathLike[str] | None = None,
    standard_normalize: str | PathLike[str] | None = None,
    standard_outputs: str | None = None,
    standard_files: str | Sequence[str] = (),
    robust: nn.Module | str | PathLike[str] | None = None,
    robust_weights: str | PathLike[str] | None = None,
    robust_normalize: str | PathLike[str] | None = None,
    robust_outputs: str | None = None,
    robust_files: str | Sequence[str] = (),
    denoiser: nn.Module | str | PathLike[str] | None = None,
    run_code: bool = False,
) -> CertifyResult: ...
def certify(
    models: Models = None,
    data: Data = None,
    *,
    sigma: float | None = None,
    alpha: float | None = None,
    output: str | Path | bool | None = None,
    fresh: bool = False,
    device: str = "auto",
    batch_size: int | None = None,
    compiled: bool | None = None,
    progress: bool | Callable[[Progress], None] | None = None,
    workers: int | None = 1,
    executor: Executor | None = None,
    shard: str | None = None,
    images: Literal["all"] | int = 100,
    samples: int = 10000,
    selection_samples: int = 100,
    goal: str = "radii",
    settle: str = "exact",
    relative_precision: float = 0.1,
    failure_probability: float = 0.001,
    scores: str = "hard",
    score_temperature: float = 1.0,
    gate: float = 0.0,
    standard_temperature: float = 1.0,
    tuned: str | PathLike[str] = "auto",
    bound: str | None = None,
    certificates: str | Sequence[str] = ("exact", "smoothing", "lipschitz", "lipschitz-paper"),
    radii: float | Sequence[float] | None = None,
    seed: int = 0,
    precision: str = "auto",
    norm: str | float | None = None,
    bound_method: str = "crown-ibp",
    max_radius: float | None = None,
    lipschitz_constant: float | None = None,
    constant_of: str = "logits",
    split: str | PathLike[str] | None = None,
    input_range: tuple[float, float] | None = (0.0, 1.0),
    resize: int | None = None,
    crop: int | None = None,
    label_column: str | PathLike[str] | None = None,
    feature_scale: tuple[float, ...] | str | PathLike[str] | None = None,
    standard: nn.Module | str | PathLike[str] | None = "cifar10-standard",
    standard_weights: str | PathLike[str] | None = None,
    standard_normalize: str | PathLike[str] | None = None,
    standard_outputs: str | None = None,
    standard_files: str | Sequence[str] = (),
    robust: nn.Module | str | PathLike[str] | None = None,
    robust_weights: str | PathLike[str] | None = None,
    robust_normalize: str | PathLike[str] | None = None,
    robust_outputs: str | None = None,
    robust_files: str | Sequence[str] = (),
    denoiser: nn.Module | str | PathLike[str] | None = None,
    run_code: bool = False,
    engine: str = "local",
    gpus_per_worker: float | None = None,
    ray_address: str | PathLike[str] | None = None,
) -> CertifyResult: ...
