"""The only Monte Carlo loop: noisy forward passes in, class counts out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from certmix.errors import ModelError, ParameterError
from certmix.sampling.noise import Noise
from certmix.sampling.precision import PRECISIONS
from certmix.types import FloatArray, IntArray

__all__ = ["Sampler", "automatic_batch_size", "count_votes", "resolve_device"]


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device named, or the best one there is for ``auto``.

    Raises
    ------
    ParameterError
        If the device is unknown or not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ParameterError(f"device {name!r} is unknown: use auto, cpu, cuda or mps") from None
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        raise ParameterError(f"device {name!r} is not available here: use --device auto or cpu")
    return device


def automatic_batch_size(shape: Sequence[int], device: torch.device) -> int:
    """Return a batch size for inputs of this shape: a multiple of 100 where memory allows."""
    values = max(1, int(torch.Size(shape).numel()))
    budget, most = (300_000, 1000) if device.type == "cpu" else (6_000_000, 2000)
    size = min(budget // values, most)
    return max(100, size // 100 * 100) if size >= 25 else max(1, size)


class Sampler:
    """Counts the votes of a base classifier under Gaussian noise.

    Parameters
    ----------
    model
        Gives logits (batch, classes); it is used in evaluation mode as it is.
    classes
        Number of classes.
    sigma
        Noise level, in units of the input.
    seed
        With the image's index, the key of all noise.
    device, precision
        A torch device; ``fp32``, ``bf16`` or ``fp16`` autocast.
    batch_size
        Samples in one forward pass, None for an automatic choice.  Short
        batches are padded to this size, so that the shapes the network sees,
        and with them its rounding, never change.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: int,
        sigma: float,
        seed: int = 0,
        *,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        batch_size: int | None = None,
    ) -> None:
        if not sigma > 0:
            raise ParameterError(f"sigma = {sigma}: the noise level must be a positive number")
        if precision not in PRECISIONS:
            raise ParameterError(f"precision {precision!r} is unknown: use {', '.join(PRECISIONS)}")
        if batch_size is not None and batch_size < 1:
            raise ParameterError(f"batch size = {batch_size}: at least 1 is needed")
        self.model, self.classes, self.sigma, self.seed = model, classes, float(sigma), seed
        self.device, self.precision = torch.device(device), precision
        self.batch_size = batch_size
        self._noise = torch.empty(0)
        self._batch = torch.empty(0)

    def votes(
        self, image: Tensor, index: int, stops: Sequence[int], *, start: int = 0, stream: str = "estimation"
    ) -> IntArray:
        """Return the counts of samples start..stop-1 for each of the increasing `stops`.

        Parameters
        ----------
        image
            One input, any shape.
        index
            The input's index in its data set: part of the noise's key.
        stops
            Increasing sample numbers; the last one ends the sampling.
        start
            First sample, so that earlier ones are not drawn again.
        stream
            ``selection`` or ``estimation``: disjoint noise.

        Returns
        -------
        IntArray
            int64 (len(stops), classes), cumulative from `start`.

        Raises
        ------
        ModelError
            If a logit is not finite, or their shape is wrong.
        """
        found = [logits.argmax(1) for logits in self._logits(image, index, start, stops[-1], stream)]
        winners = torch.cat(found).cpu() if found else torch.empty(0, dtype=torch.int64)
        rows = [torch.bincount(winners[: stop - start], minlength=self.classes) for stop in stops]
        return torch.stack(rows).numpy()

    def scores(
        self, image: Tensor, index: int, stop: int, *, start: int = 0, stream: str = "estimation",
        temperature: float = 1.0,
    ) -> Iterator[FloatArray]:  # fmt: skip
        """Yield the softmax scores of samples start..stop-1, batch by batch.

        Parameters
        ----------
        image, index, start, stream
            As for `votes`.
        stop
            The sample after the last.
        temperature
            Divides the logits.

        Yields
        ------
        FloatArray
            (n, classes), computed in float64; rows add up to 1.
        """
        for logits in self._logits(image, index, start, stop, stream):
            yield (logits.double() / temperature).softmax(1).cpu().numpy()

    def _logits(self, image: Tensor, index: int, start: int, stop: int, stream: str) -> Iterator[Tensor]:
        """Yield the logits of noisy copies start..stop-1, batch by batch, on the device."""
        image = image.to(self.device, torch.float32)
        self._allocate(image)
        noise = Noise(image.shape, self.seed, index, stream, self.device)
        size, finite = len(self._batch), torch.ones((), dtype=torch.bool, device=self.device)
        for begin in range(start, stop, size):
            count = min(size, stop - begin)
            logits = self._forward(image, noise, begin, count)
            finite &= logits.isfinite().all()
            yield logits
        if not finite:
            raise ModelError("the model gave logits that are not finite under noise: check its input range")

    @torch.inference_mode()
    def _forward(self, image: Tensor, noise: Noise, begin: int, count: int) -> Tensor:
        """Return the logits (count, classes) of one batch, padded to its full size on the way."""
        noise.fill(self._noise[:count], begin)
        torch.add(image, self._noise, alpha=self.sigma, out=self._batch)
        name, size = PRECISIONS[self.precision], len(self._batch)
        dtype = torch.bfloat16 if name is None else getattr(torch, name)
        with torch.autocast(self.device.type, dtype, enabled=name is not None):
            logits: Tensor = self.model(self._batch)
        if logits.shape != (size, self.classes):
            raise ModelError(
                f"the model gave an output of shape {tuple(logits.shape)} for {size} inputs: "
                f"expected logits of shape ({size}, {self.classes})"
            )
        return logits[:count]

    def _allocate(self, image: Tensor) -> None:
        """Keep one noise buffer and one batch (channels last for images) for equal shapes."""
        size = self.batch_size or automatic_batch_size(image.shape, self.device)
        shape = (size, *image.shape)
        if self._noise.shape != shape:
            layout = torch.channels_last if image.ndim == 3 else torch.contiguous_format
            self._noise = torch.zeros(shape, device=self.device)
            self._batch = torch.empty(shape, device=self.device, memory_format=layout)


def count_votes(
    model: nn.Module,
    image: Tensor,
    sigma: float,
    samples: int,
    seed: int = 0,
    *,
    classes: int,
    index: int = 0,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    batch_size: int | None = None,
) -> IntArray:
    """Return int64 class counts (classes,) of `samples` noisy predictions; see `Sampler`.

    Examples
    --------
    >>> import torch
    >>> sign = torch.nn.Linear(1, 2, bias=False)
    >>> _ = torch.nn.init.constant_(sign.weight[0], 1.0), torch.nn.init.constant_(sign.weight[1], -1.0)
    >>> counts = count_votes(sign, torch.tensor([0.5]), sigma=0.5, samples=1000, classes=2)
    >>> int(counts.sum()), bool(0.79 < counts[0] / 1000 < 0.89)
    (1000, True)
    """
    sampler = Sampler(model, classes, sigma, seed, device=device, precision=precision, batch_size=batch_size)
    return sampler.votes(image, index, [samples])[0]
