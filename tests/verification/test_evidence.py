"""Evidence: valid by the published schemas, honest about what was not verified, private, and the same each time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from forged import copied, edit_json
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import resource_descriptor, statement, statement_pb2
from torch import nn
from unplotted import empty_plots

import certmix
from certmix.assurance import facts
from certmix.assurance.argument import FILES
from certmix.assurance.limits import LIMITS, limits_of, limits_table
from certmix.errors import CertmixError, ParameterError, RunError
from certmix.files import digest_of, digest_of_file
from certmix.tables import render
from certmix.verification.guarantees.guarantee import guarantee_text
from certmix.verification.proposing import propose

pytestmark = pytest.mark.filterwarnings("ignore::certmix.errors.CertmixWarning")  # what a guarantee draws
HOW: dict[str, Any] = dict(run_code=True, resample=1, resample_samples=100, new_seed=5)
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def guarantee(runs, tmp_path_factory) -> Path:
    """A guarantee that a run of a fixed size meets, beside this run."""
    path = tmp_path_factory.mktemp("guarantees") / "guarantee.toml"
    run = copied(runs["fixed"], path.parent / "fixed")
    path.write_text(guarantee_text(propose(run, path)[0]))
    return path


@pytest.fixture(scope="module")
def evidence(runs, guarantee, tmp_path_factory) -> Callable[..., certmix.Evidence]:
    """Return what makes the evidence of a run, or of the guarantee; the same is made once."""
    made: dict[str, certmix.Evidence] = {}

    def of(kind: str) -> certmix.Evidence:
        if kind not in made:
            target = guarantee if kind == "guarantee" else runs[kind]
            output = tmp_path_factory.mktemp("evidence") / kind
            with empty_plots():
                made[kind] = certmix.evidence(
                    target, output, runs=str(guarantee.parent), progress=False, **HOW
                )
        return made[kind]

    return of


def read(made: certmix.Evidence, name: str) -> Any:
    return json.loads((made.folder / name).read_text())


def check_bom(content: str) -> dict[str, Any]:
    """Hold a bill of materials against the published schema of CycloneDX 1.6."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator  # seconds: it builds grammars

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(content) is None
    return json.loads(content)


def check_statement(content: dict[str, Any]) -> dict[str, Any]:
    """Hold a statement against in-toto's own messages, and return its predicate without our field."""
    parsed = statement.Statement.copy_from_pb(ParseDict(content, statement_pb2.Statement()))
    parsed.validate()
    standard = dict(content["predicate"])
    own = standard.pop("certmix")
    result = ParseDict(standard, test_result_pb2.TestResult())
    assert result.result in ("PASSED", "WARNED", "FAILED")
    for one in result.configuration:
        resource_descriptor.ResourceDescriptor.copy_from_pb(one).validate()
        assert one.digest
    for one in own["evidence"]:
        ParseDict(one, resource_descriptor.rdpb.ResourceDescriptor())
    return standard


def metrics(bom: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Value and ends of the interval of each figure, by its name."""
    found = bom["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert len({one["type"] for one in found}) == len(found)
    return {one["type"]: (one["value"], *one.get("confidenceInterval", {}).values()) for one in found}


@pytest.mark.parametrize("kind", ["fixed", "sequential", "margin", "lipschitz", "guarantee"])
def test_evidence_is_valid_and_says_what_was_verified(evidence, kind):
    made = evidence(kind)
    assert made.exit_code == 0
    proof = {"proof.json", "check_proof.py"} if kind == "margin" else set()
    assert set(FILES) - set(made.files) == proof | {"check_population.py", "check_votes.py"}
    assert {path.name: digest_of(path.read_bytes()) for path in made.folder.iterdir()} == made.files

    told = read(made, "statement.json")
    predicate = check_statement(told)
    assert made.result == predicate["result"] == ("PASSED" if kind == "guarantee" else "WARNED")
    assert predicate["failedTests"] == []
    assert predicate["warnedTests"] == ([] if kind == "guarantee" else ["no requirement was given"])
    assert predicate["passedTests"] == [one[1] for one in made.verification.table.rows]
    listed = {one["name"]: one["digest"]["sha256"] for one in told["predicate"]["certmix"]["evidence"]}
    assert listed == {
        name: made.files[name] for name in made.files if name not in ("statement.json", "argument.md")
    }
    described = json.loads((made.verification.run / "run.json").read_text())
    sums = {one["name"].partition(":")[0]: one["digest"]["sha256"] for one in told["subject"][:3]}
    assert sums == {
        "robust classifier": described["models"]["robust"]["checksum"],
        "standard classifier": described["models"]["standard"]["checksum"],
        "data": described["data"]["checksum"],
    }
    files = {one["name"].removeprefix("run: "): one["digest"]["sha256"] for one in told["subject"][3:]}
    assert files == {
        name: digest_of((made.verification.run / name).read_bytes())
        for name in ("run.json", "numbers.sqlite")
    }
    for one in predicate["configuration"]:
        if "annotations" in one:
            assert one["digest"]["sha256"] == digest_of(one["annotations"])

    found = metrics(check_bom((made.folder / "ml-bom.cdx.json").read_text()))
    summary = certmix.certification.publish.show(made.verification.run)
    row = next(one for one in summary.rows if one.classifier == "mixed")
    share, (low, high) = row.certified_accuracy[1], row.interval[1]
    at = next(name for name in found if name.startswith("certified") and "mixed" in name and ">= " in name)
    value, lower, upper = map(float, found[at])
    assert value <= share < value + 1e-6 and lower <= low < lower + 1e-6 and upper - 1e-6 < high <= upper
    estimates = [name for name in found if name.startswith("clean") and "estimated" in name]
    assert bool(estimates) == (kind not in ("margin", "lipschitz"))

    suite = ElementTree.parse(made.folder / "verification.xml").getroot()
    assert int(suite.attrib["tests"]) == len(made.verification.table.rows)
    assert read(made, "verification.json")["outcome"] == "holds"
    assert "<!DOCTYPE html>" in (made.folder / "report.html").read_text()
    if "proof.json" in made.files:
        words = [sys.executable, made.folder / "check_proof.py", made.folder / "proof.json"]
        assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "proved\n"
    argument = (made.folder / "argument.md").read_text()
    kinds = {"margin": "margin", "lipschitz": "lipschitz-constant"}
    for one in limits_of(kinds.get(kind, "sampled")):
        assert f"- [ ] **{one.what}**: {one.why}." in argument
    assert ("random bits" in argument) == (kind not in kinds)
    assert ("docs/propagation.md, which certmix" in argument or "There is no proof file" in argument) == (
        kind == "margin"
    )
    assert "cosign attest-blob --statement statement.json" in argument
    assert not re.search(r"\]\((?!https)", argument)  # pages are not in the folder


def copy_of(runs, kind: str, folder: Path) -> Path:
    return copied(runs[kind], folder / "run")


def test_what_does_not_hold_or_was_not_checked_never_passes(runs, guarantee, tmp_path):
    unmet = guarantee.with_name("unmet.toml")
    text = guarantee.read_text()
    asked = '"certified_accuracy@0.5 >= 0.9", "clean_accuracy of class a >= 0.1 on value"'
    unmet.write_text(re.sub(r'"clean_accuracy >= [\d.]+"', asked, text))
    made = certmix.evidence(unmet, tmp_path / "unmet", runs=str(guarantee.parent), progress=False, **HOW)
    assert (made.result, made.exit_code) == ("FAILED", 1)
    assert made.meaning == "Does not hold: certified_accuracy@0.5 >= 0.9."
    assert "proof.json" in made.files  # the run itself is what it says
    bom = check_bom((made.folder / "ml-bom.cdx.json").read_text())
    (sliced,) = (
        one for one in bom["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
        if "slice" in one
    )  # fmt: skip
    assert (sliced["slice"], sliced["type"]) == (
        "class a",
        "requirement clean_accuracy of class a >= 0.1 on value: holds",
    )

    unchecked = certmix.evidence(
        runs["fixed"], tmp_path / "unchecked", progress=False, **{**HOW, "run_code": False}
    )
    predicate = check_statement(read(unchecked, "statement.json"))
    assert (unchecked.result, unchecked.exit_code) == ("FAILED", 2)
    assert "robust model checksum" in predicate["failedTests"] and "radii" in predicate["passedTests"]
    assert unchecked.meaning.startswith("Could not be checked: robust model checksum")

    again = certmix.evidence(
        guarantee, tmp_path / "again", runs=str(guarantee.parent), run_code=True, resample=0, progress=False
    )
    assert (again.result, again.exit_code) == ("WARNED", 0)
    assert check_statement(read(again, "statement.json"))["warnedTests"] == [
        "nothing was sampled or computed again (--resample 0)"
    ]
    assert "changed consistently would not have been noticed" in (again.folder / "argument.md").read_text()


def test_a_run_that_contradicts_itself_has_no_figures(runs, tmp_path):
    run = copy_of(runs, "fixed", tmp_path)
    edit_json(run / "run.json", lambda told: told["request"].update(failure_probability=0.1))
    made = certmix.evidence(run, tmp_path / "told", progress=False, **HOW)
    assert (made.result, made.exit_code) == ("FAILED", 1)
    assert not {"proof.json", "check_proof.py", "report.html"} & set(made.files)
    assert metrics(check_bom((made.folder / "ml-bom.cdx.json").read_text())) == {}
    check_statement(read(made, "statement.json"))
    assert "nobody vouches for the figures" in (made.folder / "argument.md").read_text()
    edit_json(run / "run.json", lambda told: told["models"]["robust"].pop("name"))
    with pytest.raises(RunError, match=r"run.json is damaged \(KeyError: 'name'\): restore it"):
        certmix.evidence(run, tmp_path / "damaged", progress=False, **HOW)
    assert not (tmp_path / "damaged").exists()


def test_the_same_input_gives_the_same_bytes_but_for_the_time(evidence, runs, tmp_path, monkeypatch):
    first = evidence("lipschitz")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    dated = certmix.evidence(runs["lipschitz"], tmp_path / "dated", progress=False, **HOW)
    differ = {name for name in first.files if dated.files[name] != first.files[name]}
    assert differ == {"ml-bom.cdx.json", "argument.md", "statement.json"}
    assert read(dated, "ml-bom.cdx.json")["metadata"]["timestamp"] == "1970-01-02T00:00:00Z"
    again = certmix.evidence(runs["lipschitz"], tmp_path / "again", progress=False, **HOW)
    assert again.files == dated.files


def test_the_seed_is_drawn_and_told(runs, tmp_path):
    made = certmix.evidence(runs["lipschitz"], tmp_path / "told", progress=False, run_code=True, resample=1)
    (how,) = (
        one
        for one in read(made, "statement.json")["predicate"]["configuration"]
        if one["name"] == "verification"
    )
    assert (
        f"chosen by seed {how['annotations']['new_seed']}" in (made.folder / "verification.json").read_text()
    )


def test_a_claim_about_a_population(named, tmp_path):
    run = tmp_path / "run"
    certmix.certify(
        sigma=0.25, alpha=0.76, data=named["data"], robust=named["robust"], goal="population", at_radius=0.1,
        samples=100, inputs=30, output=run, progress=False,
    )  # fmt: skip
    made = certmix.evidence(run, tmp_path / "told", progress=False, **HOW)
    assert (made.result, made.exit_code) == ("WARNED", 0)
    check_statement(read(made, "statement.json"))
    ((name, values),) = metrics(check_bom((made.folder / "ml-bom.cdx.json").read_text())).items()
    assert name == "share of the population (data) that is right and certified at l2 radius >= 0.1, at least"
    least = certmix.certification.publish.show(run).data["lower_bound"]
    assert len(values) == 2 and all(float(value) <= least < float(value) + 1e-6 for value in values)
    words = [sys.executable, made.folder / "check_population.py", made.folder / "proof.json"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "proved\n"
    argument = (made.folder / "argument.md").read_text()
    assert (
        "any one input of a claim about a population" in argument and "true robust accuracy" not in argument
    )
    assert "nothing is claimed of any one input" in (made.folder / "report.html").read_text()


class Bright(nn.Module):
    """Class 1 where the first channel that is shown is bright on average."""

    def forward(self, shown):
        light = 9 * shown[:, 0].flatten(1).mean(1) - 4.5
        return torch.stack([-light, light], 1)


def test_votes_on_all_cases_of_models_that_are_objects(tmp_path):
    data = np.random.default_rng(0).integers(0, 256, (3, 1, 4, 4)).astype(np.uint8), [0, 1, 1]
    net, run = Bright().eval(), tmp_path / "run"
    with empty_plots():
        certmix.certify(
            noise="splitting",
            scale=5 / 255,
            alpha=0.76,
            data=data,
            robust=net,
            standard=None,
            output=run,
            progress=False,
        )
    made = certmix.evidence(run, tmp_path / "told", net, data, progress=False, resample=1, new_seed=5)
    predicate = check_statement(read(made, "statement.json"))
    assert "radii" in predicate["passedTests"] and "robust model logits" in predicate["passedTests"]
    assert made.result == "FAILED" and predicate["failedTests"] == [
        "robust model checksum"
    ]  # nothing vouches for an object
    found = metrics(check_bom((made.folder / "ml-bom.cdx.json").read_text()))
    assert any(name.startswith("certified accuracy at l1 radius >= 1/255: mixed") for name in found)
    words = [sys.executable, "-S", made.folder / "check_votes.py", made.folder / "proof.json"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "proved\n"
    argument = (made.folder / "argument.md").read_text()
    assert "python check_votes.py proof.json" in argument and "ball arithmetic" not in argument
    assert "answers in all cases" in argument and "random bits" not in argument and "8-bit" in argument


REFUSED: dict[str, tuple[Callable[[Path, dict[str, Path]], dict[str, Any]], type[CertmixError], str]] = {
    "a folder that holds something": (
        lambda here, runs: {"output": runs["fixed"]}, RunError, "exists: name another --output",
    ),
    "a file": (lambda here, runs: {"output": runs["fixed"] / "run.json"}, RunError, "exists: name another"),
    "a study": (lambda here, runs: {"target": here}, RunError, "holds no run.json"),
    "a place that cannot be": (
        lambda here, runs: {"output": runs["fixed"] / "run.json" / "told"}, RunError, "cannot write",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(runs, tmp_path, what):
    change, error, told = REFUSED[what]
    given = {"target": runs["lipschitz"], "output": tmp_path / "told", **change(tmp_path, runs)}
    before = sorted(runs["fixed"].iterdir())
    with pytest.raises(error, match=re.escape(told)):
        certmix.evidence(**given, progress=False, **HOW)
    assert list(tmp_path.iterdir()) == [] and sorted(runs["fixed"].iterdir()) == before


@pytest.mark.parametrize("name", ["numbers.sqlite-wal", "numbers.sqlite", "run.json"])
def test_files_of_a_run_that_cannot_be_read_for_their_digest_are_one_line(runs, tmp_path, monkeypatch, name):
    run = copied(runs["lipschitz"], tmp_path / "run")
    told = "give this user the right to read it"
    if name.endswith("-wal"):
        with (run / name).open("wb") as file:
            file.truncate(10 * 10**9)  # takes no space
        told = "it has 10,000,000,000 bytes, at most .* restore it from a copy"
    else:
        taken = facts.digest_of_file

        def refused(path, most):
            if Path(path).name == name:
                raise PermissionError(13, "Permission denied", str(path))
            return taken(path, most)

        monkeypatch.setattr(facts, "digest_of_file", refused)
    with pytest.raises(RunError, match=rf"{re.escape(name)} cannot be read \(.*{told}"):
        certmix.evidence(run, tmp_path / "told", progress=False, run_code=True, resample=0)
    assert not (tmp_path / "told").exists()


def test_a_digest_in_parts_is_that_of_the_whole(tmp_path):
    path, content = tmp_path / "x", bytes(range(256)) * 9000
    for part in (content, b""):
        path.write_bytes(part)
        assert digest_of_file(path, len(content)) == digest_of(part)
    path.write_bytes(content)
    with pytest.raises(OSError, match="at most 100 are read"):
        digest_of_file(path, 100)


def test_a_time_that_is_none_and_an_empty_folder(runs, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(ParameterError, match="SOURCE_DATE_EPOCH = 'yesterday': give whole seconds"):
        certmix.evidence(runs["lipschitz"], tmp_path / "empty", progress=False, **HOW)
    assert os.listdir(tmp_path / "empty") == []
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    made = certmix.evidence(runs["lipschitz"], tmp_path / "empty", progress=False, **HOW)
    assert made.files and render(made.table, "json")


def test_the_page_of_limits_shows_every_limit():
    page = (DOCS / "limits.md").read_text()
    assert re.findall(r"^\{limits-(\w+)\}$", page, re.MULTILINE) == list(LIMITS)
    for about in LIMITS:
        assert all(
            row.count(" | ") == 2 for row in limits_table(about).splitlines()[2:] if not row.endswith("| |")
        )
