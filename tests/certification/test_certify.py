"""The run: what is stored, reused, refused and resumed."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from forged import edit_record, inputs_in
from planes import INPUTS, LABELS, NET, plane, points, run
from scipy.stats import norm
from torch import nn

import certmix
from certmix.bounds import bound_counts
from certmix.bounds.bound import allow_for_noise
from certmix.certification.evaluate import mean_below
from certmix.certification.request.proved import Margin
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.stored import recertify
from certmix.errors import DataError, ModelError, ParameterError, RunError
from certmix.radii import certify_radii, margin_slack_of
from certmix.runs import Identity, Run, Store, read_run
from certmix.runs.sources import Sources, load_data
from certmix.sampling import Sampler

DATA = points(INPUTS, LABELS)


def test_the_table_is_what_the_counts_say():
    result = run(certificates=("exact", "smoothing"), radii=(0.0, 0.25, 0.5))
    counts = np.stack([r.estimation[400] for r in result.records])
    selected = np.array([r.selection.argmax() for r in result.records])
    bounds = allow_for_noise(
        bound_counts(counts, selected, 0.001), result.records[0].noise_error, [r.lost for r in result.records]
    )
    right = selected == np.array(LABELS)
    for row, (alpha, certificate) in zip(
        result.summary.rows, [(1.0, "exact"), (0.76, "exact"), (0.76, "smoothing")], strict=True
    ):
        slack = margin_slack_of(alpha)
        radius = certify_radii(
            bounds, sigma=0.5, alpha=alpha, certificate=certificate, margin_slack=slack
        ).radius
        expected = [np.mean(right & (radius > 0)), *(np.mean(right & (radius >= r)) for r in (0.25, 0.5))]
        assert row.certified_accuracy == pytest.approx(expected)
        assert row.mean_certified_radius == pytest.approx(np.where(right, radius, 0).mean())
    assert result.summary.clean_accuracy.standard == pytest.approx(0.8)
    assert result.summary.complete
    assert [r.index for r in result.records] == [0, 10, 20, 30, 40]


def test_no_radius_exceeds_the_true_distance():
    """For a linear h the mix with the worst g flips at a known distance."""
    result = run(samples=2000)
    for record, radius in zip(result.records, result.evaluation.radii[1].radius, strict=True):
        true_p = norm.cdf(abs(INPUTS[record.index // 10][0]) / 0.5)
        limit = 0.5 * (norm.ppf(true_p) - norm.ppf(1 / (2 * 0.76)))
        assert radius <= max(0.0, limit)


@pytest.mark.filterwarnings("ignore:The run was made with failure probability")
def test_counts_do_not_change_when_the_request_does(tmp_path: Path, monkeypatch):
    before = run(output=tmp_path / "run").records
    monkeypatch.setattr(Sampler, "submit", lambda *a, **k: pytest.fail("a sample was drawn again"))
    for change in (
        {"alpha": 0.9}, {"certificates": ("lipschitz",)}, {"radii": (0.0, 0.1)},
        {"failure_probability": 0.05}, {"standard": None},
    ):  # fmt: skip
        again = run(output=tmp_path / "run", **change)
        for record, first in zip(again.records, before, strict=True):
            np.testing.assert_array_equal(record.estimation[400], first.estimation[400])
            assert record.seconds == first.seconds


def test_more_inputs_draw_only_what_is_missing(tmp_path: Path):
    few = run(output=tmp_path / "run", inputs=2)
    many, alone = run(output=tmp_path / "run", inputs="all"), run(inputs="all")
    seconds = {r.index: r.seconds for r in many.records}
    assert all(seconds[r.index] == r.seconds for r in few.records)
    for a, b in zip(many.records, alone.records, strict=True):
        np.testing.assert_array_equal(a.estimation[400], b.estimation[400])


@pytest.mark.parametrize(
    "change, part",
    [
        ({"seed": 1}, "seed"),
        ({"selection_samples": 50}, "selection_samples"),
        ({"precision": "bf16"}, "precision"),
        ({"robust": plane([[1.0, 0.1], [-1.0, 0.0]])}, "robust_checksum"),
        ({"data": points([[0.1, 0.1]], [0])}, "data_checksum"),
    ],
)
def test_another_identity_is_refused_and_named(tmp_path: Path, change, part):
    run(output=tmp_path / "run", inputs=1)
    with pytest.raises(RunError, match=part) as refused:
        run(output=tmp_path / "run", inputs=1, **change)
    assert "\n" not in str(refused.value)
    run(output=tmp_path / "run", inputs=1, fresh=True, **change)


@pytest.mark.parametrize(
    "change, first",
    [
        ({"bound": "beta-binomial"}, "bound clopper-pearson"),
        ({"failure_probability": 0.002}, "failure probability 0.001"),
        ({"goal": "radii"}, "exactly 400 samples"),
    ],
)
def test_a_choice_that_samples_may_have_decided_is_pointed_out(tmp_path: Path, change, first):
    """By a warning, in the table, and by recertify of the folder whatever its newest request was."""
    run(output=tmp_path / "run", inputs=1)
    with pytest.warns(certmix.CertmixWarning, match=f"made (with|for) {first}"):
        changed = run(output=tmp_path / "run", inputs=1, **change)
    assert any(first in note for note in changed.summary.notes)
    assert any(first in note for note in recertify(tmp_path / "run").notes)
    assert not any("choice" in note for note in run(output=tmp_path / "run", inputs=1).summary.notes)


def test_a_changed_input_is_noticed(tmp_path: Path):
    run(output=tmp_path / "run", inputs=1, data=DATA)
    edit_record(tmp_path / "run", 0, estimation={}, input_checksum="0" * 64)
    with pytest.raises(RunError, match="input 0 is not what it was"):
        run(output=tmp_path / "run", inputs=1, data=DATA)


def test_the_run_folder_is_complete(tmp_path: Path):
    result = run(output=tmp_path / "run")
    names = {p.name for p in (tmp_path / "run").iterdir()}
    products = {f"certified-accuracy.{s}" for s in ("csv", "md", "tex", "json", "png", "svg")}
    assert products | {"run.json", "records.tsv", "numbers.sqlite"} <= names
    described = read_run(tmp_path / "run")
    assert described["request"]["alpha"] == 0.76
    assert described["failure_budget"]["split"] == {"p": 0.001}
    assert set(described["versions"]) >= {"certmix", "torch", "numpy", "python"}
    assert len(described["models"]["robust"]["checksum"]) == 64
    rows = [row.split("\t") for row in (tmp_path / "run" / "records.tsv").read_text().splitlines()]
    assert {row[6] for row in rows[1:]} == {"clopper-pearson"}
    for row, radius in zip(rows[1:], result.evaluation.radii[0].radius, strict=True):
        assert 0 <= radius - float(row[3]) < 1e-6


def test_a_second_writer_is_kept_out(tmp_path: Path):
    run(output=tmp_path / "run", inputs=1)
    identity = Identity(**read_run(tmp_path / "run")["identity"])
    with Run(tmp_path / "run", identity, 2), pytest.raises(RunError, match="in use"):
        run(output=tmp_path / "run", inputs=1)
    run(output=tmp_path / "run", inputs=1)


def test_interrupted_before_the_first_input():
    class Interrupting(nn.Module):
        def forward(self, x):
            if len(x) > 4:
                signal.raise_signal(signal.SIGINT)
            return plane(NET)(x)

    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    try:
        partial = run(robust=Interrupting(), standard=None)
    finally:
        signal.signal(signal.SIGINT, ignored)
    assert (partial.summary.inputs, partial.summary.complete) == (0, False)


def test_kill_dash_nine_loses_at_most_the_round_in_flight(problem, command, tmp_path: Path):
    options = [*problem.options[:4], "--robust", f"{tmp_path / 'nets.py'}:Slow", *problem.options[6:]]
    options += ["--samples", 300, "--goal", "fixed", "--batch-size", 50, "--inputs", "all", "--output"]
    process = subprocess.Popen(
        [sys.executable, "-m", "certmix_cli", "certify", *map(str, options), str(tmp_path / "run")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1", "SECONDS_A_PASS": "0.02"},
    )  # fmt: skip
    database, rows = tmp_path / "run" / "numbers.sqlite", 0
    for _ in range(3000):
        time.sleep(0.1)
        rows = inputs_in(database)
        if rows >= 3:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 3 <= rows < 12

    def stored():
        with closing(Store(database, 3, read_only=True)) as store:
            return store.inputs()

    kept = stored()
    resumed = command("certify", *options, tmp_path / "run", "--format", "json")
    assert resumed.code == 0, resumed.err
    assert json.loads(resumed.out)["complete"] is True
    after = stored()
    assert len(after) == 12
    for index, record in kept.items():
        assert (after[index].selection == record.selection).all()
        if record.estimation:
            assert after[index].seconds == record.seconds, "drawn again"
    assert sum(bool(record.estimation) for record in kept.values()) >= 2
    fresh = command("certify", *options, tmp_path / "other", "--format", "json")
    assert json.loads(fresh.out)["rows"] == json.loads(resumed.out)["rows"]


CHANCE = [[x / 20 - 0.5, 0.0] for x in range(20)]
WARNED = [
    ({"samples": 10}, "cannot certify anything.*about"),
    ({"alpha": 0.5, "inputs": 1}, "raise --alpha"),
    ({"data": points(CHANCE, [int(x > 0) for x, _ in CHANCE])}, "near chance.*normalisation"),
    ({"robust": "nets.py:tiny", "samples": 100}, "tiny draws its weights at random"),
]


@pytest.mark.parametrize("options, words", WARNED)
def test_what_does_not_look_right_is_pointed_out(tmp_path: Path, monkeypatch, options, words):
    (tmp_path / "nets.py").write_text("from torch import nn\n\n\ndef tiny():\n    return nn.Linear(2, 2)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.warns(certmix.CertmixWarning, match=words):
        run(**options)


WRONG = [
    ({"alpha": 0.3}, "alpha"), ({"alpha": 1.5}, "alpha"), ({"sigma": 0.0}, "sigma"),
    ({"sigma": float("nan")}, "sigma"), ({"samples": 0}, "samples"), ({"inputs": 0}, "inputs"),
    ({"failure_probability": 0.0}, "between"), ({"failure_probability": 1.0}, "between"),
    ({"certificates": ("magic",)}, "magic"), ({"bound": "magic"}, "magic"), ({"seed": -1}, "seed"),
    ({"goal": "magic"}, "magic"), ({"goal": "radii", "samples": 99}, "looks first"),
    ({"relative_precision": 1.0}, "relative_precision = 1.0 is for goal"),
    ({"goal": "radius", "relative_precision": 1.0}, "between"),
    ({"sigma": "0.5"}, "^sigma = '0.5' is of type str: give a number"),
    ({"alpha": None}, "no alpha is given"),
    ({"failure_probability": [0.1]}, r"^failure probability = \[0.1\] is of type"),
    ({"inpts": 3}, r"^unknown options: inpts: did you mean inputs\?"),
    ({"images": 3}, r"^unknown options: images: did you mean inputs\?"),
    ({"certificate": "exact"}, r"unknown options: certificate: did you mean certificates\?"),
    ({"xyzzy": 1}, "unknown options: xyzzy: leave it out"),
    ({"robust": plane([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])}, "3"),
    ({"standard": plane([[1.0, 0.0]] * 3)}, "3"),
    ({"data": np.asarray(INPUTS)}, r"data of type ndarray"),
    ({"data": "pik.npz", "robust": None}, "'pik.npz'"),  # before models are looked for
    ({"split": "train"}, "a Dataset already, of split 'test'"),
]  # fmt: skip


@pytest.mark.parametrize("options, words", WRONG)
def test_what_cannot_be_is_refused_in_one_line(options, words):
    with pytest.raises((ParameterError, ModelError, DataError), match=words) as refused:
        run(**options)
    assert "\n" not in str(refused.value)


def test_a_split_is_refused_where_the_data_have_none(tmp_path: Path):
    path = tmp_path / "points.npz"
    np.savez(path, inputs=np.asarray(INPUTS, np.float32), labels=LABELS)
    options = dict(data=str(path), input_range=None, output=tmp_path / "run")
    with pytest.raises(DataError, match="--split train would be all of it.*two files"):
        run(**options, split="train")
    sources = json.loads((run(**options).folder / "run.json").read_text())["sources"]
    assert sources["split"] == "test"
    again = Sources.from_dict({**sources, "objects": []}, Path("run.json"))
    assert again.split is None and load_data(again).checksum
    assert Sources.from_dict(Sources(split="train").as_dict(), Path("run.json")).split == "train"


@pytest.mark.parametrize("kind", [CertifyRequest, Margin])
def test_radii_are_floats_whatever_they_are_written_as(kind):
    def asked(radii):
        return kind(**{"sigma": 0.5} if kind is CertifyRequest else {"norm": "l2"}, alpha=0.76, radii=radii)

    whole, numpy = asked([0, 1]), asked(np.array([0.0, 1.0]))
    assert whole == numpy == asked((0.0, 1.0))
    assert all(type(radius) is float for radius in whole.radii)
    for wrong in (["0", "1"], [0.5, 0.5], [1, 0], [], [float("nan")], [-1]):
        with pytest.raises(ParameterError, match="radii = "):
            asked(wrong)


def test_a_mean_radius_is_never_above_the_mean():
    """Sum and quotient are rounded: a step below their result is not below the mean of some of these."""
    rng, above = np.random.default_rng(1), 0
    for count in (3, 7, 100, 400):
        for values in rng.random((100, count)) * 3:
            exact = sum(map(Fraction, values.tolist())) / count
            above += Fraction(math.nextafter(math.fsum(values) / count, 0.0)) > exact
            assert float(exact) * (1 - 1e-15) <= mean_below(values) <= exact
    assert above
    assert mean_below(np.zeros(3)) == 0 and mean_below(np.full(2, math.inf)) > 1e300
