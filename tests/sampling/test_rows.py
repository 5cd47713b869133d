"""Models whose rows depend on their place in a batch, or on one another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planes import run
from torch import Tensor, nn

from certmix import SmoothedClassifier
from certmix.certification.stored import recertify
from certmix.errors import ModelError, RunError
from certmix.sampling import Sampler
from certmix.sampling.rows import is_independent_of_place


class Places(nn.Module):
    """Rows in the second half of a batch vote otherwise near the border."""

    def forward(self, x: Tensor) -> Tensor:
        shift = torch.where(torch.arange(len(x)) < len(x) // 2, 0.0, 1e-3)
        return torch.stack([x[:, 0] + shift, -x[:, 0]], 1)


class Centred(nn.Module):
    """Statistics over the batch: one row reaches the others."""

    def forward(self, x: Tensor) -> Tensor:
        y = x[:, :1] - x[:, :1].mean(0)
        return torch.cat([y, -y], 1)


class Scaled(nn.Module):
    """Dynamic quantisation of a whole batch: the scale is its largest value."""

    def forward(self, x: Tensor) -> Tensor:
        scale = x.abs().max() / 127
        y = (x[:, :1] / scale).round() * scale
        return torch.cat([y, -y], 1)


class Jittered(nn.Module):
    """Random, independently of rows and places."""

    def forward(self, x: Tensor) -> Tensor:
        y = x[:, :1] + 1e-7 * torch.randn(1)
        return torch.cat([y, -y], 1)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3)).eval()


def test_usual_networks_are_independent():
    with torch.inference_mode():
        assert is_independent_of_place(net(), torch.randn(64, 8))
        assert is_independent_of_place(net(), torch.randn(1, 8))


class Paired(nn.Module):
    """Each half of a batch reads the other: a reversal keeps these pairs."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2)
        m = (a[:, 0] + b[:, 0]) / 2**0.5
        y = torch.cat([m, m])
        return torch.stack([y, -y], 1)


class Second(nn.Module):
    """A row reads the one two places on."""

    def forward(self, x: Tensor) -> Tensor:
        y = x[:, 0] + 0.1 * x[:, 0].roll(-2)
        return torch.stack([y, -y], 1)


class Routed(nn.Module):
    """Experts of limited capacity, first come first served; the router knows no scale."""

    def forward(self, x: Tensor) -> Tensor:
        first = x[:, 0] > 0
        served = first & (first.cumsum(0) <= len(x) // 4)
        y = torch.where(served, x[:, 0], -x[:, 1])
        return torch.stack([y, -y], 1)


class Poisoned(nn.Module):
    """A row is lost where its neighbour is all zeros."""

    def forward(self, x: Tensor) -> Tensor:
        lost = (x == 0).all(1).roll(1)
        y = torch.where(lost, torch.nan, x[:, 0])
        return torch.stack([y, -y], 1)


@pytest.mark.parametrize("model, told", [
    *((model, "when other inputs of its batch do") for model in (
        Centred(), Scaled(), nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 2)).train(), Paired(), Second(), Routed(),
        Poisoned(),
    )),
    *((model, "when the same batch is run again") for model in (
        Jittered(), nn.Sequential(nn.Dropout(0.1).train(), nn.Linear(8, 2)),
    )),
])  # fmt: skip
def test_models_whose_rows_reach_another_or_vary_are_refused(model, told):
    """Also coupling that a reversal or a scale hides."""
    with pytest.raises(ModelError, match=told):
        Sampler(model, 2, 0.5, batch_size=100).votes(torch.zeros(8), 0, [200])


def test_a_model_that_writes_into_its_input_is_independent():
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.sub_(0.5).div_(0.25)[:, :1]
            return torch.cat([y, -y], 1)

    assert is_independent_of_place(InPlace(), torch.randn(30, 4))


def test_samples_of_a_place_dependent_model_come_in_full_batches_of_one_image():
    sampler = Sampler(Places(), 2, 0.5, batch_size=20)
    assert sampler.votes(torch.zeros(4), 0, [40, 100]).sum() == 140
    assert sampler.places == 20
    with pytest.raises(ModelError, match="full batches of 20, not after 50"):
        sampler.votes(torch.zeros(4), 0, [50])
    with pytest.raises(ModelError, match="full batches of 20, not after 10"):
        sampler.votes(torch.zeros(4), 0, [40], start=10)


def test_no_batch_holds_two_images_of_a_place_dependent_model():
    seen: list[Tensor] = []

    class Noted(Places):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x[:, 1].clone())
            return super().forward(x)

    from certmix.sampling import Draw

    images = [torch.tensor([0.0, 0.0]), torch.tensor([0.0, 100.0])]
    sampler = Sampler(Noted(), 2, 0.5, batch_size=40)
    sampler.submit([Draw(x, i, (20,), stream="selection") for i, x in enumerate(images)]).result()
    for batch in seen[7:]:
        assert len({bool(value > 50) for value in batch[:20].tolist()}) == 1


def certify_places(**options):
    return run(robust=Places(), images=2, **options)


def test_a_run_says_how_many_places_it_averages():
    result = certify_places(batch_size=50, samples=400, goal="fixed")
    assert {record.places for record in result.records} == {50}
    assert {record.places for record in run(samples=400).records} == {1}
    assert {record.places for record in certify_places(samples=400).records} == {100}
    with pytest.raises(ModelError, match="leave --batch-size out"):
        certify_places(batch_size=64, samples=400, goal="radii")


def test_bounds_that_need_one_function_are_refused(tmp_path):
    refused = pytest.raises(ModelError, match="where bound betting does not hold: use .*hoeffding")
    options = dict(batch_size=50, scores="soft", samples=400, goal="fixed")
    with refused:
        certify_places(**options)
    assert certify_places(**options, bound="hoeffding", output=tmp_path / "run").records
    with refused:
        recertify(tmp_path / "run", alpha=0.9, bound="betting")


def test_an_image_is_not_sampled_further_over_other_places(tmp_path):
    sampled = dict(goal="radius", output=tmp_path / "run")
    certify_places(batch_size=100, samples=300, **sampled)
    with pytest.raises(RunError, match="begun with batches of another size"):
        certify_places(batch_size=50, samples=3000, **sampled)


def test_predictions_of_a_place_dependent_model_are_refused():
    smooth = SmoothedClassifier(Places(), 0.5, classes=2, batch_size=50)
    with pytest.raises(ModelError, match="use certify"):
        smooth.predict(torch.ones(1, 4), samples=100)


def test_bounds_hold_for_unequal_places_by_enumeration():
    """Halves of a batch vote with .95 and .75: Clopper-Pearson of their mean fails at most delta (Hoeffding 1956)."""
    from scipy.stats import binom

    from certmix.bounds.clopper_pearson import lower_bound

    n, delta = 40, 0.05
    law = np.convolve(binom.pmf(np.arange(21), 20, 0.95), binom.pmf(np.arange(21), 20, 0.75))
    failing = lower_bound(np.arange(n + 1), n, delta) > 0.85
    assert law[failing].sum() <= delta
