"""Every certmix command of the documentation is run, with small options and the same words otherwise.

What a page takes for granted (runs, logs, networks, data) is laid out beside it. Commands run in the order of the
page, in one folder, and have to end as they should: exit code 0, or 1 where that is an answer.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from doc_pages import DOCS, ROOT, blocks, commands, pages
from doc_setups import guarantee, iris, log, model_files, small_net
from forged import sources
from safetensors.torch import save_file

from certmix.data import load, stack

SMALL = {
    "attack": "--inputs 2 --steps 2",
    "certify": "--inputs 2 --samples 100 --selection-samples 20",
    "compare-trust": "--inputs 2 --steps 1",
    "confidence": "--inputs 2 --steps 1",
    "falsify": "--inputs 2 --steps 2 --run-code",
    "lipschitz": "--inputs 2 --steps 2 --restarts 1",
    "mix-sweep": "--inputs 2 --steps 1",
    "nuts evaluate": "--inputs 4 --steps 1 --targets 1 --queries 5 --run-code",
    "nuts fit": "--inputs 20 --steps 1",
    "tune": "--inputs 4 --noisy-samples 4 --grid none",
    "plan": "--samples 2000",
    "selftest": "--suite margin-lemma --cases 2",
    "reproduce": "--run-code",
    "verify": "--resample 1 --run-code",
    "evidence": "--resample 1 --run-code",
}
"""Options that are added at the end, where they win."""

SMALL_NETS = (
    "attack",
    "certify",
    "compare-trust",
    "confidence",
    "lipschitz",
    "mix-sweep",
    "nuts fit",
    "tune",
)
"""Commands that run small nets where a page names none."""

RIGHT = (
    "README.md",
    "ci.md",
    "howto-compromise.md",
    "howto-nuts.md",
    "nuts.md",
    "nuts-use.md",
    "population.md",
)
"""Pages whose certificates, and fits, want a robust model that is right."""

ANSWERS = {"audit", "evidence", "falsify", "lipschitz", "verify"}
"""Commands of which exit code 1 is an answer."""

NOT_HERE = {
    "--engine ray": "needs Ray",
    "certmix train": "minutes, and training images",
    "outside.npz": "images that are not here",
    "imagenet/val": "needs ImageNet and timm",
    "--output whole": "as the first of nuts.md, of more inputs",
    "nuts evaluate whole": "of that one",
    "nuts:proved": "a fit that needs more than a few inputs",
    "show proved": "shows such a fit",
    "nuts fit --certified": "a fit that needs more than a few inputs",
    "nuts study": "studies of fits and evaluations of their own: tests/studies",
    "runs/imagenet": "needs ImageNet",
    "diffusers:models": "needs a diffusion model",
    "models/cifar10-denoiser": "made by the training before it",
    "runs/RUN/falsify": "a finding, of which an honest run has none",
}
"""Words of commands that are not run here, and why."""

FACTORY = """

def _small(seed, values=3072):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(values, 8), nn.ReLU(), nn.Linear(8, 10))


def accurate():
    return _small(0)


def noisy():
    return _small(1)


def banded():
    return _small(1, 4096)


wide = small = one_lipschitz = noisy


class right(nn.Module):
    # the class of the nearest of the inputs that are shipped: on those it is right
    def __init__(self):
        super().__init__()
        pixels, labels = torch.load(__file__.replace("nets.py", "shipped.pt"))
        inputs = pixels.flatten(1) / 255
        self.distances = nn.Linear(3072, len(labels))
        self.distances.weight.data, self.distances.bias.data = inputs, -inputs.square().sum(1) / 2
        self.register_buffer("classes", nn.functional.one_hot(labels, 10).float())

    def forward(self, x):
        return (self.distances(x.flatten(1)).softmax(1) @ self.classes + 0.001).log()
"""


@pytest.fixture(scope="module")
def laid(tmp_path_factory) -> Iterator[Path]:
    """A folder with all that pages name, made once."""
    here = tmp_path_factory.mktemp("pages")
    problem = SimpleNamespace(folder=here)
    sources(here)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        yield lay_out(problem, here)


@pytest.fixture
def place(laid, command, tmp_path) -> None:
    """A copy of it, where commands run."""
    shutil.copytree(laid, tmp_path, dirs_exist_ok=True)


def lay_out(problem, here: Path) -> Path:
    for name in ("nets.py", "resnet.py", "wrn.py"):
        text = (here / "nets.py").read_text() if name == "nets.py" else "import torch\nfrom torch import nn\n"
        (here / name).write_text(text + FACTORY)
    (here / "mymodel.py").write_text(f"import torch\nfrom torch import nn\n{FACTORY}\n\nnet = accurate\n")
    for name, seed in (("accurate", 0), ("noisy", 1), ("wide", 1)):
        save_file(dict(small_net(seed).state_dict()), here / f"{name}.safetensors")
    sample = load("cifar10-sample")
    pixels = torch.from_numpy(np.rint(255 * stack(sample, list(range(len(sample.labels))))).astype(np.uint8))
    torch.save((pixels, torch.tensor(sample.labels)), here / "shipped.pt")
    for name in ("wide.json", "trees.joblib"):
        (here / name).write_text("{}")
    inputs, labels = stack(sample, list(range(8))), np.asarray(sample.labels[:8])
    for name in ("tune", "test"):
        np.savez(here / f"{name}.npz", inputs=inputs, labels=labels, class_names=list(sample.class_names))
    log(problem, {})
    for name in ("a", "b", "c", "d", "cohen-sigma0.50"):
        shutil.copy("cohen-0.50.tsv", f"{name}.tsv")
    Path("counts.txt").write_text("90 0 10 0\n1 99 0 1\n0 50 50 2\n")
    guarantee(problem, {})  # of the finished run runs/RUN
    for name in ("runs/A", "runs/B", "runs/small", "RUN", "run"):
        shutil.copytree("runs/RUN", name)
    model_files(problem, {})
    iris(problem, {})
    return here


def shortened(words: list[str], robust: str = "noisy") -> list[str]:
    """Return a command with small options, on the inputs that are shipped and a processor that is there."""
    if words[1] == "selftest":
        words = words[:2] + (words[-2:] if "--format" in words else [])
    name = " ".join(words[1:3]) if words[1] == "nuts" else words[1]
    found = [word for word in words if word not in ("cifar-10-batches-bin", "cifar-10-batches-py")]
    found = [
        word
        for k, word in enumerate(found)
        if word != "--data" or (k + 1 < len(found) and not found[k + 1].startswith("-"))
    ]
    small = SMALL.get(name, "").split()
    if "--published" in words:
        small = []
    if {"margin", "lipschitz-constant", "bands", "splitting"} & set(words):
        small = {"certify": small[:2], "plan": []}.get(name, small)
    if name == "certify" and "population" in words:
        return [*found, "--inputs", "60", "--samples", "100", "--robust", f"nets.py:{robust}"]
    if name == "certify" and {"tune.npz", "test.npz"} & set(words):
        small = small[2:4]
    if name == "certify" and "fixed" in words and "--samples" in words:
        small = small[:2] + ["--samples", "100"]
    if "--workers" in words:
        small += ["--workers", "1"]
    if name in SMALL_NETS:
        robust = "banded" if "bands" in words else robust
        small += ["--robust", f"nets.py:{robust}"] if "--robust" not in words else []
        takes_standard = name not in ("attack", "lipschitz") or "--alpha" in words
        small += ["--standard", "nets.py:accurate"] if takes_standard and "--standard" not in words else []
    small += ["--run-code"] if any(word.startswith("nuts:") for word in words) else []  # of small nets
    return [*("cpu" if word == "cuda" else word for word in found), *small]


def listed(page: Path) -> list[list[str]]:
    return [
        words
        for block in blocks(page)
        if block.language in ("console", "bash") and not block.marker
        for one in commands(block)
        for words in one.parts()
        if words and words[0] == "certmix" and not any(known in " ".join(words) for known in NOT_HERE)
    ]


PAGES = [page for page in pages() if listed(page)]
LONG = ("README.md", "ci.md", "howto-compromise.md", "howto-nuts.md")
"""Pages whose commands certify with shipped models; those of ci.md are run by verification/test_ci_examples.py too."""


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.name, marks=[pytest.mark.long] * (page.name in LONG)) for page in PAGES],
)
def test_commands_run(page: Path, place: None, command) -> None:
    told = [" ".join(words) for words in listed(page)]
    if any("nuts:mix" in one for one in told) and not any("nuts fit" in one for one in told):
        fit = shortened(["certmix", "nuts", "fit", "--output", "mix"], "right")
        assert command(*fit[1:]).code == 0
    done_before: list[list[str]] = []
    for words in listed(page):
        short = shortened(words, "right" if page.name in RIGHT else "noisy")
        if short in done_before:
            continue
        done_before.append(short)
        if words[1:3] == ["guarantee", "init"]:
            Path("guarantee.toml").unlink()
        if words[1] == "merge":
            shutil.rmtree("run")
        done = command(*short[1:])
        allowed = {0, 1} if short[1] in ANSWERS else {0}
        assert done.code in allowed, (" ".join(words), " ".join(short), done.err[-500:])
        assert "Traceback" not in done.err


def test_most_commands_are_run() -> None:
    assert sum(len(listed(page)) for page in [ROOT / "README.md", *DOCS.glob("*.md")]) > 80
