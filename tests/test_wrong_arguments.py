"""Whatever is wrong with what a public function is given, it says so in one line of certmix's own."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from planes import INPUTS, LABELS, NET, plane

import certmix
from certmix.errors import CertmixError
from certmix.models.smoothed import SmoothedClassifier, SmoothedMixture

X, Y = torch.tensor(INPUTS), torch.tensor(LABELS)
DATA = (X, Y)
NOTHING = object()
GOOD: dict[str, dict[str, Any]] = {
    "certify": {"sigma": 0.5, "samples": 100},
    "assert_certified": {"sigma": 0.5, "samples": 100, "radius": 0.1, "at_least": 0.1},
    "attack": {"steps": 1}, "lipschitz": {"steps": 1}, "confidence": {"steps": 1}, "nuts_fit": {"steps": 1},
    "mix_sweep": {"steps": 1, "alphas": [0.5]}, "compare_trust": {"steps": 1},
}  # fmt: skip
MODELS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((3, DATA), {}),
    (((), DATA), {}),
    (("no-such-model", DATA), {}),
    ((NOTHING, DATA), {}),
    (((plane(NET), None), DATA), {}),
    ((plane(NET), 3), {}),
    ((plane(NET), NOTHING), {}),
    ((plane(NET), X), {}),
    ((plane(NET), (X, Y[:2])), {}),
    ((plane(NET), "no/such/file"), {}),
    ((plane(NET), DATA), {"imagse": 3}),
    ((plane(NET), DATA), {"inputs": -1}),
    ((plane(NET), DATA), {"device": "tpu"}),
    ((plane(NET), DATA), {"device": 3}),
    ((plane(NET), DATA), {"seed": "x"}),
    ((plane(NET), DATA), {"batch_size": "x"}),
    ((plane(NET), DATA), {"output": 3}),
    ((plane(NET), DATA), {"progress": "x"}),
    ((plane(NET), DATA), {"input_range": 5}),
    ((plane(NET), DATA), {"alpha": [1]}),
    ((plane(NET), DATA), {"eps": "x", "sigma": "x"}),
]
RUNS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((one,), {}) for one in (3, None, "", "no/such/run", NOTHING, [], b"x", {}, __file__, np.zeros(3))
] + [(([[]],), {})]
NUMBERS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((one,), {})
    for one in (None, "x", NOTHING, [[0.5], [0.2, 0.1]], {}, b"x", 2.0, np.nan, [0.5, 3.0], ["a"])
] + [((0.9,), {"alpha": "x"}), ((0.9,), {"alpha": None})]
RADII = {
    "exact_radius": {"q_upper": 0.1, "sigma": 0.5, "alpha": 0.76},
    "lipschitz_radius": {"q_upper": 0.1, "alpha": 0.76, "constant": 1.0, "rival_constants": 1.0},
    "smoothing_radius": {"q_upper": 0.1, "sigma": 0.5, "alpha": 0.76},
    "certify_radii": {"sigma": 0.5, "alpha": 0.76, "certificate": "exact"},
}
SMOOTH = SmoothedClassifier(plane(NET), 0.5, classes=2)
MIX = SmoothedMixture(plane(NET), SMOOTH, 0.76)
INPUT: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((one,), {}) for one in (None, 3, "x", NOTHING, [], torch.zeros(()), torch.zeros(2, 7), {}, b"x")
] + [((X,), {"samples": -1}), ((X,), {"samples": "x"}), ((X,), {"failure_probability": 2.0})]
MADE: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((3, 0.5), {}), ((None, 0.5), {}), (("x", 0.5), {}), ((plane(NET), "x"), {}), ((plane(NET), None), {}),
    ((plane(NET), -1.0), {}), ((plane(NET), float("nan")), {}), ((plane(NET), [1]), {}),
    ((plane(NET), 0.5), {"classes": "x"}), ((plane(NET), 0.5), {"batch_size": 0}), ((plane(NET), 0.5), {"gate": 2.0}),
]  # fmt: skip
CASES = (
    [(name, args, {**GOOD[name], **more}) for name in GOOD for args, more in MODELS]
    + [(name, args, more) for name in ("recertify", "trade_off", "verify", "falsify", "report", "nuts_evaluate") for args, more in RUNS]
    + [(name, args, {**RADII[name], **more}) for name in RADII for args, more in NUMBERS]
    + [("SmoothedClassifier", args, more) for args, more in MADE]
    + [(f"{kind}.{method}", args, more) for kind in ("SMOOTH", "MIX") for method in ("certify", "predict") for args, more in INPUT]
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "args", "options"), CASES, ids=[f"{name}-{k}" for k, (name, *_) in enumerate(CASES)]
)
def test_what_is_wrong_is_said_in_one_line(name, args, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind, _, method = name.partition(".")
    function = getattr({"SMOOTH": SMOOTH, "MIX": MIX}[kind], method) if method else getattr(certmix, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(CertmixError) as raised:
            function(*args, **options)
    assert len(str(raised.value).splitlines()) == 1
