"""A classifier smoothed by noise, alone or mixed: predictions and certificates from votes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from certmix.bounds import bound_counts, clopper_pearson, is_established
from certmix.bounds.bound import allow_for_noise
from certmix.calling import call_model
from certmix.data.scales import check_scale, spread_scale
from certmix.errors import ModelError, ParameterError, check_choice
from certmix.models.composed import at_sigma
from certmix.models.foreign import evaluating
from certmix.models.spec import behind, wrap_model
from certmix.models.temperature import answer_of, check_mix, mix_shares, sharpened
from certmix.radii import MARGIN_SLACK, SMOOTHINGS, Smoothing, certify_radii, margin_slack_of
from certmix.radii.smoothings import GAUSSIAN
from certmix.sampling import Sampler
from certmix.sampling.ballots import LEVELS, level_of
from certmix.sampling.devices import AUTO, automatic_precision, full_float32, refuse_tf32
from certmix.sampling.enumerated import Views
from certmix.sampling.grid import Grid, GridPoint
from certmix.sampling.law import noise_error
from certmix.types import CertifiedRadii, ConfidenceBounds, FloatArray, IntArray

__all__ = ["Predictions", "SmoothedCertificates", "SmoothedClassifier", "SmoothedMixture"]

_AT_ONCE = 256
"""Inputs that g takes at once."""


@dataclass(frozen=True)
class Predictions:
    """Classes (m,), -1 without a vote, and whether each is established; else the classifier abstains."""

    classes: IntArray
    established: NDArray[np.bool_]


@dataclass(frozen=True)
class SmoothedCertificates:
    """Selected classes (m,), -1 for none, and their certified radii."""

    classes: IntArray
    radii: CertifiedRadii


class SmoothedClassifier:
    """h(x) = the distribution of base's answer to x with noise, N(0, sigma^2 I) or another; by votes.

    Noise is keyed by what an input holds: equal inputs see equal noise, others independent noise, however
    they are divided into calls.  base sees noisy inputs rounded to a grid (docs/noise.md), and radii are
    about the inputs as they were given: floating-point tensors or arrays (m, ...), or one input without the
    first dimension.  Integers, such as 8-bit pixels, are refused.

    Parameters
    ----------
    base, classes
        Gives logits (N, classes) and is put in evaluation mode; found with one forward pass if not given.
    denoiser
        Put in front of `base`, which then need not be trained for noise: a module that maps inputs to inputs
        of the same shape, or a spec as for ``--denoiser``, such as ``cifar10-denoiser-0.50``.  h is that of
        the two as one function.
    sigma
        Level of Gaussian noise, like radii in units of the input, or of its feature scales.
    noise, scale, norm
        Another kind of noise that is sampled, how much of it, and the norm of radii, that of the noise if not
        given: as ``--noise``, ``--scale`` and ``--norm`` of a certification.
    feature_scale
        A positive number for each value of an input, for each channel (first axis), or one for all: noise
        then has the standard deviation sigma times scale, and a radius r is about inputs x' with
        ``sum(((x' - x) / feature_scale)**2) <= r**2``.  As ``--feature-scale`` of a certification.
    gate
        Count a noisy copy's answer only if its largest softmax probability is at least this, a multiple of
        0.05 up to 0.95: else the copy abstains, h_i(x) = P[the copy answers i and is so sure], and h adds up
        to at most 1.  As ``--gate`` of a certification, which must have the same.
    seed, device, precision, batch_size
        As for `certmix.sampling.Sampler`; precision may be ``auto``: bf16 where the device computes it
        natively, else ``fp32``.

    Examples
    --------
    >>> import torch
    >>> smooth = SmoothedClassifier(torch.nn.Linear(2, 2), sigma=0.5)
    >>> smooth.certify(torch.zeros(1, 2), samples=200).radii.norm
    'l2'
    >>> smooth = SmoothedClassifier(torch.nn.Linear(2, 2), noise="laplace", scale=0.5)
    >>> smooth.certify(torch.zeros(1, 2), samples=200).radii.norm
    'l1'
    """

    def __init__(
        self,
        base: nn.Module,
        sigma: float | None = None,
        *,
        noise: str = GAUSSIAN,
        scale: float | None = None,
        norm: str = "",
        classes: int | None = None,
        denoiser: nn.Module | str | None = None,
        feature_scale: Sequence[float] | FloatArray | Tensor | float | None = None,
        gate: float = 0.0,
        seed: int = 0,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        batch_size: int | None = None,
    ) -> None:
        self.feature_scale = None if feature_scale is None else check_scale(feature_scale)
        self._scale: FloatArray | None = None
        self.smoothing = _noise_of(sigma, noise, scale, norm)
        for name, value, least in (("classes", classes, 2), ("batch size", batch_size, 1)):
            if value is not None and (not isinstance(value, Integral) or value < least):
                raise ParameterError(f"{name} = {value!a:.60}: give a whole number of at least {least}")
        if denoiser is not None:
            named = at_sigma(denoiser, sigma) if isinstance(denoiser, str) and sigma else denoiser
            base = behind(named, wrap_model(base, device=device), device=device).module
        self.base, self.classes, self.seed = evaluating(base), classes, seed
        self.gate, self.device = level_of(gate) / LEVELS, torch.device(device)
        precision = automatic_precision(device) if precision == AUTO else precision
        refuse_tf32(precision, device)
        self._settings: dict[str, Any] = {"device": device, "precision": precision, "batch_size": batch_size}
        self.base.to(device)
        self._dimensions: int | None = None
        self._sampler: tuple[tuple[int, Smoothing, int], Sampler] | None = None

    @property
    def sigma(self) -> float | None:
        """The level of Gaussian noise, None of others."""
        return self.smoothing.sigma

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
                    classes = self._logits(batch).shape[1]
                except ModelError as refused:
                    try:
                        classes = self._logits(values[None]).shape[1]
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

    def _logits(self, plain: Tensor) -> Tensor:
        """Return base's logits of inputs (m, ...), without noise."""
        views = Views.of_noise(self.smoothing)
        return call_model(self.base if views is None else views.shown(self.base, plain.shape[1:]), plain)

    def _unit(self, inputs: Tensor) -> FloatArray | None:
        """Return the scale of each value of an input, once inputs (m, ...) show their shape."""
        if self.feature_scale is not None and (self._scale is None or self._scale.shape != inputs.shape[1:]):
            self._scale, self._sampler = spread_scale(self.feature_scale, tuple(inputs.shape[1:])), None
        return self._scale

    def _point(self, given: Tensor) -> GridPoint:
        return Grid.of(self.smoothing, self._unit(given[None])).nearest(given.cpu().numpy())

    def _noise_error(self, inputs: Tensor) -> float:
        return noise_error(self.smoothing, inputs.shape[1:].numel())

    def counts(
        self,
        inputs: Tensor | NDArray[Any],
        samples: int,
        *,
        stream: str = "estimation",
        indices: Sequence[int] | None = None,
    ) -> IntArray:
        """Return the votes int64 (m, classes) of `samples` noisy copies of each input (m, ...).

        Behind a gate they are (m, classes + 1): the last column counts the copies that abstain.
        `stream` is ``estimation`` or ``selection``: independent noise.  `indices`, a number of 0..2^64 - 1
        for each input, key its noise instead of its content.
        """
        inputs = self._batch(inputs)
        if isinstance(samples, bool) or not isinstance(samples, Integral) or samples < 0:
            raise ParameterError(f"samples = {samples!a:.60}: give a whole number, such as 1000")
        assert self.classes is not None
        if not len(inputs):
            return np.zeros((0, self.classes + (self.gate > 0)), np.int64)
        scale, wanted = self._unit(inputs), (self.classes, self.smoothing, self.seed)
        if self._sampler is None or self._sampler[0] != wanted:  # kept: its first batch checks the model
            self._sampler = wanted, Sampler(self.base, *wanted, **self._settings, scale=scale)
        sampler = self._sampler[1]
        if indices is None:  # a hash of each input's shape and grid point, or itself where nothing is added
            shape, added = f"certmix input 1/{tuple(inputs.shape[1:])}/".encode(), self.smoothing.entry.law
            texts = [shape + (self._point(x).steps if added else x.cpu().numpy()).tobytes() for x in inputs]
            digests = [hashlib.blake2b(text, digest_size=8).digest() for text in texts]
            indices = [int.from_bytes(digest, "little") for digest in digests]
        pairs = zip(inputs, indices, strict=True)
        return np.stack([
            sampler.votes(x, key, [samples], stream=stream, gate=self.gate)[0] for x, key in pairs
        ])  # fmt: skip

    def predict(
        self, inputs: Tensor | NDArray[Any], samples: int = 1000, failure_probability: float = 0.001
    ) -> Predictions:
        """Return the most probable class of each input, or abstain.

        A wrong class is established with at most `failure_probability`: a binomial test on the two most voted
        classes of `samples`, at what n eps, the distance of all noise from the law meant, leaves of it.  That
        test is valid whatever the number of votes is; given that some copies abstain behind a gate, the votes
        of the others are again multinomial, with probabilities in the same order.  Without a vote the class
        is -1, and not established.
        """
        inputs = self._batch(inputs)
        counts = self.counts(inputs, samples)
        if self._sampler is not None and self._sampler[1].places > 1:
            raise ModelError(
                "the base's logits depend on a row's place in the batch, where the test behind predict is "
                "not proved: use certify"
            )
        votes = counts[:, : self.classes]
        left = failure_probability - samples * self._noise_error(inputs)
        return Predictions(answer_of(votes), established(votes, left))

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
        """Return each input's class and certified radius, alone or mixed.

        `selection_samples` choose the class, `samples` fresh ones bound the probabilities;
        `failure_probability` is that of one input's certificate.  `alpha` in [1/2, 1] is the mixing weight
        with an arbitrary other classifier; 1 is the smoothed classifier alone.  `bound` and `certificate` are
        names in `certmix.bounds.BOUNDS` and the noise's certificates; behind a gate ``clopper-pearson``
        is the two-sided one, for with q = 1 - p each abstention would be the rival's vote.
        """
        inputs, gated = self._batch(inputs), self.gate > 0
        chosen = self.counts(inputs, selection_samples, stream="selection")[:, : self.classes]
        selected, counts = answer_of(chosen), self.counts(inputs, samples)
        own = np.maximum(selected, 0)
        bounds = bound_counts(counts, own, failure_probability, bound, gated=gated)
        p, q = (np.where(selected >= 0, *two) for two in ((bounds.p_lower, 0.0), (bounds.q_upper, 1.0)))
        bounds = replace(bounds, p_lower=p, q_upper=q)
        added, noise = self.smoothing.entry.law, self.smoothing.of_shape(inputs.shape[1:])
        lost = np.array([self._point(x).distance if added else 0.0 for x in inputs], np.float64)
        bounds = allow_for_noise(bounds, self._noise_error(inputs), lost)
        slack = margin_slack_of(alpha)
        radii = certify_radii(bounds, sigma=noise, alpha=alpha, certificate=certificate, margin_slack=slack)
        return SmoothedCertificates(selected, radii)


class SmoothedMixture:
    """``(1 - alpha) g + alpha h`` with a smoothed h: the mix whose certificates `certmix certify` gives.

    h is estimated by shares of votes, in which an abstention behind h's gate is nobody's; no logarithm is
    taken, for it changes no answer and a share may be 0.

    Parameters
    ----------
    standard
        g: gives logits (N, classes), and is put in evaluation mode, on the device of `robust`.
    robust
        h: a `SmoothedClassifier`.
    alpha, standard_temperature
        Mixing weight in [0, 1], and what g's logits are divided by: 0 takes its most probable class alone.

    Examples
    --------
    >>> import torch
    >>> g, base = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    >>> h = SmoothedClassifier(base, sigma=0.5, gate=0.6)
    >>> mix = SmoothedMixture(g, h, alpha=0.62, standard_temperature=0)
    >>> mix.predict(torch.zeros(4, 2), samples=200).classes.shape
    (4,)
    """

    def __init__(
        self,
        standard: nn.Module,
        robust: SmoothedClassifier,
        alpha: float,
        *,
        standard_temperature: float = 1.0,
    ) -> None:
        check_mix(float(alpha), float(standard_temperature))
        self.standard, self.robust = evaluating(standard).to(robust.device), robust
        self.alpha, self.standard_temperature = float(alpha), float(standard_temperature)

    def shares(
        self,
        inputs: Tensor | NDArray[Any],
        samples: int = 1000,
        *,
        stream: str = "estimation",
        indices: Sequence[int] | None = None,
    ) -> FloatArray:
        """Return the mix (m, classes), float64; h is counted as `SmoothedClassifier.counts` does."""
        g, h = self._both(self.robust._batch(inputs), samples, stream, indices)
        return mix_shares(g, h, self.alpha, self.standard_temperature)

    def predict(
        self,
        inputs: Tensor | NDArray[Any],
        samples: int = 1000,
        failure_probability: float = 0.001,
        *,
        selection_samples: int = 100,
    ) -> Predictions:
        """Return the mix's most probable class of each input, or abstain.

        `selection_samples` choose the class y; it is established if by `samples` fresh ones, and g, the mix
        of y exceeds that of each class i: ``(1 - alpha) (g_y - g_i) + alpha (p - q_i) > 0``, with p a lower
        bound of h_y and q_i an upper bound of h_i (Clopper and Pearson), each at half of
        `failure_probability`, and widened by the distance of the noise from its law.  If some class k
        is more probable than y, that takes p > h_y or q_k < h_k, and k is one class, whatever the votes are.
        """
        inputs = self.robust._batch(inputs)
        g, chosen = self._both(inputs, selection_samples, "selection", None)
        selected = answer_of(mix_shares(g, chosen, self.alpha, self.standard_temperature))
        counts = self.robust.counts(inputs, samples)
        eps = self.robust._noise_error(inputs)
        sharp, own = sharpened(g, self.standard_temperature), np.maximum(selected, 0)
        least = leads(sharp, counts, own, self.alpha, failure_probability, eps)
        return Predictions(selected, (selected >= 0) & (least > MARGIN_SLACK))

    def certify(
        self, inputs: Tensor | NDArray[Any], samples: int = 1000, failure_probability: float = 0.001,
        *, selection_samples: int = 100, bound: str = "clopper-pearson", certificate: str = "exact",
    ) -> SmoothedCertificates:  # fmt: skip
        """Return each input's class and certified radius, whatever g is: `SmoothedClassifier.certify`."""
        return self.robust.certify(
            inputs, samples, failure_probability, selection_samples=selection_samples, alpha=self.alpha,
            bound=bound, certificate=certificate,
        )  # fmt: skip

    def _both(
        self, inputs: Tensor, samples: int, stream: str, indices: Sequence[int] | None
    ) -> tuple[FloatArray, FloatArray]:
        """Return g's probabilities and h's shares (m, classes) of inputs."""
        counts = self.robust.counts(inputs, samples, stream=stream, indices=indices)
        shares = counts[:, : self.robust.classes] / max(samples, 1)
        if len(inputs) == 0:
            return shares, shares
        with full_float32(), torch.inference_mode():
            parts = [part.to(self.robust.device) for part in inputs.split(_AT_ONCE)]
            logits = torch.cat([call_model(self.standard, part, "the standard model") for part in parts])
            g = logits.double().softmax(1).cpu().numpy()
        if g.shape != shares.shape:
            raise ModelError(
                f"the standard model gives {g.shape[1]} classes and the robust one {shares.shape[1]}: both "
                "must give equal classes"
            )
        return g, shares


def _noise_of(sigma: float | None, noise: str, scale: float | None, norm: str) -> Smoothing:
    check_choice("noise", noise, SMOOTHINGS)
    if SMOOTHINGS[noise].cases is not None:
        raise ParameterError(
            f"noise = {noise}: it is not sampled: certmix.certify(model, data, noise={noise!r}) goes through "
            f"all of its cases (docs/{noise}.md)"
        )
    level = scale if sigma is None else sigma
    if level is None or None not in (sigma, scale) or (noise != GAUSSIAN and scale is None):
        word = "sigma" if noise == GAUSSIAN else "scale"
        raise ParameterError(f"sigma = {sigma}, scale = {scale}: give {word} alone for {noise} noise")
    return Smoothing(noise, level, norm)


def established(votes: IntArray, failure_probability: float) -> NDArray[np.bool_]:
    """Return whether the most voted class of (m, classes) beats the runner-up, (m,); never at 0 or less."""
    top = np.sort(votes, axis=1)[:, -2:]
    found = [failure_probability > 0 and is_established(int(b), int(a), failure_probability) for a, b in top]
    return np.array(found, bool)


def leads(
    standard: FloatArray,
    counts: IntArray,
    selected: IntArray,
    alpha: float,
    failure_probability: float,
    noise_error: float = 0.0,
) -> FloatArray:
    """Return a lower bound (m,) of the selected class's lead in the mix; see `SmoothedMixture.predict`.

    It is of g's probabilities (m, c) and the votes of fresh samples (m, c), or (m, c + 1) with abstentions.
    """
    classes, rows = standard.shape[1], np.arange(len(standard))
    n, half = counts.sum(1, keepdims=True), failure_probability / 2
    p = clopper_pearson.lower_bound(counts[rows, selected][:, None], n, half)
    q = clopper_pearson.upper_bound(counts[:, :classes], n, half)
    both = ConfidenceBounds(p, np.minimum(q, np.nextafter(1.0 - p, 2.0)), failure_probability, "", {})
    both = allow_for_noise(both, noise_error)
    lead = (1.0 - alpha) * (standard[rows, selected][:, None] - standard) + alpha * (
        both.p_lower - both.q_upper
    )
    lead[rows, selected] = np.inf
    least: FloatArray = lead.min(1, initial=np.inf)
    return least
