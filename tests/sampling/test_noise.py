"""Noise depends on its key alone, has the table's law, and is the same integers everywhere."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from numba import njit
from scipy import stats

from certmix.errors import ParameterError
from certmix.radii.smoothings import Smoothing
from certmix.sampling import noise as module
from certmix.sampling.grid import Grid
from certmix.sampling.law import noise_law
from certmix.sampling.noise import STREAMS, Noise, NoiseKey, noise_fingerprint, noise_integers, on_device

CPU = torch.device("cpu")


def plain_philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 once more, in Python's whole numbers."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k0, p1 & 0xFFFFFFFF, p0 >> 32 ^ c[3] ^ k1, p0 & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def plain_noise(key: NoiseKey, sample: int, coordinates: int, sigma: float) -> list[int]:
    """The noise of one sample, in steps, as docs/noise.md tells it."""
    law, blocks = noise_law(sigma), (coordinates + 3) // 4
    found = []
    for j in range(coordinates):
        word, block = divmod(j, blocks)
        first, second = (
            plain_philox(
                [block | level << 28 | STREAMS[key.stream] << 29, sample, key.input % 2**32, key.input >> 32],
                [key.seed % 2**32, key.seed >> 32],
            )[word]
            for level in (0, 1)
        )
        bits = (first << 32 | second) & (2**63 - 1)
        cell, fraction = bits >> (63 - law.bits), bits & ((1 << (63 - law.bits)) - 1)
        entry = int(law.entries[cell])
        own = fraction < ((entry >> law.bits) << 32 | int(law.rest[cell]))
        size = cell if own else entry & ((1 << law.bits) - 1)
        found.append(-size if first >> 31 else size)
    return found


def draw(
    start: int, count: int, *, shape=(3,), seed=1, input=5, stream="estimation", sigma=0.5
) -> torch.Tensor:
    """Noise alone, in steps: an input of zeros."""
    made = Noise(sigma, CPU)
    out = torch.empty((count, int(np.prod(shape))))
    made.fill(out, made.steps(torch.zeros(shape)), NoiseKey(seed, input, stream), start)
    return (out.double() * made.grid.per_unit).round().long()


KNOWN = [  # Random123's known answers for philox4x32-10
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]  # fmt: skip


@pytest.mark.parametrize("counter, key, expected", KNOWN)
def test_philox_has_the_known_answers(counter, key, expected):
    philox = module._philox

    @njit
    def words(c, k):
        return philox(c[0], c[1], c[2], c[3], k[0], k[1])

    assert plain_philox(counter, key) == expected
    assert list(words(np.array(counter, np.uint32), np.array(key, np.uint32))) == expected


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1), input=st.integers(0, 2**64 - 1), stream=st.sampled_from(sorted(STREAMS)),
    first=st.integers(0, 2**32 - 4), coordinates=st.integers(1, 40), sigma=st.sampled_from([0.12, 0.5, 32.0]),
)  # fmt: skip
def test_kernel_torch_and_plain_python_draw_the_same_integers(seed, input, stream, first, coordinates, sigma):
    key, law = NoiseKey(seed, input, stream), noise_law(sigma)
    samples = torch.arange(first, first + 3)
    by_torch = noise_integers(key, samples, coordinates, on_device(law, CPU), law.bits)
    by_kernel = draw(first, 3, shape=(coordinates,), seed=seed, input=input, stream=stream, sigma=sigma)
    assert torch.equal(by_torch, by_kernel)
    assert by_torch[1].tolist() == plain_noise(key, first + 1, coordinates, sigma)


def test_ties_of_the_first_word_are_settled_by_the_second_everywhere():
    """Once in 2^15 coordinates; these samples hold some."""
    law, key = noise_law(0.5), NoiseKey(3, 4)
    samples, coordinates = torch.arange(400), 3072
    blocks = coordinates // 4
    first = module.philox_words(key, samples, blocks, 0).flatten(1)
    entries, rest = on_device(law, CPU)
    cell = (first >> (31 - law.bits)) & ((1 << law.bits) - 1)
    ties = (first & ((1 << (31 - law.bits)) - 1)) == entries[cell] >> law.bits
    own = module.philox_words(key, samples, blocks, 1).flatten(1)[ties] < rest[cell[ties]]
    assert len(own) >= 2 and own.any() and not own.all()
    by_torch = noise_integers(key, samples, coordinates, (entries, rest), law.bits)
    assert torch.equal(by_torch, draw(0, 400, shape=(coordinates,), seed=3, input=4))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 120), st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_any_division_into_batches_gives_the_same_noise(start, sizes):
    whole = draw(0, start + sum(sizes))
    parts, position = [], start
    for size in sizes:
        parts.append(draw(position, size))
        position += size
    assert torch.equal(torch.cat(parts), whole[start:])


def test_no_two_samples_share_bits():
    """The counter holds input, sample, stream and block in bits of their own."""
    keys = [NoiseKey(9, input, stream).words for input in (0, 1, 2**32, 2**64 - 1) for stream in STREAMS]
    assert len(set(keys)) == len(keys)
    words = [
        tuple(word)
        for input in (0, 1)
        for stream in STREAMS
        for level in (0, 1)
        for word in module.philox_words(NoiseKey(9, input, stream), torch.arange(8), 5, level)
        .movedim(1, 2)
        .reshape(-1, 4)
        .tolist()
    ]
    assert len(set(words)) == len(words) == 2 * 2 * 2 * 8 * 5


@pytest.mark.parametrize("seed, input", [(-1, 0), (2**64, 0), (0, -1), (0, 2**64)])
def test_keys_out_of_range_are_refused(seed, input):
    with pytest.raises(ParameterError, match="2\\^64"):
        NoiseKey(seed, input)


def test_noise_has_the_law_of_the_table_and_samples_are_independent():
    noise = draw(0, 1000, shape=(32,)).numpy()
    scaled = noise / float(Grid.of(0.5).steps_per_sigma)
    assert stats.kstest(scaled.ravel(), "norm").pvalue > 1e-4
    flat = scaled.reshape(40, -1)
    correlations = np.corrcoef(flat)[np.triu_indices(40, 1)]
    assert np.abs(correlations).max() < 5.5 / np.sqrt(flat.shape[1])


def test_inputs_are_drawn_in_the_order_of_channels_last():
    made, input = Noise(0.5, CPU), torch.arange(24.0).reshape(2, 3, 4) / 255
    out = torch.empty(5, 24)
    made.fill(out, made.steps(input), NoiseKey(0, 0), 0)
    flat = torch.empty(5, 24)
    made.fill(flat, made.steps(input.permute(1, 2, 0).flatten()), NoiseKey(0, 0), 0)
    assert torch.equal(out, flat)


def test_golden_noise():
    """The same key must give the same noise in every release."""
    assert draw(0, 2, shape=(5,), seed=0, input=0).tolist() == GOLDEN
    assert draw(1, 1, shape=(5,), seed=0, input=0).tolist() == GOLDEN[1:]


GOLDEN = [[4316, -6434, -3952, 3621, -1792], [4715, 4982, -4654, -4206, 5652]]


def test_a_fingerprint_is_of_the_noise_that_any_device_makes(monkeypatch):
    """The operations of GPUs, here on the CPU, make the chunk that the CPU's kernel makes."""
    found = {sigma: noise_fingerprint(Smoothing.of(sigma), "cpu") for sigma in (0.25, 0.5)}
    assert found[0.5] == "6db8821244df86d2" != found[0.25]

    class AsOnAGpu(Noise):
        def __init__(self, *given):
            super().__init__(*given)
            self._table = on_device(self.law, self.device)

    monkeypatch.setattr("certmix.sampling.noise.noise_of", AsOnAGpu)
    assert {sigma: noise_fingerprint(Smoothing.of(sigma), "cpu") for sigma in found} == found
