"""The default command beside the same in fp32 and uncompiled, in pairs.

    python benchmarks/precision.py --rounds 3
    python benchmarks/precision.py --inputs 10 --options "--goal fixed --workers 1" --first "--compile on"

Each round runs both commands in fresh folders and prints the ratios of wall and CPU time of the first to the
second; the first round begins with an empty cache of compiled kernels: it is cold, the others are warm.
Wall times mean something on idle cores only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from certmix.sampling.devices import automatic_precision


def certify(folder: Path, options: list[str], caches: Path) -> tuple[float, float, dict]:
    """Run one certification; return its wall and CPU seconds, and what run.json says."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before, start = spent(), time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "certmix_cli", "certify", "--sigma", "0.5", "--alpha", "0.76",
         "--output", str(folder), "--format", "json", *options],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(caches)},
    )  # fmt: skip
    wall, cpu = time.monotonic() - start, spent() - before
    return wall, cpu, json.loads((folder / "run.json").read_text())


def main() -> None:
    """Print a line a round, then the medians of the warm ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="Warm rounds, after the cold one.")
    parser.add_argument("--inputs", default="100")
    parser.add_argument("--options", default="", help="More options of both commands.")
    parser.add_argument("--first", default="", help="More options of the first command.")
    args = parser.parse_args()
    common = ["--inputs", args.inputs, *args.options.split()]
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; auto is {automatic_precision('cpu')}")
    print(f"torch {torch.__version__}\n\n| | first (wall, CPU) | fp32, uncompiled | ratio | compiled |")
    print("| --- | --- | --- | --- | --- |")
    ratios = []
    with tempfile.TemporaryDirectory() as temporary:
        caches = Path(temporary, "kernels")
        for number in range(args.rounds + 1):
            pair = []
            for name, own in (
                ("first", args.first.split()),
                ("plain", ["--precision", "fp32", "--compile", "off"]),
            ):
                folder = Path(temporary, f"{name}{number}")
                pair.append(certify(folder, [*common, *own], caches))
            (wall, cpu, told), (plain, plain_cpu, _) = pair
            ratio = wall / plain, cpu / plain_cpu
            ratios += [ratio] if number else []
            cells = [
                "warm" if number else "cold", f"{wall:.1f} s, {cpu:.1f} s",
                f"{plain:.1f} s, {plain_cpu:.1f} s",
                f"{ratio[0]:.2f}, {ratio[1]:.2f}", f"{told['compiled']}, {told['identity']['precision']}",
            ]  # fmt: skip
            print(f"| {' | '.join(cells)} |", flush=True)
    if ratios:
        by = [statistics.median(values) for values in zip(*ratios, strict=True)]
        print(f"\nwarm, median: {by[0]:.2f} of the wall time, {by[1]:.2f} of the CPU time")


if __name__ == "__main__":
    main()
