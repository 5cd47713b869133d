"""Forward passes of noisy batches: one lane a thread, with buffers and noise of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import Tensor

from certmix.errors import ModelError
from certmix.sampling.noise import Noise
from certmix.sampling.packing import Cursor, Draw, Part
from certmix.sampling.precision import PRECISIONS

__all__ = ["MOST_LANES", "Crew", "Lane", "Setting", "autocast", "side_by_side"]

MOST_LANES = 16
"""Beyond these, threads share the work of single layers: Python itself runs in one thread at a time."""

R = TypeVar("R")


@dataclass(frozen=True)
class Setting:
    """What all lanes of a sampler share."""

    classes: int
    sigma: float
    seed: int
    device: torch.device
    precision: str


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which a model runs."""
    name = PRECISIONS[precision]
    dtype = torch.bfloat16 if name is None else getattr(torch, name)
    return torch.autocast(device.type, dtype, enabled=name is not None)


class Lane:
    """Draws noise, adds it, and runs the model; what it returns is overwritten by its next batch."""

    def __init__(self, call: Callable[[Tensor], Tensor], setting: Setting) -> None:
        self._call, self._setting = call, setting
        self._noise = self._batch = torch.empty(0)
        self._source: tuple[Draw, Noise] | None = None

    def free(self) -> None:
        """Give the buffers back."""
        self._noise = self._batch = torch.empty(0)

    @torch.inference_mode()
    def logits(self, draws: Sequence[Draw], images: Sequence[Tensor], parts: list[Part], size: int) -> Tensor:
        """Return the logits of the parts' samples; the batch is padded with what it held before.

        Raises
        ------
        ModelError
            If the shape of the logits is wrong.
        """
        self._allocate(images[0].shape, size)
        for part in parts:
            noise, image = self._noise[part.rows], images[part.draw]
            self._noise_of(draws[part.draw]).fill(noise, part.begin)
            torch.add(image, noise, alpha=self._setting.sigma, out=self._batch[part.rows])
        classes = self._setting.classes
        with autocast(self._setting.device, self._setting.precision):
            logits = self._call(self._batch)
        if logits.shape != (size, classes):
            raise ModelError(
                f"the model gave an output of shape {tuple(logits.shape)} for {size} inputs: "
                f"expected logits of shape ({size}, {classes})"
            )
        return logits[: parts[-1].rows.stop]

    def _noise_of(self, draw: Draw) -> Noise:
        if self._source is None or self._source[0] is not draw:
            setting = self._setting
            noise = Noise(draw.image.shape, setting.seed, draw.index, draw.stream, setting.device)
            self._source = draw, noise
        return self._source[1]

    def _allocate(self, input_shape: torch.Size, size: int) -> None:
        """Keep one noise buffer and one batch (channels last for images) for equal shapes."""
        shape, device = (size, *input_shape), self._setting.device
        if self._noise.shape != shape:
            layout = torch.channels_last if len(input_shape) == 3 else torch.contiguous_format
            self._noise = torch.empty(shape, device=device)
            self._batch = torch.zeros(shape, device=device).contiguous(memory_format=layout)


class Crew:
    """Lanes that run one callable; whoever has a batch to compute takes one that is free."""

    def __init__(self, call: Callable[[Tensor], Tensor], setting: Setting, count: int) -> None:
        self.lanes = [Lane(call, setting) for _ in range(count)]
        self._free: SimpleQueue[Lane] = SimpleQueue()
        for lane in self.lanes:
            self._free.put(lane)

    def do(self, work: Callable[[Lane], R]) -> R:
        """Return what `work` makes with a lane that nobody else has meanwhile."""
        lane = self._free.get()
        try:
            return work(lane)
        finally:
            self._free.put(lane)


def side_by_side(
    count: int, draws: Sequence[Draw], size: int, work: Callable[[list[Part]], R]
) -> Iterator[tuple[R, list[Part]]]:
    """Yield what `work` makes of each full batch, in order, computed by `count` threads.

    torch's threads are divided among them, and given back at the end;
    until then threads that are started elsewhere have a lane's share too.
    """
    threads = torch.get_num_threads()
    try:
        share = max(1, threads // count)
        with ThreadPoolExecutor(count, "lane", torch.set_num_threads, (share,)) as pool:
            yield from _in_order(pool, count, draws, size, work)
    finally:
        torch.set_num_threads(threads)


def _in_order(
    pool: ThreadPoolExecutor, count: int, draws: Sequence[Draw], size: int, work: Callable[[list[Part]], R]
) -> Iterator[tuple[R, list[Part]]]:
    """Yield results in the order of the batches, `count` and one of which are under way at a time."""
    waiting: deque[tuple[list[Part], Future[R]]] = deque()
    cursor = Cursor()
    try:
        while True:
            while len(waiting) <= count:
                parts, cursor = cursor.fill(draws, size)
                if not parts:
                    break
                waiting.append((parts, pool.submit(work, parts)))
            if not waiting:
                return
            parts, found = waiting.popleft()
            yield found.result(), parts
    finally:
        for _, left in waiting:
            left.cancel()
