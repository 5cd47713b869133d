"""What the commands that read a run cost where it has many inputs: CPU seconds and memory of each.

Makes a finished run of synthetic votes, with their ballots, and two shards of it; then every command runs
once, in a process of its own with one thread, for at most `--limit` CPU seconds.

    python benchmarks/many_inputs.py --inputs 200000 --folder /tmp/many
    python benchmarks/many_inputs.py --folder /tmp/many --only show,verify
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

CLASSES, VALUES, SHARDS = 10, 12, 2
ALONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
NET = f"""
import torch
from torch import nn
def linear():
    net = nn.Linear({VALUES}, {CLASSES})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        net.weight.copy_(3 * torch.randn({CLASSES}, {VALUES}, generator=generator))
        net.bias.zero_()
    return net
"""


def main() -> int:
    """Make the run where it is not there, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", help="commands to time, between commas")
    parser.add_argument("--limit", type=int, default=600, help="CPU seconds of one command")
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    if not (options.folder / "run").is_dir():
        make(options.folder, options.inputs)
    print("| command | CPU seconds | memory (MB) |\n| --- | --- | --- |")
    bad = 0
    for name, words in commands(options.folder).items():
        if options.only is None or name in options.only.split(","):
            seconds, memory, code = timed(words, options.folder, options.limit)
            bad += code != 0
            told = f" exit {code}" if code else ""
            print(f"| `{name}` | {seconds:.1f} | {memory:.0f} |{told}", flush=True)
    return bad


def commands(folder: Path) -> dict[str, list[str]]:
    """Return the commands by what the table calls them."""
    run, own = str(folder / "run"), [*asked(folder), "--output", str(folder / "run")]
    shards = [str(folder / f"shard-{k + 1}") for k in range(SHARDS)]
    return {
        "certify again": ["certify", *own],
        "show": ["show", run],
        "recertify": ["recertify", run, "--alpha", "0.9"],
        "recertify --gate": ["recertify", run, "--gate", "0.5"],
        "trade-off": ["trade-off", run],
        "audit": ["audit", run],
        "report": ["report", run, "--output", str(folder / "page.html")],
        "verify": ["verify", run, "--resample", "0", "--run-code"],
        "merge": ["merge", *shards, "--output", str(folder / "merged"), "--fresh"],
    }


def asked(folder: Path) -> list[str]:
    """Return the options that the run was made with."""
    net = f"{folder / 'nets.py'}:linear"
    return [
        "--data", str(folder / "data.npz"), "--standard", net, "--robust", net, "--sigma", "0.25",
        "--alpha", "0.76", "--inputs", "all", "--samples", "10000", "--device", "cpu",
    ]  # fmt: skip


def timed(words: list[str], folder: Path, limit: int) -> tuple[float, float, int]:
    """Run one command; return its CPU seconds, the most memory it had in MB, and its exit status."""

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))

    with (folder / "output.txt").open("ab") as kept:
        process = subprocess.Popen(
            [sys.executable, "-c", "from certmix_cli.main import main; main()", *words],
            stdout=kept, stderr=kept, cwd=folder, env={**os.environ, **ALONE}, preexec_fn=bounded,
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, process.returncode


def make(folder: Path, count: int) -> None:
    """Make data, models, a run as `certmix certify` leaves it, and its shards."""
    import torch

    import certmix

    begun = time.process_time()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nets.py").write_text(NET, encoding="utf-8")
    named: dict[str, Any] = {}
    exec(NET, named)
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (count, VALUES)).astype(np.float32) / np.float32(255)
    with torch.inference_mode():
        g = named["linear"]()(torch.from_numpy(inputs)).double().softmax(1).numpy()
    labels = np.where(rng.random(count) < 0.1, rng.integers(0, CLASSES, count), g.argmax(1))
    np.savez(folder / "data.npz", inputs=inputs, labels=labels)
    net = f"{folder / 'nets.py'}:linear"
    sources: dict[str, Any] = {"data": folder / "data.npz", "standard": net, "robust": net, "device": "cpu"}
    small = folder / "small"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        certmix.certify(sigma=0.25, alpha=0.76, output=small, inputs=SHARDS, samples=10_000, **sources)
    columns = drawn(rng, inputs, labels, small)
    columns["standard"] = np.arange(count), g
    for k in range(SHARDS):
        stored(small, folder / f"shard-{k + 1}", columns, count, k + 1)
    stored(small, folder / "unpublished", columns, count, None)
    shutil.rmtree(small)
    (folder / "unpublished").rename(folder / "run")
    code = timed(["certify", *asked(folder), "--output", str(folder / "run")], folder, 600)[2]
    assert code == 0, f"see {folder / 'output.txt'}"
    print(f"made {count:,} inputs in {time.process_time() - begun:.0f} CPU s", file=sys.stderr)


def drawn(rng: np.random.Generator, inputs: Any, labels: Any, run: Path) -> dict[str, Any]:
    """Return by cell the inputs and vectors that sampling could have given, where the run's rule stops."""
    from certmix.certification.request.sampled import CertifyRequest
    from certmix.certification.stopping import Rule, Walk
    from certmix.runs import Store, read_run
    from certmix.runs.settings import from_json
    from certmix.sampling.grid import Grid

    request, count = from_json(CertifyRequest, read_run(run)["request"]), len(inputs)
    with closing(Store(run / "numbers.sqlite", CLASSES, read_only=True)) as store:
        error = store.records()[0].noise_error
    top = np.where(rng.random(count) < 0.2, rng.integers(0, CLASSES, count), labels)
    sure = rng.beta(4, 1, count)
    h = rng.dirichlet(np.ones(CLASSES), count) * (1 - sure)[:, None]
    h[np.arange(count), top] += sure
    levels = 0.6 ** np.arange(20)[::-1]
    levels /= levels.sum()

    def ballots(votes: Any) -> Any:
        parts = [
            rng.multinomial(some, levels) for some in np.array_split(votes, max(1, len(votes) // 10_000))
        ]
        return np.concatenate(parts).reshape(len(votes), -1).astype(np.uint32)

    selection = rng.multinomial(request.selection_samples, h)
    grid, everyone = Grid.of(request.sigma), np.arange(count)
    sums = np.stack([np.frombuffer(hashlib.sha256(one.tobytes()).digest(), "<i8") for one in inputs])
    lost = [grid.nearest(one).lost for one in inputs]
    about = np.column_stack(
        [np.full(count, error), lost, np.ones(count), np.full(count, 0.01), np.zeros(count)]
    )
    found: dict[str, Any] = {
        "input": (everyone, np.column_stack([labels, sums])), "sampling": (everyone, about),
        "selection": (everyone, selection), "selection ballots": (everyone, ballots(selection)),
    }  # fmt: skip
    walk = Walk(Rule(request), [selection.argmax(1)], labels)
    votes, cast, at = np.zeros((count, CLASSES), np.int64), np.zeros((count, 20 * CLASSES), np.uint32), 0
    for number, samples in enumerate(walk.rule.looks):
        rows = np.flatnonzero(walk.active)
        if not len(rows):
            break
        more = rng.multinomial(samples - at, h[rows])
        votes[rows], at = votes[rows] + more, samples
        cast[rows] += ballots(more)
        found[f"votes@{samples}"] = rows, votes[rows]
        found[f"ballots@{samples}"] = rows, cast[rows]
        walk.step(number, rows, [votes[rows]])
    return found


def stored(small: Path, folder: Path, columns: dict[str, Any], count: int, shard: int | None) -> None:
    """Write a run, or one of its shards, in the place of a small one's inputs."""
    from certmix.certification.stored import remember_planned
    from certmix.runs import Store, read_run
    from certmix.runs.store import standard_cell

    shutil.copytree(small, folder)
    described = read_run(folder)
    described["request"]["inputs"] = "all"
    if shard is not None:
        described["shard"] = {"number": shard, "of": SHARDS}
    (folder / "run.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    with closing(sqlite3.connect(folder / "numbers.sqlite")) as db, db:
        db.execute("DELETE FROM cells")
    with closing(Store(folder / "numbers.sqlite", CLASSES)) as store:
        for name, (rows, vectors) in columns.items():
            cell = standard_cell(described["models"]["standard"]["checksum"]) if name == "standard" else name
            mine = np.ones(len(rows), bool) if shard is None else rows % SHARDS == shard - 1
            kept = vectors[mine]
            if "ballots" in name:
                kept = [np.concatenate([np.flatnonzero(one), one[one > 0]]).astype(np.uint32) for one in kept]
            store.write(cell, rows[mine].tolist(), kept)
        remember_planned(store, "all", list(range(count)))


if __name__ == "__main__":
    sys.exit(main())
