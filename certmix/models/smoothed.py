"""A classifier smoothed by Gaussian noise: predictions and certificates from votes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from certmix.bounds import bound_counts, is_established
from certmix.radii import certify_radii
from certmix.sampling import Sampler
from certmix.types import CertifiedRadii, IntArray

__all__ = ["Predictions", "SmoothedCertificates", "SmoothedClassifier"]


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

    Parameters
    ----------
    base
        Gives logits (N, classes); it is put in evaluation mode.
    sigma
        Noise level, in units of the input.
    classes
        Number of classes; found with one forward pass if not given.
    seed, device, precision, batch_size
        As for `certmix.sampling.Sampler`.

    Examples
    --------
    >>> import torch
    >>> smooth = SmoothedClassifier(torch.nn.Linear(2, 2), sigma=0.5)
    >>> certificates = smooth.certify(torch.zeros(1, 2), samples=200)
    >>> certificates.radii.norm
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
        self.base, self.sigma, self.classes, self.seed = base.eval(), sigma, classes, seed
        self._settings: dict[str, Any] = {"device": device, "precision": precision, "batch_size": batch_size}
        self.base.to(device)

    def counts(self, inputs: Tensor, samples: int, *, stream: str = "estimation") -> IntArray:
        """Return the votes int64 (m, classes) of `samples` noisy copies of each input (m, ...)."""
        if self.classes is None:
            with torch.inference_mode():
                self.classes = self.base(inputs[:1].to(self._settings["device"])).shape[1]
        sampler = Sampler(self.base, self.classes, self.sigma, self.seed, **self._settings)
        return np.stack([sampler.votes(x, i, [samples], stream=stream)[0] for i, x in enumerate(inputs)])

    def predict(self, inputs: Tensor, samples: int = 1000, failure_probability: float = 0.001) -> Predictions:
        """Return the most probable class of each input, or abstain.

        A wrong class is established with at most `failure_probability`
        (a binomial test on the two most voted classes).

        Parameters
        ----------
        inputs
            Shape (m, ...).
        samples, failure_probability
            Noisy copies of each input, and the error rate of the test.
        """
        counts = self.counts(inputs, samples)
        top = np.sort(counts, axis=1)[:, -2:]
        established = [is_established(int(b), int(a), failure_probability) for a, b in top]
        return Predictions(counts.argmax(1), np.array(established, bool))

    def certify(
        self,
        inputs: Tensor,
        samples: int = 1000,
        failure_probability: float = 0.001,
        *,
        selection_samples: int = 100,
        alpha: float = 1.0,
        bound: str = "clopper-pearson",
        certificate: str = "exact",
    ) -> SmoothedCertificates:
        """Return each input's class and certified l2 radius, alone or mixed.

        Parameters
        ----------
        inputs
            Shape (m, ...).
        samples, selection_samples
            Fresh samples that bound the probabilities, and those that choose the class.
        failure_probability
            Of one input's certificate.
        alpha
            Mixing weight in [1/2, 1] with an arbitrary other classifier; 1 is
            the smoothed classifier alone.
        bound, certificate
            Names in `certmix.bounds.BOUNDS` and `certmix.radii.CERTIFICATES`.
        """
        selected = self.counts(inputs, selection_samples, stream="selection").argmax(1)
        bounds = bound_counts(self.counts(inputs, samples), selected, failure_probability, bound)
        radii = certify_radii(bounds, sigma=self.sigma, alpha=alpha, certificate=certificate)
        return SmoothedCertificates(selected, radii)
