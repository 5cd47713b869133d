"""The command that repeats a run parses to the same request, whatever option of `certmix certify` differs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from certmix.certification import run as sampled
from certmix.certification.publish import repeat_command
from certmix.certification.request.proved import GivenConstant, Margin
from certmix.certification.request.sampled import CertifyRequest
from certmix.runs.settings import fields
from certmix.runs.sources import Sources

KINDS = {
    "certify": CertifyRequest(0.25, 0.76),
    "soft": CertifyRequest(0.25, 0.76, scores="soft", goal="radius"),
    "certify-margin": Margin(0.76),
    "certify-lipschitz-constant": GivenConstant(0.76, lipschitz_constant=1.5),
}
OTHER = {
    "sigma": 32 / 255, "alpha": 0.8, "inputs": "all", "samples": 12_345, "selection_samples": 7, "goal": "fixed", "settle": "all",
    "relative_precision": 0.03, "failure_probability": 1e-7, "scores": "soft",
    "score_temperature": 1 / 3, "gate": 0.6, "standard_temperature": 1 / 3, "tuned": "0.6,0,0.62",
    "certificates": ("smoothing", "exact"), "radii": (0.0, 1 / 255, 0.1), "seed": 2**63 + 1, "precision": "bf16",
    "norm": "l2", "bound_method": "crown", "arithmetic": "exact", "max_radius": 1 / 3, "lipschitz_constant": 1e-7,
    "constant_of": "each-logit", "data": "my data.npz", "split": "train", "input_range": None, "resize": 9,
    "crop": 8, "label_column": "the class", "feature_scale": (0.8, 1 / 3), "standard": None, "standard_weights": "g's.pt", "standard_normalize": "0.5/0.2",
    "standard_outputs": "probabilities", "standard_files": ("a", "b c"), "robust": "nets.py:h", "robust_weights": "h.pt",
    "robust_normalize": "0/1", "robust_outputs": "logits", "denoiser": "nets.py:d",
    "robust_files": ("h.json",), "noise": "laplace", "scale": 1 / 3, "dimension": 12, "all_at_once": True,
}  # fmt: skip
WITH = {
    "noise": {"sigma": None, "scale": 0.25, "certificates": ("exact",), "norm": None},
    "scale": {"sigma": None, "noise": "uniform", "certificates": ("exact",), "norm": None},
    "dimension": {"norm": "linf"}, "scores": {"bound": None},
}  # fmt: skip
"""What else differs where a field does."""
ONE_SIDE = {
    "score_temperature": "certify", "relative_precision": "certify", "scores": "soft", "gate": "soft", "tuned": "soft",
}  # fmt: skip
"""Fields that mean nothing, or are as written, in a kind."""
BOUND = {"certify": "clopper-pearson-two-sided", "soft": "betting-fixed"}
CASES = [
    (kind, field.name)
    for kind, request in KINDS.items()
    for field in (*fields(type(request)), *fields(Sources))
    if field.name not in ("certificate", "run_code") and ONE_SIDE.get(field.name) != kind
    if field.name != "feature_scale" or isinstance(request, CertifyRequest)
]


@pytest.fixture
def parsed(command, monkeypatch):
    """Return what a command asks of the library."""

    def run(line: str) -> tuple[object, object, dict]:
        asked: list[tuple[object, object, dict]] = []

        def record(request, sources, **how):
            asked.append((request, sources, how))
            raise KeyboardInterrupt

        monkeypatch.setattr(sampled, "run_certify", record)
        done = command(*shlex.split(line)[1:])
        assert asked, done.err
        return asked[0]

    return run


def described(kind, request, sources, **more):
    study = "certify" if kind == "soft" else kind
    told = {"identity": {"study": study}, "request": request.as_dict(), "sources": sources.as_dict(), **more}
    return json.loads(json.dumps(told))


@pytest.mark.parametrize("kind, name", CASES)
def test_the_repeated_command_asks_for_the_same(parsed, kind, name):
    request, sources = KINDS[kind], Sources()
    value = BOUND[kind] if name == "bound" else OTHER[name]
    if name in Sources.__struct_fields__:
        sources = sources.replace(**{name: value})
    else:
        request = request.replace(**{name: value, **WITH.get(name, {})})
    again = parsed(repeat_command(Path("run"), described(kind, request, sources)))
    assert again[:2] == (request, sources)
    assert again[2]["output"] == "run"


def test_batches_compiling_and_shards_are_repeated(parsed):
    more = {"batch_size": 7, "compile": "on", "compiled": "partly", "shard": {"number": 2, "of": 3}}
    line = repeat_command(Path("a run"), described("certify", KINDS["certify"], Sources(), **more))
    how = SimpleNamespace(**parsed(line)[2])
    assert (how.batch_size, how.compiled, str(how.shard), how.output) == (7, True, "2/3", "a run")
