"""Whole commands: cold starts, samples to a finished table, peak memory.

python benchmarks/commands.py
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CERTMIX = [sys.executable, "-m", "certmix_cli"]
NET = """
import torch
def linear():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10)).eval()
"""


def spent(command: list[str]) -> tuple[float, float]:
    """Return CPU seconds and peak memory (MB) of one command."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed: {status}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def in_turn(commands: dict[str, list[str]], rounds: int) -> dict[str, np.ndarray]:
    """Return CPU seconds (rounds,) of each command, taken in turn."""
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            found[name].append(spent(command)[0])
    return {name: np.array(values) for name, values in found.items()}


def ratios(title: str, commands: dict[str, list[str]], rounds: int) -> None:
    """Print each command's CPU time and its ratio to the first one's."""
    print(f"\n{title}\n\n| | CPU seconds | relative (range) |\n| --- | --- | --- |")
    found = in_turn(commands, rounds)
    first = next(iter(found.values()))
    for name, values in found.items():
        by = values / first
        print(
            f"| {name} | {np.median(values):.2f} | {np.median(by):.3g} ({by.min():.3g} to {by.max():.3g}) |"
        )


def main() -> None:
    """Print one table a question."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--inputs", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "nets.py").write_text(NET)
        cold_starts(work, args.rounds)
        tables(work, args.inputs)
        memory(work)


def cold_starts(work: Path, rounds: int) -> None:
    """Starting up, against the imports that cannot be avoided."""
    imports = (
        "import torch, scipy.special, numba, PIL.Input, safetensors.torch, matplotlib.figure, rich.table"
    )
    ready = ["certify", "--sigma", "0.5", "--alpha", "0.76", "--inputs", "1", "--samples", "100",
             "--output", str(work / "one")]  # fmt: skip
    spent([*CERTMIX, *ready])
    ratios("Cold start without torch", {
        "python -c 'import click'": [sys.executable, "-c", "import click"],
        "certmix --help": [*CERTMIX, "--help"],
        "certmix certify --help": [*CERTMIX, "certify", "--help"],
    }, rounds)  # fmt: skip
    ratios("Cold start of certify: a finished run of one input, printed again", {
        "its imports alone": [sys.executable, "-c", imports],
        "certmix certify": [*CERTMIX, *ready],
    }, rounds)  # fmt: skip


def tables(work: Path, inputs: int) -> None:
    """From nothing to a table, with as many samples as are needed and with all."""
    common = ["certify", "--sigma", "0.5", "--alpha", "0.76", "--inputs", str(inputs), "--standard", "none"]
    ratios(f"Samples to a table, {inputs} inputs, at most 10,000 samples each", {
        "--goal fixed": [*CERTMIX, *common, "--goal", "fixed", "--output", str(work / "fixed")],
        "--goal radii (default)": [*CERTMIX, *common, "--output", str(work / "radii")],
    }, 1)  # fmt: skip


def memory(work: Path) -> None:
    """Peak memory over the number of samples, of a net that needs next to none."""
    print("\nPeak memory\n\n| samples | MB |\n| --- | --- |")
    for samples in (1_000, 10_000, 100_000):
        command = ["certify", "--sigma", "0.5", "--alpha", "0.76", "--inputs", "2", "--standard", "none",
                   "--robust", f"{work / 'nets.py'}:linear", "--goal", "fixed", "--samples", str(samples),
                   "--output", str(work / f"memory-{samples}")]  # fmt: skip
        print(f"| {samples:,} | {spent([*CERTMIX, *command])[1]:.0f} |")


if __name__ == "__main__":
    main()
