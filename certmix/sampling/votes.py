"""The only Monte Carlo loop: noisy forward passes in, class counts out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from certmix.errors import ModelError, ParameterError
from certmix.sampling.devices import automatic_batch_size
from certmix.sampling.lanes import Setting, in_order, threads_of_lanes
from certmix.sampling.noise import Noise
from certmix.sampling.packing import Cursor, Draw, Part
from certmix.sampling.pending import Pending, not_finite, send
from certmix.sampling.precision import PRECISIONS
from certmix.sampling.runner import Runner, lanes_of
from certmix.sampling.schedule import LOOKS_ARE_MULTIPLES_OF
from certmix.types import FloatArray, IntArray

__all__ = ["Sampler", "count_votes"]

R = TypeVar("R")


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
    lanes
        Batches computed side by side on a CPU, each by its share of torch's
        threads; None for one a thread.  A model that may keep something of a pass
        (`certmix.sampling.stateless`) has one lane and all threads, unless it is compiled.
    compiled
        Whether the model is compiled before the first batch, for speed; see
        `certmix.sampling.compiling`.

    Attributes
    ----------
    places
        Places of a batch that the smoothed classifier is the average over, known after
        the first batch: 1 where a row's logits do not depend on its place.
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
        lanes: int | None = None,
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
        self.places = 1
        self._automatic = False
        self._independent: dict[tuple[torch.Size, int], bool] = {}
        self._noise = Noise(self.sigma, self.device)
        setting = Setting(classes, self._noise, seed, self.device, precision)
        self._runner = Runner(model, setting, compiled, lanes_of(self.device, lanes))

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
        for (classes, finite), held in self._batches(draws, _answers):
            answers[-1] *= finite
            answers[done : done + len(classes)] = classes
            done += len(classes)
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
        for logits, parts in self._batches(draws, _on_host):
            if not logits.isfinite().all():
                raise not_finite()
            for part in parts:
                yield part, logits[part.rows]

    def width(self, shape: Sequence[int]) -> int:
        """Return how many samples of inputs of this shape are best asked for at once, at least.

        A full batch; with several lanes two for each, so that few wait for the last.
        """
        lanes = len(self._runner.crew.lanes)
        return self._size(torch.Size(shape)) * (lanes if lanes == 1 else 2 * lanes)

    def _batches(
        self, draws: Sequence[Draw], reduce: Callable[[Tensor], R]
    ) -> Iterator[tuple[R, list[Part]]]:
        """Yield what `reduce` makes of the logits of full batches, and what their rows are.

        It is called before the lane that made the logits goes on to overwrite them.
        """
        if not draws:
            return
        points = [self._noise.steps(draw.image) for draw in draws]
        crew, shape = self._runner.crew, draws[0].image.shape

        def check(size: int) -> bool:
            return crew.do(lambda lane: lane.is_independent_of_place(draws[0], points[0], size))

        def reduced(parts: list[Part], size: int) -> R:
            return crew.do(lambda lane: reduce(lane.logits(draws, points, parts, size)))

        if len(crew.lanes) > 1:
            with threads_of_lanes(len(crew.lanes)) as pool:

                def check_there(size: int) -> bool:
                    return pool.submit(check, size).result()

                size = self._size(shape, check_there)
                alone = self._alone(draws, size, check_there)
                yield from in_order(pool, len(crew.lanes), draws, size, alone, lambda p: reduced(p, size))
            return
        cursor = Cursor()
        while True:
            try:
                size = self._size(shape, check)
                parts, after = cursor.fill(draws, size, self._alone(draws, size, check))
                if not parts:
                    return
                found = reduced(parts, size)
            except torch.OutOfMemoryError:
                self._shrink(self._size(shape))
                continue
            cursor = after
            yield found, parts

    def _alone(self, draws: Sequence[Draw], size: int, check: Callable[[int], bool]) -> bool:
        """Return whether batches hold one image each, since rows depend on their place in the batch.

        Raises
        ------
        ModelError
            If rows depend on one another, or the samples wanted are not whole batches where they must be.
        """
        key = draws[0].image.shape, size
        if key not in self._independent:
            self._independent[key] = check(size)
        self.places = 1 if self._independent[key] else size
        if self.places == 1:
            return False
        ends = [n for draw in draws if draw.stream == "estimation" for n in (draw.start, *draw.stops)]
        if odd := [n for n in ends if n % size]:
            raise ModelError(
                f"the model's logits depend on a row's place in the batch, so bounds hold at the ends of "
                f"full batches of {size}, not after {odd[0]:,} samples: leave --batch-size out and take "
                "samples in hundreds (docs/noise.md)"
            )
        return True

    def _size(self, shape: torch.Size, check: Callable[[int], bool] | None = None) -> int:
        """Return the batch size; an automatic one divides the looks if rows depend on their place."""
        if self.batch_size is None:
            self.batch_size = automatic_batch_size(shape, self.device)
            self._automatic = True
        size = self.batch_size
        if check is not None and self._automatic and LOOKS_ARE_MULTIPLES_OF % size:
            self._automatic = False
            self._independent[shape, size] = check(size)
            if not self._independent[shape, size]:
                fitting = (n for n in range(size, 0, -1) if LOOKS_ARE_MULTIPLES_OF % n == 0)
                self.batch_size = next(fitting)
        return self.batch_size

    def _shrink(self, size: int) -> None:
        """Halve the batch; nothing that was counted is lost."""
        if size == 1:
            raise ModelError(
                f"{self.device} runs out of memory with a single input: use a smaller model or --device cpu"
            ) from None
        self._runner.crew.lanes[0].free()
        self.batch_size = size // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _answers(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the classes (n,) of logits, and whether all are finite."""
    return logits.argmax(1), logits.isfinite().all()


def _on_host(logits: Tensor) -> Tensor:
    return logits.to("cpu", torch.float64, copy=True)


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
