"""Time of Algorithm 1's grid search from saved logits, against plain numpy in the same run.

python benchmarks/nuts_grid.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product

import numpy as np

from certmix.nuts import (
    GRIDS,
    Grid,
    TransformSettings,
    attacked_margin,
    clean_margin,
    margin_grid,
    solve_beta,
    transform_numpy,
)


def seconds(run: Callable[[], object], repetitions: int) -> float:
    """Return the median wall time of a call."""
    times = []
    for _ in range(repetitions):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return float(np.median(times))


def problem(inputs: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return clean logits that are right for most inputs, attacked ones that are for half, and labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, inputs)
    clean = rng.normal(0, 1, (inputs, classes))
    clean[np.arange(inputs), labels] += 3 + np.log10(classes)
    attacked = clean.copy()
    attacked[np.arange(inputs), labels] -= 1.5
    return clean, attacked, labels


def plain(clean: np.ndarray, attacked: np.ndarray, labels: np.ndarray, grid: Grid) -> None:
    """The margins of the same inputs, each grid point by itself."""
    right, wrong = attacked.argmax(1) == labels, clean.argmax(1) != labels
    for s, p, c in product(grid.s, grid.p, grid.c):
        settings = TransformSettings(s, p, c)
        np.sort(attacked_margin(transform_numpy(attacked[right], settings), labels[right]))
        np.sort(clean_margin(transform_numpy(clean[wrong], settings)))


def row(name: str, inputs: int, classes: int) -> str:
    """Return one line of the table."""
    arguments, grid = problem(inputs, classes), GRIDS[name]
    slow = seconds(lambda: plain(*arguments, grid), 1)
    fast = seconds(lambda: margin_grid(*arguments, grid), 5)
    saved = margin_grid(*arguments, grid)
    again = 1000 * seconds(lambda: solve_beta(saved, 0.985), 5)
    return f"| {inputs} | {classes} | {slow:.2f} | {fast:.2f} | {slow / fast:.1f}x | {again:.1f} |"


def main() -> None:
    """Print one table."""
    margin_grid(*problem(50, 10), GRIDS["cifar10"])  # compile
    print("512 grid points; margins in s (plain numpy, certmix), another beta in ms")
    print("| inputs | classes | numpy | certmix | ratio | another beta |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, inputs, classes in (("cifar10", 1000, 10), ("cifar100", 1000, 100), ("imagenet", 300, 1000)):
        print(row(name, inputs, classes))


if __name__ == "__main__":
    main()
