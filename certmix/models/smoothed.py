"""A classifier smoothed by Gaussian noise: predictions and certificates from votes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from certmix.bounds import bound_counts, is_established
from certmix.bounds.bound import allow_for_noise
from certmix.calling import call_model
from certmix.errors import ModelError, ParameterError
from certmix.models.foreign import evaluating
from certmix.radii import certify_radii, margin_slack_of
from certmix.sampling import Sampler
from certmix.sampling.devices import AUTO, automatic_precision
from certmix.sampling.grid import Grid, GridPoint
from certmix.sampling.law import noise_error
from certmix.types import CertifiedRadii, IntArray


@dataclass(frozen=True)
class Predictions:
    """Classes (m,) and whether each is established; where it is not, the classifier abstains."""

    classes: IntArray
    established: NDArray[np.bool_]


@dataclass(frozen=True)
class SmoothedCertificates:
    """Selected classes (m,) and their certified radii."""

    classes: IntArray
    radii: CertifiedRadii


class SmoothedClassifier:
    """h(x) = the distribution of base(x + N(0, sigma^2 I))'s answer, estimated by votes.

    Noise is keyed by what an input holds: equal inputs see equal noise, others independent noise, however
    they are divided into calls.  base sees noisy inputs rounded to a grid (docs/noise.md), and radii are
    about the inputs as they were given: floating-point tensors or arrays (m, ...), or one input without the
    first dimension.  Integers, such as 8-bit pixels, are refused.

    Parameters
    ----------
    base, classes
        Gives logits (N, classes) and is put in evaluation mode; found with one forward pass if not given.
    sigma
        Noise level, like radii in units of the input.
    seed, device, precision, batch_size
        As for `certmix.sampling.Sampler`; precision may be ``auto``: bf16 where the device computes it
        natively, else ``fp32``.

    Examples
    --------
    >>> import torch
    >>> smooth = SmoothedClassifier(torch.nn.Linear(2, 2), sigma=0.5)
    >>> smooth.certify(torch.zeros(1, 2), samples=200).radii.norm
    'l2'
    """

    def __init__(
        self,
        base: nn.Module,
        sigma: float,
        *,
        classes: int | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        batch_size: int | None = None,
    ) -> None:
        self.base, self.sigma, self.classes, self.seed = evaluating(base), sigma, classes, seed
        precision = automatic_precision(device) if precision == AUTO else precision
        self._settings: dict[str, Any] = {"device": device, "precision": precision, "batch_size": batch_size}
        self.base.to(device)
        self._dimensions: int | None = None
        self._sampler: tuple[tuple[int, float, int], Sampler] | None = None

    def _batch(self, inputs: Tensor | NDArray[Any]) -> Tensor:
        """Return float32 or float64 inputs (m, ...); the first time, find out what one input is."""
        try:
            given = torch.as_tensor(inputs)
        except (TypeError, ValueError, RuntimeError) as error:
            kind = type(inputs).__name__
            raise ParameterError(f"inputs of type {kind} are no numbers: give a tensor (m, ...)") from error
        if not given.is_floating_point() or given.ndim == 0:
            found = f"inputs are {str(given.dtype).removeprefix('torch.')} of shape {tuple(given.shape)}"
            raise ParameterError(
                f"{found}: give floating point (m, ...) in the units of sigma, such as pixels.float() / 255"
            )
        values = given.detach().to(torch.promote_types(given.dtype, torch.float32))
        if self._dimensions is None:  # a batch is tried, then one input
            self._dimensions, batch = values.ndim - 1, values[:1]
            if not len(values):
                batch = values.new_zeros((1, *values.shape[1:]))
            with torch.inference_mode():
                try:
                    classes = call_model(self.base, batch).shape[1]
                except ModelError as refused:
                    try:
                        classes = call_model(self.base, values[None]).shape[1]
                    except ModelError:
                        self._dimensions = None
                        raise refused from None
                    self._dimensions = values.ndim
            self.classes = self.classes or classes
        if values.ndim == self._dimensions:
            return values[None]
        if values.ndim != self._dimensions + 1:
            raise ParameterError(
                f"inputs have shape {tuple(values.shape)}, and one input had {self._dimensions} dimensions "
                "before: give (m, ...)"
            )
        return values

    def counts(
        self,
        inputs: Tensor | NDArray[Any],
        samples: int,
        *,
        stream: str = "estimation",
        indices: Sequence[int] | None = None,
    ) -> IntArray:
        """Return the votes int64 (m, classes) of `samples` noisy copies of each input (m, ...).

        `stream` is ``estimation`` or ``selection``: independent noise.  `indices`, a number of 0..2^64 - 1
        for each input, key its noise instead of its content.
        """
        inputs = self._batch(inputs)
        assert self.classes is not None
        if not len(inputs):
            return np.zeros((0, self.classes), np.int64)
        wanted = (self.classes, self.sigma, self.seed)
        if self._sampler is None or self._sampler[0] != wanted:  # kept: its first batch checks the model
            self._sampler = wanted, Sampler(self.base, *wanted, **self._settings)
        sampler = self._sampler[1]
        if indices is None:  # a hash of each input's shape and grid point
            shape = f"certmix input 1/{tuple(inputs.shape[1:])}/".encode()
            texts = [shape + _point(x, self.sigma).steps.tobytes() for x in inputs]
            digests = [hashlib.blake2b(text, digest_size=8).digest() for text in texts]
            indices = [int.from_bytes(digest, "little") for digest in digests]
        pairs = zip(inputs, indices, strict=True)
        return np.stack([sampler.votes(x, key, [samples], stream=stream)[0] for x, key in pairs])

    def predict(
        self, inputs: Tensor | NDArray[Any], samples: int = 1000, failure_probability: float = 0.001
    ) -> Predictions:
        """Return the most probable class of each input, or abstain.

        A wrong class is established with at most `failure_probability` (a binomial test on the two most voted
        classes of `samples`, at what n eps, the distance of all noise from the Gaussian, leaves of it).
        """
        inputs = self._batch(inputs)
        counts = self.counts(inputs, samples)
        if self._sampler is not None and self._sampler[1].places > 1:
            raise ModelError(
                "the base's logits depend on a row's place in the batch, where the test behind predict is "
                "not proved: use certify"
            )
        top = np.sort(counts, axis=1)[:, -2:]
        left = failure_probability - samples * noise_error(self.sigma, inputs.shape[1:].numel())
        established = [left > 0 and is_established(int(b), int(a), left) for a, b in top]
        return Predictions(counts.argmax(1), np.array(established, bool))

    def certify(
        self,
        inputs: Tensor | NDArray[Any],
        samples: int = 1000,
        failure_probability: float = 0.001,
        *,
        selection_samples: int = 100,
        alpha: float = 1.0,
        bound: str = "clopper-pearson",
        certificate: str = "exact",
    ) -> SmoothedCertificates:
        """Return each input's class and certified l2 radius, alone or mixed.

        `selection_samples` choose the class, `samples` fresh ones bound the probabilities;
        `failure_probability` is that of one input's certificate.  `alpha` in [1/2, 1] is the mixing weight
        with an arbitrary other classifier; 1 is the smoothed classifier alone.  `bound` and `certificate` are
        names in `certmix.bounds.BOUNDS` and `certmix.radii.CERTIFICATES`.
        """
        inputs = self._batch(inputs)
        selected = self.counts(inputs, selection_samples, stream="selection").argmax(1)
        bounds = bound_counts(self.counts(inputs, samples), selected, failure_probability, bound)
        lost = np.array([_point(x, self.sigma).distance for x in inputs], np.float64)
        bounds = allow_for_noise(bounds, noise_error(self.sigma, inputs.shape[1:].numel()), lost)
        slack = margin_slack_of(alpha)
        radii = certify_radii(
            bounds, sigma=self.sigma, alpha=alpha, certificate=certificate, margin_slack=slack
        )
        return SmoothedCertificates(selected, radii)


def _point(image: Tensor, sigma: float) -> GridPoint:
    return Grid.of(sigma).nearest(image.cpu().numpy())
