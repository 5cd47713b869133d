"""Noise that depends on its key alone: (seed, input, stream, sample, coordinate).

Random bits come from Philox4x32-10 (Salmon et al., "Parallel random numbers: as
easy as 1, 2, 3", SC 2011): a bijection of 128-bit counters for each 64-bit key.
The key is the seed; the counter holds input, sample, stream, and the
coordinates' block, each in bits of its own.  So no two coordinates of any
samples share bits, and neither batch size, order, workers, resuming nor the
device change them.  A table turns bits into whole numbers of grid steps
(`certmix.sampling.law`).  That these bits are independent and uniform is the
only thing assumed about noise.

The numba kernel serves CPUs, torch's integer operations other devices: the same
whole numbers, and the same float32 inputs.
"""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certmix.errors import ParameterError
from certmix.kernels import jit, numba
from certmix.radii.smoothings import Smoothing
from certmix.sampling.devices import send
from certmix.sampling.grid import Grid
from certmix.sampling.law import NoiseLaw, noise_law
from certmix.types import FloatArray

STREAMS = {"estimation": 0, "selection": 1}
"""Numbers of the streams of an input: their noise is independent."""

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
_MOST_COORDINATES = 2**30
_BLOCKS = 256
"""Blocks of four words whose bits are made before they are used."""

_M0, _M1 = np.uint64(_MULTIPLIERS[0]), np.uint64(_MULTIPLIERS[1])
_W0, _W1 = np.uint32(_KEY_STEPS[0]), np.uint32(_KEY_STEPS[1])
_HALF = np.uint64(32)
uint32, uint64 = numba().uint32, numba().uint64


@dataclass(frozen=True)
class NoiseKey:
    """Whose noise: two whole numbers of 64 bits, and a name in `STREAMS`."""

    seed: int
    input: int
    stream: str = "estimation"

    def __post_init__(self) -> None:
        for name, value in (("seed", self.seed), ("input", self.input)):
            if not 0 <= value < 2**64:
                raise ParameterError(f"{name} = {value}: it must be a whole number from 0 to 2^64 - 1")

    @property
    def words(self) -> tuple[int, int, int, int, int]:
        """Seed and input in words of 32 bits, low ones first, and the stream's number."""
        low = 0xFFFFFFFF
        seed, input = int(self.seed), int(self.input)
        return seed & low, seed >> 32, input & low, input >> 32, STREAMS[self.stream]


@jit(inline="always")
def _philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Four random words of a counter and a key, uint32 each."""
    for _ in range(_ROUNDS):
        p0, p1 = _M0 * uint64(c0), _M1 * uint64(c2)
        c0, c2 = uint32(uint32(p1 >> _HALF) ^ c1 ^ k0), uint32(uint32(p0 >> _HALF) ^ c3 ^ k1)
        c1, c3 = uint32(p1), uint32(p0)
        k0, k1 = uint32(k0 + _W0), uint32(k1 + _W1)
    return c0, c1, c2, c3


@jit(inline="always")
def _block(block: Any, level: Any, sample: Any, c2: Any, c3: Any, k0: Any, k1: Any, stream: Any) -> Any:
    """The words of a block: level 0 has every coordinate's first word, level 1 its second."""
    c0 = uint32(uint32(block) | uint32(level) << uint32(28) | stream << uint32(29))
    return _philox(c0, sample, c2, c3, k0, k1)


@jit()
def _second(block: Any, w: int, sample: Any, c2: Any, c3: Any, k0: Any, k1: Any, stream: Any) -> Any:
    """The second word of a coordinate, needed once in 2^15 times."""
    a, b, c, d = _block(block, 1, sample, c2, c3, k0, k1, stream)
    return a if w == 0 else b if w == 1 else c if w == 2 else d


@jit()
def _fill(
    out: Any, steps: NDArray[np.int32], first: int, key: NDArray[np.uint32],
    entries: NDArray[np.uint32], rest: NDArray[np.uint32], bits: int, per_unit: float
) -> None:  # fmt: skip
    """Write samples first, first + 1, ... of an input (d,) into out (n, d): float32 values.

    Coordinate j has word j // blocks of block j % blocks, blocks = ceil(d / 4).
    """
    blocks = (steps.size + 3) // 4
    k0, k1, c2, c3, stream = key[0], key[1], key[2], key[3], key[4]
    low_bits, tail = uint32(bits), uint32(31 - bits)
    cells, fraction = uint32((1 << bits) - 1), uint32((1 << (31 - bits)) - 1)
    words = np.empty((4, _BLOCKS), np.uint32)
    w0, w1, w2, w3 = words[0], words[1], words[2], words[3]  # as rows of `words` they are slower
    for row in range(out.shape[0]):
        sample = uint32(first + row)
        for begin in range(0, blocks, _BLOCKS):
            count = min(_BLOCKS, blocks - begin)
            for b in range(count):
                w0[b], w1[b], w2[b], w3[b] = _block(begin + b, 0, sample, c2, c3, k0, k1, stream)
            for w in range(4):
                base = w * blocks + begin
                line, given = words[w], steps[base : base + count]
                target = out[row, base : base + count]
                for b in range(given.size):
                    word = line[b]
                    cell = (word >> tail) & cells
                    entry = entries[cell]
                    part, threshold = uint32(word & fraction), uint32(entry >> low_bits)
                    size = np.int32(cell) if part < threshold else np.int32(entry & cells)
                    if part == threshold:  # noqa: SIM102  (one condition is slower)
                        if _second(begin + b, w, sample, c2, c3, k0, k1, stream) < rest[cell]:
                            size = np.int32(cell)
                    sign = -np.int32(word >> uint32(31))
                    target[b] = np.float32(np.float64(given[b] + ((size ^ sign) - sign)) / per_unit)


def _multiply(a: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of products of words, held as int64; they wrap as uint64 would."""
    product = a * (multiplier - (1 << 64 if multiplier >> 63 else 0))
    return (product >> 32) & 0xFFFFFFFF, product & 0xFFFFFFFF


def philox_words(key: NoiseKey, samples: Tensor, blocks: int, level: int, begin: int = 0) -> Tensor:
    """The words (n, 4, blocks) of samples (n,) int64, as int64, from block `begin` on."""
    k0, k1, low, high, stream = key.words
    c0 = torch.arange(begin, begin + blocks, device=samples.device) | level << 28 | stream << 29
    c = [c0, samples[:, None], torch.full_like(c0, low), torch.full_like(c0, high)]
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c[0], _MULTIPLIERS[0])
        high1, low1 = _multiply(c[2], _MULTIPLIERS[1])
        c = [high1 ^ c[1] ^ k0, low1, high0 ^ c[3] ^ k1, low0]
        k0, k1 = (k0 + _KEY_STEPS[0]) & 0xFFFFFFFF, (k1 + _KEY_STEPS[1]) & 0xFFFFFFFF
    return torch.stack(c, 1)


def on_device(law: NoiseLaw, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return a table's entries and rest as int64 tensors."""
    entries, rest = (torch.from_numpy(part.astype(np.int64)).to(device) for part in (law.entries, law.rest))
    return entries, rest


def noise_integers(
    key: NoiseKey, samples: Tensor, coordinates: int, table: tuple[Tensor, Tensor], bits: int
) -> Tensor:
    """Return noise int64 (n, coordinates) in grid steps, by torch's integer operations on any device.

    `samples`, int64 (n,), are the samples' numbers; `table` is from `on_device`, with the law's `bits`.
    """
    blocks, (entries, rest) = (coordinates + 3) // 4, table
    first, second = (
        philox_words(key, samples, blocks, level).flatten(1)[:, :coordinates] for level in (0, 1)
    )
    cell = (first >> (31 - bits)) & ((1 << bits) - 1)
    entry, part = entries[cell], first & ((1 << (31 - bits)) - 1)
    threshold, alias = entry >> bits, entry & ((1 << bits) - 1)
    own = (part < threshold) | ((part == threshold) & (second < rest[cell]))
    size = torch.where(own, cell, alias)
    return torch.where(first >> 31 == 1, -size, size)


class Noise:
    """Noisy copies of inputs on one device: the sum of an input and noise of one kind.

    Parameters
    ----------
    sigma
        Level of Gaussian noise, in units of the input, or of its scale; or noise of another kind.
    device
        Where copies are wanted.  Without float64 there (MPS) they are made on the CPU.
    scale
        What noise counts in, of an input's shape; None: 1.
    """

    def __init__(
        self, sigma: float | Smoothing, device: torch.device, scale: FloatArray | None = None
    ) -> None:
        ordered = None if scale is None else np.moveaxis(scale, 0, -1) if scale.ndim == 3 else scale
        self.grid, self.law, self.device = Grid.of(sigma, ordered), noise_law(sigma), device
        unit = None if ordered is None else torch.from_numpy(ordered.astype(np.float32).ravel())
        self._unit = None if unit is None else unit.to(device)
        self._table = on_device(self.law, device) if device.type == "cuda" else None

    def seen(self, shape: torch.Size) -> torch.Size:
        """Return the shape of what the network sees of an input: its own."""
        return shape

    def steps(self, input: Tensor) -> Tensor:
        """Return an input's grid point, int32 (d,), its coordinates in the order of memory: channels last.

        It lies where copies are made: on a GPU, without waiting for that, or on the CPU.
        """
        if input.numel() > _MOST_COORDINATES:
            raise ParameterError(
                f"an input has {input.numel():,} values: noise is drawn for at most {_MOST_COORDINATES:,}"
            )
        ordered = input.movedim(0, -1) if input.ndim == 3 else input
        steps = torch.from_numpy(self.grid.nearest(ordered.cpu().numpy()).steps.ravel())
        return steps if self._table is None else send(steps, self.device)

    def fill(self, out: Tensor, steps: Tensor, key: NoiseKey, first: int) -> None:
        """Write samples first, first + 1, ... (below 2^32) of an input into `out`, contiguous float32 (n, d).

        `steps` is from `Noise.steps`, `key` says whose noise.
        """
        if not 0 <= first <= 2**32 - len(out):
            raise ParameterError(f"sample {first + len(out):,}: an input has at most 2^32 samples a stream")
        if self._table is not None:
            samples = torch.arange(first, first + len(out), device=self.device)
            noise = noise_integers(key, samples, len(steps), self._table, self.law.bits)
            out.copy_((steps + noise).double() / self.grid.per_unit)
            if self._unit is not None:
                out.mul_(self._unit)
            return
        target = out if out.device.type == "cpu" else torch.empty(out.shape)
        _fill(
            target.numpy(), steps.numpy(), first, np.array(key.words, np.uint32), self.law.entries,
            self.law.rest, self.law.bits, self.grid.per_unit,
        )  # fmt: skip
        if target is not out:
            out.copy_(target)
        if self._unit is not None:
            out.mul_(self._unit)  # as Grid.value does


def noise_fingerprint(smoothing: Smoothing, device: torch.device | str) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of a fixed chunk of noise: alike on all devices.

    They are of the float32 copies of an input of 1,000 zeros, 8 of each stream.  "" for kinds that add none.
    """
    if smoothing.entry.law is None:
        return ""
    noise, digest = noise_of(smoothing, torch.device(device)), hashlib.sha256()
    steps, out = noise.steps(torch.zeros(1000)), torch.empty((8, 1000), device=device)
    for stream in STREAMS:
        noise.fill(out, steps, NoiseKey(2**63 + 5, 2**40 + 3, stream), 2**31)
        digest.update(out.cpu().numpy().astype("<f4").tobytes())
    return digest.hexdigest()[:16]


def noise_of(smoothing: Smoothing, device: torch.device, scale: FloatArray | None = None) -> Noise:
    """Return what makes noisy copies of a kind of smoothing."""
    module, _, name = smoothing.entry.sampler.partition(":")
    made: Noise = getattr(importlib.import_module(module), name)(smoothing, device, scale)
    return made
