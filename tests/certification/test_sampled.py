"""Inputs side by side: what is stored does not depend on how many, and each wants what it wants alone."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from planes import plane, points
from scipy.stats import norm

import certmix
from certmix.certification import describe, sampled
from certmix.sampling.ballots import LEVELS, Ballots

INPUTS = [[x, y] for x in (0.05, 0.2, 0.45, 0.55, 0.8) for y in (0.1, 0.6)]
LABELS = [int(x > 0.5) for x, _ in INPUTS]


def records(batch_size, **options):
    given = dict(
        data=points(INPUTS, LABELS), standard=None, robust=plane([[-2.0, 0.3], [2.0, 0.0]]), inputs="all"
    )
    result = certmix.certify(sigma=0.5, alpha=0.76, batch_size=batch_size, **{**given, **options})
    return [replace(r, seconds=0.0) for r in result.records]


def same(first, second):
    for a, b in zip(first, second, strict=True):
        assert (a.index, a.label, a.input_checksum) == (b.index, b.label, b.input_checksum)
        assert (a.selection == b.selection).all()
        assert a.estimation.keys() == b.estimation.keys()
        assert all((a.estimation[n] == b.estimation[n]).all() for n in a.estimation)
        assert all(np.allclose(a.scores[n].totals, b.scores[n].totals) for n in a.scores)


@pytest.mark.filterwarnings("ignore::certmix.CertmixWarning")
@pytest.mark.parametrize(
    "options",
    [
        {"samples": 1200}, {"samples": 500, "goal": "fixed"}, {"samples": 800, "scores": "soft"},
        pytest.param({"samples": 800, "goal": "radius"}, marks=pytest.mark.long),
        pytest.param({"samples": 700, "scores": "soft", "goal": "fixed"}, marks=pytest.mark.long),
    ],
    ids=str,
)  # fmt: skip
def test_counts_do_not_depend_on_how_many_inputs_share_a_batch(options):
    alone = records(50, **options)
    same(alone, records(1000, **options))
    same(alone, records(350, **options))


@pytest.mark.filterwarnings("ignore::certmix.CertmixWarning")
def test_short_requests_are_packed(monkeypatch):
    sizes = []
    submit = sampled.Sampler.submit

    def noted(self, draws):
        sizes.append(len(draws))
        return submit(self, draws)

    monkeypatch.setattr(sampled.Sampler, "submit", noted)
    records(500, samples=500)
    assert max(sizes) == 5
    sizes.clear()
    records(100, samples=500)
    assert max(sizes) == 1


@pytest.mark.filterwarnings("ignore::certmix.CertmixWarning")
def test_rounds_as_on_a_gpu_give_the_same(monkeypatch):
    alone = records(50, samples=1000)
    as_on_a_gpu(monkeypatch)
    same(alone, records(200, samples=1000))
    same(alone, records(450, samples=1000))


def test_a_run_does_not_go_on_with_other_noise(problem, command, monkeypatch):
    options = (*problem.options, "--samples", 200, "--output", "run")
    assert command("certify", *options, "--inputs", 2).code == 0
    monkeypatch.setattr(describe, "noise_fingerprint", lambda smoothing, device: "of another device")
    done = command("certify", *options, "--inputs", 4)
    assert done.code == 2
    assert "noise made here has the fingerprint of another device, that of the run " in done.err


def as_on_a_gpu(monkeypatch):
    for one in (sampled.AHEAD, sampled.BATCHES, sampled.MOST_INPUTS):
        monkeypatch.setitem(one, "cpu", one["cuda"])


@pytest.mark.filterwarnings("ignore::certmix.CertmixWarning")
@pytest.mark.parametrize(
    "count, width, goal",
    [
        pytest.param(500, 1900, "radii", marks=pytest.mark.long),
        pytest.param(500, 16_384, "radii", marks=pytest.mark.long),
        (100, 3300, "radii"), (100, 3300, "fixed"),
    ],
)  # fmt: skip
def test_few_rows_of_a_gpu_s_batches_hold_no_sample_that_is_kept(monkeypatch, count, width, goal):
    """The scheduler alone, whose votes are made up."""
    as_on_a_gpu(monkeypatch)
    inputs = np.random.default_rng(0).uniform(0, 1, (count, 2))
    likely, rows = norm.cdf(4 * (inputs[:, 0] - 0.5)), []

    def submit(self, draws):
        rows.append(-(-sum(draw.samples for draw in draws) // width) * width)
        rng, ballots = np.random.default_rng(len(rows)), []
        for draw in draws:
            share, ends = likely[draw.index // 10], [draw.start, *draw.stops]
            votes = rng.binomial(np.diff(ends), share).cumsum()
            both = np.stack([np.array(draw.stops) - draw.start - votes, votes], 1)
            ballots.append([Ballots(np.array([0, LEVELS]), one) for one in both])
        return SimpleNamespace(result=lambda: ballots)

    monkeypatch.setattr(sampled.Sampler, "submit", submit)
    kept = records(
        width, data=points(inputs, (inputs[:, 0] > 0.5).astype(int)), goal=goal, samples=10_000, workers=1
    )
    assert len(kept) == count
    assert sum(record.selection.sum() + record.drawn for record in kept) > 0.9 * sum(rows)
