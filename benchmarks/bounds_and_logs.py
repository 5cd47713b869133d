"""Time of a betting bound and of a table from a log, against what they replace.

python benchmarks/bounds_and_logs.py ../shared/data/logs
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from certmix.bounds import betting, bound_scores
from certmix.bounds.statistics import start, update
from certmix.certification.stored import recertify


def median(run: Callable[[], object], repetitions: int = 7) -> float:
    """Return the median wall time of a call in milliseconds, after one call to warm up."""
    run()
    times = []
    for _ in range(repetitions):
        begun = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - begun))
    return float(np.median(times))


def plain_capital(x: np.ndarray) -> float:
    """Hedged capital of one candidate mean in plain Python, as published code computes it."""
    log_capital, total, squares = 0.0, 0.5, 0.25
    for i, value in enumerate(x, 1):
        bet = min((2 * 6.9 / (len(x) * max(squares / i, 1e-9))) ** 0.5, 0.5)
        log_capital += np.log1p(bet * (value - 0.7))
        total += value
        squares += (value - total / (i + 1)) ** 2
    return log_capital


def main(logs: Path) -> None:
    """Print one line a figure."""
    x = np.random.default_rng(0).beta(8, 2, 10_000)
    kept = update(start(2, 0, (1,)), np.stack([x, 1 - x], 1))
    fast = median(lambda: betting.lower_bound(x, 0.001, 10_000))
    stored = median(lambda: bound_scores([kept], 0.001, "betting"))
    plain = median(lambda: plain_capital(x), 3)
    print(f"betting bound, 10,000 samples: {fast:.1f} ms, from stored statistics {stored:.1f} ms;")
    print(f"  plain Python needs {plain:.1f} ms for one candidate mean ({plain / fast:.1f}x)")
    log = logs / "gaussian-resnet110-cifar10-sigma0.50-10000.tsv"
    table = median(lambda: recertify(log, sigma=0.5, alpha=0.76))
    command = [
        sys.executable,
        "-m",
        "certmix_cli",
        "recertify",
        str(log),
        "--sigma",
        "0.5",
        "--alpha",
        "0.76",
    ]
    process = median(lambda: subprocess.run(command, check=True, capture_output=True), 5)
    imports = [sys.executable, "-c", "import numba, numpy, scipy.special"]
    bare = median(lambda: subprocess.run(imports, check=True), 5)
    print(f"recertify, 10,000 rows, four certificates: {table:.0f} ms of computing and reading;")
    print(f"  as a process {process:.0f} ms, {process / bare:.2f}x importing what it needs ({bare:.0f} ms)")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
