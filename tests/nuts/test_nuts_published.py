"""MixedNUTS as published: Algorithm 1 over its whole grid, the optima of Table 3, and mixes built from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from plain_nuts import margins, softmax, transformed

import certmix
from certmix.errors import ModelError, ParameterError
from certmix.nuts import BETAS, GRIDS, TOP_K, margin_grid, solve_beta
from certmix.nuts.description import PUBLISHED
from certmix.nuts.folder import load_nuts, read_nuts
from certmix.runs.attack_request import AttackRequest
from certmix.runs.sources import Sources
from certmix.studies.nuts_fit import SHAPES, nuts_published, own_attack

TABLE_3 = {
    "cifar10": ("5.00", "-1.10", "4.00", ".999"),
    "cifar100": (".612", "-2.14", "3.57", ".986"),
    "imagenet": (".0235", "-.286", "2.71", ".997"),
}
"""s, c, p and alpha as the paper prints them."""

NETS = """
import torch
from torch import nn


class Mean(nn.Module):
    def __init__(self, classes, seed):
        super().__init__()
        self.last = nn.Linear(3, classes)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for one in self.last.parameters():
                one.copy_(3 * torch.randn(one.shape, generator=generator))

    def forward(self, x):
        return self.last(x.mean((2, 3)))


class Exactly64(Mean):
    def forward(self, x):
        return super().forward(x.view(len(x), 3, 64, 64))


""" + "\n".join(
    f"def {role}{classes}():\n    return Mean({classes}, {seed})\n"
    for role, seed in (("g", 0), ("h", 1)) for classes in (10, 100, 1000)
) + "\n\ndef g64():\n    return Exactly64(10, 0)\n"  # fmt: skip


def algorithm_1(clean, attacked, labels, grid, betas, top_k):
    """For each beta objective and q at every point of the grid: plain numpy, linear quantile, rival second."""
    right, wrong = attacked.argmax(1) == labels, clean.argmax(1) != labels
    objectives, thresholds = np.empty((2, len(betas), *grid.shape))
    for i, s in enumerate(grid.s):
        for j, p in enumerate(grid.p):
            for k, c in enumerate(grid.c):
                kept = margins(transformed(attacked[right], s, p, c, top_k), labels[right])
                unmended = margins(transformed(clean[wrong], s, p, c, top_k))
                for n, beta in enumerate(betas):
                    q = max(np.percentile(kept, 100 - 100 * beta), 0.0)
                    thresholds[n, i, j, k] = q
                    objectives[n, i, j, k] = np.mean(unmended >= min(q, 1 - 1e-9))
    return objectives, thresholds


@pytest.mark.parametrize(
    "name,inputs", [("cifar10", 150), pytest.param("imagenet", 40, marks=pytest.mark.long)]
)
def test_the_whole_grid_agrees_with_plain_algorithm_1(name, inputs):
    rng = np.random.default_rng(0)
    labels, rows = rng.integers(0, SHAPES[name][0], inputs), np.arange(inputs)
    clean = rng.normal(0, 2, (inputs, SHAPES[name][0]))
    attacked = clean + rng.normal(0, 0.5, clean.shape)
    clean[rows, labels] += rng.normal(3 + np.log(SHAPES[name][0]), 2, inputs)
    attacked[rows, labels] += rng.normal(2 + np.log(SHAPES[name][0]), 2, inputs)
    grid, top_k, betas = GRIDS[name], TOP_K[name], (BETAS[name], 0.8, 0.5)
    objectives, thresholds = algorithm_1(clean, attacked, labels, grid, betas, top_k)
    grids = margin_grid(clean, attacked, labels, grid, top_k=top_k, rival="second")
    for beta, objective, q in zip(betas, objectives, thresholds, strict=True):
        found = solve_beta(grids, beta, quantile="linear")
        np.testing.assert_allclose(found.thresholds, q, rtol=0, atol=1e-7)
        np.testing.assert_allclose(found.objectives, objective, rtol=0, atol=1e-7)
        assert found.objective == objective[found.feasible].min()
    assert len(np.unique(objectives.round(9))) > 3, "or the test shows little"


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_optima_are_those_of_table_3(name):
    own = PUBLISHED[name]
    values = own.transform.s, own.transform.c, own.transform.p, own.alpha
    for value, shown in zip(values, TABLE_3[name], strict=True):
        digits = len(shown.partition(".")[2])
        assert f"{value:.{digits}f}".replace("0.", ".", value * value < 1) == shown
    assert (own.transform.clamp, own.transform.top_k, own.standard_temperature, own.r_d) == (
        "gelu",
        TOP_K[name],
        0.0,
        0.9,
    )
    grid, at = GRIDS[name], own.transform
    assert np.isclose(grid.s, at.s).any() and np.isclose(grid.p, at.p).any()
    wider = (
        np.linspace(-2.5, 0, 8) if name == "cifar100" else grid.c
    )  # its optimum is not on the printed grid
    assert np.isclose(wider, at.c).any()
    assert round(own.alpha_d, 3) == {"cifar10": 0.957, "cifar100": 0.971, "imagenet": 0.907}[name]


@pytest.fixture
def nets(tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path / "nets.py"


def pair(nets, classes):
    return "--standard", f"{nets}:g{classes}", "--robust", f"{nets}:h{classes}"


@pytest.mark.parametrize("name", ["cifar10", "imagenet"])
def test_a_published_mix_of_ones_own_models(command, nets, name):
    classes, side = SHAPES[name]
    options = (*pair(nets, classes), "--output", "mix", "--format", "json")
    done = command("nuts", "fit", "--published", name, *options)
    assert done.code == 0, done.err
    rows = {row["quantity"]: row["value"]["value"] for row in json.loads(done.out)["rows"]}
    own, at = PUBLISHED[name], PUBLISHED[name].transform
    assert (rows["s"], rows["alpha"]) == (at.s, own.alpha)
    loaded = load_nuts("mix", run_code=True)
    assert loaded.settings == own and loaded.description.fit is None and loaded.tuning is None
    inputs = torch.rand(5, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = loaded.mixture(inputs).exp().numpy()
        g, h = (one.module(inputs).double().numpy() for one in (loaded.standard, loaded.robust))
    bent = softmax(transformed(h, at.s, at.p, at.c, at.top_k))
    expected = (1 - own.alpha) * np.eye(classes)[g.argmax(1)] + own.alpha * bent
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13)
    assert loaded.bypass(inputs).shape == (5, classes)


def test_crop_sets_the_side_and_declared_files_belong_to_the_mix(command, nets):
    (nets.parent / "extra.txt").write_text("1")
    narrow = "--standard", f"{nets}:g64", "--robust", f"{nets}:h10", "--output", "mix"
    done = command("nuts", "fit", "--published", "cifar10", *narrow)
    assert done.code == 2 and "fails on inputs (2, 3, 32, 32)" in done.err
    files = "--robust-file", nets.parent / "extra.txt", "--crop", 64
    assert command("nuts", "fit", "--published", "cifar10", *narrow, *files).code == 0
    assert [Path(file).name for file in read_nuts(Path("mix")).robust.files] == ["extra.txt"]
    (nets.parent / "extra.txt").write_text("2")
    with pytest.raises(ModelError, match="checksum"):
        load_nuts(Path("mix"), run_code=True)


@pytest.mark.parametrize(
    "given, told",
    [
        (("--output", "mix", "--beta", 0.9), "--beta is not for --published"),
        (("--output", "mix", "--full-strength"), "--full-strength is not for --published"),
        (("--output", "mix", "--fresh"), "--fresh is not for --published"),
        ((), "add it, for example --output mix"),
    ],
)
def test_options_of_a_published_optimum(command, given, told):
    done = command("nuts", "fit", "--published", "cifar10", *given)
    assert done.code == 2 and told in done.err, done.err


def test_a_published_mix_needs_models_of_its_classes_a_folder_of_its_own_and_names(nets):
    run = nets.parent / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    small = Sources(standard=f"{nets}:g100", robust=f"{nets}:h10")
    for name, folder, sources, told in (
        ("cifar10", run, None, "folder of a run"),
        ("cifar10", "mix", Sources(robust=torch.nn.Identity()), "not objects"),
        ("cifar10", "mix", Sources(standard=None), "name both"),
        ("mnist", "mix", None, "cifar10, cifar100, imagenet"),
        ("cifar100", "mix", None, "one of 100 classes: .* tells 10 classes apart"),
        ("imagenet", "mix", small, "one of 1,000 classes"),
    ):
        with pytest.raises((ModelError, ParameterError), match=told):
            nuts_published(name, nets.parent / folder, sources, say=lambda message: None)
        assert not (nets.parent / "mix").exists()


def test_requests_name_no_attack():
    """A ball alone is a request: these studies run a suite of their own."""
    asked = own_attack(AttackRequest(norm="l2", eps=0.25), 20)
    assert (asked.attack, asked.norm, asked.eps, asked.steps) == ("apgd-ce", "l2", 0.25, 20)
    assert own_attack(None, 50) == AttackRequest(attack="apgd-ce", steps=50)
    assert own_attack(AttackRequest(steps=7), 20).steps == 7
    for other in ("fgsm", "square", "apgd-targeted", "autoattack"):
        with pytest.raises(ParameterError, match="own suite"):
            own_attack(AttackRequest(attack=other), 20)


@pytest.mark.parametrize(
    "given, told",
    [
        ({"logits": "l.npz", "gradient_free": True}, "gradient_free = True is not for logits"),
        ({"published": "cifar10"}, "published needs a folder"),
        ({"certified": True, "sigma": 0.5}, "certified needs at_radius"),
        ({"certified": True, "beta": 0.9}, "beta = 0.9 does not go with certified"),
        ({"at_radius": 0.5}, "at_radius = 0.5 needs certified"),
    ],
)
def test_functions_refuse_what_the_command_refuses(given, told):
    with pytest.raises(ParameterError) as refused:
        certmix.nuts_fit(**given)
    assert told in str(refused.value).replace("--", "").replace("at-radius", "at_radius")
