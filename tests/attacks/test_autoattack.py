"""The adapter to pyautoattack: exact on linear models, silent, and inside the ball."""

from __future__ import annotations

import logging
import sys

import pytest
import torch
from attacked import linear, outside, seeded, small_inputs, small_net
from torch import nn

from certmix.attacks.autoattack import ENSEMBLE, VERSIONS, autoattack
from certmix.errors import ModelError, ParameterError

GRADIENTS = ["apgd-ce", "fab-t"]


def net_of(classes=2, inputs=6, dtype=torch.float32):
    weight = torch.randn(classes, inputs, generator=seeded(classes))
    return linear(weight, -weight.sum(1) / 2, dtype)


def points(count=24, *shape, dtype=torch.float32):
    return torch.rand(count, *(shape or (6,)), generator=seeded(11), dtype=dtype) * 0.6 + 0.2


def run(model, x, *given, say=list, **settings):
    """Attack the classes that the model gives."""
    return autoattack(model, x, model(x).argmax(1), *given, say=say, **settings)


@pytest.fixture
def logged():
    """What reaches the root logger."""
    records, root = [], logging.getLogger()
    handler, level = logging.Handler(), root.level
    handler.emit = records.append
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield records
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def package():
    return pytest.importorskip("pyautoattack")


@pytest.fixture
def ensembles(package, monkeypatch):
    """The ensembles that were run; they return the inputs, moved by `push` if it is set."""
    made = []

    def remember(self, x, y, *, batch_size):
        made.append(self)
        self.batch_size = batch_size
        return x + getattr(package, "push", 0.0), y

    monkeypatch.setattr(package.AutoAttack, "run_standard_evaluation", remember)
    return made


@pytest.mark.parametrize("norm, eps, dual", [("linf", 0.05, 1), ("l2", 0.1, 2)])
def test_exactly_the_inputs_within_reach_of_the_boundary_are_broken(quick, norm, eps, dual):
    model, x = net_of(), points(60)
    y, direction = model(x).argmax(1), model.weight[0] - model.weight[1]
    reach = ((model(x)[:, 0] - model(x)[:, 1]).abs() / direction.norm(dual)).detach()
    found = run(model, x, norm, eps, version=GRADIENTS, seed=0)
    assert torch.all((reach - eps).abs() > 1e-4)
    assert torch.equal(model(found).argmax(1) != y, reach < eps)
    assert torch.equal(found[reach > eps], x[reach > eps])
    assert 0 < (reach < eps).sum() < 60


@pytest.mark.parametrize("classes", [2, 3, 4, 12])
@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_budgets_and_targets_fit_the_classes(ensembles, classes, version):
    said = []
    run(net_of(classes), points(), version=version, seed=3, batch_size=7, say=said.append)
    left_out = {name for name, least in (("apgd-dlr", 3), ("apgd-t", 4)) if classes < least}
    [ensemble] = ensembles
    assert ensemble.attacks_to_run == [name for name in VERSIONS[version] if name not in left_out]
    assert {line.split()[1] for line in said} == left_out & set(VERSIONS[version])
    assert all(f"not {classes}" in line for line in said)
    assert ensemble.fab.n_target_classes == ensemble.apgd_targeted.n_target_classes == min(9, classes - 1)
    assert (ensemble.seed, ensemble.batch_size, ensemble.norm, ensemble.epsilon) == (3, 7, "Linf", 8 / 255)
    assert (ensemble.apgd.n_iter, ensemble.apgd_targeted.n_iter, ensemble.fab.n_iter) == (100, 100, 100)
    assert ensemble.square.n_queries == 5000
    assert ensemble.apgd.n_restarts == (5 if version == "plus" else 1)
    assert ensemble.apgd.eot_iter == (20 if version == "rand" else 1)


def test_a_list_runs_as_named_and_restarts_have_other_seeds(ensembles):
    run(net_of(5), points(), version=["square", "apgd-dlr"], seed=8, restarts=3)
    assert ensembles[0].attacks_to_run == ["square", "apgd-dlr"]
    assert ensembles[0].apgd.n_restarts == 1
    assert [ensemble.seed for ensemble in ensembles] == [8, 9, 10]
    with pytest.raises(ParameterError, match="no attack left for 2 classes"):
        run(net_of(2), points(), version=["apgd-t"])


@pytest.mark.parametrize(
    "shape, fits", [((6,), False), ((1, 7, 7), True), ((1, 12, 12), False), ((2, 10, 10), True)]
)
def test_square_is_left_out_where_its_tiles_do_not_fit(ensembles, shape, fits):
    said, model = [], nn.Sequential(nn.Flatten(), net_of(4, torch.Size(shape).numel())).eval()
    run(model, points(4, *shape), "l2", 0.1, say=said.append)
    assert ("square" in ensembles[-1].attacks_to_run) == fits
    assert bool(said) != fits


@pytest.mark.parametrize("norm, eps", [("linf", 0.1), ("l2", 0.2), ("l1", 0.5)])
def test_points_that_left_the_ball_are_pulled_back_exactly(package, ensembles, monkeypatch, norm, eps):
    monkeypatch.setattr(package, "push", 0.1 * (1 + 1e-6), raising=False)
    x = points(8, 2, 3)
    x[0] = 0.97
    found = run(nn.Sequential(nn.Flatten(), net_of()).eval(), x, norm, eps)
    assert outside(found, x, norm, eps) == []
    assert outside(found, x, norm, 0.9999 * eps) == list(range(1, 8))


@pytest.mark.parametrize("norm, eps, classes", [("linf", 0.03, 3), ("l2", 0.2, 5)])
def test_the_real_ensemble_stays_inside_and_beats_its_first_attack(quick, norm, eps, classes):
    model, x = small_net(classes), small_inputs(12)
    names = [name for name in ENSEMBLE if name != "square"]
    weak, strong = (run(model, x, norm, eps, version=version, seed=0) for version in (["apgd-ce"], names))
    assert outside(strong, x, norm, eps) == []
    robust = [(model(each).argmax(1) == model(x).argmax(1)).sum() for each in (weak, strong)]
    assert 0 < robust[1] <= robust[0] < 12


def test_it_is_silent_and_leaves_no_trace(quick, capfd, logged):
    def tracer(frame, event, argument):
        return None

    model, x = small_net(5), small_inputs(4)
    logger, before, tracing = logging.getLogger("auto-attack"), torch.get_rng_state(), sys.gettrace()
    handlers, propagate = list(logger.handlers), logger.propagate
    sys.settrace(tracer)
    try:
        run(model, x, "linf", 0.02, version=[*GRADIENTS, "apgd-t"], seed=1)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(tracing)
    assert capfd.readouterr() == ("", "")
    assert [record for record in logged if record.levelno >= logging.WARNING] == []
    assert torch.equal(before, torch.get_rng_state())
    assert (list(logger.handlers), logger.propagate) == (handlers, propagate)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_the_logits_of_the_model_are_not_written_into(quick):
    given = []

    def keeping(x):
        logits = x.flatten(1) * 1.0
        given.append((logits, logits.detach().clone()))
        return logits

    run(keeping, points(6), "linf", 0.02, version=["square"], seed=0)
    assert len(given) > 10
    assert all(torch.equal(logits, copy) for logits, copy in given)


def test_seed_and_generator_decide_and_dtype_and_shape_stay(quick):
    def found(**settings):
        return run(small_net(4), small_inputs(6), "linf", 0.1, version=["apgd-ce"], **settings)

    assert torch.equal(found(seed=1), found(seed=1))
    assert not torch.equal(found(seed=1), found(seed=2))
    assert torch.equal(found(generator=seeded(5)), found(generator=seeded(5)))
    assert torch.equal(found(), found())
    model, x = net_of(dtype=torch.float64), points(5, dtype=torch.float64)
    moved = run(model, x, "linf", 0.2, version=["apgd-ce"])
    assert (moved.dtype, outside(moved, x, "linf", 0.2)) == (torch.float64, [])
    assert torch.equal(run(model, x[:0], version=["apgd-ce"]), x[:0])
    wrong = 1 - model(x).argmax(1)
    assert torch.equal(autoattack(model, x, wrong, say=list), x)  # all misclassified as they are


def test_what_it_warns_of_is_said_once(quick, logged):
    noise, x, said = seeded(), points(), []

    def noisy(x):
        return net_of(4)(x) + 0.1 * torch.randn(len(x), 4, generator=noise)

    y, settings = net_of(4)(x).argmax(1), {"eps": 0.01, "version": ["apgd-ce"]}
    autoattack(noisy, x, y, **settings, say=said.append)
    assert len([line for line in said if "randomized" in line]) == 1
    assert all("\n" not in line for line in said)
    assert logged == []  # it spoke through say alone
    with pytest.warns(UserWarning, match="randomized"):
        autoattack(noisy, x, y, **settings)


def test_warnings_that_differ_in_numbers_alone_are_said_once(package, monkeypatch):
    def chatter(self, x, y, *, batch_size):
        logger = logging.getLogger("auto-attack")
        for zeros in (3, 17):
            logger.warning(f"there are {zeros} points! See flags_doc.md for details.")
            logger.info("initial accuracy")
        return x, y

    monkeypatch.setattr(package.AutoAttack, "run_standard_evaluation", chatter)
    said = []
    run(net_of(4), points(), say=said.append)
    assert said == ["autoattack: there are 3 points!"]


def test_gradients_that_vanish_for_it_are_said(ensembles):
    said, model = [], net_of(4)
    run(lambda x: 300 * model(x), points(), say=said.append)
    assert any("gradients vanish" in line for line in said)


@pytest.mark.parametrize("settings, match", [
    ({"box": (-1.0, 1.0)}, r"box = \(-1.0, 1.0\)"), ({"early_stop": False}, "early_stop"),
    ({"version": "best"}, "'best'"), ({"version": ["apgd"]}, "apgd-ce, "), ({"version": []}, "one or more"),
    ({"norm": "l7"}, "'l7'"), ({"eps": float("nan")}, "eps = nan"), ({"restarts": 0}, "restarts = 0"),
    ({"batch_size": 0}, "batch_size = 0"),
])  # fmt: skip
def test_bad_arguments_are_refused(settings, match):
    with pytest.raises(ParameterError, match=match) as caught:
        run(net_of(), points(2), **settings)
    assert "\n" not in str(caught.value)


def test_without_the_package_the_remedy_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(ModelError, match=r"pip install 'pyautoattack>=0.2'$"):
        run(net_of(), points(2))
