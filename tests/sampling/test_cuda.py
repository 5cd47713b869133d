"""Sampling on a GPU: what the CPU tests say of counts holds there too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planes import plane, points
from scipy.stats import binomtest, norm
from small_nets import normalised_net
from torch import nn

import certmix
from certmix.sampling import Draw, Sampler
from certmix.sampling.noise import Noise, NoiseKey

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")

DRAWS = [
    Draw(torch.tensor([0.1, 0.3]), 4, (100, 130, 400)),
    Draw(torch.tensor([0.2, -0.3]), 9, (60,), stream="selection"),
    Draw(torch.tensor([-0.4, 0.3]), 5, (75, 200), start=25),
]


def sampler(**settings) -> Sampler:
    return Sampler(plane([[1.0, -0.5], [-1.0, 0.5]]).cuda(), 2, 0.5, device="cuda", **settings)


def test_the_gpu_draws_the_integers_of_the_cpu():
    input, key = torch.rand(3, 32, 32), NoiseKey(2**63 + 5, 2**40, "selection")
    drawn = []
    for device in ("cpu", "cuda"):
        noise, out = Noise(0.5, torch.device(device)), torch.empty(100, 3072, device=device)
        noise.fill(out, noise.steps(input), key, 2**31)
        drawn.append(out.cpu())
    assert torch.equal(*drawn)


def test_votes_of_a_half_space_have_the_probability_it_has():
    x, n = torch.tensor([0.2, 0.0]), 20_000
    counts = sampler().votes(x, 0, [n])[0]
    probability = norm.cdf(0.2 / 0.5 / np.hypot(1.0, 0.5))
    assert binomtest(int(counts[0]), n, probability).pvalue > 1e-6


def equal(one, other):
    return all((a == b).all() for a, b in zip(one, other, strict=True))


def counted(pending, classes=2):
    """The votes of each draw at each of its stops."""
    return [np.array([cast.votes(classes) for cast in stops]) for stops in pending.result()]


def test_packed_counts_are_those_of_each_input_alone_on_any_device():
    packed, one = counted(sampler(batch_size=400).submit(DRAWS)), sampler(batch_size=64)
    alone = [
        sampler(batch_size=25).votes(d.input, d.index, d.stops, start=d.start, stream=d.stream) for d in DRAWS
    ]
    first, second = one.submit(DRAWS[:2]), one.submit(DRAWS[2:])  # two rounds under way
    assert equal(packed, alone)
    assert equal(packed, [*counted(first), *counted(second)])
    if torch.cuda.device_count() > 1:  # another device is waited for, too
        net = plane([[1.0, -0.5], [-1.0, 0.5]]).to("cuda:1")
        assert equal(packed, counted(Sampler(net, 2, 0.5, device="cuda:1", batch_size=64).submit(DRAWS)))


def test_running_out_of_memory_halves_the_batch():
    class Hungry(nn.Module):
        def forward(self, x):
            if len(x) > 100:
                torch.empty(1 << 50, dtype=torch.uint8, device=x.device)
            return plane([[1.0, -0.5], [-1.0, 0.5]]).to(x.device)(x)

    hungry = Sampler(Hungry(), 2, 0.5, device="cuda", batch_size=1000)
    found = counted(hungry.submit(DRAWS))
    assert hungry.batch_size == 100
    assert equal(found, counted(sampler(batch_size=100).submit(DRAWS)))


@pytest.mark.filterwarnings("ignore::certmix.CertmixWarning")
def test_a_run_is_the_same_twice_and_in_any_batch_size():
    inputs = [[x, y] for x in (0.05, 0.2, 0.45, 0.55, 0.8) for y in (0.1, 0.6)]
    data = points(inputs, [int(x > 0.5) for x, _ in inputs])

    def table(batch_size):
        return certmix.certify(
            sigma=0.5, alpha=0.76, data=data, standard=None, robust=plane([[-2.0, 0.3], [2.0, 0.0]]), inputs="all",
            samples=2000, device="cuda", batch_size=batch_size,
        ).summary.rows  # fmt: skip

    assert table(100) == table(100) == table(500)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(precision):
    assert sampler(precision=precision).votes(torch.tensor([3.0, 0.0]), 0, [500])[0, 0] > 490


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_counts_as_the_model_does():
    net = normalised_net().cuda()
    input = torch.rand(3, 8, 8)
    plain = Sampler(net, 3, 0.5, device="cuda", batch_size=64).votes(input, 1, [100, 1000])
    compiled = Sampler(net, 3, 0.5, device="cuda", batch_size=64, compiled=True)
    found = compiled.votes(input, 1, [100, 1000])
    assert np.abs(found - plain).sum() <= 20  # votes at near ties may turn
    assert (compiled.votes(input, 1, [100, 1000]) == found).all()
    draws = [Draw(input, 1, (100, 1000)), Draw(input * 0.5, 2, (130,))]
    one, two = compiled.submit(draws[:1]), compiled.submit(draws[1:])
    assert (counted(one, 3)[0] == found).all()
    assert (counted(two, 3)[0] == counted(compiled.submit(draws[1:]), 3)[0]).all()
