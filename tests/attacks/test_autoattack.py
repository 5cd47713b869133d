"""The adapter to pyautoattack: exact on linear models, silent, and inside the ball."""

from __future__ import annotations

import importlib
import logging
import sys

import pytest
import torch
from torch import nn

from certmix.attacks.autoattack import ENSEMBLE, VERSIONS, autoattack
from certmix.errors import ModelError, ParameterError

GRADIENTS = ["apgd-ce", "fab-t"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(classes=2, inputs=6, dtype=torch.float32):
    net = nn.Linear(inputs, classes).to(dtype)
    with torch.no_grad():
        net.weight.copy_(torch.randn(classes, inputs, generator=seeded(classes)))
        net.bias.copy_(-net.weight.sum(1) / 2)
    return net.eval()


def points(count=24, *shape, dtype=torch.float32):
    return torch.rand(count, *(shape or (6,)), generator=seeded(11), dtype=dtype) * 0.6 + 0.2


def net(classes):
    layers = nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(36, classes))
    with torch.no_grad():
        for k, parameter in enumerate(layers.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(k)) / 2)
    return layers.eval()


@pytest.fixture
def package():
    return pytest.importorskip("pyautoattack")


@pytest.fixture
def quick(package, monkeypatch):
    """Ten steps instead of a hundred, or of thousands."""
    module = importlib.import_module("certmix.attacks.autoattack")
    make = module._ensemble

    def short(*arguments):
        ensemble = make(*arguments)
        ensemble.apgd.n_iter = ensemble.apgd_targeted.n_iter = ensemble.fab.n_iter = 10
        ensemble.square.n_queries = 10
        return ensemble

    monkeypatch.setattr(module, "_ensemble", short)


@pytest.fixture
def ensembles(package, monkeypatch):
    """The ensembles that were run; they return the images, moved by `push` if it is set."""
    made = []

    def remember(self, x, y, *, batch_size):
        made.append(self)
        self.batch_size = batch_size
        return x + getattr(package, "push", 0.0), y

    monkeypatch.setattr(package.AutoAttack, "run_standard_evaluation", remember)
    return made


@pytest.mark.parametrize("norm, eps, dual", [("linf", 0.05, 1), ("l2", 0.1, 2)])
def test_exactly_the_images_within_reach_of_the_boundary_are_broken(quick, norm, eps, dual):
    model, x = linear(), points(60)
    y = model(x).argmax(1)
    direction = model.weight[0] - model.weight[1]
    reach = ((model(x)[:, 0] - model(x)[:, 1]).abs() / direction.norm(dual)).detach()
    found = autoattack(model, x, y, norm, eps, version=GRADIENTS, seed=0, say=list)
    assert torch.all((reach - eps).abs() > 1e-4)
    assert torch.equal(model(found).argmax(1) != y, reach < eps)
    assert torch.equal(found[reach > eps], x[reach > eps])
    assert (reach < eps).any()
    assert (reach > eps).any()


@pytest.mark.parametrize("classes", [2, 3, 4, 12])
@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_budgets_and_targets_fit_the_classes(ensembles, classes, version):
    said = []
    model, x = linear(classes), points()
    autoattack(model, x, model(x).argmax(1), version=version, seed=3, batch_size=7, say=said.append)
    left_out = {name for name, least in (("apgd-dlr", 3), ("apgd-t", 4)) if classes < least}
    [ensemble] = ensembles
    assert ensemble.attacks_to_run == [name for name in VERSIONS[version] if name not in left_out]
    assert {line.split()[1] for line in said} == left_out & set(VERSIONS[version])
    assert all(f"not {classes}" in line for line in said)
    assert ensemble.fab.n_target_classes == min(9, classes - 1)
    assert ensemble.apgd_targeted.n_target_classes == min(9, classes - 1)
    assert (ensemble.seed, ensemble.batch_size, ensemble.norm, ensemble.epsilon) == (3, 7, "Linf", 8 / 255)
    assert (ensemble.apgd.n_iter, ensemble.apgd_targeted.n_iter, ensemble.fab.n_iter) == (100, 100, 100)
    assert ensemble.square.n_queries == 5000
    assert ensemble.apgd.n_restarts == ensemble.fab.n_restarts or version == "rand"
    assert ensemble.apgd.n_restarts == (5 if version == "plus" else 1)
    assert ensemble.apgd.eot_iter == (20 if version == "rand" else 1)


def test_a_list_runs_as_named_with_the_standard_budgets(ensembles):
    model, x = linear(5), points()
    autoattack(model, x, model(x).argmax(1), version=["square", "apgd-dlr"], seed=0)
    assert ensembles[0].attacks_to_run == ["square", "apgd-dlr"]
    assert ensembles[0].apgd.n_restarts == 1
    with pytest.raises(ParameterError, match="no attack left for 2 classes"):
        autoattack(linear(2), x, linear(2)(x).argmax(1), version=["apgd-t"], say=list)


def test_square_is_left_out_where_its_tiles_do_not_fit(ensembles):
    for shape, fits in (((6,), False), ((1, 7, 7), True), ((1, 12, 12), False), ((2, 10, 10), True)):
        said = []
        model = nn.Sequential(nn.Flatten(), linear(4, torch.Size(shape).numel())).eval()
        x = points(4, *shape)
        autoattack(model, x, model(x).argmax(1), "l2", 0.1, say=said.append)
        assert ("square" in ensembles[-1].attacks_to_run) == fits
        assert bool(said) != fits


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_points_that_left_the_ball_are_pulled_back_exactly(package, ensembles, monkeypatch, norm):
    monkeypatch.setattr(package, "push", 0.1 * (1 + 1e-6), raising=False)
    x = points(8, 2, 3)
    x[0] = 0.97
    model = nn.Sequential(nn.Flatten(), linear()).eval()
    eps = {"linf": 0.1, "l2": 0.2, "l1": 0.5}[norm]
    found = autoattack(model, x, model(x).argmax(1), norm, eps, say=list)
    difference = (found.double() - x.double()).flatten(1)
    order = {"linf": float("inf"), "l2": 2, "l1": 1}[norm]
    size = torch.linalg.vector_norm(difference, order, dim=1)
    assert (size <= eps).all()
    assert (size[1:] > 0.9999 * eps).all()
    assert found.max() <= 1


@pytest.mark.parametrize("norm, eps, classes", [("linf", 0.03, 3), ("l2", 0.2, 5)])
def test_the_real_ensemble_stays_inside_and_beats_its_first_attack(quick, norm, eps, classes):
    model, x = net(classes), points(12, 2, 6, 6)
    y = model(x).argmax(1)
    names = [name for name in ENSEMBLE if name != "square"]
    weak, strong = (
        autoattack(model, x, y, norm, eps, version=version, seed=0, say=list)
        for version in (["apgd-ce"], names)
    )
    size = (strong.double() - x.double()).flatten(1)
    assert ((size.abs().amax(1) if norm == "linf" else size.norm(dim=1)) <= eps).all()
    robust = [(model(each).argmax(1) == y).sum() for each in (weak, strong)]
    assert 0 < robust[1] <= robust[0] < 12


def test_it_is_silent_and_leaves_no_trace(quick, capfd, caplog):
    def tracer(frame, event, argument):
        return None

    model, x = net(5), points(4, 2, 6, 6)
    y = model(x).argmax(1)
    logger, before, tracing = logging.getLogger("auto-attack"), torch.get_rng_state(), sys.gettrace()
    handlers, propagate = list(logger.handlers), logger.propagate
    caplog.set_level(logging.DEBUG)
    sys.settrace(tracer)
    try:
        autoattack(model, x, y, "linf", 0.02, version=[*GRADIENTS, "apgd-t"], seed=1, say=list)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(tracing)
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert torch.equal(before, torch.get_rng_state())
    assert (list(logger.handlers), logger.propagate) == (handlers, propagate)
    for parameter in model.parameters():
        assert parameter.grad is None
        assert parameter.requires_grad


def test_the_logits_of_the_model_are_not_written_into(quick):
    given = []

    def keeping(x):
        logits = x.flatten(1) * 1.0
        given.append((logits, logits.detach().clone()))
        return logits

    x = points(6)
    autoattack(keeping, x, x.argmax(1), "linf", 0.02, version=["square"], seed=0, say=list)
    assert len(given) > 10
    assert all(torch.equal(logits, copy) for logits, copy in given)


def test_seed_and_generator_decide(quick):
    model, x = net(4), points(6, 2, 6, 6)
    y = model(x).argmax(1)

    def run(**settings):
        return autoattack(model, x, y, "linf", 0.1, version=["apgd-ce"], say=list, **settings)

    assert torch.equal(run(seed=1), run(seed=1))
    assert not torch.equal(run(seed=1), run(seed=2))
    assert torch.equal(run(generator=seeded(5)), run(generator=seeded(5)))
    assert torch.equal(run(), run())


def test_restarts_take_what_is_left_with_other_seeds(ensembles):
    model, x = linear(4), points()
    autoattack(model, x, model(x).argmax(1), seed=8, restarts=3)
    assert [ensemble.seed for ensemble in ensembles] == [8, 9, 10]


def test_what_it_warns_of_is_said_once(quick, caplog):
    noise = seeded()

    def noisy(x):
        return linear(4)(x) + 0.1 * torch.randn(len(x), 4, generator=noise)

    said = []
    x = points()
    autoattack(noisy, x, linear(4)(x).argmax(1), "linf", 0.01, version=["apgd-ce"], say=said.append)
    assert len([line for line in said if "randomized" in line]) == 1
    assert all("\n" not in line for line in said)
    assert caplog.records == []  # it spoke through say alone
    with pytest.warns(UserWarning, match="randomized"):
        autoattack(noisy, x, linear(4)(x).argmax(1), "linf", 0.01, version=["apgd-ce"])


def test_warnings_that_differ_in_numbers_alone_are_said_once(package, monkeypatch):
    def chatter(self, x, y, *, batch_size):
        for zeros in (3, 17):
            logging.getLogger("auto-attack").warning(
                f"there are {zeros} points! See flags_doc.md for details."
            )
            logging.getLogger("auto-attack").info("initial accuracy")
        return x, y

    monkeypatch.setattr(package.AutoAttack, "run_standard_evaluation", chatter)
    said, model, x = [], linear(4), points()
    autoattack(model, x, model(x).argmax(1), say=said.append)
    assert said == ["autoattack: there are 3 points!"]


def test_gradients_that_vanish_for_it_are_said(ensembles):
    said = []
    model, x = linear(4), points()
    autoattack(lambda x: 300 * model(x), x, model(x).argmax(1), say=said.append)
    assert any("gradients vanish" in line for line in said)


def test_dtype_and_shape_stay(quick):
    model, x = linear(dtype=torch.float64), points(5, dtype=torch.float64)
    y = model(x).argmax(1)
    found = autoattack(model, x, y, "linf", 0.2, version=["apgd-ce"], say=list)
    assert (found.dtype, found.shape) == (torch.float64, (5, 6))
    assert (found - x).abs().max() <= 0.2
    assert torch.equal(autoattack(model, x[:0], y[:0], version=["apgd-ce"]), x[:0])
    assert torch.equal(autoattack(model, x, 1 - y, say=list), x)  # all misclassified as they are


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"box": (-1.0, 1.0)}, r"box = \(-1.0, 1.0\)"),
        ({"early_stop": False}, "early_stop"),
        ({"version": "best"}, "'best'"),
        ({"version": ["apgd"]}, "apgd-ce, "),
        ({"version": []}, "one or more"),
        ({"norm": "l7"}, "'l7'"),
        ({"eps": float("nan")}, "eps = nan"),
        ({"restarts": 0}, "restarts = 0"),
        ({"batch_size": 0}, "batch_size = 0"),
    ],
)
def test_bad_arguments_are_refused(settings, match):
    x = points(2)
    with pytest.raises(ParameterError, match=match) as caught:
        autoattack(linear(), x, torch.tensor([0, 1]), **settings)
    assert "\n" not in str(caught.value)


def test_without_the_package_the_remedy_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(ModelError, match=r"pip install 'certmix\[attacks\]'$"):
        autoattack(linear(), points(2), torch.tensor([0, 1]))
