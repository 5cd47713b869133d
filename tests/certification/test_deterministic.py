"""Certificates without samples: soundness under attack, what is stored and reused, the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import worst_mix
from forged import edit_vectors
from planes import plane
from small_nets import inputs, random_net
from torch import nn

import certmix
from certmix.certification import describe, proved
from certmix.certification.request.proved import BOUND_METHODS, DeterministicRequest, Margin
from certmix.errors import ModelError, ParameterError, RunError
from certmix.margins import layers
from certmix.runs import Store, read_run
from certmix.runs.cells import Cells
from certmix.runs.settings import settings
from certmix.runs.sources import Sources
from certmix.types import Dataset, Status

ALPHA = 0.76


def dataset(inputs, labels, box=(0.0, 1.0), classes=3) -> Dataset:
    values = np.asarray(inputs, np.float32)
    return Dataset(
        "points", "test", np.asarray(labels, np.int64), np.arange(len(values)) * 10, tuple("abc"[:classes]),
        lambda i: values[i], box, f"checksum of {values.sum()}",
    )  # fmt: skip


class Scaled(nn.Module):
    """A small net whose logits are stretched, so that its margins exceed the threshold."""

    def __init__(self, net: nn.Module, scale: float) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, x):
        return self.net(x) * self.scale


def flips(h, x, y: int, norm: str, eps: float, box=(0.0, 1.0)) -> bool:
    return worst_mix.flips(h, x, y, norm, eps, alpha=ALPHA, steps=12, restarts=2, box=box)


PLANES = [[4.0, 0.0], [-4.0, 1.0], [-4.0, -1.0]]
POINTS = dataset([[0.9, 0.3], [0.2, 0.8], [0.7, 0.5], [0.05, 0.1], [0.6, 0.9]], [0, 1, 0, 1, 1], box=None)


def shifted(weights=PLANES) -> nn.Linear:
    net = plane(weights)
    with torch.no_grad():
        net.bias.copy_(torch.tensor([-1.6, 1.6, 1.6])[: len(weights)])
    return net


def run(certificate="margin", **options):
    given = dict(data=POINTS, standard=shifted(), robust=shifted(), inputs="all")
    if certificate == "lipschitz-constant":
        given["lipschitz_constant"] = 8.0
    return certmix.certify(alpha=ALPHA, certificates=(certificate,), **{**given, **options})


@pytest.mark.parametrize(
    "name, norm",
    [
        ("plain", "linf"), ("residual", "l2"),
        *(pytest.param(*of, marks=pytest.mark.long) for of in (("largest", "linf"), ("pooled", "l2"))),
    ],
)  # fmt: skip
def test_no_attack_within_a_verified_radius_flips_the_mix(name, norm):
    h, x = Scaled(random_net(name, 3), 25.0).eval(), inputs(6, seed=1)
    y = h(x).argmax(1)
    found = run(data=dataset(x.numpy(), y.numpy()), standard=None, robust=h, norm=norm, max_radius=0.5,
                radii=(0.0, 0.1)).outcomes.radii[1].radius  # fmt: skip
    assert (found > 0).sum() >= 2
    for k in np.flatnonzero(found)[:2]:
        assert not flips(h, x[k], int(y[k]), norm, float(found[k]) * (1 - 1e-6))


def test_the_attack_would_find_a_radius_that_is_too_large():
    """For a linear model of two classes verified radii are the true distances, within the tolerance."""
    h, x = Scaled(plane([[1.0, 0.5], [-1.0, 0.2]]), 8.0), torch.tensor([[0.5, 0.3], [0.7, 0.6]])
    distance = math.log((1 + (1 - ALPHA) / ALPHA) / (1 - (1 - ALPHA) / ALPHA)) / 8
    for norm, dual in (("linf", 2.3), ("l2", math.hypot(2.0, 0.3))):
        truth = (x @ torch.tensor([2.0, 0.3]) - distance) / dual
        data = dataset(x.numpy(), [0, 0], box=None, classes=2)
        result = run(data=data, standard=None, robust=h, norm=norm, max_radius=1.0, radii=(0.0, 0.25))
        radius = result.outcomes.radii[1].radius
        assert (radius <= truth.numpy() + 1e-6).all()
        assert (radius >= truth.numpy() - 1 / 1024 - 1e-6).all()
        assert flips(h, x[0], 0, norm, 1.02 * float(truth[0]), box=(-10.0, 10.0))
        assert not flips(h, x[0], 0, norm, float(radius[0]) * (1 - 1e-6), box=(-10.0, 10.0))


@pytest.mark.parametrize(
    "norm, constant_of, constant",
    [
        ("l2", "logits", 7.1), ("linf", "each-logit", 5.0), ("l1", "each-logit", 4.0),
        ("l2", "probabilities", 2.1),
    ],
)  # fmt: skip
def test_radii_of_a_true_constant_hold_under_attack(norm, constant_of, constant):
    """The l2 operator norm of PLANES is below 7.1; its rows have l1 norms <= 5 and entries <= 4."""
    h, x = shifted(), torch.from_numpy(np.stack([POINTS.read(k) for k in range(5)]))
    result = run("lipschitz-constant", norm=norm, constant_of=constant_of, lipschitz_constant=constant)
    radius, y = result.outcomes.radii[1].radius, h(x).argmax(1)
    assert (radius > 0).any()
    assert result.summary.norm == norm
    attacked = {"l1": "l2"}.get(norm, norm)  # the l2 ball of radius r / sqrt(2) lies in the l1 ball of r
    shrink = math.sqrt(2) if norm == "l1" else 1.0
    for k in np.flatnonzero(radius)[:2]:
        eps = float(radius[k]) / shrink * (1 - 1e-6)
        assert not flips(h, x[k], int(y[k]), attacked, eps, box=(-10.0, 10.0))


def test_the_table_is_what_radii_and_labels_say():
    result = run(radii=(0.0, 0.05, 0.1), max_radius=0.5)
    right = result.outcomes.robust == POINTS.labels
    assert 0 < right.sum() < 5
    for row, radii in zip(result.summary.rows, result.outcomes.radii, strict=True):
        counts = [radii.radius > 0, radii.radius >= 0.05, radii.radius >= 0.1]
        assert row.certified_accuracy == pytest.approx([np.mean(right & c) for c in counts])
        assert row.mean_certified_radius == pytest.approx(np.where(right, radii.radius, 0).mean())
    clean = result.summary.clean_accuracy
    assert clean.robust == clean.mixed == clean.standard == pytest.approx(right.mean())
    assert [r.certificate for r in result.summary.rows] == ["margin", "margin"]
    assert (result.outcomes.radii[0].radius >= result.outcomes.radii[1].radius).all()


def test_a_column_just_beyond_the_bisection_counts():
    """A column between the last verified radius and the first refused one is looked at itself."""
    h, x = Scaled(plane([[1.0, 0.0], [-1.0, 0.0]]), 8.0), [[0.5, 0.0]]
    truth = 0.5 - math.log((1 + (1 - ALPHA) / ALPHA) / (1 - (1 - ALPHA) / ALPHA)) / 16
    data, column = dataset(x, [0], box=None, classes=2), truth - 1e-5
    plain = run(data=data, standard=None, robust=h, max_radius=1.0, radii=(0.0,))
    assert plain.outcomes.radii[1].radius[0] < column
    found = run(data=data, standard=None, robust=h, max_radius=1.0, radii=(0.0, column, truth + 1e-5))
    assert found.outcomes.radii[1].radius[0] == column
    assert found.summary.rows[1].certified_accuracy == (1.0, 1.0, 0.0)


def test_what_is_stored_is_not_computed_again(tmp_path: Path, monkeypatch):
    first = run(output=tmp_path / "run")
    calls = []
    bisect = proved.certified_radius
    monkeypatch.setattr(proved, "certified_radius", lambda *a, **k: calls.append(a[4]) or bisect(*a, **k))
    again = run(output=tmp_path / "run")
    assert not calls
    assert again.summary == first.summary
    run(output=tmp_path / "run", standard=None)
    assert not calls
    given = dict(data=POINTS, standard=shifted(), robust=shifted(), inputs="all", output=tmp_path / "run")
    certmix.certify(alpha=0.9, certificates=("margin",), **given)
    assert calls == [pytest.approx(0.1 / 0.9 + 2**-22, abs=1e-12)], "h alone is stored already"
    store = Store(tmp_path / "run" / "numbers.sqlite", read_only=True)
    assert {"robust logits", "margin, alpha 1.0", "margin, alpha 0.76", "margin, alpha 0.9"} <= set(
        store.cells()
    )
    store.close()


def test_another_alpha_and_constant_follow_from_stored_logits(tmp_path: Path, monkeypatch):
    run("lipschitz-constant", output=tmp_path / "run")
    monkeypatch.setattr(Cells, "_compute", lambda *a: pytest.fail("computed again"))
    loose = run("lipschitz-constant", output=tmp_path / "run", lipschitz_constant=16.0, radii=(0.0, 0.01))
    tight = run("lipschitz-constant", output=tmp_path / "run", constant_of="each-logit")
    assert loose.summary.rows[1].mean_certified_radius < tight.summary.rows[1].mean_certified_radius


def test_interrupting_gives_a_partial_table_and_resumes(tmp_path: Path):
    batches = []

    def stop(progress):
        batches.extend([progress.cell] if progress.cell == "label" else [])
        if len(batches) == 2:
            raise KeyboardInterrupt

    partial = run(output=tmp_path / "run", progress=stop, batch_size=2)
    assert not partial.summary.complete
    assert (partial.summary.inputs, partial.summary.planned_inputs) == (4, 5)
    assert json.loads((tmp_path / "run" / "certified-accuracy.json").read_text())["complete"] is False
    whole = run(output=tmp_path / "run", batch_size=2)
    assert whole.summary.complete
    assert whole.summary.rows == run(batch_size=2).summary.rows


def test_the_run_folder_is_complete(tmp_path: Path):
    run(output=tmp_path / "run")
    names = {p.name for p in (tmp_path / "run").iterdir()}
    products = {f"certified-accuracy.{s}" for s in ("csv", "md", "tex", "json", "png", "svg")}
    assert products | {"run.json", "radii.tsv", "numbers.sqlite"} <= names
    described = read_run(tmp_path / "run", "certify-margin")
    assert (described["request"]["norm"], described["certified"]) == ("linf", True)
    with pytest.raises(RunError, match="certmix certify --certificate margin: name a run of certmix certify"):
        read_run(tmp_path / "run", "certify")
    with pytest.raises(RunError, match="norm is linf there, l2 asked"):
        run(output=tmp_path / "run", norm="l2")
    assert (tmp_path / "run" / "certified-accuracy.csv").read_text().splitlines()[1].endswith(",true,linf")


def test_a_constant_that_the_model_refutes_is_refused():
    with pytest.raises(ParameterError, match=r"steeper than that.*spectral_norm") as refused:
        run("lipschitz-constant", lipschitz_constant=1.0)
    assert "\n" not in str(refused.value)
    run("lipschitz-constant", lipschitz_constant=6.0)


class Odd(nn.Module):
    def forward(self, x):
        return torch.cat([x.sin(), x[:, :1]], 1)


class Ending(nn.Module):
    """Answers a whole batch, and ends the program where it is traced."""

    def forward(self, x):
        if not isinstance(x, torch.Tensor):
            raise SystemExit(0)
        return x.repeat(1, 2)[:, :3]


def hooked() -> nn.Module:
    net = shifted()
    net.register_forward_hook(lambda module, x, y: 3 * y)
    return net


@pytest.mark.parametrize("net, words", [(Odd(), "sin"), (Ending(), "SystemExit"), (hooked(), "forward hook")])
def test_a_model_that_does_more_than_known_layers_is_refused_before_any_work(net, words):
    with pytest.raises(ModelError, match=words):
        run(robust=net, standard=None)


def test_the_layers_are_compared_on_the_datas_own_inputs(monkeypatch):
    """A rectifier that is taken for the identity shows at negative inputs alone, which this data has."""
    monkeypatch.setitem(layers.RULES, nn.ReLU, lambda layer, shape: [])
    net = nn.Sequential(nn.ReLU(), shifted())
    run(robust=net, standard=None)
    below = dataset([[0.9, -0.3], [-0.2, 0.8]], [0, 1], box=None)
    with pytest.raises(ModelError, match="do not give the model's logits"):
        run(robust=net, standard=None, data=below)


def test_ties_abstain_and_alpha_one_half_certifies_nothing():
    result = run(data=dataset([[0.4, 0.0]], [0], box=None), standard=None)
    assert result.outcomes.radii[0].status.tolist() == [Status.ABSTAIN]
    assert result.summary.abstained == 1
    with pytest.warns(certmix.CertmixWarning, match="raise --alpha"):
        half = certmix.certify(
            alpha=0.5, certificates=("margin",), data=POINTS, robust=shifted(), standard=None, inputs="all"
        )
    assert half.outcomes.radii[1].radius.max() == 0
    assert half.outcomes.radii[0].radius.max() > 0


CONSTANT = {"certificate": "lipschitz-constant"}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"certificate": "magic"}, "margin or lipschitz-constant"), ({"norm": "l1"}, "use one of linf, l2"),
        ({"alpha": 0.4}, "1/2 <= alpha"), ({"inputs": 0}, "at least 1"), ({"radii": (0.2, 0.1)}, "increase"),
        ({"radii": (0.0, 9.0)}, "--max-radius"), ({"max_radius": 0.0}, "above 0"),
        ({"bound_method": "magic"}, "interval, crown-ibp, crown"), ({"lipschitz_constant": 1.0}, "leave it out"),
        ({"constant_of": "logits"}, "leave it out"), (CONSTANT, "give --lipschitz-constant"),
        ({**CONSTANT, "lipschitz_constant": 0.0}, "above 0"),
        ({**CONSTANT, "lipschitz_constant": 1.0, "constant_of": "magic"}, "each-logit"),
        ({**CONSTANT, "lipschitz_constant": 1.0, "max_radius": 1.0}, "leave it out"),
    ],
)  # fmt: skip
def test_requests_out_of_range(change, words):
    with pytest.raises(ParameterError, match=words) as refused:
        settings(DeterministicRequest, {"alpha": 0.76, "certificate": "margin", **change})
    assert "\n" not in str(refused.value)


def test_the_methods_are_those_of_bound_propagation():
    from certmix.margins.propagation import METHODS

    assert BOUND_METHODS == METHODS
    with pytest.raises(ParameterError, match="samples"):
        run(samples=10)


MARGIN = ("--certificate", "margin")
REFUSED = [
    ((), "give --sigma"),
    (("--sigma", 0.5, *MARGIN), "leave --sigma, --noise and --scale out"),
    ((*MARGIN, "--certificate", "exact"), "ask for it alone"),
    ((*MARGIN, "--norm", "l1"), "gives radii in linf or l2, not l1"),
    ((*MARGIN, "--radii", "1/0"), "1/255,2/255"),
]


@pytest.mark.parametrize("arguments, words", REFUSED)
def test_the_command_explains_what_does_not_fit(command, problem, arguments, words):
    done = command("certify", *problem.options[:6], "--alpha", 0.76, *arguments)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert "Traceback" not in done.err


def test_no_model_is_taken_for_a_bounded_one(command, monkeypatch):
    assert describe.robust_of(Margin(0.76), Sources()) == "cifar10-interval-linf"
    monkeypatch.setattr(describe, "zoo_names", list)
    for certificate in (("margin",), ("lipschitz-constant", "--lipschitz-constant", 1)):
        done = command("certify", "--alpha", 0.76, "--certificate", *certificate)
        assert done.code == 2
        assert "--robust" in done.err


def test_the_command_prints_one_json_object_and_reproduces(command, problem):
    run_folder = problem.folder / "run"
    arguments = (
        "certify", *problem.options[:6], "--alpha", 0.76, *MARGIN, "--inputs", 5, "--radii", "0,1/255,8/255",
        "--output", run_folder,
    )  # fmt: skip
    done = command(*arguments, "--format", "json")
    assert done.code == 0, done.err
    table = json.loads(done.out)
    assert [table[name] for name in ("norm", "sigma", "failure_probability", "bound")] == [
        "linf", None, None, "crown-ibp",
    ]  # fmt: skip
    assert table["radii"] == [0.0, 1 / 255, 8 / 255]
    assert [(r["classifier"], r["certificate"]) for r in table["rows"]] == [
        ("robust", "margin"), ("mixed", "margin"),
    ]  # fmt: skip
    again = command("reproduce", "--run-code", run_folder)
    assert (again.code, again.out) == (0, "5 of 5 inputs have equal radii\n")
    edit_vectors(run_folder, "margin, alpha 0.76", lambda found: found * [0.5, 1, 1], [0])
    again = command("reproduce", "--run-code", run_folder)
    assert again.code == 1
    assert "4 of 5 inputs have equal radii" in again.out
    assert "name a run of certmix certify" in command("recertify", run_folder).err
