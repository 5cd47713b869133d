"""The only Monte Carlo loop: noisy forward passes in, ballots out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate, chain, pairwise
from threading import Lock
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from certmix.calling import call_model, has_no_room, name_of
from certmix.errors import ModelError, ParameterError, describe
from certmix.radii.smoothings import Smoothing
from certmix.sampling.ballots import Ballots
from certmix.sampling.compiling import CompiledModel, CompileError
from certmix.sampling.devices import SAMPLED, arithmetic, automatic_batch_size, fetch
from certmix.sampling.noise import NoiseKey, noise_of
from certmix.sampling.packing import Cursor, Draw, Part
from certmix.sampling.rows import ballots_of, is_independent_of_place, not_finite
from certmix.sampling.schedule import LOOKS_ARE_MULTIPLES_OF
from certmix.types import FloatArray, IntArray

R = TypeVar("R")


class Pending:
    """Votes that may still be on their way from the device; `Sampler.submit` returns them."""

    def __init__(self, draws: Sequence[Draw], parts: list[Part], answers: Callable[[], Tensor]) -> None:
        self._draws, self._parts, self._answers = draws, parts, answers

    def result(self) -> list[list[Ballots]]:
        """Return for each draw the ballots at each of its stops, cumulative from its start."""
        answers = self._answers().numpy()  # the ballot of every sample, then 1 if all logits were finite
        if not answers[-1]:
            raise not_finite()
        cast: list[list[list[IntArray]]] = [[[] for _ in draw.stops] for draw in self._draws]
        at = 0
        for part in self._parts:
            cast[part.draw][part.stop].append(answers[at : at + part.count])
            at += part.count
        none = np.zeros(0, np.int64)
        each = ([Ballots.of(np.concatenate([none, *stop])) for stop in stops] for stops in cast)
        return [list(accumulate(stops)) for stops in each]


class Sampler:
    """Counts the votes of a base classifier under noise.

    Parameters
    ----------
    model, classes
        Gives logits (batch, classes); it is used in evaluation mode as it is.
    sigma
        Level of Gaussian noise, in units of the input, or noise of another kind.
    seed
        With the input's index, the key of all noise.
    device, precision
        A torch device; ``fp32``, ``tf32`` (on CUDA devices), ``bf16`` or ``fp16`` autocast.
    batch_size
        Samples in one forward pass, None for an automatic choice.  Short
        batches are padded to this size, so that the shapes the network sees,
        and with them its rounding, never change.  Halved, for the rest of this
        sampler's life, whenever a GPU runs out of memory; a size that divides
        the looks, or that they divide, becomes one that does.
    compiled
        Whether the model is compiled before the first batch, for speed; see
        `certmix.sampling.compiling`.
    scale
        What sigma counts in, float64 of an input's shape; None: units of the input.
    places_alike
        Refuse a compiled model whose rows depend on their place in a batch, with a CompileError.

    Attributes
    ----------
    places
        Places of a batch that the smoothed classifier is the average over, known after
        the first batch: 1 where a row's logits do not depend on its place.

    All that draw raise a ModelError if a logit is not finite, or their shape is wrong.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: int,
        sigma: float | Smoothing,
        seed: int = 0,
        *,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        batch_size: int | None = None,
        compiled: bool = False,
        places_alike: bool = False,
        scale: FloatArray | None = None,
    ) -> None:
        if precision not in SAMPLED:
            raise ParameterError(f"precision {precision!r} is unknown: use {', '.join(SAMPLED)}")
        if batch_size is not None and batch_size < 1:
            raise ParameterError(f"batch size = {batch_size}: at least 1 is needed")
        self.model, self.classes, self.smoothing, self.seed = model, classes, Smoothing.of(sigma), seed
        self.device, self.precision = torch.device(device), precision
        self.batch_size = batch_size
        self.places, self._places_alike = 1, places_alike and compiled
        self._automatic = False
        self._independent: dict[tuple[torch.Size, int], bool] = {}
        self._noise = noise_of(self.smoothing, self.device, scale)
        run = CompiledModel(model, self.device, precision) if compiled else model
        self._call = partial(call_model, run, name=name_of(model))
        self._rows = self._batch = torch.empty(0)  # one memory, as (size, values) and for the model
        self._one_at_a_time = Lock()  # of callers, who share these

    def votes(
        self,
        input: Tensor,
        index: int,
        stops: Sequence[int],
        *,
        start: int = 0,
        stream: str = "estimation",
        gate: float = 0.0,
    ) -> IntArray:
        """Return the counts of samples start..stop-1 for each of the increasing `stops`.

        That is int64 (len(stops), classes), cumulative from `start`, with a last column of abstentions behind
        a `gate`: see `certmix.sampling.ballots.Ballots.votes`.  The other parameters are those of `Draw`.
        """
        ballots = self.submit([Draw(input, index, tuple(stops), start, stream)]).result()[0]
        return np.array([one.votes(self.classes, gate) for one in ballots])

    def submit(self, draws: Sequence[Draw]) -> Pending:
        """Begin to count ballots of several inputs, packed into full batches.

        On a GPU the host goes on at once: it waits in `Pending.result`, once
        for all the draws.
        """
        parts: list[Part] = []
        answers = torch.ones(sum(draw.samples for draw in draws) + 1, dtype=torch.int64, device=self.device)
        at = 0

        # Of a whole batch, padding too: how a sum is rounded may depend on the number of rows.
        def reduce(logits: Tensor, parts: list[Part]) -> tuple[Tensor, Tensor]:
            rows = parts[-1].rows.stop
            return ballots_of(logits)[:rows], logits[:rows].isfinite().all()

        for (ballots, finite), held in self._batches(draws, reduce):
            answers[-1] *= finite
            answers[at : at + len(ballots)] = ballots
            at += len(ballots)
            parts += held
        return Pending(draws, parts, fetch(answers))

    def scores(self, draws: Sequence[Draw], temperature: float = 1.0) -> Iterator[tuple[Part, FloatArray]]:
        """Yield the softmax scores of several inputs' samples, in order, and which samples these are.

        They are (part.count, classes), computed in float64 from logits divided by the temperature; rows add
        up to 1.
        """

        def reduce(logits: Tensor, parts: list[Part]) -> Callable[[], Tensor]:
            return fetch(scores_of(logits[: parts[-1].rows.stop], temperature))

        for part, scores in self._rows_of(draws, reduce):
            yield part, scores.numpy()

    def submit_scores(
        self, draws: Sequence[Draw], reduce: Callable[[Tensor, list[Part]], Tensor], temperature: float = 1.0
    ) -> Callable[[], list[tuple[list[Part], Tensor]]]:
        """Begin to draw; what is returned waits, and gives what `reduce` made of the parts of each batch.

        `reduce` is given their scores as `scores` yields them, (rows, classes), on the device, NaN where a
        logit was not finite.
        """

        def begin(logits: Tensor, parts: list[Part]) -> Callable[[], Tensor]:
            return fetch(reduce(scores_of(logits[: parts[-1].rows.stop], temperature), parts))

        under_way = list(self._batches(draws, begin))
        return lambda: [(parts, values()) for values, parts in under_way]

    def logits(self, draws: Sequence[Draw]) -> Iterator[tuple[Part, Tensor]]:
        """Yield the logits of several inputs' samples, in order: float64 (part.count, classes) on the CPU."""
        return self._rows_of(draws, lambda logits, parts: fetch(in_float64(logits[: parts[-1].rows.stop])))

    def _rows_of(
        self, draws: Sequence[Draw], reduce: Callable[[Tensor, list[Part]], Callable[[], Tensor]]
    ) -> Iterator[tuple[Part, Tensor]]:
        """Yield each part's rows of what `reduce` makes of a batch, while the next is under way."""
        for one, _ in pairwise(chain(self._batches(draws, reduce), [None])):
            assert one is not None
            values, parts = one
            rows = values()
            if not rows.isfinite().all():
                raise not_finite()
            for part in parts:
                yield part, rows[part.rows]

    def place(self, input: Tensor) -> Tensor:
        """Return an input's grid point where noise is made, for `Draw.point`; no device is waited for."""
        return self._noise.steps(input)

    def width(self, shape: Sequence[int]) -> int:
        """Return how many samples of inputs of this shape fill a batch."""
        if self.batch_size is None:
            self.batch_size = automatic_batch_size(shape, self.device)
            self._automatic = True
        return self.batch_size

    def _batches(
        self, draws: Sequence[Draw], reduce: Callable[[Tensor, list[Part]], R]
    ) -> Iterator[tuple[R, list[Part]]]:
        """Yield what `reduce` makes of the logits of a full batch and of its parts, and these.

        The logits are overwritten by the next batch.  A short batch is padded with what the one before held.
        """
        points = [self.place(draw.input) if draw.point is None else draw.point for draw in draws]
        cursor = Cursor()
        while draws:
            with self._one_at_a_time:
                size, shortage = self.width(draws[0].input.shape), None
                try:
                    with torch.inference_mode():
                        size, alone = self._packing(draws, points[0], size)
                        parts, after = cursor.fill(draws, size, alone)
                        if not parts:
                            return
                        self._allocate(self._noise.seen(draws[0].input.shape), size)
                        for part in parts:
                            draw = draws[part.draw]
                            key = NoiseKey(self.seed, draw.index, draw.stream)
                            self._noise.fill(self._rows[part.rows], points[part.draw], key, part.begin)
                        logits = self._run(self._batch)
                        if self.smoothing.entry.law is None:  # what could not be drawn has no answer
                            logits = logits.masked_fill(self._rows[:, -1:].isnan(), torch.nan)
                    found = reduce(logits, parts)
                except RuntimeError as error:
                    if not has_no_room(error):
                        raise
                    shortage = describe(error.__cause__ or error)
                if shortage is not None:  # no longer in the handler, whose error holds all activations
                    self._shrink(self.width(draws[0].input.shape), shortage)
                    continue
            cursor = after
            yield found, parts

    def _allocate(self, shape: torch.Size, size: int) -> None:
        """Keep one batch for equal shapes; inputs are channels last."""
        if self._batch.shape != (size, *shape):
            is_image = len(shape) == 3
            ordered = (*shape[1:], shape[0]) if is_image else tuple(shape)
            whole = torch.zeros((size, *ordered), device=self.device)
            self._rows, self._batch = whole.view(size, -1), whole.movedim(-1, 1) if is_image else whole

    def _run(self, batch: Tensor) -> Tensor:
        """Return the logits of a batch, in the chosen precision."""
        with arithmetic(self.precision, self.device):
            logits = self._call(batch)
        if logits.shape != (len(batch), self.classes):
            raise ModelError(
                f"the model gave an output of shape {tuple(logits.shape)} for {len(batch)} inputs: "
                f"expected logits of shape ({len(batch)}, {self.classes})"
            )
        return logits

    def _packing(self, draws: Sequence[Draw], point: Tensor, size: int) -> tuple[int, bool]:
        """Return the batch size, and whether batches hold one input each, since rows depend on their place.

        An automatic batch size divides the looks where they do.
        """
        shape = draws[0].input.shape

        def answered(batch: Tensor) -> Tensor:  # whole numbers below 2^24 are exact
            logits = self._run(batch)
            wide = torch.promote_types(logits.dtype, torch.float32)
            return torch.cat([logits.to(wide), ballots_of(logits)[:, None].to(wide)], 1)

        def is_independent(size: int) -> bool:
            if (shape, size) not in self._independent:
                self._allocate(self._noise.seen(shape), size)
                self._noise.fill(self._rows, point, NoiseKey(self.seed, draws[0].index, draws[0].stream), 0)
                self._independent[shape, size] = is_independent_of_place(answered, self._batch)
                if self._places_alike and not self._independent[shape, size]:
                    told = "rows of the compiled model depend on their place in a batch"
                    raise CompileError(f"{told}: use --compile off (docs/noise.md#rows-of-a-batch)")
            return self._independent[shape, size]

        if self._automatic and LOOKS_ARE_MULTIPLES_OF % size and not is_independent(size):
            size = self.batch_size = next(n for n in range(size, 0, -1) if LOOKS_ARE_MULTIPLES_OF % n == 0)
        self.places = 1 if is_independent(size) else size
        if self.places == 1:
            return size, False
        ends = [n for draw in draws if draw.stream == "estimation" for n in (draw.start, *draw.stops)]
        if odd := [n for n in ends if n % size]:
            raise ModelError(
                f"the model's logits depend on a row's place in the batch, so bounds hold at the ends of "
                f"full batches of {size}, not after {odd[0]:,} samples: leave --batch-size out and take "
                "samples in hundreds (docs/noise.md)"
            )
        return size, True

    def _shrink(self, size: int, told: str) -> None:
        """Halve the batch, or more, so that it goes with the looks as before; nothing counted is lost."""
        if size == 1:
            raise ModelError(
                f"{self.device} runs out of memory with a single input ({told}): use a smaller model or "
                "--device cpu"
            )

        def fits(n: int) -> bool:
            return n % LOOKS_ARE_MULTIPLES_OF == 0 or LOOKS_ARE_MULTIPLES_OF % n == 0

        self._rows = self._batch = torch.empty(0)
        self.batch_size = next(n for n in range(size // 2, 0, -1) if fits(n) or not fits(size))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def in_float64(logits: Tensor) -> Tensor:
    """Return a copy in float64, on the CPU where a device has none."""
    return logits.to("cpu" if logits.device.type == "mps" else logits.device, torch.float64, copy=True)


def scores_of(logits: Tensor, temperature: float) -> Tensor:
    """Return softmax scores in float64, NaN for a row with a logit that is not finite."""
    wide = in_float64(logits)
    finite = wide.isfinite().all(1, keepdim=True)  # a logit of -inf would be a score of 0
    return (wide / temperature).softmax(1).masked_fill(~finite, torch.nan)


def count_votes(
    model: nn.Module,
    input: Tensor,
    sigma: float | Smoothing,
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
    return sampler.votes(input, index, [samples])[0]
