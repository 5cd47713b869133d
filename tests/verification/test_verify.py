"""Verification of guarantees: what is drawn and what is not, what fails, pins, and models that end the program."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from forged import copied, edit_json, edit_record, records, sources, sql

import certmix
from certmix.certification.request.proved import DeterministicRequest
from certmix.errors import CertmixError, ModelError, ParameterError
from certmix.models.spec import load_model, wrap_model
from certmix.runs.settings import settings as settings_from
from certmix.sampling.sampler import Sampler
from certmix.verification.checks import CheckResult, Outcome
from certmix.verification.guarantees.guarantee import guarantee_text, parse_guarantee, read_guarantee
from certmix.verification.proofs.check_proof import fails
from certmix.verification.proposing import propose
from certmix.verification.rederive import rederive
from certmix.verification.request import VerifyRequest
from certmix.verification.verify import verify, verify_guarantee

G = """
import json
from pathlib import Path
import torch

class G(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = json.loads((Path(__file__).parent / "g.json").read_text())

    def forward(self, x):
        return x @ torch.tensor(self.w).T

def make():
    return G()
"""
GOOD, CONSTANT = "[[4.0, 0.0], [-4.0, 1.0], [-4.0, -1.0]]", "[[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]"
DEFAULT = '"robust.clean_accuracy >= 0.5", "certified_accuracy@0.25 >= 0.01"'
TEXT = """\
version = 1
requirements = [{requirements}]
[data]
name = "points.npz"
inputs = 6
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


@pytest.fixture(scope="module")
def verified_once(tmp_path_factory) -> Path:
    """A folder with points, models and a guarantee, whose samples are drawn."""
    folder = tmp_path_factory.mktemp("guaranteed")
    sources(folder)
    shutil.copy(folder / "nets.py", folder / "g.py")
    (folder / "file_g.py").write_text(G)
    (folder / "g.json").write_text(GOOD)
    (folder / "guarantee.toml").write_text(TEXT.format(requirements=DEFAULT))
    assert (
        verify(
            folder / "guarantee.toml", VerifyRequest(runs=folder / "cache", resample=0, run_code=True)
        ).exit_code
        == 0
    )
    return folder


@pytest.fixture
def folder(verified_once, tmp_path, monkeypatch) -> Path:
    """A copy of it that might have been made where it lies."""
    copy = Path(shutil.copytree(verified_once, tmp_path / "copy"))
    described = run_of(copy) / "run.json"
    described.write_text(described.read_text().replace(str(verified_once), str(copy)))
    monkeypatch.chdir(copy)
    return copy


def settings(folder: Path, **options) -> VerifyRequest:
    return VerifyRequest(runs=folder / "cache", **{"resample": 0, "run_code": True, **options})


def run_of(folder: Path) -> Path:
    [path] = (folder / "cache").glob("*/run.json")
    return path.parent


def change(folder: Path, old: str, new: str, file: str = "guarantee.toml") -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))


def verified(folder: Path, **options):
    return verify(folder / "guarantee.toml", settings(folder, **options))


def verified_of(folder: Path, name: str):
    return verify(folder / name, settings(folder))


def failing(found) -> list[str]:
    return [check.check for check in found.checks if check.outcome is Outcome.FAILS]


def outcomes(found, start: str) -> list[str]:
    return [str(check.outcome) for check in found.checks if check.check.startswith(start)]


def no_noise(monkeypatch) -> None:
    monkeypatch.setattr(Sampler, "votes", lambda *a, **k: pytest.fail("noise was drawn"))


def contents(run: Path) -> dict[Path, bytes]:
    return {path.relative_to(run): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def test_the_first_time_everything_is_drawn_and_then_nothing(folder, tmp_path_factory, monkeypatch):
    stored = json.loads((run_of(folder) / "run.json").read_text())["identity"]
    first = verified(folder, fresh=True)
    assert first.exit_code == 0, [c for c in first.checks if c.outcome is not Outcome.HOLDS]
    assert (first.sampling.drawn_inputs, first.sampling.reused_inputs) == (6, 0)
    assert first.sampling.drawn_samples >= 6 * 200 and first.sampling.reused_samples == 0
    assert json.loads((first.run / "run.json").read_text())["identity"] == stored
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))  # the working directory does not matter
    no_noise(monkeypatch)
    first.run.rename(first.run.with_name("accepted"))  # nor does the run's name
    again = verified(folder)
    assert (again.exit_code, again.run.name) == (0, "accepted")
    assert (again.sampling.reused_inputs, again.sampling.drawn_samples) == (6, 0)
    assert again.sampling.reused_samples == first.sampling.drawn_samples
    assert [j.lower for j in again.judgements] == [j.lower for j in first.judgements]


def test_a_run_from_another_place_is_taken_up_where_it_lies_now(folder, tmp_path, monkeypatch):
    """As a cache does: the same files under another path."""
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    shutil.rmtree(folder / "cache")
    (folder / "nets.py").unlink()
    no_noise(monkeypatch)
    found = verified(moved)
    assert (found.exit_code, found.sampling.drawn_samples) == (0, 0)


def test_another_standard_classifier_draws_no_noise(folder, monkeypatch):
    no_noise(monkeypatch)
    change(folder, DEFAULT, '"standard.clean_accuracy >= 0.9 on value"')
    change(folder, GOOD, "[[-4.0, 0.0], [4.0, 1.0], [4.0, -1.0]]", "g.py")
    change(folder, "[-0.8, 0.8, 0.8]", "[0.8, -0.8, -0.8]", "g.py")
    found = verified(folder)
    assert (found.exit_code, failing(found)) == (1, [])
    assert found.judgements[0].value < 0.5
    assert (found.sampling.drawn_samples, found.sampling.reused_inputs) == (0, 6)
    assert any("standard classifier changed" in why for why in found.sampling.why)


@pytest.mark.parametrize(
    "new, word",
    [
        ("alpha = 0.9", "alpha (0.76 before, 0.9 now)"),
        ('alpha = 0.76\nname = "smoothing"\nfailure_probability = 0.01', "failure probability"),
    ],
)
def test_other_settings_start_from_the_counts_there_are(folder, new, word):
    before, held = verified(folder), contents(run_of(folder))
    change(folder, "alpha = 0.76", new)
    found = verified(folder)
    assert found.run != before.run
    assert contents(before.run) == held
    assert found.exit_code in (0, 1) and failing(found) == []
    assert word in found.sampling.why[0]
    assert found.sampling.reused_samples == before.sampling.reused_samples
    again = verified(folder)
    assert (again.run, again.sampling.drawn_samples) == (found.run, 0)


def test_more_samples_continue_and_more_inputs_are_added(folder):
    change(folder, "alpha = 0.76", "alpha = 0.51")  # hard to settle
    first = verified(folder)
    change(folder, "samples = 300", "samples = 1000")
    more = verified(folder)
    assert 0 < more.sampling.drawn_inputs <= 6 and more.sampling.drawn_samples > 0
    assert more.sampling.reused_samples == first.sampling.drawn_samples + first.sampling.reused_samples
    change(folder, "inputs = 6", "inputs = 12")
    all_of_them = verified(folder).sampling
    assert all_of_them.drawn_inputs + all_of_them.reused_inputs == 12
    assert all_of_them.reused_inputs >= 6 and all_of_them.drawn_samples >= 6 * 200


def test_pinned_models_and_data(folder, monkeypatch):
    before = run_of(folder)
    sums = {r: m["checksum"] for r, m in json.loads((before / "run.json").read_text())["models"].items()}
    change(folder, 'model = "nets.py:linear"', f'model = "nets.py:linear"\nchecksum = "{sums["robust"]}"')
    change(folder, "4.0, 0.0", "3.5, 0.0", "nets.py")
    found = verified(folder)  # not pinned: sampled anew
    assert (found.run != before, found.sampling.drawn_inputs) == (True, 6)
    assert found.sampling.why[0].startswith("The robust classifier changed since the guarantee was written")
    assert any("robust_checksum" in why for why in found.sampling.why)
    change(folder, f'"{sums["robust"]}"', f'"{sums["robust"]}"\npin = true')
    no_noise(monkeypatch)
    pinned = verified(folder)
    assert (pinned.exit_code, failing(pinned)) == (1, ["pinned robust classifier"])
    assert {j.outcome for j in pinned.judgements} == {Outcome.UNCHECKED}
    change(folder, "3.5, 0.0", "4.0, 0.0", "nets.py")
    pin = f'model = "g.py:linear"\npin = true\nchecksum = "{sums["standard"]}"'
    change(folder, 'model = "g.py:linear"', pin)
    assert verified(folder).exit_code == 0
    change(folder, "4.0, 0.0", "3.5, 0.0", "g.py")
    assert failing(verified(folder)) == ["pinned standard classifier"]
    change(folder, "3.5, 0.0", "4.0, 0.0", "g.py")
    change(folder, "inputs = 6", f'inputs = 6\nchecksum = "{"0" * 64}"')
    assert failing(verified(folder)) == ["pinned data"]


def test_what_was_altered_is_found_before_anything_is_drawn(folder, monkeypatch):
    run = run_of(folder)
    for index in records(run):
        edit_record(run, index, label=2)
    found = verified(folder)
    assert found.exit_code == 1 and "labels" in failing(found)
    change(folder, "alpha = 0.76", "alpha = 0.9")
    no_noise(monkeypatch)
    stopped = verified(folder)
    assert stopped.exit_code == 1
    assert {j.outcome for j in stopped.judgements} == {Outcome.UNCHECKED}


def test_tampered_votes_fail_though_the_requirements_would_hold(folder):
    run = run_of(folder)
    index, record = next(iter(records(run).items()))
    edit_record(run, index, selection=np.roll(record.selection, 1))
    change(folder, "-0.8, 0.8, 0.8", "-0.7, 0.8, 0.8", "g.py")
    found = verified(folder, resample=6, new_seed=5)
    assert (found.exit_code, failing(found)) == (1, ["same seed"])
    for index, record in records(found.run).items():
        looks = {n: n * np.eye(3, dtype=np.int64)[record.label] for n in record.estimation}
        edit_record(found.run, index, estimation=looks)
    found = verified(folder, resample=2, new_seed=5)
    assert found.exit_code == 1 and failing(found)
    assert all(j.outcome is Outcome.UNCHECKED and "--fresh" in j.message for j in found.judgements)
    fresh = verified(folder, fresh=True)
    assert (fresh.exit_code, fresh.sampling.drawn_inputs) == (0, 6)


def test_a_run_that_was_killed_is_continued(folder, monkeypatch):
    """Its description names the new request, its tables are those of the one before; or it had not begun."""
    run = run_of(folder)
    edit_json(run / "run.json", lambda d: d["request"].update(alpha=0.8))
    sql(run, "DELETE FROM cells WHERE idx = ?", min(records(run)))
    change(folder, "alpha = 0.76", "alpha = 0.8")
    found = verified(folder)
    assert found.sampling.drawn_inputs == 1 and failing(found) == []
    assert all(j.outcome is not Outcome.UNCHECKED for j in found.judgements)
    kept = ("format_version", "identity")
    edit_json(found.run / "run.json", lambda d: [d.pop(name) for name in list(d) if name not in kept])
    again = verified(folder)
    assert (again.exit_code, again.sampling.drawn_samples) == (0, 0)
    monkeypatch.setattr(
        "certmix.verification.verify.run_certify",
        lambda *a, **k: SimpleNamespace(summary=SimpleNamespace(complete=False)),
    )
    with pytest.raises(KeyboardInterrupt):  # what was drawn is kept
        verified(folder, fresh=True)


def test_a_run_that_ended_amid_its_files_gets_them_all(folder):
    """A disk that was full: the table was there, and the log or the last lines of run.json were not."""
    run = run_of(folder)
    whole = {
        path.name: path.read_bytes() for path in run.iterdir() if path.suffix in (".json", ".tsv", ".md")
    }
    for lost in (lambda: (run / "records.tsv").unlink(),
                 lambda: edit_json(run / "run.json", lambda d: d.pop("rows_independent"))):  # fmt: skip
        lost()
        assert verified(folder).sampling.drawn_samples == 0
        assert {name: (run / name).read_bytes() for name in whole} == whole
    before = sorted(path.name for path in run.iterdir())
    (run / "numbers.sqlite-writes").write_text(f"{1:020d}")  # a process that was killed leaves it
    assert verified(folder).sampling.drawn_samples == 0
    assert sorted(path.name for path in run.iterdir()) == before


@pytest.mark.parametrize(
    "left",
    [(), ("cells",), *(pytest.param(of, marks=pytest.mark.long) for of in (("",), ("cells", "facts")))],
    ids=str,
)
def test_a_run_that_was_killed_before_its_request_is_begun_where_it_lies(folder, left):
    """Its description says whose it is, and its database is not there, or has some of its tables."""
    run, names = run_of(folder), ("format_version", "identity")
    edit_json(run / "run.json", lambda d: [d.pop(name) for name in list(d) if name not in names])
    sql(run, "DELETE FROM cells")
    if not left:
        (run / "numbers.sqlite").unlink()
    for table in {"cells", "facts"} - set(left):
        if left:
            sql(run, f"DROP TABLE {table}")
    found = verified(folder)
    assert (found.exit_code, found.run, found.sampling.drawn_inputs) == (0, run, 6)
    assert len(list((folder / "cache").iterdir())) == 1


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


def test_requirements_and_what_cannot_be_checked_decide_the_exit_code(folder, monkeypatch):
    for demand, code in (
        ("clean_accuracy >= 1 on value", 0),
        ("clean_accuracy >= 0.7", 1),  # 0.05 ** (1 / 6) = 0.607 at best
        ("clean_accuracy >= 0.6", 0),
    ):
        (folder / "guarantee.toml").write_text(TEXT.format(requirements=f'"{demand}"'))
        assert verified(folder).exit_code == code, demand
    result = [CheckResult("something", Outcome.UNCHECKED, "no GPU")]
    monkeypatch.setattr("certmix.verification.verify.rederive", lambda run, **_: result)
    assert verified(folder).exit_code == 2
    change(folder, "0.6", "0.99")
    assert verified(folder).exit_code == 1


def test_a_guarantee_proposed_by_a_run_holds_for_it(folder):
    run = run_of(folder)
    guarantee, remarks = propose(run, folder / "new.toml", slack=0.02, pin=True)
    assert set(remarks) == set(guarantee.requirements)
    assert {"clean_accuracy", "certified_accuracy@0.25"} <= {r.name for r in guarantee.requirements}
    (folder / "new.toml").write_text(guarantee_text(guarantee, remarks=remarks, heading="x"))
    back = read_guarantee(folder / "new.toml")
    assert back == guarantee and back.robust.model == "nets.py:linear"
    found = verify_guarantee(back, settings(folder))
    assert (found.exit_code, found.sampling.drawn_samples) == (0, 0)
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


@pytest.mark.parametrize(
    "certificate",
    [
        'name = "margin"\nnorm = "linf"\nbound_method = "interval"',
        'name = "lipschitz-constant"\nlipschitz_constant = 20',
    ],
)
def test_certificates_without_samples(folder, certificate):
    demands = '"robust.certified_accuracy@0.01 >= 0.2", "mean_certified_radius >= 0.001 on value"'
    text = TEXT.format(requirements=demands).split("[certificate]")[0]
    (folder / "guarantee.toml").write_text(f"{text}[certificate]\nalpha = 0.9\n{certificate}\n")
    first = verified(folder)
    assert first.exit_code == 0, [
        c for c in (*first.checks, *first.judgements) if c.outcome is not Outcome.HOLDS
    ]
    assert (first.sampling.drawn_inputs, first.sampling.drawn_samples) == (6, 0)
    again = verified(folder)
    assert (again.sampling.drawn_inputs, again.sampling.reused_inputs) == (0, 6)
    table = json.loads((again.run / "certified-accuracy.json").read_text())
    assert first.judgements[1].value == pytest.approx(table["rows"][1]["mean_certified_radius"], rel=1e-8)
    guarantee, _ = propose(again.run, folder / "new.toml")
    stored = json.loads((again.run / "run.json").read_text())["request"]
    assert guarantee.request == settings_from(DeterministicRequest, stored)
    assert verify_guarantee(guarantee, settings(folder)).exit_code == 0


@pytest.mark.parametrize("spoil", [{"models": {"robust": None, "standard": None}}, {"sources": {}}])
def test_nothing_is_proposed_by_a_damaged_run(folder, spoil):
    run = run_of(folder)
    edit_json(run / "run.json", lambda d: d.update(spoil))
    with pytest.raises(CertmixError):
        propose(run, folder / "new.toml")


@pytest.mark.parametrize("part", ["request", "models", "sources"])
@pytest.mark.parametrize("value", [[], {"robust": "x", "standard": [], "alpha": []}], ids=str)
def test_a_description_that_was_altered_is_refused_or_written_elsewhere(folder, part, value):
    run = run_of(folder)
    described = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**described, part: value}))
    held = contents(run)
    with contextlib.suppress(CertmixError):
        found = verified(folder)
        assert found.sampling.reused_inputs == 6
        assert (found.exit_code == 0) == (failing(found) == [])
        assert json.loads((found.run / "run.json").read_text())[part] == described[part]
    assert contents(run) == held


# Parts of the inputs.

SITES = ["a", "a", "b"] * 4


def sliced(folder: Path, *demands: str, more: str = "") -> None:
    """Have the guarantee ask this, with a group of sites in a file and one in a column."""
    (folder / "sites.txt").write_text("\n".join(SITES) + "\n")
    (folder / "t.csv").write_text("\n".join(["x,where", *(f"{k},w{k % 2}" for k in range(12))]) + "\n")
    asked = ", ".join(f'"{one}"' for one in demands)
    groups = '[groups.site]\nfile = "sites.txt"\n[groups.where]\nfile = "t.csv"\ncolumn = "where"\n'
    (folder / "guarantee.toml").write_text(TEXT.format(requirements=asked) + groups + more)


def test_classes_and_slices_have_requirements_of_their_own(folder, monkeypatch):
    no_noise(monkeypatch)
    sliced(
        folder, "clean_accuracy of each site >= 0 on value", "certified_accuracy@0.25 of class b >= 0",
        "certified_accuracy@0.25 >= 0", "robust.clean_accuracy of where w1 >= 0.9 on value",
    )  # fmt: skip
    found = verified(folder)
    told = {str(one.requirement): one for one in found.judgements}
    labels, places = np.load("points.npz")["labels"], np.arange(0, 12, 2)  # six of twelve
    assert told["clean_accuracy of site a >= 0 on value"].inputs == sum(SITES[k] == "a" for k in places)
    assert told["clean_accuracy of site b >= 0 on value"].inputs == 2
    of_class = told["certified_accuracy@0.25 of class b >= 0"]
    assert (of_class.inputs, of_class.outcome) == (int((labels[places] == 1).sum()), Outcome.HOLDS)
    unseen = told["robust.clean_accuracy of where w1 >= 0.9 on value"]
    assert unseen.outcome is Outcome.UNCHECKED and "take more" in unseen.message and found.exit_code == 2
    assert (found.claim.bounds, found.claim.missed, set(found.lines)) == (2, 0.025, set(told))


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_texts_in_the_datas_own_table_name_groups(command, folder, form):
    places = ["hall", "yard", "yard"] * 4
    with np.load("points.npz") as points:
        labels = [str(points["class_names"][k]) for k in points["labels"]]
        table = pd.DataFrame(points["inputs"], columns=["x", "y"]).assign(where=places, label=labels)
    table.to_csv("t.csv", index=False) if form == "csv" else table.to_parquet("t.parquet")
    own = TEXT.replace("points.npz", f"t.{form}").replace(
        "inputs = 6", 'inputs = "all"\ninput_range = "none"'
    )
    asked = '"clean_accuracy of where yard >= 0 on value", "clean_accuracy of where hall >= 0 on value"'
    Path("guarantee.toml").write_text(own.format(requirements=asked) + '[groups.where]\ncolumn = "where"\n')
    found = verified(folder)
    assert [one.inputs for one in found.judgements] == [8, 4] and found.exit_code == 0
    done = command(
        "guarantee", "init", found.run, "--output", "ci.toml", "--group", "where=#where", "--per", "where"
    )
    assert done.code == 0, done.err
    assert {one.member for one in read_guarantee("ci.toml").requirements} == {None, "hall", "yard"}
    assert verified_of(folder, "ci.toml").exit_code == 0


@pytest.mark.parametrize(
    "demand, spoil, told",
    [
        ("clean_accuracy of site c >= 0", "", "no input's site is 'c': use one of a, b"),
        ("clean_accuracy of site a >= 0", "a\n" * 11, "names 11 inputs, points holds 12"),
        ("clean_accuracy of site a >= 0", "a\n\n" * 6, "row 2"),
        ("clean_accuracy of where w >= 0", "", "no input's where is 'w': use one of w0, w1"),
    ],
)
def test_groups_that_do_not_fit_are_refused(folder, demand, spoil, told):
    sliced(folder, demand)
    if spoil:
        (folder / "sites.txt").write_text(spoil)
    with pytest.raises(ParameterError, match=told):
        verified(folder)


def test_a_proposal_for_parts_pins_them_and_counts_every_bound(command, folder):
    sliced(folder, "clean_accuracy >= 0")
    run = verified(folder).run
    how = ("--group", "site=sites.txt", "--per", "site", "--per", "class", "--slack", 0, "--domain", "a box")
    done = command("guarantee", "init", run, "--output", "ci.toml", "--budget", 10**6, *how)
    assert done.code == 0 and "--run-code" in done.err, done.err
    made = read_guarantee("ci.toml")
    assert {one.group for one in made.requirements} == {None, "site", "class"}
    assert made.terms.bounds >= len(made.requirements) and made.terms.domain == "a box"
    assert verified_of(folder, "ci.toml").exit_code == 0
    assert command("guarantee", "check", "ci.toml").code == 0
    (folder / "sites.txt").write_text("b\n" + "\n".join(SITES[1:]))
    assert failing(verified_of(folder, "ci.toml")) == ["pinned group site"]
    refused = command("guarantee", "init", run, "--output", "no.toml", "--per", "where")
    assert refused.code == 2 and "group where is unknown: use one of class" in refused.err


# What verification may spend, and what all inputs share.


def test_no_more_is_drawn_than_the_budget_and_the_next_time_goes_on(folder):
    change(folder, "alpha = 0.76", "alpha = 0.51")  # hard to settle
    change(folder, "samples = 300", "samples = 1000\nbudget = 2500")
    drawn = []
    for _ in range(9):
        found = verified(folder, fresh=not drawn)
        drawn.append(found.sampling.drawn_samples)
        if found.exit_code != 2:
            break
        assert outcomes(found, "budget") == ["unchecked"] and drawn[-1] <= 2500
        assert {one.message for one in found.judgements} == {"not judged: the budget is spent"}
    assert found.exit_code in (0, 1) and len(drawn) > 1 and max(drawn) <= 2500
    whole = verified(folder, fresh=True, budget=10**6)
    assert whole.sampling.drawn_samples == sum(drawn)
    assert [one.lower for one in whole.judgements] == [one.lower for one in found.judgements]
    with pytest.raises(ParameterError, match="are drawn again alone"):
        verified(folder, resample=5)


def test_all_inputs_share_a_failure_probability(folder):
    change(folder, "alpha = 0.76", "alpha = 0.76\nall_at_once = true\nfailure_probability = 0.01")
    change(folder, "inputs = 6", 'inputs = "all"')
    found = verified(folder, resample=2)
    assert found.exit_code == 0, found
    assert found.claim.together == 0.01 and found.claim.failure_probability * 12 <= 0.01
    described = json.loads((found.run / "run.json").read_text())
    assert (described["request"]["inputs"], described["request"]["all_at_once"]) == (12, True)
    assert described["failure_budget"]["failure_probability"] == found.claim.failure_probability
    table = (found.run / "certified-accuracy.md").read_text()
    assert "All 12 inputs at once: but for probability 0.01, no certificate of a row is wrong." in table
    again = verified(folder)
    assert (again.exit_code, again.sampling.drawn_samples) == (0, 0)


# Models: pins, runs that are only read, and models that end the program.


def file_models(folder: Path, *, pin: bool = False, files: str = "") -> None:
    """Have the guarantee name a standard model that reads a file, with the checksum that it has now."""
    change(folder, 'model = "g.py:linear"', f'model = "file_g.py:make"{files}')
    if pin:
        checksum = load_model("file_g.py:make", files=("g.json",) if files else ()).checksum
        change(folder, "file_g.py:make", f'file_g.py:make"\npin = true\nchecksum = "{checksum}')
        assert verified(folder).exit_code == 0


def test_a_pinned_standard_model_whose_data_file_was_swapped_does_not_verify(folder):
    file_models(folder, pin=True)
    before = contents(folder / "cache")
    (folder / "g.json").write_text(CONSTANT)
    for inputs in (0, 2):
        found = verified(folder, resample=inputs)
        assert (found.exit_code, failing(found)) == (1, ["standard model logits"])
        why = "not judged: a model is not the one that the stored run was made with"
        assert all(j.message.startswith(why) for j in found.judgements)
    assert contents(folder / "cache") == before


def test_a_pin_names_the_declared_file_that_changed(folder):
    file_models(folder, pin=True, files='\nfiles = ["g.json"]')
    assert read_guarantee(folder / "guarantee.toml").standard.files == ("g.json",)
    (folder / "g.json").write_text(CONSTANT)
    [told] = [check.message for check in verified(folder).checks if check.outcome is Outcome.FAILS]
    assert "file g.json changed" in told
    (folder / "g.json").unlink()
    with pytest.raises(ModelError, match=r"g\.json cannot be read"):
        verified(folder)


def test_the_run_of_the_same_standard_model_is_taken_and_none_is_written_to(folder):
    """Two runs of one h: with g of the guarantee, and with another; by name the other comes first."""
    run_of(folder).rename(folder / "cache" / "b")
    named = dict(data="points.npz", robust="nets.py:linear", inputs=6, samples=300, certificates=["exact"])
    certmix.certify(sigma=0.25, alpha=0.76, standard="file_g.py:make", output=folder / "cache" / "a", **named)
    found = verified(folder)
    assert (found.outcome, found.run.name) == (Outcome.HOLDS, "b")
    shutil.rmtree(folder / "cache" / "b")
    before = contents(folder / "cache")
    found = verified(folder, resample=2)
    assert found.outcome is Outcome.HOLDS and found.run.name != "a"
    assert (found.sampling.drawn_samples, found.sampling.reused_inputs) == (0, 6)
    assert before.items() <= contents(folder / "cache").items()
    own = contents(found.run)
    assert (verified(folder).run, contents(found.run)) == (found.run, own)


@pytest.mark.parametrize(
    "what, place",
    [("run", "forward"), ("run", "click"), ("guarantee", "forward"), ("guarantee", "factory"),
     ("guarantee", "import"), ("guarantee", "click")],
)  # fmt: skip
def test_a_model_that_ends_the_program_is_not_verified(command, folder, monkeypatch, place, what):
    monkeypatch.chdir(folder)
    file_models(folder)
    target = verified(folder).run if what == "run" else folder / "guarantee.toml"
    leave = "import sys; sys.exit(0)"
    spoilt = {
        "forward": G.replace("        return x", f"        {leave}\n        return x"),
        "factory": G.replace("    return G()", f"    {leave}"),
        "import": f"{leave}\n{G}",
        "click": G.replace("        return x", "        import click; raise click.exceptions.Exit(0)"),
    }[place]
    (folder / "file_g.py").write_text(spoilt)
    runs = () if what == "run" else ("--runs", "cache")
    found = command("verify", target, "--run-code", *runs, "--report", "json=found.json")
    assert found.code != 0
    assert json.loads((folder / "found.json").read_text())["exit_code"] == found.code
    if what == "guarantee":
        assert found.code == 2
        if place == "forward":
            with pytest.raises(ModelError):
                verified(folder)


class Plane(torch.nn.Module):
    """A module of this test."""

    def forward(self, x):
        return torch.stack([x[:, 0], -x[:, 0], -x[:, 1]], 1)


def test_what_cannot_be_vouched_for_is_never_a_tick(folder, monkeypatch):
    assert wrap_model(Plane()).doubt
    assert not load_model("nets.py:linear").doubt
    module = ModuleType("made_up")
    module.make = lambda: Plane()
    module.make.__module__ = "made_up"
    monkeypatch.setitem(sys.modules, "made_up", module)
    doubted = load_model("made_up:make")
    assert "source of its factory cannot be had" in doubted.doubt
    pin = f'model = "made_up:make"\npin = true\nchecksum = "{doubted.checksum}"'
    change(folder, 'model = "nets.py:linear"', pin)
    change(folder, DEFAULT, '"robust.clean_accuracy >= 0"')
    found = verified(folder)
    for name in ("pinned robust", "robust model checksum"):
        assert outcomes(found, name) == ["unchecked"]
    assert found.exit_code == 2


def test_a_module_handed_over_is_compared_and_not_vouched_for(folder):
    certmix.certify(
        sigma=0.25,
        alpha=0.76,
        robust=Plane(),
        standard=None,
        data="points.npz",
        inputs=4,
        samples=200,
        output="run",
    )
    for model, logits in ((Plane(), "holds"), (torch.nn.Sequential(Plane()), "unchecked")):
        checks = {one.check: str(one.outcome) for one in rederive(folder / "run", models={"robust": model})}
        assert checks["robust model checksum"] == ("unchecked" if logits == "holds" else "fails")
        assert checks["robust model logits"] == logits


@pytest.mark.parametrize("kind", ["sequential", "fixed", "lipschitz"])
def test_a_proof_file_is_checked_without_certmix(runs, tmp_path, kind):
    path = tmp_path / "proof.json"
    path.write_text("of an earlier time")
    found = verify(runs[kind], VerifyRequest(resample=0, proof=str(path), run_code=True))
    told = {check.check: check for check in found.checks}
    assert told["proof file"].outcome is Outcome.HOLDS
    proof = json.loads(path.read_text())
    assert list(fails(proof)) == [] and len(proof["inputs"]) > 3


def test_no_proof_is_written_of_what_fails_or_has_none(runs, tmp_path):
    path, bad = tmp_path / "proof.json", copied(runs["sequential"], tmp_path / "run")
    path.write_text("of an earlier time")
    edit_json(bad / "run.json", lambda described: described["request"].update(sigma=0.5))
    found = verify(bad, VerifyRequest(resample=0, proof=str(path), run_code=True))
    assert found.exit_code == 1 and not path.exists()
    with pytest.raises(ParameterError, match="bound propagation"):
        verify(runs["margin"], VerifyRequest(resample=0, proof=str(path), run_code=True))
