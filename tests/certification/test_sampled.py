"""Images side by side: what is stored does not depend on how many, and each wants what it wants alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planes import plane, points

import certmix
from certmix.certification import sampled

INPUTS = [[x, y] for x in (0.05, 0.2, 0.45, 0.55, 0.8) for y in (0.1, 0.6)]
LABELS = [int(x > 0.5) for x, _ in INPUTS]


def records(batch_size, **options):
    given = dict(
        data=points(INPUTS, LABELS), standard=None, robust=plane([[-2.0, 0.3], [2.0, 0.0]]), images="all"
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
        {"samples": 3000}, {"samples": 900, "goal": "fixed"}, {"samples": 800, "goal": "radius"},
        {"samples": 800, "scores": "soft"}, {"samples": 700, "scores": "soft", "goal": "fixed"},
    ],
    ids=str,
)  # fmt: skip
def test_counts_do_not_depend_on_how_many_images_share_a_batch(options):
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
def test_two_rounds_under_way_give_the_same(monkeypatch):
    alone = records(50, samples=1000)
    monkeypatch.setitem(sampled.AHEAD, "cpu", 2)
    same(alone, records(200, samples=1000))
