"""Every kind of smoothing, through every command that takes a run, and from Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from forged import records
from spreading import Inline, rows

import certmix
from certmix.certification.request.noisy import ENUMERATED
from certmix.data import load
from certmix.errors import ParameterError
from certmix.files import digest_of
from certmix.models.spec import load_model
from certmix.radii import SMOOTHINGS
from certmix.sampling.law import noise_error
from certmix.verification.proofs import check_population

SCALES = {"gaussian": 0.25, "laplace": 0.25, "uniform": 0.5, "ablation": 6, "splitting": 0.05, "bands": 2}
ALPHA = 0.8
NETS = '''
import torch
from torch import nn


class Bright(nn.Module):
    """The first of three classes where what is shown is bright, the second where it is dark."""

    def forward(self, x):
        shown = x[:, 3:] if x.shape[1] > 3 else torch.ones_like(x)
        z = 9 * ((x[:, :3] - 0.5) * shown).flatten(1).mean(1)
        return torch.stack([z, -z, z - z - 5], 1)
'''


@pytest.fixture
def made(tmp_path: Path) -> tuple[str, ...]:
    """Write six images of 4 x 8 pixels and a net; return options that name them."""
    (tmp_path / "nets.py").write_text(NETS)
    levels = np.random.default_rng(2).integers(0, 25, (6, 3, 4, 8)).astype(np.uint8)
    levels[::2] += 230
    np.savez(tmp_path / "images.npz", inputs=levels, labels=[0, 1, 0, 1, 0, 2], class_names=list("abc"))
    return "--data", "images.npz", "--standard", "nets.py:Bright", "--robust", "nets.py:Bright"


def test_the_table_is_of_every_kind():
    assert SCALES.keys() == SMOOTHINGS.keys()


@pytest.mark.parametrize("kind", SMOOTHINGS)
@pytest.mark.filterwarnings("ignore::certmix.errors.CertmixWarning")
def test_a_kind_goes_through_everything(kind, made, command, tmp_path):
    sampled = kind not in ENUMERATED
    level = {"sigma": SCALES[kind]} if kind == "gaussian" else {"noise": kind, "scale": SCALES[kind]}
    how = {"samples": 300, "goal": "fixed", "tuned": "none"} if sampled else {}
    asked = [
        word for name, value in {"alpha": ALPHA, **level, **how}.items() for word in (f"--{name}", value)
    ]

    def done(*words, code: int = 0) -> str:
        found = command(*words)
        assert found.code == code, found.err
        return found.out

    def table(*words) -> dict:
        return json.loads(done(*words, "--format", "json"))

    for number in (1, 2):
        done("certify", *made, *asked, "--shard", f"{number}/2", "--output", str(number))
    whole = table("merge", "1", "2", "--output", "run")
    assert whole["complete"] and (whole["noise"], whole["sigma"] or whole["scale"]) == (kind, SCALES[kind])
    assert whole["norm"] == next(iter(SMOOTHINGS[kind].certificates))
    assert whole["rows"][1]["mean_certified_radius"] > 0 and whole["inputs"] == 6

    named = {"data": "images.npz", "standard": "nets.py:Bright", "robust": "nets.py:Bright"}
    given = {**named, **level, **how, "alpha": ALPHA, "output": "python", "progress": False}
    certmix.certify(**given, executor=Inline(2))
    assert rows(tmp_path / "python") == rows(tmp_path / "run"), "two workers, from Python"

    assert table("show", "run")["rows"] == whole["rows"] == table("recertify", "run")["rows"]
    assert table("recertify", "run", "--alpha", 0.95)["alpha"] == 0.95
    swept = table("trade-off", "run", "--at-radius", whole["radii"][0])
    assert swept["norm"] == whole["norm"]
    planned = table("plan", "--like", "run", "--inputs", 50, *(() if sampled else ("--throughput", 1000)))
    assert (planned["noise"], planned["scale"], planned["inputs"]) == (kind, SCALES[kind], 50)
    done("report", "run", "--output", "page.html")
    assert kind in (tmp_path / "page.html").read_text()
    audited = command("audit", "run")
    assert audited.code in ((0, 1) if sampled else (2,)), audited.err
    assert sampled or "verify" in audited.err

    checks = table("verify", "run", "--proof", "proof.json", "--resample", 2, "--run-code")
    assert not [one for one in checks["checks"] if one["outcome"] == "fails"]
    done("guarantee", "init", "run", "--output", "claim.toml")
    done("guarantee", "check", "claim.toml")
    done("evidence", "claim.toml", "--runs", ".", "--output", "evidence", "--resample", 1, "--run-code")
    told = (tmp_path / "evidence" / "argument.md").read_text()
    assert ("sigma 0.25" if kind == "gaussian" else kind) in told and "holds" in told
    unit = {"ablation": "pixels", "bands": "pixels a side"}.get(kind, "the values of an input")
    assert f"radii: {whole['norm']}, in units of {unit}\n" in told

    if not sampled:
        with pytest.raises(ParameterError, match="it is not sampled: certmix.certify"):
            certmix.SmoothedClassifier(torch.nn.Identity(), noise=kind, scale=SCALES[kind])
        return
    held, data = records(tmp_path / "run"), load("images.npz")
    net = load_model("nets.py:Bright").module
    smooth = certmix.SmoothedClassifier(net, **level, seed=0)
    inputs, keys = torch.from_numpy(np.stack([data.read(k) for k in range(6)])), list(range(6))
    counts = smooth.counts(inputs, 300, indices=keys)
    assert counts.tolist() == [held[k].estimation[300].tolist() for k in keys], (
        "the function that is deployed"
    )
    mix = certmix.SmoothedMixture(net, smooth, ALPHA)
    found = mix.certify(inputs[:3], 300)
    assert found.radii.norm == whole["norm"] and found.radii.radius.max() > 0
    assert mix.predict(inputs[:3], 300).classes.tolist() == [0, 1, 0]
    noise = json.loads((tmp_path / "run" / "run.json").read_text())["noise"]
    assert noise["eps"] == noise_error(smooth.smoothing, 96) and (noise["eps"] > 0) == (kind != "ablation")


CLAIMED = {
    "gaussian": (0.1, ()), "gaussian, linf": (0.01, ("--norm", "linf")), "laplace": (0.1, ()),
    "laplace, l2": (0.02, ("--norm", "l2")), "uniform": (0.05, ()), "uniform, linf": (0.001, ("--norm", "linf")),
    "ablation": (1, ()),
}  # fmt: skip
ALONE = """\
import runpy, sys
sys.modules["certmix"] = None
sys.path.insert(0, folder := sys.argv.pop(1))
runpy.run_path(folder + "/check_population.py", run_name="__main__")
"""


@pytest.mark.parametrize("case", CLAIMED)
@pytest.mark.filterwarnings("ignore::certmix.errors.CertmixWarning")
def test_a_claim_about_a_population_by_every_noise(case, made, command, tmp_path):
    kind, (radius, norm) = case.partition(",")[0], CLAIMED[case]
    level = ("--sigma", SCALES[kind]) if kind == "gaussian" else ("--noise", kind, "--scale", SCALES[kind])
    given = (*made[:2], *made[4:], "--alpha", ALPHA, *level, *norm)
    asked = ("--goal", "population", "--at-radius", radius, "--samples", 200, "--inputs", 40)
    found = command("certify", *given, *asked, "--at-least", 0.3, "--output", "run", "--format", "json")
    assert found.code == 0, found.err
    told = json.loads(found.out)
    wanted = norm[1] if norm else next(iter(SMOOTHINGS[kind].certificates))
    assert (told["noise"], told["scale"], told["norm"]) == (kind, SCALES[kind], wanted)
    assert told["lower_bound"] >= 0.3 and (told["converted_from"] is None) == (
        wanted in SMOOTHINGS[kind].certificates
    )
    assert command("show", "run", "--format", "json").out == found.out
    checks = command("verify", "run", "--proof", "proof.json", "--run-code", "--format", "json")
    assert {one["outcome"] for one in json.loads(checks.out)["checks"]} == {"holds"}, checks.out

    folder = Path(check_population.__file__).parent  # where check_proof.py lies beside it
    alone = [sys.executable, "-c", ALONE, folder, "proof.json"]
    script = subprocess.run(alone, capture_output=True, text=True, check=False)
    assert script.stdout == "proved\n", script.stderr
    proof = json.loads((tmp_path / "proof.json").read_text())
    del proof["digest"]
    farther = {"radius": radius + 1 if kind == "ablation" else radius * 1.01}
    fewer = {"alpha": ALPHA - 0.01}
    for wrong in (farther, fewer, *([{"eps": 1e-3}] if proof["eps"] else [])):
        changed = proof | wrong
        assert list(check_population.fails(changed | {"digest": digest_of(changed)})), wrong
    more = command("certify", *given, *asked, "--inputs", 41, "--output", "run", "--format", "json")
    assert json.loads(more.out)["draws"] == 41


def test_a_guarantee_of_a_claim_by_other_noise(made, command, tmp_path):
    (tmp_path / "claim.toml").write_text(
        """\
version = 1
requirements = ["population_certified_accuracy@0.1 >= 0.3"]
[data]
name = "images.npz"
inputs = 40
[robust]
model = "nets.py:Bright"
[certificate]
alpha = 0.8
noise = "laplace"
scale = 0.25
[sampling]
samples = 200
"""
    )
    found = command("verify", "claim.toml", "--run-code", "--format", "json")
    assert found.code == 0, found.out + found.err
    (judged,) = json.loads(found.out)["requirements"]
    assert judged["outcome"] == "holds"
    assert command("evidence", "claim.toml", "--output", "evidence", "--resample", 1, "--run-code").code == 0
    files = {path.name for path in (tmp_path / "evidence").iterdir()}
    assert {"check_population.py", "check_proof.py", "proof.json"} <= files
    assert "l1" in (tmp_path / "evidence" / "argument.md").read_text()


@pytest.mark.parametrize("case", ["ablation", "gaussian, linf", "uniform, linf"])
def test_a_guarantee_of_a_claim_whose_radius_depends_on_the_dimension(case, made, command, tmp_path):
    kind, (radius, norm) = case.partition(",")[0], CLAIMED[case]
    (tmp_path / "claim.toml").write_text(
        f"""\
version = 1
requirements = ["population_certified_accuracy@{radius} >= 0.3"]
data = {{ name = "images.npz", inputs = 40 }}
robust = {{ model = "nets.py:Bright" }}
certificate = {{ alpha = 0.8, noise = "{kind}", scale = {SCALES[kind]}{f', norm = "{norm[1]}"' if norm else ""} }}
sampling = {{ samples = 200 }}
"""
    )
    for drawn in (True, False):
        found = command("verify", "claim.toml", "--run-code", "--format", "json")
        told = json.loads(found.out)
        assert found.code == 0 and told["requirements"][0]["outcome"] == "holds", found.out + found.err
        assert (told["sampling"]["drawn_samples"] > 0) == drawn


WRONG_CLAIMS = {
    "of every case": (("--noise", "bands", "--scale", 2, "--at-radius", 1), "leave --goal population out"),
    "part of a pixel": (("--noise", "ablation", "--scale", 6, "--at-radius", 0.5), "a whole number"),
    "no level": (("--noise", "laplace", "--at-radius", 0.1), "give --scale"),
    "a level of another": (("--noise", "laplace", "--sigma", 0.5, "--at-radius", 0.1), "give --scale"),
    "another norm": (("--noise", "ablation", "--scale", 6, "--norm", "l2", "--at-radius", 1), "l0"),
}


@pytest.mark.parametrize("case", WRONG_CLAIMS)
def test_claims_that_cannot_be_are_refused(case, made, command):
    words, told = WRONG_CLAIMS[case]
    found = command("certify", *made[:2], *made[4:], "--alpha", ALPHA, "--goal", "population", *words)
    assert found.code == 2 and told in " ".join(found.err.split()), found.err
