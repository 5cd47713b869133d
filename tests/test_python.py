"""The front door of Python: models and data as people have them."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from planes import INPUTS, LABELS, NET, plane, points
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import certmix
from certmix.errors import CertmixError
from certmix.verification.proposing import propose

DATA = points(INPUTS, LABELS)
BOX = replace(DATA, input_range=(-1.0, 1.0))
PAIR = (plane(NET), plane(NET))
X, Y = torch.tensor(INPUTS), torch.tensor(LABELS)
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
    assert found.summary.alpha == 1.0 and found.summary.standard is None and found.summary.inputs == 5
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


def test_all_forms_of_data_are_one():
    tables = [
        certmix.certify(PAIR, data, alpha=0.76, **HOW).summary.rows
        for data in ((X, Y), (X.numpy(), Y.numpy()), TensorDataset(X, Y), DataLoader(TensorDataset(X, Y)))
    ]
    assert all(table == tables[0] for table in tables)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "run"
    return certmix.certify(PAIR, BOX, alpha=0.76, sigma=0.5, samples=400, progress=False, output=folder)


RESULTS = {
    "certify": lambda kept: kept,
    "recertify": lambda kept: certmix.recertify(kept, alpha=0.9),
    "best": lambda kept: certmix.recertify([kept, kept], best=True),
    "trade_off": certmix.trade_off,
    "attack": lambda kept: certmix.attack(plane(NET), BOX, steps=1, progress=False),
    "mix_sweep": lambda kept: certmix.mix_sweep(PAIR, BOX, alphas=[0.5], steps=1, progress=False),
    "confidence": lambda kept: certmix.confidence(PAIR, BOX, steps=1, progress=False),
    "compare_trust": lambda kept: certmix.compare_trust(
        PAIR, BOX, trusts="constant", forms="logits", weights=[0.5], steps=1, progress=False
    ),
    "lipschitz": lambda kept: certmix.lipschitz(plane(NET), BOX, steps=1, restarts=1, progress=False),
    "nuts_fit": lambda kept: certmix.nuts_fit(PAIR, BOX, steps=1, progress=False),
    "verify": lambda kept: certmix.verify(kept, PAIR, BOX, resample=1, resample_samples=100),
    "falsify": lambda kept: certmix.falsify(kept, plane(NET), BOX, samples=100, steps=1, progress=False),
}
DRAWN = {"certify", "recertify", "trade_off", "mix_sweep", "confidence", "compare_trust", "lipschitz"}


@pytest.mark.parametrize("kind", RESULTS)
def test_results_show_themselves(kind, kept, tmp_path):
    found = RESULTS[kind](kept)
    assert len(repr(found)) < 400 and "\n" not in repr(found) and found.table.title in repr(found)
    assert len(str(found).splitlines()) > 2 and len(found.to_pandas()) >= 1
    html = found._repr_html_()
    assert "<table" in html and ("<img" in html) == (kind in DRAWN)
    for suffix in ("csv", "json", "md", "tex", "txt", "html"):
        assert found.save(tmp_path / f"found.{suffix}").stat().st_size > 50
    if kind in DRAWN:
        axes = found.plot()
        assert axes.get_ylabel() and found.save(tmp_path / "found.png").stat().st_size
        pyplot.close(axes.figure)
    else:
        with pytest.raises(CertmixError, match="has no plot"):
            found.plot()
    with pytest.raises(CertmixError, match="the ending says what to write"):
        found.save(tmp_path / "found.xyz")


BACKEND = """
import matplotlib
from matplotlib.backends.backend_agg import FigureCanvas
matplotlib.interactive(True)
"""
PLOTS = """
import matplotlib
from certmix.tables.figure import figure_of, image
for _ in range(2):
    figure_of(lambda suffix: image(suffix, (3, 2), lambda figure: figure.subplots()))
    assert matplotlib.is_interactive()
"""


def test_a_first_plot_leaves_the_notebook_interactive(tmp_path):
    """A notebook's backend turns this on as it is loaded, and shows no figure without it."""
    (tmp_path / "inline.py").write_text(BACKEND)
    where = {**os.environ, "MPLBACKEND": "module://inline", "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", PLOTS], env=where, check=True, timeout=120)


def test_a_run_of_objects_has_no_guarantee_and_says_what_to_do(kept, tmp_path):
    with pytest.raises(CertmixError, match=r"certmix.verify\(run, models, data\).* such as m.py:net"):
        propose(kept.folder, tmp_path / "guarantee.toml")


def test_a_fit_in_memory_is_evaluated(kept):
    """No folder between fit and evaluation; tuned inputs are left out."""
    fitted = certmix.nuts_fit(PAIR, BOX, inputs=2, steps=1, progress=False)
    found = certmix.nuts_evaluate(
        fitted, BOX, steps=1, queries=2, targets=1, r_d_sweep=[0.0], sweep_inputs=1, progress=False
    )
    assert fitted.folder is None and "3 inputs" in found.table.settings
    assert fitted.data.mix.mixture(X).shape == (5, 2)


def test_what_was_verified_is_what_was_handed_over(kept):
    """Runs of objects are verified and falsified with these objects, and with others refused."""
    assert certmix.verify(kept, PAIR, BOX, resample=0).exit_code in (0, 2)
    wide = certmix.certify(PAIR, (X, Y), alpha=0.76, output=kept.folder.with_name("wide"), **HOW)
    assert certmix.verify(wide, PAIR, (X, Y), resample=0).exit_code in (0, 2), "read in the run's own range"
    others = plane([[1.0, 0.5], [-1.0, 0.0]])
    assert certmix.verify(kept, (others, others), BOX, resample=0).exit_code == 1
    with pytest.raises(CertmixError, match="not"):
        certmix.falsify(kept, others, BOX, progress=False)


FACTORIES = """
import numpy as np
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([[3.0, -1.0], [-3.0, 1.0]]))

    def forward(self, x):
        return x @ self.weight.T

def other():
    net = Net()
    net.weight.data *= 2
    return net

def load():
    inputs = np.random.default_rng(0).random((12, 2)).astype("float32")
    return inputs, (3 * inputs[:, 0] < inputs[:, 1]).astype(int)
"""


def test_a_run_of_objects_is_whole_where_a_factory_is_named(command, tmp_path, monkeypatch):
    """Verified, reproduced and given a guarantee, by names of what makes the same objects; nothing else will do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "made_here.py").write_text(FACTORIES)
    import made_here

    how = {"sigma": 0.25, "samples": 300, "progress": False}
    kept = certmix.certify(made_here.Net(), made_here.load(), output="runs/kept", **how)
    net, data = "made_here.py:Net", "made_here.py:load"
    assert certmix.verify(kept, net, data, resample=1).exit_code == 0
    assert certmix.verify(kept, "made_here:Net", "made_here:load", resample=0).exit_code == 0
    assert certmix.verify(kept, "made_here.py:other", data, resample=0).exit_code == 1
    assert certmix.reproduce(kept, net, data, output="again", progress=False).equal
    assert certmix.reproduce(kept, made_here.Net(), made_here.load(), output="once", progress=False).equal
    assert command("reproduce", "runs/kept", "--robust", net, "--data", data).code == 0
    assert command("verify", "runs/kept", "--robust", net, "--data", data, "--resample", 1).code == 0
    with pytest.raises(CertmixError, match="is an object"):
        certmix.guarantee_init(kept, made_here.Net(), data)
    made = certmix.guarantee_init(kept, net, data, domain="a box", confidence=0.9)
    assert certmix.guarantee_check("guarantee.toml") == made
    assert (made.robust.model, made.data.name) == (f"object:{net}", data)
    with pytest.raises(CertmixError, match="--run-code"):
        certmix.verify("guarantee.toml", resample=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of where samples are copied to
        found = certmix.verify("guarantee.toml", resample=0, run_code=True)
    assert (found.exit_code, found.sampling.drawn_samples) == (0, 0)
    named = certmix.certify(net, data, output="runs/named", **how)
    assert certmix.verify(named, resample=0, run_code=True).exit_code == 0
    assert certmix.verify(named, resample=0).exit_code == 2
