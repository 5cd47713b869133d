"""Verification of guarantees: what is drawn and what is not, what fails, and where requirements get figures."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from forged import edit_record, records, sql

from certmix.errors import CertmixError, DataError
from certmix.sampling.sampler import Sampler
from certmix.verification.checks import CheckResult, Outcome
from certmix.verification.guarantee import guarantee_text, parse_guarantee, read_guarantee
from certmix.verification.judge import propose
from certmix.verification.request import VerifyRequest
from certmix.verification.verify import verify, verify_guarantee

TEXT = """\
version = 1
requirements = [{requirements}]
[data]
name = "points.npz"
images = 6
[standard]
model = "g.py:linear"
[robust]
model = "nets.py:linear"
[certificate]
alpha = 0.76
sigma = 0.25
[sampling]
samples = 300
"""
DEFAULT = '"robust.clean_accuracy >= 0.5", "certified_accuracy@0.25 >= 0.01"'


@pytest.fixture
def folder(problem, monkeypatch) -> Path:
    """A folder with points, two models and a guarantee."""
    monkeypatch.chdir(problem.folder)
    monkeypatch.setattr("certmix.tables.curves.curve_plot", lambda *a, **k: b"a plot")
    shutil.copy(problem.folder / "nets.py", problem.folder / "g.py")
    (problem.folder / "guarantee.toml").write_text(TEXT.format(requirements=DEFAULT))
    return problem.folder


def settings(folder: Path, **options) -> VerifyRequest:
    return VerifyRequest(runs=folder / "cache", **{"images": 0, **options})


def change(folder: Path, old: str, new: str, file: str = "guarantee.toml") -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))


def verified(folder: Path, **options):
    said: list[str] = []
    found = verify(folder / "guarantee.toml", settings(folder, **options), say=said.append)
    assert found.sampling is None or set(found.sampling.why) <= {*said, *found.sampling.why}
    return found


def failing(found) -> list[str]:
    return [check.check for check in found.checks if check.outcome is Outcome.FAILS]


def no_noise(monkeypatch) -> None:
    monkeypatch.setattr(Sampler, "votes", lambda *a, **k: pytest.fail("noise was drawn"))


def test_the_first_time_everything_is_drawn_and_then_nothing(folder, monkeypatch):
    first = verified(folder)
    assert first.exit_code == 0, [c for c in first.checks if c.outcome is not Outcome.HOLDS]
    assert first.sampling.drawn_images == 6
    assert first.sampling.drawn_samples >= 6 * 200
    assert first.sampling.reused_images == first.sampling.reused_samples == 0
    assert first.run.parent == folder / "cache"
    no_noise(monkeypatch)
    again = verified(folder)
    assert again.exit_code == 0
    assert (again.sampling.reused_images, again.sampling.drawn_samples) == (6, 0)
    assert again.sampling.reused_samples == first.sampling.drawn_samples
    assert [j.lower for j in again.judgements] == [j.lower for j in first.judgements]


def test_another_standard_classifier_draws_no_noise(folder, monkeypatch):
    change(folder, DEFAULT, '"standard.clean_accuracy >= 0.9 on value"')
    assert verified(folder).exit_code == 0
    no_noise(monkeypatch)
    change(
        folder, "[[4.0, 0.0], [-4.0, 1.0], [-4.0, -1.0]]", "[[-4.0, 0.0], [4.0, 1.0], [4.0, -1.0]]", "g.py"
    )
    change(folder, "[-0.8, 0.8, 0.8]", "[0.8, -0.8, -0.8]", "g.py")
    found = verified(folder)
    assert found.exit_code == 1
    assert failing(found) == []
    assert found.judgements[0].value < 0.5
    assert (found.sampling.drawn_samples, found.sampling.reused_images) == (0, 6)
    assert any("standard classifier changed" in why for why in found.sampling.why)


def test_tampered_selection_votes_are_found_by_sampling_again(folder):
    run = verified(folder).run
    index, record = next(iter(records(run).items()))
    edit_record(run, index, selection=np.roll(record.selection, 1))
    change(folder, "-0.8, 0.8, 0.8", "-0.7, 0.8, 0.8", "g.py")
    found = verified(folder, images=6, new_seed=5)
    assert (found.exit_code, failing(found)) == (1, ["same seed"])


def contents(run: Path) -> dict[Path, bytes]:
    """What lies in a run folder, but for the lock's own time."""
    return {path.relative_to(run): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    "old, new, word",
    [
        ("alpha = 0.76", "alpha = 0.9", "alpha"),
        ("alpha = 0.76", "alpha = 0.76\nfailure_probability = 0.01", "failure probability"),
        ("alpha = 0.76", 'alpha = 0.76\nname = "smoothing"', "certificate"),
        ("alpha = 0.76", "alpha = 0.76\nradii = [0.1]", "radii"),
    ],
)
def test_other_settings_start_from_the_counts_there_are(folder, old, new, word):
    before = verified(folder)
    held = contents(before.run)
    change(folder, old, new)
    found = verified(folder)
    assert found.run != before.run
    assert contents(before.run) == held
    assert found.exit_code in (0, 1)
    assert failing(found) == []
    assert word in found.sampling.why[0]
    assert found.sampling.reused_samples == before.sampling.drawn_samples


def test_more_samples_continue_and_more_images_are_added(folder):
    change(folder, "alpha = 0.76", "alpha = 0.51")  # hard to settle
    first = verified(folder)
    change(folder, "samples = 300", "samples = 1000")
    more = verified(folder)
    assert 0 < more.sampling.drawn_images <= 6
    assert more.sampling.drawn_samples > 0
    assert more.sampling.reused_samples == first.sampling.drawn_samples
    change(folder, "images = 6", "images = 12")
    all_of_them = verified(folder)
    assert all_of_them.sampling.drawn_images + all_of_them.sampling.reused_images == 12
    assert all_of_them.sampling.reused_images >= 6
    assert all_of_them.sampling.drawn_samples >= 6 * 200


def checksum_of(found, role: str) -> str:
    return json.loads((found.run / "run.json").read_text())["models"][role]["checksum"]


def test_a_robust_classifier_that_changed_is_sampled_anew_unless_it_is_pinned(folder, monkeypatch):
    before = verified(folder)
    checksum = checksum_of(before, "robust")
    change(folder, 'model = "nets.py:linear"', f'model = "nets.py:linear"\nchecksum = "{checksum}"')
    change(folder, "4.0, 0.0", "3.5, 0.0", "nets.py")
    found = verified(folder)
    assert found.run != before.run
    assert found.sampling.drawn_images == 6
    assert found.sampling.why[0].startswith("The robust classifier changed since the guarantee was written")
    assert any("robust_checksum" in why for why in found.sampling.why)
    change(folder, f'"{checksum}"', f'"{checksum}"\npin = true')
    no_noise(monkeypatch)
    pinned = verified(folder)
    assert pinned.exit_code == 1
    assert failing(pinned) == ["pinned robust classifier"]
    assert {j.outcome for j in pinned.judgements} == {Outcome.UNCHECKED}
    change(folder, "3.5, 0.0", "4.0, 0.0", "nets.py")
    assert verified(folder).exit_code == 0


def test_a_pinned_standard_classifier_and_other_data_fail(folder):
    before = verified(folder)
    checksum = checksum_of(before, "standard")
    change(folder, 'model = "g.py:linear"', f'model = "g.py:linear"\npin = true\nchecksum = "{checksum}"')
    assert verified(folder).exit_code == 0
    change(folder, "4.0, 0.0", "3.5, 0.0", "g.py")
    assert failing(verified(folder)) == ["pinned standard classifier"]
    change(folder, "3.5, 0.0", "4.0, 0.0", "g.py")
    change(folder, "images = 6", f'images = 6\nchecksum = "{"0" * 64}"')
    assert failing(verified(folder)) == ["pinned data"]


def test_labels_that_were_altered_are_found_before_anything_is_drawn(folder, monkeypatch):
    before = verified(folder)
    for index in records(before.run):
        edit_record(before.run, index, label=2)
    found = verified(folder)
    assert found.exit_code == 1
    assert "labels" in failing(found)
    change(folder, "alpha = 0.76", "alpha = 0.9")
    no_noise(monkeypatch)
    stopped = verified(folder)
    assert stopped.exit_code == 1
    assert {j.outcome for j in stopped.judgements} == {Outcome.UNCHECKED}


def test_counts_that_were_altered_fail_though_the_requirements_would_hold(folder):
    before = verified(folder)
    for index, record in records(before.run).items():
        looks = {n: n * np.eye(3, dtype=np.int64)[record.label] for n in record.estimation}
        edit_record(before.run, index, estimation=looks)
    found = verified(folder, images=2, new_seed=5)
    assert found.exit_code == 1
    assert failing(found)
    assert {j.outcome for j in found.judgements} == {Outcome.UNCHECKED}
    assert all("--fresh" in j.message for j in found.judgements)
    fresh = verified(folder, fresh=True)
    assert fresh.exit_code == 0
    assert fresh.sampling.drawn_images == 6


def test_a_run_that_was_killed_is_continued(folder):
    """Its description names the new request, its tables are those of the one before."""
    before = verified(folder)
    described = json.loads((before.run / "run.json").read_text())
    described["request"]["alpha"] = 0.8
    (before.run / "run.json").write_text(json.dumps(described))
    sql(before.run, "DELETE FROM cells WHERE idx = ?", min(records(before.run)))
    change(folder, "alpha = 0.76", "alpha = 0.8")
    found = verified(folder)
    assert found.sampling.drawn_images == 1
    assert failing(found) == []
    assert all(j.outcome is not Outcome.UNCHECKED for j in found.judgements)


def test_interrupting_keeps_what_was_drawn(folder, monkeypatch):
    class Stopped:
        class summary:  # noqa: N801
            complete = False

    monkeypatch.setattr("certmix.verification.lacking.run_certify", lambda *a, **k: Stopped)
    with pytest.raises(KeyboardInterrupt):
        verified(folder)


def test_figures_are_those_of_the_published_table(folder):
    demands = '"certified_accuracy@0.25 >= 0.1", "robust.certified_accuracy@0.5 >= 0", "mean_certified_radius >= 0",' \
              ' "clean_accuracy >= 0", "standard.clean_accuracy >= 0"'  # fmt: skip
    change(folder, DEFAULT, demands)
    found = verified(folder)
    table = json.loads((found.run / "certified-accuracy.json").read_text())
    rows = {row["classifier"]: row for row in table["rows"]}
    values = [j.value for j in found.judgements]
    column = table["radii"].index
    assert values[0] == rows["mixed"]["certified_accuracy"][column(0.25)] > 0
    assert values[1] == rows["robust"]["certified_accuracy"][column(0.5)]
    assert values[2] == pytest.approx(rows["mixed"]["mean_certified_radius"], rel=1e-8)
    assert values[3:] == [table["clean_accuracy"]["mixed"], table["clean_accuracy"]["standard"]]


def test_requirements_decide_the_exit_code(folder):
    verified(folder)
    for demand, code in (
        ("clean_accuracy >= 1 on value", 0),
        ("clean_accuracy >= 0.7", 1),  # 0.05 ** (1 / 6) = 0.607 at best
        ("clean_accuracy >= 0.6", 0),
    ):
        (folder / "guarantee.toml").write_text(TEXT.format(requirements=f'"{demand}"'))
        assert verified(folder).exit_code == code, demand


def test_what_cannot_be_checked_is_neither_good_nor_bad(folder, monkeypatch):
    result = [CheckResult("something", Outcome.UNCHECKED, "no GPU")]
    monkeypatch.setattr("certmix.verification.verify.rederive", lambda run, **_: result)
    assert verified(folder).exit_code == 2
    change(folder, DEFAULT, '"clean_accuracy >= 0.99"')
    assert verified(folder).exit_code == 1


def test_what_is_missing_or_unreadable_is_an_error(folder):
    found = verified(folder)
    (found.run / "numbers.sqlite").write_bytes(b"nonsense" * 200)
    with pytest.raises(CertmixError):
        verified(folder)
    (folder / "points.npz").unlink()
    with pytest.raises(DataError, match=r"points\.npz"):
        verified(folder)


def test_the_working_directory_does_not_matter(folder, tmp_path_factory, monkeypatch):
    before = verified(folder)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    no_noise(monkeypatch)
    assert verified(folder).run == before.run


def test_a_run_from_another_place_is_taken_up_where_it_lies_now(folder, tmp_path_factory, monkeypatch):
    """As a cache does: the same files under another path."""
    verified(folder)
    moved = tmp_path_factory.mktemp("moved") / "copy"
    shutil.copytree(folder, moved)
    shutil.rmtree(folder / "cache")
    (folder / "nets.py").unlink()
    no_noise(monkeypatch)
    found = verified(moved)
    assert found.exit_code == 0, found.checks
    assert found.sampling.drawn_samples == 0


def test_a_run_under_another_name_serves(folder, monkeypatch):
    """As `certify --output runs/accepted` makes it."""
    before = verified(folder)
    before.run.rename(before.run.with_name("accepted"))
    no_noise(monkeypatch)
    found = verified(folder)
    assert found.run.name == "accepted"
    assert found.sampling.drawn_samples == 0


def test_resampling_is_asked_for_as_the_settings_say(folder, monkeypatch):
    asked = {}

    def resample(run, **options):
        asked.update(options, run=run)
        return [CheckResult("fresh votes", Outcome.FAILS, "other votes", (3,), 1)]

    monkeypatch.setattr("certmix.verification.verify.resample", resample)
    assert verified(folder).exit_code == 0
    assert asked == {}
    found = verified(folder, images=2, new_seed=7, error_rate=0.01, samples=200)
    assert found.exit_code == 1
    assert (asked["images"], asked["new_seed"], asked["error_rate"], asked["samples"]) == (2, 7, 0.01, 200)
    assert asked["run"] == found.run


def test_a_guarantee_proposed_by_a_run_holds_for_it(folder):
    run = verified(folder).run
    guarantee, remarks = propose(run, folder / "new.toml", slack=0.02, pin=True)
    assert set(remarks) == set(guarantee.requirements)
    assert {"clean_accuracy", "certified_accuracy@0.25"} <= {r.name for r in guarantee.requirements}
    (folder / "new.toml").write_text(guarantee_text(guarantee, remarks=remarks, heading="x"))
    back = read_guarantee(folder / "new.toml")
    assert back == guarantee
    assert back.robust.model == "nets.py:linear"
    found = verify_guarantee(back, settings(folder))
    assert found.exit_code == 0
    assert found.sampling.drawn_samples == 0
    tight, _ = propose(run, folder / "new.toml", slack=0.0)
    assert verify_guarantee(tight, settings(folder)).exit_code == 0
    for wide, near in zip(guarantee.requirements, tight.requirements, strict=False):
        assert wide.threshold <= near.threshold


def test_without_a_standard_classifier(folder):
    text = (folder / "guarantee.toml").read_text().replace('[standard]\nmodel = "g.py:linear"\n', "")
    found = verify_guarantee(parse_guarantee(text, folder / "guarantee.toml"), settings(folder))
    assert found.exit_code == 0
    guarantee, _ = propose(found.run, folder / "new.toml")
    assert guarantee.standard is None
    assert guarantee.requirements[0].name == "robust.clean_accuracy"


LINEAR = """
import torch
from torch import nn
def net():
    layer = nn.Linear(2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[4.0, 0.0], [-4.0, 1.0], [-4.0, -1.0]]))
        layer.bias.copy_(torch.tensor([-0.8, 0.8, 0.8]))
    return nn.Sequential(nn.Flatten(), layer)
"""


@pytest.mark.parametrize(
    "certificate",
    [
        'name = "margin"\nnorm = "linf"\nbound_method = "interval"',
        'name = "lipschitz-constant"\nlipschitz_constant = 20',
    ],
)
def test_certificates_without_samples(folder, certificate):
    (folder / "plain.py").write_text(LINEAR)
    text = TEXT.format(
        requirements='"robust.certified_accuracy@0.01 >= 0.2", "mean_certified_radius >= 0.001 on value"'
    )
    text = text.split("[certificate]")[0] + f"[certificate]\nalpha = 0.9\n{certificate}\n"
    (folder / "guarantee.toml").write_text(text.replace("nets.py:linear", "plain.py:net"))
    first = verified(folder)
    assert first.exit_code == 0, [
        c for c in (*first.checks, *first.judgements) if c.outcome is not Outcome.HOLDS
    ]
    assert (first.sampling.drawn_images, first.sampling.drawn_samples) == (6, 0)
    again = verified(folder)
    assert (again.sampling.drawn_images, again.sampling.reused_images) == (0, 6)
    table = json.loads((again.run / "certified-accuracy.json").read_text())
    assert first.judgements[1].value == pytest.approx(table["rows"][1]["mean_certified_radius"], rel=1e-8)
    guarantee, _ = propose(again.run, folder / "new.toml")
    assert guarantee.request == again_request(again)
    assert verify_guarantee(guarantee, settings(folder)).exit_code == 0


def again_request(found):
    from certmix.certification.deterministic_request import DeterministicRequest
    from certmix.runs.settings import settings

    stored = json.loads((found.run / "run.json").read_text())["request"]
    return settings(DeterministicRequest, stored)


def test_a_damaged_description_proposes_nothing(folder):
    run = verified(folder).run
    described = json.loads((run / "run.json").read_text())
    for spoil in (
        {"models": {"robust": None, "standard": None}},
        {"sources": {}},
        {"request": {**described["request"], "radii": "x"}},
    ):
        (run / "run.json").write_text(json.dumps({**described, **spoil}))
        with pytest.raises(CertmixError):
            propose(run, folder / "new.toml")


def test_a_run_that_was_stopped_before_it_began_is_begun(folder):
    run = verified(folder).run
    described = json.loads((run / "run.json").read_text())
    kept = {name: described[name] for name in ("format_version", "identity")}
    (run / "run.json").write_text(json.dumps(kept))
    found = verified(folder)
    assert found.exit_code == 0
    assert found.sampling.drawn_samples == 0


@pytest.mark.parametrize("part", ["request", "models", "sources"])
def test_a_description_that_was_altered_is_refused_or_written_elsewhere(folder, part):
    run = verified(folder).run
    described = json.loads((run / "run.json").read_text())
    for value in ([], {}, {"robust": "x", "standard": [], "alpha": []}):
        (run / "run.json").write_text(json.dumps({**described, part: value}))
        held = contents(run)
        with contextlib.suppress(CertmixError):
            found = verified(folder)
            assert found.sampling.reused_images == 6
            assert (found.exit_code == 0) == (failing(found) == [])
            assert json.loads((found.run / "run.json").read_text())[part] == described[part]
        assert contents(run) == held
