"""Models whose rows depend on their place in a batch, or on one another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from planes import run
from scipy.stats import binom
from torch import Tensor, nn

from certmix import SmoothedClassifier
from certmix.bounds.clopper_pearson import lower_bound
from certmix.certification.stored import recertify
from certmix.errors import ModelError, RunError
from certmix.sampling import Draw, Sampler
from certmix.sampling.rows import is_independent_of_place


class Votes(nn.Module):
    """Two classes by the sign of a function of the batch, (n, d) to (n,)."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        y = self.function(x)
        return torch.stack([y, -y], 1)


def places(x: Tensor) -> Tensor:
    """Rows in the second half of a batch vote otherwise near the border."""
    return x[:, 0] + torch.where(torch.arange(len(x)) < len(x) // 2, 0.0, 1e-3)


def scaled(x: Tensor) -> Tensor:
    """Dynamic quantisation of a whole batch: the scale is its largest value."""
    scale = x.abs().max() / 127
    return (x[:, 0] / scale).round() * scale


def routed(x: Tensor) -> Tensor:
    """Experts of limited capacity, first come first served; the router knows no scale."""
    first = x[:, 0] > 0
    return torch.where(first & (first.cumsum(0) <= len(x) // 4), x[:, 0], -x[:, 1])


REACHING = {
    "centred": lambda x: x[:, 0] - x[:, 0].mean(), "scaled": scaled, "routed": routed,
    "paired": lambda x: torch.cat([sum(x[:, 0].chunk(2)) / 2**0.5] * 2),  # a reversal keeps these pairs
    "second": lambda x: x[:, 0] + 0.1 * x[:, 0].roll(-2),
    "poisoned": lambda x: torch.where((x == 0).all(1).roll(1), torch.nan, x[:, 0]),
}  # fmt: skip
"""Functions where one row reaches the others."""


def test_usual_networks_are_independent():
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
    with torch.inference_mode():
        assert all(is_independent_of_place(net, torch.randn(rows, 8)) for rows in (64, 1))


@pytest.mark.parametrize("model, told", [
    *((model, "when other inputs of its batch do") for model in (
        *map(Votes, REACHING.values()), nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 2)).train(),
    )),
    *((model, "when the same batch is run again") for model in (
        Votes(lambda x: x[:, 0] + 1e-7 * torch.randn(1)),
        nn.Sequential(nn.Dropout(0.1).train(), nn.Linear(8, 2)),
    )),
])  # fmt: skip
def test_models_whose_rows_reach_another_or_vary_are_refused(model, told):
    """Also coupling that a reversal or a scale hides."""
    with pytest.raises(ModelError, match=told):
        Sampler(model, 2, 0.5, batch_size=100).votes(torch.zeros(8), 0, [200])


def test_a_model_that_writes_into_its_input_is_independent():
    assert is_independent_of_place(Votes(lambda x: x.sub_(0.5).div_(0.25)[:, 0]), torch.randn(30, 4))


def test_samples_of_a_place_dependent_model_come_in_full_batches_of_one_input():
    sampler = Sampler(Votes(places), 2, 0.5, batch_size=20)
    assert sampler.votes(torch.zeros(4), 0, [40, 100]).sum() == 140
    assert sampler.places == 20
    with pytest.raises(ModelError, match="full batches of 20, not after 50"):
        sampler.votes(torch.zeros(4), 0, [50])
    with pytest.raises(ModelError, match="full batches of 20, not after 10"):
        sampler.votes(torch.zeros(4), 0, [40], start=10)


def test_no_batch_holds_two_inputs_of_a_place_dependent_model():
    seen: list[Tensor] = []

    def noted(x: Tensor) -> Tensor:
        seen.append(x[:, 1].clone())
        return places(x)

    inputs = [torch.tensor([0.0, 0.0]), torch.tensor([0.0, 100.0])]
    sampler = Sampler(Votes(noted), 2, 0.5, batch_size=40)
    sampler.submit([Draw(x, i, (20,), stream="selection") for i, x in enumerate(inputs)]).result()
    for batch in seen[7:]:
        assert len({bool(value > 50) for value in batch[:20].tolist()}) == 1


def certify_places(**options):
    return run(robust=Votes(places), inputs=2, **options)


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


def test_an_input_is_not_sampled_further_over_other_places(tmp_path):
    sampled = dict(goal="radius", output=tmp_path / "run")
    certify_places(batch_size=100, samples=300, **sampled)
    with pytest.raises(RunError, match="begun with batches of another size"):
        certify_places(batch_size=50, samples=3000, **sampled)


def test_predictions_of_a_place_dependent_model_are_refused():
    smooth = SmoothedClassifier(Votes(places), 0.5, classes=2, batch_size=50)
    with pytest.raises(ModelError, match="use certify"):
        smooth.predict(torch.ones(1, 4), samples=100)


def test_bounds_hold_for_unequal_places_by_enumeration():
    """Halves of a batch vote with .95 and .75: Clopper-Pearson of their mean fails at most delta (Hoeffding 1956)."""
    n, delta = 40, 0.05
    law = np.convolve(binom.pmf(np.arange(21), 20, 0.95), binom.pmf(np.arange(21), 20, 0.75))
    failing = lower_bound(np.arange(n + 1), n, delta) > 0.85
    assert law[failing].sum() <= delta
