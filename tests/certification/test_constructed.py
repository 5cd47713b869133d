"""Networks that were built to see the difference between drawn and Gaussian noise, all the way through."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from planes import points
from scipy import stats
from torch import Tensor, nn

import certmix
from certmix import SmoothedClassifier
from certmix.bounds.clopper_pearson import lower_bound
from certmix.sampling import count_votes
from certmix.verification.checks import Outcome
from certmix.verification.request import VerifyRequest
from certmix.verification.resample import resample

BEYOND = 5.76811
"""What float32 Box-Muller noise never exceeds, in sigma."""
SIGMA = 0.5


class Tail(nn.Module):
    """Class 0 iff no coordinate of the noise around the constant input 0.5 lies beyond `BEYOND` sigma."""

    def __init__(self, beyond: float = BEYOND) -> None:
        super().__init__()
        self.limit = beyond * SIGMA

    def forward(self, v: Tensor) -> Tensor:
        found = ((v - 0.5).abs().flatten(1).amax(1) > self.limit).long()
        return nn.functional.one_hot(found, 2).float() * 10


class Parity(nn.Module):
    """Whether a value in (-1/32, 0) is no multiple of 2^-24 (after Voracek and Hein, ICLR 2023)."""

    def forward(self, x: Tensor) -> Tensor:
        v = x.flatten(1)
        scaled = v * 2.0**24
        off = ((v < 0) & (v > -(2.0**-5)) & (scaled != scaled.round())).any(1).long()
        return nn.functional.one_hot(off, 2).float() * 10


class Sign(nn.Module):
    """The sign of the first coordinate."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([-x[:, 0], x[:, 0]], 1)


def true_probability(beyond: float, coordinates: int) -> float:
    return (1 - math.erfc(beyond / math.sqrt(2))) ** coordinates


@pytest.mark.long
def test_the_tail_of_the_noise_is_there_at_imagenet_size():
    """8,000 samples of 150,528 coordinates: about ten hold one beyond 5.768 sigma, and p_lower <= p."""
    counts = count_votes(Tail(), torch.full((3, 224, 224), 0.5), SIGMA, 8000, classes=2, batch_size=20)
    assert 2 <= counts[1] <= 25
    assert lower_bound(counts[0], 8000, 0.001) <= true_probability(BEYOND, 150_528)


@pytest.fixture(scope="module")
def tail_run(tmp_path_factory):
    """The same through a whole run, at a border that 3,072 coordinates cross often enough."""
    folder = tmp_path_factory.mktemp("tail") / "run"
    inputs = np.full((2, 3, 32, 32), 0.5, np.float32)
    result = certmix.certify(
        sigma=SIGMA, alpha=1.0, data=points(inputs, [0, 0]), standard=None, robust=Tail(4.5), inputs="all", samples=4000,
        goal="fixed", selection_samples=20, output=folder,
    )  # fmt: skip
    return result, folder


def test_certify_bounds_the_tail_from_below(tail_run):
    result, _ = tail_run
    true = true_probability(4.5, 3072)
    assert 0.97 < true < 0.99
    votes = np.array([record.estimation[4000][0] for record in result.records])
    assert stats.binomtest(int(votes.sum()), 8000, true).pvalue > 1e-4
    assert result.evaluation.bounds.p_lower.max() <= true
    assert all(record.noise_error == pytest.approx(1.55e-12, rel=0.01) for record in result.records)


def test_the_smoothed_classifier_bounds_the_tail_from_below():
    smooth = SmoothedClassifier(Tail(4.5), SIGMA, classes=2, batch_size=100)
    found = smooth.certify(torch.full((1, 3, 32, 32), 0.5), samples=2000, selection_samples=20)
    assert found.radii.radius[0] <= SIGMA * stats.norm.ppf(true_probability(4.5, 3072))


def low_order_inputs() -> Tensor:
    """Two inputs 1.65e-6 apart."""
    x = torch.full((2, 3, 32, 32), 0.5)
    x[1] -= 2.0**-25
    return x


def test_inputs_that_differ_in_their_last_bits_are_not_certified_for_different_classes():
    inputs = low_order_inputs()
    apart = float((inputs[0].double() - inputs[1].double()).norm())
    smooth = SmoothedClassifier(Parity(), SIGMA, classes=2, batch_size=100)
    one = smooth.certify(inputs, samples=400, selection_samples=20)
    result = certmix.certify(
        sigma=SIGMA, alpha=1.0, data=points(inputs.numpy(), [0, 1]), standard=None, robust=Parity(), inputs="all",
        samples=400, goal="fixed", selection_samples=20,
    )  # fmt: skip
    radii = result.evaluation.radii[0].radius
    for classes, found in ((one.classes, one.radii.radius), ([r.selected for r in result.records], radii)):
        assert classes[0] == classes[1] or found.sum() < apart


def test_verify_draws_the_same_votes_again(tail_run):
    _, folder = tail_run
    data = points(np.full((2, 3, 32, 32), 0.5, np.float32), [0, 0])
    again = VerifyRequest(device="cpu", resample=2, resample_samples=400, new_seed=5)
    found, other = (
        {r.check: r.outcome for r in resample(folder, again, dataset=data, models={"robust": Tail(end)})}
        for end in (4.5, 4.0)
    )
    assert found["same seed"] is Outcome.HOLDS
    assert found["new seed"] is Outcome.HOLDS
    assert other["same seed"] is not Outcome.HOLDS


def test_wrong_certificates_of_many_inputs_spread_like_independent_draws():
    """All inputs lie on the border; a loader hands them over one by one."""
    wrong = []
    inputs = [
        torch.cat([torch.zeros(1, 1), torch.rand(1, 19, generator=torch.Generator().manual_seed(k))], 1)
        for k in range(20)
    ]
    for seed in range(14):
        smooth = SmoothedClassifier(Sign(), 1.0, classes=2, seed=seed, batch_size=100)
        found = [smooth.certify(x, samples=50, selection_samples=20, failure_probability=0.1) for x in inputs]
        wrong.append(sum(int(one.radii.radius[0] > 0) for one in found))
    rate = np.mean(wrong) / 20
    assert 0.02 < rate <= 0.12
    assert max(wrong) <= 8
    spread = np.var(wrong, ddof=1) / (20 * rate * (1 - rate))  # 1 for independent draws, 20 for equal ones
    assert 0.4 < spread < 2.0


def test_equal_inputs_have_equal_votes_however_they_are_divided():
    smooth = SmoothedClassifier(Sign(), 1.0, classes=2, batch_size=50)
    inputs = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    together = smooth.counts(inputs, 300)
    alone = np.concatenate([smooth.counts(x[None], 300) for x in inputs.flip(0)])[::-1]
    np.testing.assert_array_equal(together, alone)
    keyed = smooth.counts(inputs[[0, 0]], 300, indices=[1, 2])
    assert not np.array_equal(keyed[0], keyed[1])
