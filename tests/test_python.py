"""The front door of Python: models and data as people have them."""

from __future__ import annotations

import numpy as np
import pytest
from planes import INPUTS, LABELS, NET, plane, points
from torch import nn

import certmix
from certmix.errors import CertmixError

DATA = points(INPUTS, LABELS)
HOW = dict(sigma=0.5, samples=400, goal="fixed", input_range=None, progress=False)


CALLABLES = {
    "module": lambda: plane(NET),
    "smoothed": lambda: certmix.SmoothedClassifier(plane(NET), 0.5),
}


@pytest.mark.parametrize("kind", CALLABLES)
def test_one_model_is_h_alone(kind):
    found = certmix.certify(
        CALLABLES[kind](), DATA, **{**HOW, **({"sigma": None} if kind == "smoothed" else {})}
    )
    assert found.summary.alpha == 1.0 and found.summary.standard is None and found.summary.images == 5
    assert found.summary.rows == certmix.certify(plane(NET), DATA, **HOW).summary.rows


def test_a_pair_is_g_and_h():
    found = certmix.certify((plane(NET), plane(NET)), DATA, alpha=0.76, **HOW)
    assert (
        found.summary.rows
        == certmix.certify(None, DATA, standard=plane(NET), robust=plane(NET), alpha=0.76, **HOW).summary.rows
    )


def test_modules_are_as_they_were():
    net = nn.Sequential(plane(NET), nn.Dropout()).train()
    certmix.certify((net, net), DATA, alpha=0.76, **HOW)
    assert net.training and net[1].training and all(weight.requires_grad for weight in net.parameters())


def test_such_runs_are_kept_by_what_they_hold(tmp_path):
    """The same weights and data resume a run; others are another run, and refused in its folder."""
    first = certmix.certify(plane(NET), DATA, output=tmp_path / "run", **HOW)
    again = certmix.certify(plane(NET), points(INPUTS, LABELS), output=tmp_path / "run", **HOW)
    assert again.summary == first.summary
    for models, data in (
        (plane([[1.0, 0.1], [-1.0, 0.0]]), DATA),
        (plane(NET), points(np.asarray(INPUTS) + 0.01, LABELS)),
    ):
        with pytest.raises(CertmixError, match="run"):
            certmix.certify(models, data, output=tmp_path / "run", **HOW)


@pytest.mark.parametrize(
    ("models", "options", "told"),
    [
        (3, {}, "robust of type int is no model: give one model"),
        ((None, None), {}, "give one model"),
        ((), {}, "give one model"),
        ((plane(NET),) * 3, {}, "models = 3 of them"),
        (plane(NET), {"standard": "cifar10-standard"}, "both given"),
        ((plane(NET), plane(NET)), {}, "no alpha is given"),
        (plane(NET), {"alpha": 0.3}, "alpha = 0.3"),
        (plane(NET), {"standard_weights": "x.pt"}, "there is none"),
        (certmix.SmoothedClassifier(plane(NET), 0.25), {}, "sigma = 0.5: the model has 0.25"),
    ],
)  # fmt: skip
def test_what_is_no_model_is_refused(models, options, told):
    with pytest.raises(CertmixError, match=told):
        certmix.certify(models, DATA, **{**HOW, **options})
