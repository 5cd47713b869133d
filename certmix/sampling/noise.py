"""Gaussian noise that depends on its key alone: (seed, image, stream, chunk).

Noise is drawn in chunks of `CHUNK` samples, each from a generator seeded by
its key.  Batch size, order, workers and resuming therefore change nothing: on
one device type the noise of a sample is the same bit for bit.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

__all__ = ["CHUNK", "STREAMS", "Noise", "chunk_seed"]

CHUNK = 25
STREAMS = {"estimation": 0, "selection": 1 << 31}
"""Where each stream's chunks begin in the 2^32 chunks of an image: streams never meet."""

_MASK = 0xFFFFFFFF


def _scramble(x: int) -> int:
    """Permute 32-bit integers (a bijection: xor-shifts and odd multiplications)."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def chunk_seed(seed: int, image: int, stream: str, chunk: int) -> int:
    """Return the 64-bit generator seed of one chunk.

    torch's CPU generator uses the lower 32 bits only; they are a permutation
    of the chunk's number, so no two chunks of an image share a generator.
    """
    key = hashlib.blake2b(f"certmix noise 1/{seed}/{image}".encode(), digest_size=8).digest()
    base = int.from_bytes(key, "little")
    low = _scramble((base + STREAMS[stream] + chunk) & _MASK)
    return (base >> 32) << 32 | low


class Noise:
    """Standard normal noise for one image and stream.

    Parameters
    ----------
    shape
        Shape of one input.
    seed, image, stream
        The key; `image` is the input's index in its data set.
    device
        Where noise is drawn.  CPU and GPU draw different (equally distributed) noise.
    """

    def __init__(self, shape: torch.Size, seed: int, image: int, stream: str, device: torch.device) -> None:
        self._key = (seed, image, stream)
        self._generator = torch.Generator(device)
        self._shape, self._device = (CHUNK, *shape), device
        self._chunk: Tensor | None = None
        self._held = -1

    def fill(self, out: Tensor, start: int) -> None:
        """Write the noise of samples start, start + 1, ... into `out` (n, *shape)."""
        done = 0
        while done < len(out):
            chunk, offset = divmod(start + done, CHUNK)
            if offset == 0 and len(out) - done >= CHUNK:
                self._draw(out[done : done + CHUNK], chunk)
                done += CHUNK
                continue
            count = min(CHUNK - offset, len(out) - done)
            out[done : done + count] = self._partly(chunk)[offset : offset + count]
            done += count

    def _partly(self, chunk: int) -> Tensor:
        """Return a chunk that is needed in pieces; the last one is kept."""
        if self._chunk is None:
            self._chunk = torch.empty(self._shape, device=self._device)
        if self._held != chunk:
            self._draw(self._chunk, chunk)
            self._held = chunk
        return self._chunk

    def _draw(self, out: Tensor, chunk: int) -> None:
        self._generator.manual_seed(chunk_seed(*self._key, chunk))
        out.normal_(generator=self._generator)
