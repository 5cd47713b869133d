"""MixedNUTS as published: Algorithm 1 over its whole grid, the optima of Table 3, and mixes built from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import erf

from certmix.errors import ModelError, ParameterError
from certmix.models.spec import load_model
from certmix.nuts import BETAS, GRIDS, TOP_K, margin_grid, solve_beta
from certmix.nuts.description import PUBLISHED
from certmix.nuts.folder import load_nuts
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


def layer_norm(z, top_k):
    kept = np.sort(z, 1)[:, -(top_k or z.shape[1]) :]
    return (z - kept.mean(1, keepdims=True)) / np.sqrt(kept.var(1, ddof=1, keepdims=True) + 1e-8)


def transformed(z, s, p, c, top_k):
    z = layer_norm(z, top_k) + c
    z = z * 0.5 * (1 + erf(z / np.sqrt(2)))
    return s * np.abs(z) ** p * np.sign(z)


def softmax(z):
    weights = np.exp(z - z.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def algorithm_1(clean, attacked, labels, grid, betas, top_k):
    """For each beta objective and q at every point of the grid: plain numpy, linear quantile, rival second."""
    right, wrong = attacked.argmax(1) == labels, clean.argmax(1) != labels
    rows, y = np.arange(right.sum()), labels[right]
    objectives, thresholds = np.empty((2, len(betas), *grid.shape))
    for i, s in enumerate(grid.s):
        for j, p in enumerate(grid.p):
            for k, c in enumerate(grid.c):
                kept = softmax(transformed(attacked[right], s, p, c, top_k))
                own = kept[rows, y].copy()
                kept[rows, y] = -1.0
                margins = own - kept.max(1)  # of the label: below 0 where GELU misclassifies
                two = np.sort(softmax(transformed(clean[wrong], s, p, c, top_k)), 1)[:, -2:]
                for n, beta in enumerate(betas):
                    q = max(np.percentile(margins, 100 - 100 * beta), 0.0)
                    thresholds[n, i, j, k] = q
                    objectives[n, i, j, k] = np.mean(two[:, 1] - two[:, 0] >= min(q, 1 - 1e-9))
    return objectives, thresholds


@pytest.mark.parametrize("name,images", [("cifar10", 300), ("cifar100", 90), ("imagenet", 40)])
def test_the_whole_grid_agrees_with_plain_algorithm_1(name, images):
    rng = np.random.default_rng(0)
    labels, rows = rng.integers(0, SHAPES[name][0], images), np.arange(images)
    clean = rng.normal(0, 2, (images, SHAPES[name][0]))
    attacked = clean + rng.normal(0, 0.5, clean.shape)
    clean[rows, labels] += rng.normal(3 + np.log(SHAPES[name][0]), 2, images)
    attacked[rows, labels] += rng.normal(2 + np.log(SHAPES[name][0]), 2, images)
    grid, top_k, betas = GRIDS[name], TOP_K[name], (BETAS[name], 0.8, 0.5)
    objectives, thresholds = algorithm_1(clean, attacked, labels, grid, betas, top_k)
    margins = margin_grid(clean, attacked, labels, grid, top_k=top_k, rival="second")
    for beta, objective, q in zip(betas, objectives, thresholds, strict=True):
        found = solve_beta(margins, beta, quantile="linear")
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
    assert (own.transform.clamp, own.transform.top_k, own.temperature, own.r_d) == (
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


def pair(nets, classes, other=None):
    return "--standard", f"{nets}:g{classes}", "--robust", f"{nets}:h{other or classes}"


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_mix_of_ones_own_models(command, nets, name):
    done = command(
        "nuts",
        "fit",
        "--published",
        name,
        *pair(nets, SHAPES[name][0]),
        "--output",
        "mix",
        "--format",
        "json",
    )
    assert done.code == 0, done.err
    rows = {row["quantity"]: row["value"]["value"] for row in json.loads(done.out)["rows"]}
    own = PUBLISHED[name]
    assert (rows["s"], rows["alpha"]) == (own.transform.s, own.alpha)
    loaded = load_nuts("mix")
    assert loaded.settings == own and loaded.fit is None and loaded.tuning is None
    images = torch.rand(5, 3, *[SHAPES[name][1]] * 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = load_model("nuts:mix").module(images).exp().numpy()
        g, h = (
            load_model(f"{nets}:{role}{SHAPES[name][0]}").module(images).double().numpy() for role in "gh"
        )
    at = own.transform
    bent = softmax(transformed(h, at.s, at.p, at.c, at.top_k))
    expected = (1 - own.alpha) * np.eye(SHAPES[name][0])[g.argmax(1)] + own.alpha * bent
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13)
    assert load_nuts("mix").bypass(images).shape == (5, SHAPES[name][0])


@pytest.mark.parametrize(
    "name,own,other", [("cifar10", 100, 100), ("cifar100", 100, 10), ("imagenet", 100, 1000)]
)
def test_models_of_other_numbers_of_classes_are_refused(command, nets, name, own, other):
    done = command("nuts", "fit", "--published", name, *pair(nets, own, other), "--output", "mix")
    assert done.code == 2 and f"one of {SHAPES[name][0]:,} classes" in done.err, done.err
    assert not (nets.parent / "mix").exists()


def test_shipped_models_have_ten_classes_and_crop_sets_the_side(command, nets):
    assert command("nuts", "fit", "--published", "cifar10", "--output", "shipped").code == 0
    done = command("nuts", "fit", "--published", "cifar100", "--output", "other")
    assert done.code == 2 and "tells 10 classes apart" in done.err
    narrow = "--standard", f"{nets}:g64", "--robust", f"{nets}:h10", "--output", "narrow"
    done = command("nuts", "fit", "--published", "cifar10", *narrow)
    assert done.code == 2 and "fails on inputs (2, 3, 32, 32)" in done.err
    assert command("nuts", "fit", "--published", "cifar10", *narrow, "--crop", 64).code == 0


@pytest.mark.parametrize(
    "given",
    [("--beta", 0.9), ("--full-strength",), ("--sigma", 0.5), ("--data", "x"), ("--eps", 1), ("--fresh",)],
)
def test_options_of_a_fit_do_not_go_with_a_published_optimum(command, given):
    done = command("nuts", "fit", "--published", "cifar10", "--output", "mix", *given)
    assert done.code == 2 and f"{given[0]} is not for --published" in done.err, done.err


def test_declared_files_belong_to_a_published_mix(command, nets):
    (nets.parent / "extra.txt").write_text("1")
    files = "--robust-file", nets.parent / "extra.txt"
    assert (
        command("nuts", "fit", "--published", "cifar10", *pair(nets, 10), *files, "--output", "mix").code == 0
    )
    assert [Path(file).name for file in load_nuts("mix").description.robust.files] == ["extra.txt"]
    (nets.parent / "extra.txt").write_text("2")
    with pytest.raises(ModelError, match="checksum"):
        load_nuts("mix")


def test_a_published_mix_needs_a_folder_of_its_own_and_names(command, nets):
    done = command("nuts", "fit", "--published", "cifar10")
    assert done.code == 2 and "add it, for example --output mix" in done.err
    done = command("nuts", "fit", "--published", "cifar10", "--standard", "none", "--output", "mix")
    assert done.code == 2 and "name both" in done.err
    (nets.parent / "run").mkdir()
    (nets.parent / "run" / "run.json").write_text("{}")
    with pytest.raises(ParameterError, match="folder of a run"):
        nuts_published("cifar10", nets.parent / "run")
    with pytest.raises(ModelError, match="not objects"):
        nuts_published("cifar10", nets.parent / "mix", Sources(robust=torch.nn.Identity()))
    with pytest.raises(ParameterError, match="cifar10, cifar100, imagenet"):
        nuts_published("mnist", nets.parent / "mix")


def test_requests_name_no_attack():
    """A ball alone is a request: these studies run a suite of their own."""
    asked = own_attack(AttackRequest(norm="l2", eps=0.25), 20)
    assert (asked.attack, asked.norm, asked.eps, asked.steps) == ("apgd-ce", "l2", 0.25, 20)
    assert own_attack(None, 50) == AttackRequest(attack="apgd-ce", steps=50)
    assert own_attack(AttackRequest(steps=7), 20).steps == 7
    for other in ("fgsm", "square", "apgd-targeted", "autoattack"):
        with pytest.raises(ParameterError, match="own suite"):
            own_attack(AttackRequest(attack=other), 20)
