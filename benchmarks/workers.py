"""How much faster workers are than one process with one thread.

Certifies inputs of the embedded CIFAR-10 sample with a shipped model, once
serially and once by workers, each in a fresh process with one torch thread, and
compares the records. Wall time counts loading and the start of workers. On a
machine that is busy otherwise, look at CPU time: with W workers on W idle cores
the run cannot be faster than "by CPU time" says, and comes near it if tasks are
evenly spread.

    python benchmarks/workers.py --workers 2
"""

from __future__ import annotations

import argparse
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ALONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def certify(folder: Path, workers: int, inputs: int, samples: int) -> tuple[float, float]:
    """Run one certification; return wall and CPU seconds, those of workers included."""
    before, start = _cpu(), time.monotonic()
    subprocess.run(
        [sys.executable, "-c", "from certmix_cli.main import main; main()", "certify", "--sigma", "0.5",
         "--alpha", "0.76", "--inputs", str(inputs), "--samples", str(samples), "--goal", "fixed",
         "--device", "cpu", "--workers", str(workers), "--output", str(folder), "--format", "json"],
        check=True, stdout=subprocess.DEVNULL, env={**os.environ, **ALONE},
    )  # fmt: skip
    return time.monotonic() - start, _cpu() - before


def _cpu() -> float:
    """CPU seconds of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def records(folder: Path) -> list[tuple]:
    """Return all counts of a run."""
    with sqlite3.connect(folder / "numbers.sqlite") as db:
        return db.execute("SELECT * FROM cells WHERE cell <> 'sampling' ORDER BY cell, idx").fetchall()


def main() -> int:
    """Print times and ratios; fail if records differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--samples", type=int, default=5000)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    with tempfile.TemporaryDirectory() as temporary:
        alone, spread = Path(temporary, "alone"), Path(temporary, "spread")
        wall, cpu = certify(alone, 1, options.inputs, options.samples)
        print(f"1 process : {wall:7.1f} s wall, {cpu:7.1f} s CPU")
        wall_spread, cpu_spread = certify(spread, options.workers, options.inputs, options.samples)
        print(f"{options.workers} workers : {wall_spread:7.1f} s wall, {cpu_spread:7.1f} s CPU")
        equal = records(alone) == records(spread)
    print(
        f"faster by wall time {wall / wall_spread:.2f}x, "
        f"by CPU time {options.workers * cpu / cpu_spread:.2f}x"
    )
    print(f"records {'are equal' if equal else 'DIFFER'}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
