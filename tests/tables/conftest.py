"""A small summary with figures chosen to catch roundings, and a realistic run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import beta, norm

from certmix.types import CertifiedAccuracy, CleanAccuracy, Curve, Summary

SMALL = Summary(
    sigma=0.5,
    alpha=0.76,
    images=100,
    failure_probability=0.001,
    radii=(0.0, 0.25),
    clean_accuracy=CleanAccuracy(0.95, 0.57, None),
    rows=(
        CertifiedAccuracy("robust", "exact", (0.57, 0.29), ((0.4671, 0.6687), (0.2036, 0.38931)), 0.12367),
        CertifiedAccuracy("mixed", "smoothing", (0.07, 0.0), ((0.0286, 0.139), (0.0, 0.0363)), 0.0299999),
    ),
    planned_images=100,
    samples=10_000,
    selection_samples=100,
    seed=7,
    data="shapes_10",
    standard="std&co",
    robust="rob#1",
    abstained=1,
    notes=("alpha was chosen on 50% of the images",),
)


@dataclass(frozen=True)
class Run:
    summary: Summary
    curves: list[Curve]


def _interval(count: int, images: int) -> tuple[float, float]:
    low = 0.0 if count == 0 else float(beta.ppf(0.025, count, images - count + 1))
    high = 1.0 if count == images else float(beta.ppf(0.975, count + 1, images - count))
    return low, high


def make_run(radii: tuple[float, ...], images: int = 200, **changes: object) -> Run:
    """Return a run with four certificates of the mix below the robust classifier."""
    sigma, alpha = 0.5, 0.76
    rng = np.random.default_rng(3)
    p = np.clip(rng.beta(1.5, 0.3, images), 1e-4, 0.9999)
    lipschitz = (alpha * (2 * p - 1) + alpha - 1) / (2 * alpha) * sigma * np.sqrt(2 * np.pi)
    columns = {
        ("robust", "exact"): sigma * norm.ppf(p),
        ("mixed", "exact"): sigma * (norm.ppf(p) - norm.ppf(1 / (2 * alpha))),
        ("mixed", "smoothing"): sigma / 2 * (norm.ppf(alpha * p) - norm.ppf(1 - alpha * p)),
        ("mixed", "lipschitz"): lipschitz,
        ("mixed", "lipschitz-paper"): lipschitz / 2,
    }
    rows, curves = [], []
    for (classifier, certificate), raw in columns.items():
        radius = np.maximum(raw, 0.0)
        counts = [int(np.sum(radius > 0 if r == 0 else radius >= r)) for r in radii]
        rows.append(
            CertifiedAccuracy(
                classifier,
                certificate,
                tuple(count / images for count in counts),
                tuple(_interval(count, images) for count in counts),
                float(radius.mean()),
            )
        )
        curves.append(Curve(classifier, certificate, radius, images, 0.9))
    fields: dict[str, object] = {"samples": 100_000, "data": "cifar10", "abstained": 3, **changes}
    summary = Summary(
        sigma, alpha, images, 0.001, radii, CleanAccuracy(0.95, 0.9, 0.92), tuple(rows), **fields
    )
    return Run(summary, curves)


@pytest.fixture
def small() -> Summary:
    return SMALL


@pytest.fixture
def run_with() -> Callable[..., Run]:
    return make_run
