"""The only Monte Carlo loop: noisy forward passes in, class counts out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from certmix.errors import ModelError, ParameterError
from certmix.sampling.compiling import CompiledModel
from certmix.sampling.devices import automatic_batch_size
from certmix.sampling.noise import Noise
from certmix.sampling.packing import Cursor, Draw, Part
from certmix.sampling.pending import Pending, not_finite, send
from certmix.sampling.precision import PRECISIONS
from certmix.types import FloatArray, IntArray

__all__ = ["Sampler", "count_votes"]


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
        and with them its rounding, never change.  Halved, for the rest of this
        sampler's life, whenever a GPU runs out of memory.
    compiled
        Whether the model is compiled before the first batch, for speed; see
        `certmix.sampling.compiling`.
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
        compiled: bool = False,
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
        self._call = CompiledModel(model, self.device, precision) if compiled else model
        self._noise = torch.empty(0)
        self._batch = torch.empty(0)

    def votes(
        self, image: Tensor, index: int, stops: Sequence[int], *, start: int = 0, stream: str = "estimation"
    ) -> IntArray:
        """Return the counts of samples start..stop-1 for each of the increasing `stops`.

        Parameters
        ----------
        image, index, stops, start, stream
            As for `certmix.sampling.packing.Draw`.

        Returns
        -------
        IntArray
            int64 (len(stops), classes), cumulative from `start`.

        Raises
        ------
        ModelError
            If a logit is not finite, or their shape is wrong.
        """
        return self.submit([Draw(image, index, tuple(stops), start, stream)]).result()[0]

    def submit(self, draws: Sequence[Draw]) -> Pending:
        """Begin to count votes of several images, packed into full batches.

        On a GPU the host goes on at once: it waits in `Pending.result`, once
        for all the draws.

        Raises
        ------
        ModelError
            If the shape of the logits is wrong.
        """
        parts: list[Part] = []
        wanted = sum(max(0, draw.stops[-1] - draw.start) for draw in draws if draw.stops)
        answers = torch.ones(wanted + 1, dtype=torch.int64, device=self.device)
        done = 0
        for logits, held in self._batches(draws):
            answers[-1] *= logits.isfinite().all()
            torch.argmax(logits, 1, out=answers[done : done + len(logits)])
            done += len(logits)
            parts += held
        return send(draws, parts, answers, self.device, self.classes)

    def scores(self, draws: Sequence[Draw], temperature: float = 1.0) -> Iterator[tuple[Part, FloatArray]]:
        """Yield the softmax scores of several images' samples, in order.

        Parameters
        ----------
        draws
            What is wanted.
        temperature
            Divides the logits.

        Yields
        ------
        part
            Which samples these are.
        scores
            (part.count, classes), computed in float64; rows add up to 1.

        Raises
        ------
        ModelError
            If a logit is not finite, or their shape is wrong.
        """
        for part, logits in self.logits(draws):
            scores: FloatArray = (logits / temperature).softmax(1).numpy()
            yield part, scores

    def logits(self, draws: Sequence[Draw]) -> Iterator[tuple[Part, Tensor]]:
        """Yield the logits of several images' samples, in order: float64 (part.count, classes) on the host.

        Raises
        ------
        ModelError
            If a logit is not finite, or their shape is wrong.
        """
        for batch, parts in self._batches(draws):
            logits = batch.double().cpu()
            if not logits.isfinite().all():
                raise not_finite()
            for part in parts:
                yield part, logits[part.rows]

    def _batches(self, draws: Sequence[Draw]) -> Iterator[tuple[Tensor, list[Part]]]:
        """Yield the logits of full batches, on the device, and what their rows are."""
        images = [draw.image.to(self.device, torch.float32) for draw in draws]
        noises = [Noise(draw.image.shape, self.seed, draw.index, draw.stream, self.device) for draw in draws]
        cursor = Cursor()
        while True:
            size = self._size(images)
            parts, after = cursor.fill(draws, size)
            if not parts:
                return
            try:
                self._allocate(images[0].shape, size)
                logits = self._forward(images, noises, parts)
            except torch.OutOfMemoryError:
                self._shrink(size)
                continue
            cursor = after
            yield logits, parts

    def _size(self, images: list[Tensor]) -> int:
        if self.batch_size is None and images:
            self.batch_size = automatic_batch_size(images[0].shape, self.device)
        return self.batch_size or 1

    def _shrink(self, size: int) -> None:
        """Halve the batch; nothing that was counted is lost."""
        if size == 1:
            raise ModelError(
                f"{self.device} runs out of memory with a single input: use a smaller model or --device cpu"
            ) from None
        self._noise, self._batch, self.batch_size = torch.empty(0), torch.empty(0), size // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _forward(self, images: list[Tensor], noises: list[Noise], parts: list[Part]) -> Tensor:
        """Return the logits of the parts' samples; the batch is padded with what it held before."""
        for part in parts:
            noise = self._noise[part.rows]
            noises[part.draw].fill(noise, part.begin)
            torch.add(images[part.draw], noise, alpha=self.sigma, out=self._batch[part.rows])
        name, size = PRECISIONS[self.precision], len(self._batch)
        dtype = torch.bfloat16 if name is None else getattr(torch, name)
        with torch.autocast(self.device.type, dtype, enabled=name is not None):
            logits: Tensor = self._call(self._batch)
        if logits.shape != (size, self.classes):
            raise ModelError(
                f"the model gave an output of shape {tuple(logits.shape)} for {size} inputs: "
                f"expected logits of shape ({size}, {self.classes})"
            )
        return logits[: parts[-1].rows.stop]

    def _allocate(self, input_shape: torch.Size, size: int) -> None:
        """Keep one noise buffer and one batch (channels last for images) for equal shapes."""
        shape = (size, *input_shape)
        if self._noise.shape != shape:
            layout = torch.channels_last if len(input_shape) == 3 else torch.contiguous_format
            self._noise = torch.empty(shape, device=self.device)
            self._batch = torch.zeros(shape, device=self.device).contiguous(memory_format=layout)


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
