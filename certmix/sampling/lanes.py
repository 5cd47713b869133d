"""Forward passes of noisy batches: one lane a thread, with a model, buffers and noise of its own."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import Tensor, nn

from certmix.errors import ModelError
from certmix.sampling.noise import Noise
from certmix.sampling.packing import Cursor, Draw, Part
from certmix.sampling.precision import PRECISIONS

__all__ = ["MOST_LANES", "Lane", "Setting", "side_by_side", "twins"]

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
        name, classes = PRECISIONS[self._setting.precision], self._setting.classes
        dtype = torch.bfloat16 if name is None else getattr(torch, name)
        with torch.autocast(self._setting.device.type, dtype, enabled=name is not None):
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


def twins(module: nn.Module, count: int) -> list[nn.Module]:
    """Return `module` and copies that share its parameters and nothing else: `count` in all, or it alone.

    A module may keep what it computes in itself; threads that share one would
    then read each other's.  One that cannot be copied stays alone.
    """
    parameters = {id(parameter): parameter for parameter in module.parameters()}
    try:
        return [module, *(copy.deepcopy(module, dict(parameters)) for _ in range(count - 1))]
    except Exception:  # copying runs code of the module
        return [module]


def side_by_side(
    lanes: Sequence[Lane], draws: Sequence[Draw], size: int, work: Callable[[Lane, list[Part]], R]
) -> Iterator[tuple[R, list[Part]]]:
    """Yield what `work` makes of each full batch, in order, computed by a thread a lane.

    torch's threads are divided among the lanes, and given back at the end.
    """
    free: SimpleQueue[Lane] = SimpleQueue()
    for lane in lanes:
        free.put(lane)

    def do(parts: list[Part]) -> R:
        lane = free.get()
        try:
            return work(lane, parts)
        finally:
            free.put(lane)

    threads = torch.get_num_threads()
    share = max(1, threads // len(lanes))
    waiting: deque[tuple[list[Part], Future[R]]] = deque()
    try:
        with ThreadPoolExecutor(len(lanes), "lane", torch.set_num_threads, (share,)) as pool:
            try:
                cursor = Cursor()
                while True:
                    while len(waiting) <= len(lanes):
                        parts, cursor = cursor.fill(draws, size)
                        if not parts:
                            break
                        waiting.append((parts, pool.submit(do, parts)))
                    if not waiting:
                        return
                    parts, found = waiting.popleft()
                    yield found.result(), parts
            finally:
                for _, left in waiting:
                    left.cancel()
    finally:
        torch.set_num_threads(threads)
