# fmt: off
"""Written by tests/stub.py from the fields of settings."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from os import PathLike
from pathlib import Path
from typing import Literal, overload

from torch import nn

from certmix.api import Run
from certmix.assurance.pack import Evidence as Evidence
from certmix.certification.evaluate import CertifyResult as CertifyResult
from certmix.certification.population import PopulationResult
from certmix.certification.reproduce import Reproduction
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
from certmix.studies.study import StudyResult as StudyResult
from certmix.tables.trade_off import TradeOff as TradeOff
from certmix.verification.falsify.falsify import Falsification as Falsification
from certmix.verification.guarantees.guarantee import Guarantee
from certmix.verification.verify import Verification as Verification

__all__ = [
    "CertifyResult", "CertmixWarning", "Evidence", "Falsification", "MixedClassifier",
    "SmoothedClassifier", "SmoothedMixture", "StudyResult", "TradeOff", "Verification",
    "assert_certified", "attack", "certify", "certify_radii", "compare_trust", "confidence", "evidence",
    "exact_radius", "falsify", "guarantee_check", "guarantee_init", "lipschitz", "lipschitz_radius",
    "mix_sweep", "nuts_evaluate", "nuts_fit", "recertify", "report", "reproduce", "smoothing_radius",
    "trade_off", "verify",
]

def assert_certified(
    models: Models = None, data: Data = None, *, radius: float, at_least: float,
    sigma: float | None = None, alpha: float | None = None, on: str = "lower-bound",
    runs: str | Path | None = None, certificate: str = "exact", device: str = "auto",
    batch_size: int | None = None, inputs: Literal["all"] | int = 100, samples: int = 10000,
    selection_samples: int = 100, goal: str = "radii", settle: str = "exact",
    relative_precision: float = 0.1, failure_probability: float = 0.001, scores: str = "hard",
    score_temperature: float = 1.0, gate: float = 0.0, standard_temperature: float = 1.0,
    tuned: str | PathLike[str] = "auto", bound: str | None = None,
    radii: float | Sequence[float] | None = None, seed: int = 0, precision: str = "auto",
    noise: str | None = None, scale: float | None = None, norm: str | float | None = None,
    dimension: int | None = None, all_at_once: bool = False, bound_method: str = "crown-ibp",
    arithmetic: Literal["float32", "exact"] = "float32", max_radius: float | None = None,
    lipschitz_constant: float | None = None, constant_of: str = "logits", patch: int = 5,
    split: str | PathLike[str] | None = None, input_range: tuple[float, float] | None = (0.0, 1.0),
    resize: int | None = None, crop: int | None = None, label_column: str | PathLike[str] | None = None,
    feature_scale: tuple[float, ...] | str | PathLike[str] | None = None,
    standard: nn.Module | str | PathLike[str] | None = "cifar10-standard",
    standard_weights: str | PathLike[str] | None = None,
    standard_normalize: str | PathLike[str] | None = None, standard_outputs: str | None = None,
    standard_files: str | Sequence[str] = (), robust: nn.Module | str | PathLike[str] | None = None,
    robust_weights: str | PathLike[str] | None = None,
    robust_normalize: str | PathLike[str] | None = None, robust_outputs: str | None = None,
    robust_files: str | Sequence[str] = (), denoiser: nn.Module | str | PathLike[str] | None = None,
    run_code: bool = False,
) -> CertifyResult: ...
@overload
def certify(
    models: Models = None, data: Data = None, *, sigma: float | None = None, alpha: float | None = None,
    output: str | Path | bool | None = None, fresh: bool = False, device: str = "auto",
    batch_size: int | None = None, progress: bool | Callable[[Progress], None] | None = None,
    workers: int | None = 1, executor: Executor | None = None, inputs: Literal["all"] | int | None = None,
    samples: int | None = None, goal: Literal["population"], failure_probability: float = 0.001,
    seed: int = 0, precision: str = "auto", noise: str | None = None, scale: float | None = None,
    norm: str | float | None = None, dimension: int | None = None, at_radius: float | None = None,
    at_least: float | None = None, population: str = "data", split: str | PathLike[str] | None = None,
    input_range: tuple[float, float] | None = (0.0, 1.0), resize: int | None = None,
    crop: int | None = None, label_column: str | PathLike[str] | None = None,
    feature_scale: tuple[float, ...] | str | PathLike[str] | None = None,
    robust: nn.Module | str | PathLike[str] | None = None,
    robust_weights: str | PathLike[str] | None = None,
    robust_normalize: str | PathLike[str] | None = None, robust_outputs: str | None = None,
    robust_files: str | Sequence[str] = (), denoiser: nn.Module | str | PathLike[str] | None = None,
    run_code: bool = False, engine: str = "local", gpus_per_worker: float | None = None,
    ray_address: str | PathLike[str] | None = None,
) -> PopulationResult: ...
@overload
def certify(
    models: Models = None, data: Data = None, *, sigma: float | None = None, alpha: float | None = None,
    output: str | Path | bool | None = None, fresh: bool = False, device: str = "auto",
    batch_size: int | None = None, compiled: bool | None = None,
    progress: bool | Callable[[Progress], None] | None = None, workers: int | None = 1,
    executor: Executor | None = None, shard: str | None = None,
    inputs: Literal["all"] | int | None = None, samples: int | None = None, selection_samples: int = 100,
    goal: Literal["radii", "radius", "fixed"] | None = None, settle: str = "exact",
    relative_precision: float = 0.1, failure_probability: float = 0.001, scores: str = "hard",
    score_temperature: float = 1.0, gate: float = 0.0, standard_temperature: float = 1.0,
    tuned: str | PathLike[str] = "auto", bound: str | None = None,
    certificates: str | Sequence[str] | None = None, radii: float | Sequence[float] | None = None,
    seed: int = 0, precision: str = "auto", noise: str | None = None, scale: float | None = None,
    norm: str | float | None = None, dimension: int | None = None, all_at_once: bool = False,
    bound_method: str = "crown-ibp", arithmetic: Literal["float32", "exact"] = "float32",
    max_radius: float | None = None, lipschitz_constant: float | None = None, constant_of: str = "logits",
    patch: int = 5, split: str | PathLike[str] | None = None,
    input_range: tuple[float, float] | None = (0.0, 1.0), resize: int | None = None,
    crop: int | None = None, label_column: str | PathLike[str] | None = None,
    feature_scale: tuple[float, ...] | str | PathLike[str] | None = None,
    standard: nn.Module | str | PathLike[str] | None = "cifar10-standard",
    standard_weights: str | PathLike[str] | None = None,
    standard_normalize: str | PathLike[str] | None = None, standard_outputs: str | None = None,
    standard_files: str | Sequence[str] = (), robust: nn.Module | str | PathLike[str] | None = None,
    robust_weights: str | PathLike[str] | None = None,
    robust_normalize: str | PathLike[str] | None = None, robust_outputs: str | None = None,
    robust_files: str | Sequence[str] = (), denoiser: nn.Module | str | PathLike[str] | None = None,
    run_code: bool = False, engine: str = "local", gpus_per_worker: float | None = None,
    ray_address: str | PathLike[str] | None = None,
) -> CertifyResult: ...
def attack(
    models: Models = None, data: Data = None, *, alpha: float | None = None,
    standard_temperature: float = 1.0, save: str | Path | None = None,
    output: str | Path | bool | None = None, fresh: bool = False, device: str = "auto",
    progress: bool | Callable[[Progress], None] | None = None, attack: str = "pgd",
    norm: str | float = "linf", eps: float | None = None, steps: int | None = None, restarts: int = 1,
    inputs: Literal["all"] | int = 100, seed: int = 0, batch_size: int = 100, precision: str = "fp32",
    split: str | PathLike[str] | None = None, input_range: tuple[float, float] | None = (0.0, 1.0),
    resize: int | None = None, crop: int | None = None, label_column: str | PathLike[str] | None = None,
    feature_scale: tuple[float, ...] | str | PathLike[str] | None = None,
    standard: nn.Module | str | PathLike[str] | None = "cifar10-standard",
    standard_weights: str | PathLike[str] | None = None,
    standard_normalize: str | PathLike[str] | None = None, standard_outputs: str | None = None,
    standard_files: str | Sequence[str] = (), robust: nn.Module | str | PathLike[str] | None = None,
    robust_weights: str | PathLike[str] | None = None,
    robust_normalize: str | PathLike[str] | None = None, robust_outputs: str | None = None,
    robust_files: str | Sequence[str] = (), denoiser: nn.Module | str | PathLike[str] | None = None,
    run_code: bool = False,
) -> StudyResult: ...
def compare_trust(
    models: Models = None, data: Data = None, *,
    trusts: str | Sequence[str] = ("constant", "max-gradient"),
    forms: str | Sequence[str] = ("probabilities", "logits"), norms: str | Sequence[str] = "linf",
    weights: Sequence[float] = (0.25, 0.5, 0.6, 0.75, 0.9), output: str | Path | bool | None = None,
    fresh: bool = False, device: str = "auto", progress: bool | Callable[[Progress], None] | None = None,
    attack: str = "pgd", eps: float | None = None, steps: int | None = 10, restarts: int = 1,
    inputs: Literal["all"] | int = 100, seed: int = 0, batch_size: int = 100, precision: str = "fp32",
    split: str | PathLike[str] | None = None, input_range: tuple[float, float] | None = (0.0, 1.0),
    resize: int | None = None, crop: int | None = None, label_column: str | PathLike[str] | None = None,
    feature_scale: tuple[float, ...] | str | PathLike[str] | None = None,
    standard: nn.Module | str | PathLike[str] | None = "cifar10-standard",
    standard_weights: str | PathLike[str] | None = None,
    standard_normalize: str | PathLike[str] | None = None, standard_outputs: str | None = None,
    standard_files: str | Sequence[str] = (), robust: nn.Module | str | PathLike[str] | None = None,
    robust_weights: str | PathLike[str] | None = None,
    robust_normalize: str | PathLike[str] | None = None, robust_outputs: str | None = None,
    robust_files: str | Sequence[str] = (), denoiser: nn.Module | str | PathLike[str] | None = None,
    run_code: bool = False,
) -> StudyResult: ...
def confidence(
    models: Models = None, data: Data = None, *, output: str | Path | bool | None = None,
    fresh: bool = False, device: str = "auto", progress: bool | Callable[[Progress], None] | None = None,
    attack: str = "pgd", norm: str | float = "linf", eps: float | None = None, steps: int | None = 20,
    restarts: int = 1, inputs: Literal["all"] | int = 200, seed: int = 0, batch_size: int = 100,
    precision: str = "fp32", split: str | PathLike[str] | None = None,
    input_range: tuple[float, float] | None = (0.0, 1.0), resize: int | None = None,
    crop: int | None = None, label_column: str | PathLike[str] | None = None,
    feature_scale: tuple[float, ...] | str | PathLike[str] | None = None,
    standard: nn.Module | str | PathLike[str] | None = "cifar10-standard",
    standard_weights: str | PathLike[str] | None = None,
    standard_normalize: str | PathLike[str] | None = None, standard_outputs: str | None = None,
    standard_files: str | Sequence[str] = (), robust: nn.Module | str | PathLike[str] | None = None,
    robust_weights: str | PathLike[str] | None = None,
    robust_normalize: str | PathLike[str] | None = None, robust_outputs: str | None = None,
    robust_files: str | Sequence[str] = (), denoiser: nn.Module | str | PathLike[str] | None = None,
    run_code: bool = False,
) -> StudyResult: ...
def evidence(
    target: Run, output: str | Path, models: Models = None, data: Data = None, *,
    progress: bool | Callable[[Progress], None] | None = None, runs: str | PathLike[str] = "runs",
    resample: int = 5, resample_samples: int = 1000, new_seed: int | None = None,
    error_rate: float = 0.001, budget: int | None = None, fresh: bool = False,
    batch_size: int | None = None, device: str | PathLike[str] = "auto", run_code: bool = False,
) -> Evidence: ...
def falsify(
    run: Run, models: Models = None, data: Data = None, *, output: str | Path | None = None,
    device: str = "auto", progress: bool | Callable[[Progress], None] | None = None,
    inputs: Literal["all"] | int = 25, alpha: float | None = None, certificate: str | None = None,
    steps: int = 20, copies: int = 32, restarts: int = 4, samples: int = 10000, error_rate: float = 0.01,
    seed: int = 0, run_code: bool = False, gate: float | None = None,
) -> Falsification: ...
def guarantee_check(
    file: str | Path,
) -> Guarantee: ...
def guarantee_init(
    run: Run, models: Models = None, data: Data = None, *, output: str | Path = "guarantee.toml",
    slack: float = 0.02, pin: bool = False, groups: Mapping[str, str] | None = None,
    per: str | Sequence[str] = (), budget: int | None = None, force: bool = False,
    confidence: float = 0.95, unit: str | PathLike[str] | None = None,
    domain: str | PathLike[str] | None = None,
) -> Guarantee: ...
def lipschitz(
    models: Models = None, data: Data = None, *, of: str = "probabilities", ratio: str | None = None,
    alpha: float | None = None, check: float | None = None, output: str | Path | bool | None = None,
    fresh: bool = False, device: str = "auto", progress: bool | Callable[[Progress], None] | None = None,
    norm: str | float = "linf", eps: float | None = None, steps: int | None = 20, restarts: int = 2,
    inputs: Literal["all"] | int = 20, seed: int = 0, batch_size: int = 100, precision: str = "fp32",
    split: str | PathLike[str] | None = None, input_range: tuple[float, float] | None = (0.0, 1.0),
    resize: int | None = None, crop: int | None = None, label_column: str | PathLike[str] | None = None,
    feature_scale: tuple[float, ...] | str | PathLike[str] | None = None,
    robust: nn.Module | str | PathLike[str] | None = None,
    robust_weights: str | PathLike[str] | None = None,
    robust_normalize: str | PathLike[str] | None = None, robust_outputs: str | None = None,
    robust_files: str | Sequence[str] = (), denoiser: nn.Module | str | PathLike[str] | None = None,
    run_code: bool = False,
) -> StudyResult: ...
def mix_sweep(
    models: Models = None, data: Data = None, *, alphas: Sequence[float] | None = None,
    standard_temperature: float = 1.0, output: str | Path | bool | None = None, fresh: bool = False,
    device: str = "auto", progress: bool | Callable[[Progress], None] | None = None, attack: str = "pgd",
    norm: str | float = "linf", eps: float | None = None, steps: int | None = 20, restarts: int = 1,
    inputs: Literal["all"] | int = 100, seed: int = 0, batch_size: int = 100, precision: str = "fp32",
    split: str | PathLike[str] | None = None, input_range: tuple[float, float] | None = (0.0, 1.0),
    resize: int | None = None, crop: int | None = None, label_column: str | PathLike[str] | None = None,
    feature_scale: tuple[float, ...] | str | PathLike[str] | None = None,
    standard: nn.Module | str | PathLike[str] | None = "cifar10-standard",
    standard_weights: str | PathLike[str] | None = None,
    standard_normalize: str | PathLike[str] | None = None, standard_outputs: str | None = None,
    standard_files: str | Sequence[str] = (), robust: nn.Module | str | PathLike[str] | None = None,
    robust_weights: str | PathLike[str] | None = None,
    robust_normalize: str | PathLike[str] | None = None, robust_outputs: str | None = None,
    robust_files: str | Sequence[str] = (), denoiser: nn.Module | str | PathLike[str] | None = None,
    run_code: bool = False,
) -> StudyResult: ...
def nuts_evaluate(
    mix: str | Path | StudyResult, data: Data = None, *, plain_alphas: Sequence[float] = (0.6, 0.75, 0.9),
    targets: int = 9, queries: int = 500, r_d_sweep: Sequence[float] = (0.0, 0.3, 0.6, 0.9),
    sweep_inputs: int = 50, autoattack: bool = False, output: str | Path | bool | None = None,
    fresh: bool = False, device: str = "auto", progress: bool | Callable[[Progress], None] | None = None,
    norm: str | float = "linf", eps: float | None = None, steps: int | None = 20, restarts: int = 1,
    inputs: Literal["all"] | int = 100, seed: int = 0, batch_size: int = 100, precision: str = "fp32",
    split: str | PathLike[str] | None = None, input_range: tuple[float, float] | None = (0.0, 1.0),
    resize: int | None = None, crop: int | None = None, label_column: str | PathLike[str] | None = None,
    feature_scale: tuple[float, ...] | str | PathLike[str] | None = None,
    denoiser: nn.Module | str | PathLike[str] | None = None, run_code: bool = False,
) -> StudyResult: ...
def nuts_fit(
    models: Models = None, data: Data = None, *, logits: str | Path | None = None,
    published: str | None = None, certified: bool = False, output: str | Path | bool | None = None,
    fresh: bool = False, device: str = "auto", progress: bool | Callable[[Progress], None] | None = None,
    preset: str = "cifar10", beta: float | None = None, clamp: str = "gelu",
    grid: str | PathLike[str] | None = None, quantile: str = "conservative", rival: str = "label",
    conditional: bool = False, standard_temperature: float = 0.0, r_d: float = 0.9,
    gradient_free: bool = False, early_stop: bool = True, copy_weights: bool = False,
    sigma: float | None = None, at_radius: float | None = None, inputs: Literal["all"] | int | None = 200,
    noisy_samples: int = 200, clean_accuracy_floor: float | None = None,
    certify_inputs: Literal["all"] | int = 100, samples: int = 2000, selection_samples: int = 100,
    failure_probability: float = 0.001, bound: str = "betting-fixed", seed: int = 0,
    precision: str = "fp32", batch_size: int | None = None, norm: str | float = "linf",
    eps: float | None = None, steps: int | None = 50, restarts: int = 1,
    split: str | PathLike[str] | None = None, input_range: tuple[float, float] | None = (0.0, 1.0),
    resize: int | None = None, crop: int | None = None, label_column: str | PathLike[str] | None = None,
    feature_scale: tuple[float, ...] | str | PathLike[str] | None = None,
    standard: nn.Module | str | PathLike[str] | None = "cifar10-standard",
    standard_weights: str | PathLike[str] | None = None,
    standard_normalize: str | PathLike[str] | None = None, standard_outputs: str | None = None,
    standard_files: str | Sequence[str] = (), robust: nn.Module | str | PathLike[str] | None = None,
    robust_weights: str | PathLike[str] | None = None,
    robust_normalize: str | PathLike[str] | None = None, robust_outputs: str | None = None,
    robust_files: str | Sequence[str] = (), denoiser: nn.Module | str | PathLike[str] | None = None,
    run_code: bool = False,
) -> StudyResult: ...
def recertify(
    sources: Run | Sequence[Run], *, sigma: float | Sequence[float] | None = None,
    alpha: float | None = None, as_printed: bool = False, assume_selected: bool = False,
    rows: int | None = None, best: bool = False, failure_probability: float | None = None,
    gate: float | None = None, standard_temperature: float | None = None,
    tuned: str | PathLike[str] | None = None, bound: str | None = None,
    certificates: str | Sequence[str] | None = None, radii: float | Sequence[float] | None = None,
    noise: str | None = None, scale: float | None = None,
) -> CertifyResult: ...
def report(
    runs: Run | Sequence[Run], *, output: str | Path | None = None, title: str | None = None,
    inputs: int = 6,
) -> Path: ...
def reproduce(
    run: Run, models: Models = None, data: Data = None, *, output: str | Path, device: str = "auto",
    run_code: bool = False, progress: bool | Callable[[Progress], None] | None = None,
) -> Reproduction: ...
def trade_off(
    sources: Run | Sequence[Run], *, sigma: float | Sequence[float] | None = None,
    at_radius: float = 0.25, certificates: str | Sequence[str] | None = None,
    match_clean_accuracy: float | str | None = None, standard_accuracy: float | None = None,
    as_printed: bool = False, assume_selected: bool = False, gate: float | None = None,
    standard_temperature: float | None = None,
) -> TradeOff: ...
def verify(
    target: Run, models: Models = None, data: Data = None, *,
    progress: bool | Callable[[Progress], None] | None = None, runs: str | PathLike[str] = "runs",
    resample: int = 5, resample_samples: int = 1000, new_seed: int | None = None,
    error_rate: float = 0.001, budget: int | None = None, proof: str | PathLike[str] | None = None,
    fresh: bool = False, batch_size: int | None = None, device: str | PathLike[str] = "auto",
    run_code: bool = False,
) -> Verification: ...
