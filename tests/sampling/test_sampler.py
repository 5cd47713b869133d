"""Counting votes: a linear model whose smoothed probabilities are known, and the loop's promises."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn

from certmix.errors import ModelError, ParameterError
from certmix.sampling import Draw, Sampler, automatic_batch_size, count_votes, looks, resolve_device
from certmix.sampling.schedule import look


def counted(sampler: Sampler, draws: list[Draw]) -> list[np.ndarray]:
    """The votes of each draw at each of its stops."""
    return [np.array([cast.votes(2) for cast in stops]) for stops in sampler.submit(draws).result()]


def half_space(weight, offset: float) -> nn.Module:
    """Class 0 where weight . x > offset: its smoothed probability is Phi((w.x - b) / (sigma |w|))."""
    weight = torch.as_tensor(weight, dtype=torch.float64)
    net = nn.Linear(len(weight), 2, dtype=torch.float64)
    with torch.no_grad():
        net.weight.copy_(torch.stack([weight, -weight]))
        net.bias.copy_(torch.tensor([-offset, offset]))
    return nn.Sequential(Double(), net)


class Double(nn.Module):
    def forward(self, x):
        return x.double()


class Recorder(nn.Module):
    """Remembers the shapes it sees."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.shapes = inner, []

    def forward(self, x):
        self.shapes.append(tuple(x.shape))
        return self.inner(x)


@pytest.mark.parametrize("batch_size", [1, 7, 100, 1000])
def test_counts_do_not_depend_on_the_batch_size(batch_size):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4)).eval()
    for model, x, classes in (
        (half_space([1.0, 2.0], 0.3), torch.tensor([0.5, 0.1]), 2), (net, torch.rand(3, 8, 8), 4)
    ):  # fmt: skip
        counts = [
            count_votes(model, x, 0.5, 211, seed=2, classes=classes, index=9, batch_size=size)
            for size in (batch_size, 50)
        ]
        np.testing.assert_array_equal(*counts)


def test_every_batch_has_the_same_shape_and_none_exceeds_the_batch_size():
    model = Recorder(half_space([1.0, 2.0], 0.3))
    count_votes(model, torch.tensor([0.5, 0.1]), 0.5, 95, classes=2, batch_size=20)
    assert model.shapes == [(20, 2)] * (7 + 5)  # the check of rows, then the samples


class Broken(nn.Module):
    def forward(self, x):
        return torch.where(x[:, :1] > 0.5, torch.nan, 1.0).repeat(1, 2)


@pytest.mark.parametrize("model, settings, error, told", [
    (Broken(), {}, ModelError, "not finite"),
    (half_space([1.0], 0.0), {"classes": 3}, ModelError, r"\(10, 2\).*\(10, 3\)"),
    (half_space([1.0], 0.0), {"sigma": 0.0}, ParameterError, "sigma = 0.0"),
    (half_space([1.0], 0.0), {"sigma": -1.0}, ParameterError, "sigma = -1.0"),
    (half_space([1.0], 0.0), {"precision": "fp8"}, ParameterError, "fp8"),
    (half_space([1.0], 0.0), {"batch_size": 0}, ParameterError, "batch size = 0"),
])  # fmt: skip
def test_what_is_refused(model, settings, error, told):
    given = {"sigma": 0.5, "samples": 50, "classes": 2, "batch_size": 10, **settings}
    with pytest.raises(error, match=told):
        count_votes(model, torch.tensor([0.5]), **given)


def test_automatic_batch_sizes():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert automatic_batch_size((3, 32, 32), cpu) == 100
    assert automatic_batch_size((2,), cpu) == 1000
    assert automatic_batch_size((3, 32, 32), cuda) % 100 == 0
    assert automatic_batch_size((3, 2000, 2000), cpu) == 1


def test_devices():
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(ParameterError, match="unknown"):
        resolve_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(ParameterError, match="not available"):
            resolve_device("cuda")


def test_looks_increase_for_ever_by_about_a_fifth():
    sequence = [look(k) for k in range(60)]
    assert sequence[0] == 100
    assert all(n % 100 == 0 for n in sequence)
    ratios = np.array(sequence[1:]) / np.array(sequence[:-1])
    assert ratios.min() > 1.1
    assert ratios[10:].max() < 1.25
    assert looks(1000) == (100, 200, 300, 400, 500, 600, 700, 800, 1000)
    assert looks(99) == ()


class Changing(nn.Module):
    """A model whose parts are changed between two calls."""

    def __init__(self):
        super().__init__()
        self.norm, self.scale = nn.BatchNorm1d(2), 1.0

    def forward(self, batch):
        return self.norm(batch) * self.scale


DRAWS = [Draw(torch.tensor([0.1, 0.3]), 4, (100, 130, 2000)), Draw(torch.tensor([-0.1, 0.2]), 5, (2000,))]


@pytest.mark.parametrize(
    "change",
    [lambda m: setattr(m, "scale", -1.0), lambda m: m.norm.running_mean[0].add_(0.5)],
    ids=["scale", "mean"],
)
def test_a_model_that_changes_between_two_calls_is_taken_as_it_is_then(change):
    model = Changing().eval()
    sampler = Sampler(model, 2, 0.5, batch_size=10)
    before = counted(sampler, DRAWS)
    change(model)
    after = counted(sampler, DRAWS)
    assert (before[0] != after[0]).any()
    assert (after[0] == counted(Sampler(model, 2, 0.5, batch_size=100), DRAWS)[0]).all()


# The logits of an identity are its input: memory that the next batch overwrites.
@pytest.mark.parametrize("model", [nn.Identity(), half_space([1.0, 0.5], 0.1)], ids=["view", "plane"])
def test_one_sampler_may_be_asked_twice_at_once(model):
    sampler = Sampler(model, 2, 0.5, batch_size=10)
    alone = [[logits for _, logits in sampler.logits([draw])] for draw in DRAWS]
    both = list(zip(sampler.logits(DRAWS[:1]), sampler.logits(DRAWS[1:]), strict=True))
    for k in range(2):
        assert all((pair[k][1] == own).all() for pair, own in zip(both, alone[k], strict=True))
    found = {}

    def ask(k):
        found[k] = counted(sampler, [DRAWS[k]])[0]

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(2):
        assert (found[k] == counted(Sampler(model, 2, 0.5), [DRAWS[k]])[0]).all()


def test_nothing_asked_for_is_nothing():
    assert counted(Sampler(nn.Identity(), 2, 0.5), []) == []
    empty = counted(Sampler(nn.Identity(), 2, 0.5), [Draw(torch.zeros(2), 0, (5,), start=5)])
    assert np.array_equal(empty[0], [[0, 0]])
