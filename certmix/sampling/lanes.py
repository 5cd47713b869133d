"""Forward passes of noisy batches: one lane a thread, with buffers and noise of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import Tensor

from certmix.errors import ModelError
from certmix.sampling.noise import Noise, NoiseKey
from certmix.sampling.packing import Cursor, Draw, Part
from certmix.sampling.precision import PRECISIONS
from certmix.sampling.rows import is_independent_of_place

__all__ = ["MOST_LANES", "Crew", "Lane", "Setting", "autocast", "in_order", "threads_of_lanes"]

MOST_LANES = 16
"""Beyond these, threads share the work of single layers: Python itself runs in one thread at a time."""

R = TypeVar("R")


@dataclass(frozen=True)
class Setting:
    """What all lanes of a sampler share."""

    classes: int
    noise: Noise
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
        self._rows = self._batch = torch.empty(0)

    def free(self) -> None:
        """Give the buffers back."""
        self._rows = self._batch = torch.empty(0)

    @torch.inference_mode()
    def logits(self, draws: Sequence[Draw], points: Sequence[Tensor], parts: list[Part], size: int) -> Tensor:
        """Return the logits of the parts' samples; the batch is padded with what it held before.

        Parameters
        ----------
        draws, points
            What is wanted, and each draw's `Noise.steps`.
        parts, size
            What the rows of this batch are, and its rows.

        Raises
        ------
        ModelError
            If the shape of the logits is wrong.
        """
        self._fill(draws, points, parts, size)
        return self._run(self._batch)[: parts[-1].rows.stop]

    def _run(self, batch: Tensor) -> Tensor:
        setting = self._setting
        with autocast(setting.device, setting.precision):
            logits = self._call(batch)
        if logits.shape != (len(batch), setting.classes):
            raise ModelError(
                f"the model gave an output of shape {tuple(logits.shape)} for {len(batch)} inputs: "
                f"expected logits of shape ({len(batch)}, {setting.classes})"
            )
        return logits

    @torch.inference_mode()
    def is_independent_of_place(self, draw: Draw, point: Tensor, size: int) -> bool:
        """Whether a row's logits are the same bits anywhere in a batch; see `certmix.sampling.rows`.

        Raises
        ------
        ModelError
            If they depend on the other rows.
        """
        self._fill([draw], [point], [Part(0, 0, 0, 0, size, False)], size)
        return is_independent_of_place(self._run, self._batch)

    def _fill(self, draws: Sequence[Draw], points: Sequence[Tensor], parts: list[Part], size: int) -> None:
        """Write the parts' samples into the batch."""
        self._allocate(draws[0].image.shape, size)
        for part in parts:
            draw = draws[part.draw]
            key = NoiseKey(self._setting.seed, draw.index, draw.stream)
            self._setting.noise.fill(self._rows[part.rows], points[part.draw], key, part.begin)

    def _allocate(self, input_shape: torch.Size, size: int) -> None:
        """Keep one batch for equal shapes, channels last for images, and the same memory as rows."""
        if self._batch.shape == (size, *input_shape):
            return
        ordered = (*input_shape[1:], input_shape[0]) if len(input_shape) == 3 else tuple(input_shape)
        whole = torch.zeros((size, *ordered), device=self._setting.device)
        self._rows = whole.view(size, -1)
        self._batch = whole.movedim(-1, 1) if len(input_shape) == 3 else whole


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


@contextmanager
def threads_of_lanes(count: int) -> Iterator[ThreadPoolExecutor]:
    """Provide `count` threads, among which torch's are divided until the end.

    Until then threads that are started elsewhere have a lane's share too.
    """
    threads = torch.get_num_threads()
    try:
        share = max(1, threads // count)
        with ThreadPoolExecutor(count, "lane", torch.set_num_threads, (share,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


def in_order(
    pool: ThreadPoolExecutor,
    count: int,
    draws: Sequence[Draw],
    size: int,
    alone: bool,
    work: Callable[[list[Part]], R],
) -> Iterator[tuple[R, list[Part]]]:
    """Yield what `work` makes of each full batch, in order; `count` and one are under way at a time."""
    waiting: deque[tuple[list[Part], Future[R]]] = deque()
    cursor = Cursor()
    try:
        while True:
            while len(waiting) <= count:
                parts, cursor = cursor.fill(draws, size, alone)
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
