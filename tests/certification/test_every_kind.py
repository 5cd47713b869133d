"""Every kind of smoothing, through every command that takes a run, and from Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from forged import records
from spreading import Inline, rows

import certmix
from certmix.certification.request import ENUMERATED
from certmix.data import load
from certmix.errors import ParameterError
from certmix.models.spec import load_model
from certmix.radii import SMOOTHINGS
from certmix.sampling.law import noise_error

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
