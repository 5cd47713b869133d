"""The front that every run draws: at each alpha the figures of the table, cell by cell."""

from __future__ import annotations

import numpy as np
import pytest
from forged import certified, sources

from certmix.certification.evaluate import evaluate
from certmix.certification.fronts import ALPHAS, fronts_of
from certmix.certification.stored import open_run, recertify
from certmix.tables.fronts import certified_fronts


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fronts")
    return certified(folder / "run", sources(folder), samples=1000, tuned="0.8,0,0.6", radii=(0.0, 0.1, 0.2))


def test_each_front_passes_through_the_tables_figures(run):
    held = open_run(run)
    found = evaluate(held.records, held.probabilities, held.request, held.planned)
    fronts = fronts_of(found, held.probabilities, held.request)
    assert fronts.at_radius == 0.1
    names = [line.name for line in fronts.lines]
    assert names == ["votes, g as it is", "votes, g one-hot", "votes behind gate 0.8, g one-hot"]
    asked = [{}, {"standard_temperature": 0.0}, {"standard_temperature": 0.0, "gate": 0.8}]
    for line, options in zip(fronts.lines, asked, strict=True):
        for alpha in (0.55, 0.9, 1.0):
            at = int(np.flatnonzero(np.isclose(ALPHAS, alpha))[0])
            table = recertify(run, alpha=alpha, tuned="none", **options)
            row = next(one for one in table.rows if (one.classifier, one.certificate) == ("mixed", "exact"))
            assert line.clean[at] == row.clean_accuracy
            if options.get("gate"):  # its looks go as far as another request takes them
                assert abs(line.certified[at] - row.certified_accuracy[1]) <= 0.1
            else:
                assert line.certified[at] == row.certified_accuracy[1]
    assert fronts.points["g alone"][1] == 0.0 and set(fronts.points) == {
        "h alone", "mixed, \u03b1 = 0.76", "mixed, gated, \u03b1 = 0.6", "g alone",
    }  # fmt: skip
    assert certified_fronts(fronts, "", "png").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "noise",
    [{"noise": "laplace", "scale": 0.25}, {"noise": "uniform", "scale": 0.5, "norm": "linf"},
     {"sigma": 0.25, "norm": "linf"}, {"noise": "ablation", "scale": 1}],
    ids=str,
)  # fmt: skip
def test_the_front_of_other_noise_has_the_tables_figures(noise, tmp_path):
    named = sources(tmp_path)
    if noise.get("noise") == "ablation":
        named["robust"] = f"{tmp_path / 'nets.py'}:shown"
        with (tmp_path / "nets.py").open("a") as file:
            file.write("\n\ndef shown():\n    return nn.Sequential(nn.Linear(4, 2), linear())\n")
    folder = certified(
        tmp_path / "run", named, **{"sigma": None, **noise}, samples=300, goal="fixed", tuned="none"
    )
    held = open_run(folder)
    found = evaluate(held.records, held.probabilities, held.request, held.planned)
    fronts = fronts_of(found, held.probabilities, held.request)
    column = held.request.radii.index(fronts.at_radius)
    for alpha in (0.55, 0.7, 0.9, 1.0):
        at = int(np.flatnonzero(np.isclose(ALPHAS, alpha))[0])
        row = next(one for one in recertify(folder, alpha=alpha).rows if one.classifier == "mixed")
        assert fronts.lines[0].certified[at] == row.certified_accuracy[column]
        assert fronts.lines[0].clean[at] == row.clean_accuracy
    assert fronts.at_radius > 0 and (folder / "front.png").exists()


def test_without_g_there_is_no_front(tmp_path):
    named = {**sources(tmp_path), "standard": None}
    folder = certified(tmp_path / "run", named, samples=200)
    held = open_run(folder)
    found = evaluate(held.records, held.probabilities, held.request, held.planned)
    assert fronts_of(found, held.probabilities, held.request) is None
    assert not (folder / "front.png").exists() and (folder / "certified-accuracy.png").exists()
