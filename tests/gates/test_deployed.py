"""What is deployed is what was certified: the same votes of the same key, the same mix of them, and tests of
its answers that are valid where noisy copies abstain."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from forged import certified, records, sources
from scipy.special import softmax
from scipy.stats import multinomial
from torch import nn

from certmix import MixedClassifier, SmoothedClassifier, SmoothedMixture
from certmix.certification.evaluate import outcomes_of
from certmix.certification.request.parts import Row
from certmix.data import load
from certmix.errors import ModelError, ParameterError
from certmix.models.mixture import mix_logits
from certmix.models.smoothed import established, leads
from certmix.models.spec import load_model
from certmix.models.temperature import answer_of, mix_shares
from certmix.runs.records import Records
from certmix.types import Status

SAMPLES, SIGMA = 300, 0.25


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("deployed")
    named = sources(folder)
    named["standard"] = f"{folder / 'nets.py'}:other"
    with (folder / "nets.py").open("a") as file:
        file.write(
            "\n\ndef other():\n    net = linear()\n    with torch.no_grad():\n"
            "        net.weight.mul_(0.2)\n        net.bias.add_(0.02)\n    return net\n"
        )
    certified(folder / "run", named, samples=SAMPLES, goal="fixed", tuned="none", seed=5)
    return folder / "run", named


@pytest.mark.parametrize("gate", [0.0, 0.6, 0.95])
@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0])
def test_the_deployed_mix_is_the_certified_one(run, gate, temperature):
    """One function of g and of the same counts, which are those that the run drew."""
    folder, named = run
    alpha, held = 0.62, list(records(folder, ballots=True).values())
    data = load(named["data"])
    places = [int(np.flatnonzero(data.indices == one.index)[0]) for one in held]
    inputs = torch.from_numpy(np.stack([data.read(k) for k in places]))
    keys = [one.index for one in held]
    g, base = (load_model(named[role], run_code=True).module for role in ("standard", "robust"))
    smooth = SmoothedClassifier(base, SIGMA, gate=gate, seed=5)
    counts = smooth.counts(inputs, SAMPLES, indices=keys)
    assert counts.tolist() == [one.ballots[SAMPLES].votes(3, gate).tolist() for one in held]
    assert counts.shape[1] == 3 + (gate > 0) and np.all(counts.sum(1) == SAMPLES)
    kept = Records.of(held)
    chosen = smooth.counts(inputs, 100, stream="selection", indices=keys)
    assert chosen.tolist() == [one.selection_ballots.votes(3, gate).tolist() for one in held]
    with torch.no_grad():
        probabilities = g(inputs).double().softmax(1).numpy()
    row = Row("mixed", "exact", alpha, gate, temperature)
    found = outcomes_of(kept, dict(zip(keys, probabilities, strict=True)), [row])
    mix = SmoothedMixture(g, smooth, alpha, standard_temperature=temperature)
    deployed = mix.shares(inputs, 100, stream="selection", indices=keys)
    assert deployed.argmax(1).tolist() == found.mixed.tolist()
    np.testing.assert_allclose(
        deployed, mix_shares(probabilities, chosen[:, :3] / 100, alpha, temperature), atol=1e-9
    )
    assert answer_of(chosen[:, :3]).tolist() == found.robust.tolist()


@pytest.mark.parametrize("temperature", [0.0, 1e-3, 0.5, 1.0, 7.0])
def test_the_mix_of_logits_is_that_of_the_table(temperature):
    """`MixedClassifier`, which certificates without samples are about, and the table's mix of probabilities."""
    rng = np.random.default_rng(0)
    g, h = (torch.from_numpy(rng.normal(size=(40, 5)) * 3) for _ in range(2))
    expected = mix_shares(softmax(g.numpy(), 1), softmax(h.numpy(), 1), 0.7, temperature)
    np.testing.assert_allclose(mix_logits(g, h, 0.7, temperature).exp(), expected, rtol=1e-9, atol=1e-300)
    mix = MixedClassifier(nn.Identity(), nn.Identity(), 0.7, standard_temperature=temperature)
    np.testing.assert_allclose(mix.mix(g, h).exp(), expected, rtol=1e-9, atol=1e-300)
    ties = mix_logits(torch.tensor([[1.0, 2.0, 2.0]]), torch.zeros(1, 3), 0.7, 0.0).exp()
    np.testing.assert_allclose(ties, [[0.7 / 3, 0.3 + 0.7 / 3, 0.7 / 3]], err_msg="the first of equals")


@pytest.mark.parametrize(
    "settings", [{"trust": "gradient"}, {"form": "logits"}, {"trust": "max-gradient", "form": "logits"}]
)
def test_a_temperature_is_for_the_mix_that_has_certificates(settings):
    with pytest.raises(ParameterError, match="it is for trust 'constant' of probabilities"):
        MixedClassifier(nn.Identity(), nn.Identity(), 0.7, standard_temperature=0.5, **settings)


@cache
def every_count(n: int, classes: int) -> np.ndarray:
    """All votes of n samples for so many classes, with abstentions in the last column."""
    counts = np.array([c for c in itertools.product(range(n + 1), repeat=classes) if sum(c) <= n])
    return np.column_stack([counts, n - counts.sum(1)])


@cache
def sure_of_three(n: int, failure_probability: float) -> np.ndarray:
    """Which of all votes for three classes establish one."""
    return established(every_count(n, 3)[:, :3], failure_probability)


@pytest.mark.parametrize("delta", [0.3, 0.1])
@pytest.mark.parametrize("eps", [0.0, 0.004])
@pytest.mark.parametrize(
    "truth",
    [(0.34, 0.33, 0.33, 0.0), (0.16, 0.15, 0.1, 0.59), (0.45, 0.44, 0.1, 0.01), (0.02, 0.01, 0.0, 0.97)],
)
def test_a_wrong_class_is_rarely_established_where_copies_abstain(truth, delta, eps):
    """By enumeration, with the noise eps away from the Gaussian, which favours a wrong class."""
    n = 14
    counts = every_count(n, 3)
    drawn = np.array(truth) + [-eps, eps, 0, 0]
    sure = sure_of_three(n, delta - n * eps)
    wrong = sure & (answer_of(counts[:, :3]) != 0)
    assert multinomial.pmf(counts, n, drawn)[wrong].sum() <= delta * (1 + 1e-9)
    assert sure.any() or truth[0] < 0.1


@pytest.mark.parametrize("delta", [0.3, 0.05])
@pytest.mark.parametrize("standard", [(1.0, 0.0), (0.5, 0.5), (0.1, 0.9)])
@pytest.mark.parametrize("truth", [(0.5, 0.3, 0.2), (0.1, 0.1, 0.8), (0.2, 0.75, 0.05)])
def test_the_lead_of_a_mix_is_bounded_by_enumeration(truth, standard, delta):
    n, alpha, eps = 40, 0.6, 0.01
    counts = every_count(n, 2)
    g = np.tile(standard, (len(counts), 1))
    drawn = np.array(truth) + [eps, -eps, 0]
    for selected in (0, 1):
        true = (1 - alpha) * (standard[selected] - standard[1 - selected]) + alpha * (
            truth[selected] - truth[1 - selected]
        )
        found = leads(g, counts, np.full(len(counts), selected), alpha, delta, eps)
        assert multinomial.pmf(counts, n, drawn)[found > true].sum() <= delta * (1 + 1e-9)


class Unsure(nn.Module):
    """Three classes, none with a largest probability of 0.6."""

    def forward(self, x):
        return torch.tensor([[0.2, 0.1, 0.0]]).repeat(len(x), 1) + 0 * x.sum(1, keepdim=True)


def test_without_a_vote_there_is_no_class_and_the_mix_is_gs():
    smooth, x = SmoothedClassifier(Unsure(), SIGMA, gate=0.6), torch.rand(4, 2)
    assert smooth.counts(x, 200).tolist() == [[0, 0, 0, 200]] * 4
    found = smooth.predict(x, 200)
    assert found.classes.tolist() == [-1] * 4 and not found.established.any()
    certificates = smooth.certify(x, 200)
    assert certificates.classes.tolist() == [-1] * 4 and np.all(certificates.radii.radius == 0)
    assert np.all(certificates.radii.status == Status.ABSTAIN)
    g = nn.Linear(2, 3)
    answers = g(x).argmax(1).tolist()
    mixed = SmoothedMixture(g, smooth, 0.6, standard_temperature=0.0).predict(x, 400)
    assert mixed.classes.tolist() == answers and mixed.established.all()
    alone = SmoothedMixture(g, smooth, 1.0).predict(x, 100)
    assert alone.classes.tolist() == [-1] * 4 and not alone.established.any()
    unsure = SmoothedMixture(g, smooth, 0.99, standard_temperature=0.0).predict(x, 100)
    assert not unsure.established.any(), "a rival's share may be 1/50, which outweighs g"


def test_a_gate_takes_the_bound_for_abstentions_and_none_is_todays():
    net, x = nn.Linear(2, 3), torch.tensor([[2.0, 0.0], [0.2, 0.1]])
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 0.0]]))
        net.bias.zero_()
    plain = SmoothedClassifier(net, SIGMA).certify(x, 1000, alpha=0.7, bound="clopper-pearson-two-sided")
    zero = SmoothedClassifier(net, SIGMA, gate=0.0).certify(
        x, 1000, alpha=0.7, bound="clopper-pearson-two-sided"
    )
    assert zero.radii.radius.tolist() == plain.radii.radius.tolist()
    gated = SmoothedClassifier(net, SIGMA, gate=0.9).certify(x, 1000, alpha=0.7)
    assert gated.radii.radius[0] > 0 and gated.radii.radius[1] <= plain.radii.radius[1]
    mixed = SmoothedMixture(net, SmoothedClassifier(net, SIGMA, gate=0.9), 0.7).certify(x, 1000)
    assert mixed.radii.radius.tolist() == gated.radii.radius.tolist()
    empty = SmoothedMixture(net, SmoothedClassifier(net, SIGMA, gate=0.9), 0.7).predict(x[:0], 100)
    assert empty.classes.shape == empty.established.shape == (0,)


def test_what_cannot_be_deployed_is_refused():
    net = nn.Linear(2, 3)
    for wrong in (0.62, 1.0, -0.05):
        with pytest.raises(ParameterError, match="gate"):
            SmoothedClassifier(net, SIGMA, gate=wrong)
    smooth = SmoothedClassifier(net, SIGMA)
    for settings in ({"alpha": 1.2}, {"alpha": 0.7, "standard_temperature": -1}):
        with pytest.raises(ParameterError):
            SmoothedMixture(net, smooth, **settings)
    with pytest.raises(ModelError, match="4 classes and the robust one 3"):
        SmoothedMixture(nn.Linear(2, 4), smooth, 0.7).predict(torch.zeros(1, 2))
