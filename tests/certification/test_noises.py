"""Kinds of noise: their curves, the noise that is drawn, and runs with them from end to end."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.optimize import linprog
from torch import nn

import certmix
from certmix.certification.stored import recertify
from certmix.errors import ModelError, ParameterError
from certmix.radii import SMOOTHINGS, Smoothing
from certmix.sampling import Sampler, ablation
from certmix.sampling.ablation import shown_pixels
from certmix.sampling.noise import NoiseKey

TABLE = [  # p, q, alpha, Laplace, uniform (b = lambda = 0.5)
    (0.99, 0.01, 0.76, 1.76626669186162, 0.332105263157895),
    (0.9, 0.05, 0.76, 0.758815181590489, 0.267105263157895),
    (0.95, 0.02, 0.9, 1.29296987771601, 0.409444444444444),
    (0.8, 0.1, 0.67, 0.262820354775566, 0.103731343283582),
    (0.999, 0.0002, 0.55, 2.51034281497488, 0.0903090909090909),
    (0.7, 0.2, 1.0, 0.356779088910036, 0.25),
    (0.6, 0.3, 0.76, 0.0, 0.0),
]
CASES = [
    Smoothing("laplace", 0.25), Smoothing("uniform", 0.5), Smoothing("uniform", 0.5, "linf", 12),
    Smoothing("ablation", 2, dimension=12), Smoothing("gaussian", 0.25, "linf", 12),
    Smoothing("laplace", 0.25, "l2", 12),
]  # fmt: skip


@pytest.mark.parametrize(("p", "q", "alpha", "laplace", "uniform"), TABLE)
def test_reference_values(p, q, alpha, laplace, uniform):
    for kind, value in (("laplace", laplace), ("uniform", uniform)):
        found = float(Smoothing(kind, 0.5).radius("exact", p, q, alpha)[0])
        assert value * (1 - 1e-12) <= found <= value * (1 + 1e-14) + 1e-15


def test_pixels_of_ablation():
    p = np.array([0.9999, 0.99, 0.9])
    smoothing = Smoothing("ablation", 75, dimension=1024)
    assert smoothing.radius("exact", p, 1 - p, 1.0).tolist() == [9, 8, 6]
    assert smoothing.radius("exact", p, 1 - p, 0.76).tolist() == [5, 5, 3]


@pytest.mark.parametrize("smoothing", CASES, ids=str)
def test_theorem_3_5_is_never_ahead_and_radii_grow_as_they_should(smoothing):
    p, alphas = np.linspace(0.5, 1.0, 40), (0.6, 0.76, 1.0)
    q = 0.7 * (1 - p)
    found = [smoothing.radius("exact", p, q, alpha) for alpha in alphas]
    for alpha, radius in zip(alphas, found, strict=True):
        assert (smoothing.radius("lipschitz", p, q, alpha) <= radius * (1 + 1e-12)).all()
        assert (np.diff(radius) >= 0).all() and (radius >= 0).all()
        assert (smoothing.radius("exact", p, 1 - p, alpha) <= radius).all()
    assert (found[0] <= found[1]).all() and (found[1] <= found[2]).all()


def laplace_cdf(x):
    return np.where(x < 0, 0.5 * np.exp(np.minimum(x, 0)), 1 - 0.5 * np.exp(-np.maximum(x, 0)))


def shifted(kind, p, q, t):
    """The margin at distance t along one axis of the pair of sets that attains the curve, by integration."""
    x = np.linspace(-60, 60, 2_400_001)
    if kind == "laplace":
        density = 0.5 * np.exp(-np.abs(x))
        moved = 0.5 * np.exp(-np.abs(x - t))
    else:
        density, moved = (np.abs(x) <= 1) * 0.5, (np.abs(x - t) <= 1) * 0.5
    order = np.argsort(moved / np.maximum(density, 1e-300), kind="stable")  # where y loses least, first
    mass = np.cumsum(density[order]) * (x[1] - x[0])
    own, rival = np.zeros(len(x)), np.zeros(len(x))
    own[order[mass <= p]] = 1
    rival[order[mass >= 1 - q]] = 1
    outside = (density == 0) & (moved > 0)
    own[outside], rival[outside] = 0, 1
    return float(((own - rival) * moved).sum() * (x[1] - x[0]))


@pytest.mark.parametrize("kind", ["laplace", "uniform"])
@pytest.mark.parametrize(("p", "q", "alpha"), [(0.9, 0.05, 0.76), (0.7, 0.2, 1.0)])
def test_the_pair_of_sets_that_attains_the_curve_holds_inside_and_flips_outside(kind, p, q, alpha):
    radius, mu = float(Smoothing(kind, 1.0).radius("exact", p, q, alpha)[0]), (1 - alpha) / alpha
    assert shifted(kind, p, q, 0.999 * radius) > mu - 1e-4 and shifted(kind, p, q, 1.02 * radius) < mu
    assert shifted(kind, p, q, 0.98 * radius) > mu


@pytest.mark.parametrize(
    "smoothing", [Smoothing("laplace", 0.5), Smoothing("uniform", 0.5), Smoothing("uniform", 0.5, "linf", 3)],
    ids=lambda s: f"{s.kind} {s.norm}",
)  # fmt: skip
@pytest.mark.parametrize(("p", "q", "alpha"), [row[:3] for row in TABLE if row[3]])
def test_the_radius_is_tight_to_a_thousandth(smoothing, p, q, alpha):
    """In closed form: y on {z < a}, i on {z > b} of one value; in linf on what the moved box leaves and enters.

    After a move by t in each of D values the box has left 1 - (1 - t / (2 lambda))^D of its mass: y may have
    had all of it, and i may have all that is entered.
    """
    radius, mu = float(smoothing.radius("exact", p, q, alpha)[0]), (1 - alpha) / alpha

    def margin(t: float) -> float:
        if smoothing.kind == "laplace":
            law = scipy.stats.laplace(scale=0.5)
            return float(law.cdf(law.ppf(p) - t) - law.sf(law.isf(q) - t))
        lost = 1 - (1 - t) ** (3 if smoothing.norm == "linf" else 1)
        assert lost <= min(p, 1 - q)
        return p - lost - (q + lost)

    assert margin(0.999 * radius) > mu > margin(1.001 * radius)


@pytest.mark.parametrize(("pixels", "kept"), [(5, 2), (6, 1)])
def test_ablation_by_enumeration(pixels, kept):
    """The worst f with given means, over all subsets: a linear program has the curve's very value."""
    sets = list(itertools.combinations(range(pixels), kept))
    for rho in range(pixels - kept + 1):
        met = [any(pixel < rho for pixel in one) for one in sets]
        delta = Fraction(sum(met), len(sets))
        for p in (0.6, 0.9):
            # f on the sets at x, then at x': equal where no changed pixel is shown
            cost = [0.0] * len(sets) + [1 / len(sets)] * len(sets)
            same = [[float(i == k) for i in range(len(sets))] + [-float(i == k) for i in range(len(sets))]
                    for k, one in enumerate(met) if not one]  # fmt: skip
            mean = [[-1 / len(sets)] * len(sets) + [0.0] * len(sets)]
            least = linprog(cost, A_ub=mean, b_ub=[-p], A_eq=same or None, b_eq=[0.0] * len(same) or None,
                            bounds=(0, 1)).fun  # fmt: skip
            assert least == pytest.approx(max(0.0, p - float(delta)), abs=1e-7)


def test_every_set_of_pixels_is_equally_likely_and_keyed():
    key, samples = NoiseKey(3, 5), torch.arange(20_000)
    shown = shown_pixels(key, samples, 5, 2)
    assert (shown.sum(1) == 2).all()
    counts = np.unique((shown.long() * 2 ** torch.arange(5)).sum(1).numpy(), return_counts=True)[1]
    assert len(counts) == 10 and ((counts - 2000) ** 2 / 2000).sum() < 35
    assert torch.equal(shown_pixels(key, samples[100:200], 5, 2), shown[100:200])


@pytest.mark.parametrize("apart", [True, False])
def test_pixels_with_equal_words_are_told_apart_by_further_words_or_end_the_run(monkeypatch, apart):
    def words(key, samples, blocks, level, begin=0):
        found = torch.arange(4 * blocks).view(4, blocks).expand(len(samples), 4, blocks)
        return (found // 8 if level == 0 else found % 8 if apart else 0 * found) * 2

    monkeypatch.setattr(ablation, "philox_words", words)
    shown = shown_pixels(NoiseKey(3, 5), torch.arange(3), 12, 4)
    swallowing = nn.Sequential(Swallow(), Plane())
    sampler = Sampler(swallowing, 2, Smoothing("ablation", 4), batch_size=10)
    if apart:
        assert (shown == (torch.arange(12) < 4)).all()
        assert sampler.votes(torch.ones(12), 0, [20]).sum() == 20
    else:
        assert shown.isnan().all()
        with pytest.raises(ModelError, match="not finite"):
            sampler.votes(torch.ones(12), 0, [20])


class Swallow(nn.Module):
    def forward(self, x):
        return x.nan_to_num(0.0)[:, :12]


class Plane(nn.Module):
    """Two classes, by a weighted sum of the first values of an input."""

    def __init__(self) -> None:
        super().__init__()
        weights = torch.linspace(-1, 1, 12)
        self.register_buffer("weights", weights)

    def forward(self, x):
        z = 3 * (x[:, :12] * self.weights).sum(1)
        return torch.stack([z, -z], 1)


INPUTS = (torch.rand(8, 12, generator=torch.Generator().manual_seed(1)) * 255).round() / 255
INPUTS[0], INPUTS[1] = (
    torch.linspace(0, 1, 12).mul(255).round() / 255,
    torch.linspace(1, 0, 12).mul(255).round() / 255,
)


INPUTS[2, :6] = 0.0  # whatever is shown of it speaks for one class


@pytest.mark.parametrize("smoothing", CASES, ids=str)
def test_a_run_is_verified_and_withstands_attacks(smoothing, tmp_path):
    net = Plane()
    level = {"sigma": smoothing.scale} if smoothing.kind == "gaussian" else {
        "noise": smoothing.kind, "scale": smoothing.scale}  # fmt: skip
    found = certmix.certify(
        (net, net), (INPUTS, net(INPUTS).argmax(1)), **level, norm=smoothing.norm, alpha=0.9, samples=1000,
        output=tmp_path / "run", progress=False, precision="fp32",
    )  # fmt: skip
    summary = found.summary
    assert (summary.norm, summary.converted_from) == (smoothing.norm, smoothing.converted_from)
    assert any(radii.radius.max() > 0 for radii in found.outcomes.radii)
    data = INPUTS, net(INPUTS).argmax(1)
    checked = certmix.verify(tmp_path / "run", models=(net, net), data=data)
    assert not [one for one in checked.checks if one.outcome.name == "FAILS"], checked
    attacked = certmix.falsify(tmp_path / "run", models=(net, net), data=data, inputs=2, samples=1000)
    assert not attacked.findings
    again = certmix.recertify(tmp_path / "run", alpha=0.95)
    assert again.summary.norm == smoothing.norm


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"noise": "laplace"}, "needs a scale"), ({"noise": "laplace", "sigma": 0.5}, "give --scale|scale"),
        ({"noise": "ablation", "scale": 1.5}, "whole number"),
        ({"noise": "ablation", "scale": 2, "norm": "l2"}, "gives radii in l0"),
        ({"noise": "laplace", "scale": 0.5, "certificates": "smoothing"}, "certificate of laplace"),
        ({"noise": "gaussian", "scale": 0.5, "sigma": 0.25}, "differ"),
        ({"noise": "laplace", "scale": 0.5, "dimension": 7}, "have 12"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(given, told):
    net = Plane()
    with pytest.raises(ParameterError, match=told):
        certmix.certify(net, (INPUTS, net(INPUTS).argmax(1)), progress=False, samples=200, **given)


LOGS = Path(__file__).parents[3] / "shared" / "data" / "logs"


@pytest.mark.skipif(not LOGS.is_dir(), reason="the published logs are not here")
@pytest.mark.parametrize(
    ("name", "noise", "scale", "radii", "shares", "mean"),
    [
        ("split-3.5-stabilized", "splitting", 3.5, (0, 0.5, 1, 2, 4), (44.5, 42.4, 40.3, 35.1, 15.6), 1.379),
        ("uniform-0.5", "uniform", 0.5, (0, 0.5), (76.3, 56.2), 0.387),
    ],
)  # fmt: skip
def test_published_logs_in_l1(name, noise, scale, radii, shares, mean):
    found = recertify(
        LOGS / f"l1-{name}-cifar10-10000.tsv", noise=noise, scale=scale * math.sqrt(3), alpha=0.76,
        radii=radii, certificates=("exact",),
    )  # fmt: skip
    row = found.rows[-1]
    assert [round(100 * share, 1) for share in row.certified_accuracy] == list(shares)
    assert row.mean_certified_radius == pytest.approx(mean, abs=6e-4) and found.norm == "l1"


def test_the_table_of_kinds():
    assert next(iter(SMOOTHINGS)) == "gaussian"
    for name in SMOOTHINGS:
        entry = SMOOTHINGS[name]
        assert entry.name == name and entry.meaning and entry.scale
        for norm, rules in entry.certificates.items():
            own = {"enumerated", "enumerated-lipschitz"} if entry.cases else {"exact", "lipschitz"}
            assert own <= set(rules) and {rule.norm for rule in rules.values()} == {norm}
    assert Smoothing("laplace", 1.0).radius("exact", 1.0, 0.0, 0.76)[0] > 511, "all that is tried"
