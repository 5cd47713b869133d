"""Texts of every command on small runs and on published logs: ``python tests/golden/make.py [FOLDER]`` writes them.

Each file holds a command, its exit code, and what it printed; the tests hold today's output against it.
A change is made here on purpose, and read as a diff.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
LOGS = HERE.parents[2] / "shared" / "data" / "logs"
NETS = """
import torch
from torch import nn

def plane(weights):
    net = nn.Linear(2, len(weights))
    with torch.no_grad():
        net.weight.copy_(torch.tensor(weights))
        net.bias.zero_()
    return net

def accurate():
    return plane([[4.0, 1.0], [-4.0, -1.0], [0.0, 3.0]])

def robust():
    return plane([[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0]])
"""
INPUTS = [[0.5, 0.0], [0.3, 0.2], [-0.4, 0.1], [0.02, 0.0], [0.6, 0.0], [-0.1, 0.9], [0.1, 0.5], [-0.7, -0.2]]
LABELS = [0, 0, 1, 0, 1, 2, 2, 1]
MODELS = "--data points.npz --input-range -2,2 --standard nets.py:accurate --robust nets.py:robust"
SAMPLED = f"certify --sigma 0.25 --alpha 0.76 --samples 400 {MODELS}"
MARGIN = f"certify --certificate margin --alpha 0.76 --norm l2 --max-radius 0.5 --radii 0,0.1,0.2 {MODELS}"
CONSTANT = f"certify --certificate lipschitz-constant --lipschitz-constant 3 --alpha 0.76 --norm l2 --radii 0,0.1,0.2 {MODELS}"
ATTACK = "--eps 0.1 --steps 3 --data points.npz --input-range -2,2"
MIXED = f"{ATTACK} --standard nets.py:accurate --robust nets.py:robust"
GRID = "s=0.5:8:2,p=1:3:2,c=-1:0:2"
LOG = "{logs}/gaussian-resnet110-cifar10-sigma0.50-500.tsv"
FORMATS = ("json", "csv", "markdown", "latex")
COMMANDS = {
    "certify": f"{SAMPLED} --output certified",
    **{f"certify-{name}": f"{SAMPLED} --output certified --format {name}" for name in FORMATS},
    "certify-fixed": f"{SAMPLED} --goal fixed --output fixed",
    "certify-radius": f"{SAMPLED} --goal radius --output radius --radii 0,0.1",
    "certify-soft": f"{SAMPLED} --scores soft --bound betting --output soft",
    "certify-layers": f"{SAMPLED} --scores soft --bound layers --goal fixed --certificate exact --output layers",
    "certify-margin": f"{MARGIN} --output margin",
    **{f"certify-margin-{name}": f"{MARGIN} --output margin --format {name}" for name in FORMATS},
    "certify-constant": f"{CONSTANT} --output constant",
    "certify-shard1": f"{SAMPLED} --shard 1/2 --output part1",
    "certify-shard2": f"{SAMPLED} --shard 2/2 --output part2",
    "merge": "merge part1 part2 --output merged",
    "merge-json": "merge part1 part2 --output merged-too --format json",
    "show": "show certified",
    "show-latex": "show margin --format latex",
    "recertify": "recertify certified --alpha 0.9",
    "recertify-log": f"recertify {LOG} --sigma 0.5 --alpha 0.76",
    "recertify-log-json": f"recertify {LOG} --sigma 0.5 --alpha 0.76 --format json",
    "trade-off": "trade-off certified",
    "trade-off-log": f"trade-off {LOG} --sigma 0.5",
    **{f"trade-off-{name}": f"trade-off certified --format {name}" for name in FORMATS},
    "compare": "compare certified fixed",
    "compare-latex": "compare certified fixed --radii 0,0.1 --format latex",
    "audit": "audit certified",
    "audit-log": f"audit {LOG} --sigma 0.5 --samples 100000",
    "audit-log-json": f"audit {LOG} --sigma 0.5 --samples 100000 --format json",
    "plan": "plan --like certified --inputs 1000 --throughput 5000",
    "plan-json": "plan --scenario cifar10 --sigma 0.5 --alpha 0.76 --throughput 5000 --format json",
    "attack": f"attack {ATTACK} --robust nets.py:robust --output attacked",
    **{f"attack-{name}": f"attack {ATTACK} --robust nets.py:robust --output attacked --format {name}" for name in FORMATS},
    "attack-mix": f"attack --alpha 0.8 --attack pgd --norm l2 {MIXED} --output attacked-mix",
    "mix-sweep": f"mix-sweep --alphas 0.5,0.8,1 {MIXED} --output swept",
    "mix-sweep-json": f"mix-sweep --alphas 0.5,0.8,1 {MIXED} --output swept --format json",
    "compare-trust": f"compare-trust --trust constant --norm linf {MIXED} --output trust",
    "confidence": f"confidence {MIXED} --output sure",
    "lipschitz": f"lipschitz {ATTACK} --robust nets.py:robust --output searched",
    "nuts-fit": f"nuts fit --beta 0.9 --grid {GRID} {MIXED} --inputs 6 --seed 3 --output fit",
    "nuts-fit-json": f"nuts fit --beta 0.9 --grid {GRID} {MIXED} --inputs 6 --seed 3 --output fit --format json",
    "nuts-evaluate": "nuts evaluate fit --run-code --queries 5 --steps 2 --eps 0.1 --sweep-inputs 2 --input-range -2,2 --data points.npz --output judged",
    "nuts-certified": (
        f"nuts fit --certified --at-radius 0.1 --sigma 0.25 --inputs 4 --noisy-samples 20 --certify-inputs 4 "
        f"--samples 100 --grid {GRID} {MODELS} --output proved"
    ),
    "nuts-certified-show": "show proved",
    "nuts-study-beta": "nuts study beta fit",
    "guarantee": "guarantee init certified --output guarantee.toml",
    "verify-guarantee": "verify guarantee.toml --resample 0 --runs . --run-code",
    "verify-without-code": "verify certified",
    "verify": "verify certified --resample 2 --resample-samples 200 --new-seed 1 --run-code",
    "verify-json": "verify certified --resample 2 --resample-samples 200 --new-seed 1 --run-code --format json",
    "falsify": "falsify certified --run-code --steps 3 --copies 20 --samples 500",
    "falsify-margin": "falsify margin --steps 3 --run-code",
    "reproduce": "reproduce certified --output again --run-code",
    "models": "models",
    "refused-alpha": f"certify --sigma 0.25 --alpha 76 {MODELS}",
    "refused-option": f"certify --sigma 0.25 --alpha 0.76 --score-temperature 2 {MODELS}",
    "refused-folder": "recertify nowhere --alpha 0.9",
    **{
        f"help-{name.replace(' ', '-') or 'certmix'}": f"{name} --help".strip()
        for name in (
            "", "certify", "show", "recertify", "merge", "plan", "audit", "report", "falsify", "trade-off", "compare", "attack",
            "mix-sweep", "compare-trust", "confidence", "lipschitz", "nuts", "nuts fit", "nuts evaluate",
            "nuts study", "verify", "evidence", "guarantee", "reproduce", "selftest", "train", "models",
        )
    },
}  # fmt: skip
VARYING = (
    (r"\d+\.\d+ s\b", "T s"),
    (r'("(?:seconds|[a-z_]*seconds|time)": )[-+.e0-9]+', r"\1T"),
    (r"certmix \d+\.\d+\.\d+\S*", "certmix VERSION"),
)


def texts() -> Iterator[tuple[str, str]]:
    """Run every command in a folder, in order; yield its name and what it printed."""
    from certmix_cli.main import main

    folder = Path(
        tempfile.gettempdir(), f"golden{os.getpid():08d}"
    )  # as long, and as plain, on every machine
    folder.mkdir()
    (folder / "nets.py").write_text(NETS)
    names = np.array(["left", "right", "up"])
    np.savez(
        folder / "points.npz", inputs=np.array(INPUTS, np.float32), labels=np.array(LABELS), class_names=names
    )
    (folder / "logs").symlink_to(LOGS)  # lines break alike wherever the logs are
    before, argv = Path.cwd(), sys.argv
    os.chdir(folder)
    held = os.environ.copy()
    os.environ["COLUMNS"] = "120"
    try:
        for name, command in COMMANDS.items():
            told, warned = io.StringIO(), io.StringIO()
            sys.argv = ["certmix", *command.format(logs="logs").split()]
            code: object = 0
            with redirect_stdout(told), redirect_stderr(warned):
                try:
                    main()
                except SystemExit as left:
                    code = left.code or 0
            text = f"$ certmix {command.replace('{logs}/', '')}\n== exit {code}\n{told.getvalue()}"
            if warned.getvalue():
                text += f"== stderr\n{warned.getvalue()}"
            yield name, _settled(text, folder)
    finally:
        os.environ.clear()
        os.environ.update(held)
        os.chdir(before)
        sys.argv = argv
        shutil.rmtree(folder)


def _settled(text: str, folder: Path) -> str:
    """Replace what differs from machine to machine: paths, times and last digits."""
    for made in (str(folder), str(folder).replace("_", r"\_")):  # the second by LaTeX and Markdown
        text = text.replace(made, "FOLDER")
    text = text.replace("logs/gaussian", "gaussian")
    for pattern, plain in VARYING:
        text = re.sub(pattern, plain, text)
    # the last digits of a float64 are the processor's
    text = re.sub(r"\d+\.\d{12,}(?:e-?\d+)?", lambda found: f"{float(found[0]):.12g}", text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


if __name__ == "__main__":
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "texts"
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.txt"):
        old.unlink()
    for stem, text in texts():
        (out / f"{stem}.txt").write_text(text)
