"""What a user asks of the certified fit, validated once."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from certmix.bounds import bounds_of
from certmix.certification.request import CertifyRequest, check_batch_size
from certmix.errors import ParameterError
from certmix.nuts.grid import CLAMP_NAMES, GRIDS, TOP_K, Grid, check_choice, parse_grid
from certmix.runs.keywords import plain_numbers
from certmix.runs.settings import Images

__all__ = ["CERTIFIED_GRID", "CertifiedRequest"]

CERTIFIED_GRID = "s=0.5:500:8,p=1:6:6,c=-2:0:8"
"""The default grid: up to transforms that all but count votes."""


@dataclass(frozen=True)
class CertifiedRequest:
    """What to choose a transform for, on what, and how to certify it.

    Parameters
    ----------
    sigma
        Noise level of h, in units of the input.
    at_radius
        The l2 radius whose certified accuracy counts; 0 stands for any radius > 0.
    images, noisy_samples
        Tuning images, spread over the data, and noisy copies of each.
    clean_accuracy_floor
        Least clean accuracy of the mix on the tuning images.  None takes the
        middle between h's votes alone and g alone, on the same images.
    certify_images, samples, selection_samples, failure_probability
        Of the certification: images, spread over the rest, and as in `CertifyRequest`; every image
        gets the same number of samples, which is fixed beforehand.
    bound
        Bound of mean scores, a name in `certmix.bounds.BOUNDS`.
    clamp, preset, grid
        Clamp by name; preset whose LN is used; candidates, None for `CERTIFIED_GRID`.
    seed, precision, batch_size
        Key of all noise; arithmetic and size of forward passes.
    copy_weights
        Bundle the base models' weights with the mix.

    Raises
    ------
    ParameterError
        For any value out of range.
    """

    sigma: float
    at_radius: float
    images: int | str = 200
    noisy_samples: int = 200
    clean_accuracy_floor: float | None = None
    certify_images: Images = 100
    samples: int = 2000
    selection_samples: int = 100
    failure_probability: float = 0.001
    bound: str = "betting-fixed"
    clamp: str = "gelu"
    preset: str = "cifar10"
    grid: str | None = None
    seed: int = 0
    precision: str = "fp32"
    batch_size: int | None = None
    copy_weights: bool = False

    def __post_init__(self) -> None:
        plain_numbers(self)
        if not (self.at_radius >= 0 and math.isfinite(self.at_radius)):
            raise ParameterError(f"at radius = {self.at_radius}: give a finite l2 radius >= 0, such as 0.5")
        if self.images == "all":
            raise ParameterError("images = all: some must be left to certify: give a number of tuning images")
        if not isinstance(self.images, int) or self.images < 1:
            raise ParameterError(f"images = {self.images}: give a number of at least 1")
        if self.noisy_samples < 2:
            raise ParameterError(f"noisy samples = {self.noisy_samples}: at least 2 are needed")
        if self.samples < 2:
            raise ParameterError(f"samples = {self.samples}: bounds of mean scores need at least 2")
        floor = self.clean_accuracy_floor
        if floor is not None and not 0.0 <= floor <= 1.0:
            raise ParameterError(f"clean accuracy floor = {floor}: it must lie in [0, 1], such as 0.8")
        bounds = bounds_of("soft", distribution=False)
        if self.bound not in bounds:
            raise ParameterError(f"bound {self.bound!r} is unknown: use one of {', '.join(bounds)}")
        if self.preset not in GRIDS:
            raise ParameterError(f"preset {self.preset!r} is unknown: use one of {', '.join(GRIDS)}")
        check_choice("clamp", self.clamp, CLAMP_NAMES)
        check_batch_size(self.batch_size)
        parse_grid(self.grid or CERTIFIED_GRID)
        self.certify("soft", self.bound, 1.0)

    @property
    def candidates(self) -> Grid:
        """The grid of s, p and c."""
        return parse_grid(self.grid or CERTIFIED_GRID)

    @property
    def top_k(self) -> int | None:
        """Logits behind LN's mean and variance."""
        return TOP_K[self.preset]

    def certify(self, scores: str, bound: str, alpha: float) -> CertifyRequest:
        """Return the certification of one candidate, the same for all but these."""
        return CertifyRequest(
            self.sigma, alpha, images=self.certify_images, samples=self.samples,
            selection_samples=self.selection_samples, goal="fixed", scores=scores, bound=bound,
            failure_probability=self.failure_probability, certificates=("exact",),
            radii=(0.0, self.at_radius) if self.at_radius > 0 else (0.0,), seed=self.seed,
            precision=self.precision,
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``run.json``."""
        return asdict(self)

    def identity(self) -> dict[str, Any]:
        """Return the part that decides which noisy logits are drawn."""
        names = ("sigma", "noisy_samples", "seed", "precision")
        return {name: getattr(self, name) for name in names}
