"""What sampling on a CPU gains where freed memory is kept (`certmix.memory`).

Draws votes with a shipped model in fresh processes of one torch thread, in turn
with glibc's own settings and with certmix's; then with two processes side by
side, which is what `--workers 2` can reach at most. Throughput is by wall
time: run it on an idle machine.

    python benchmarks/allocation.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

CODE = """
import sys, time, torch
from certmix.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
torch.set_num_threads(1)
from certmix.data import load, stack
from certmix.models.spec import load_model
from certmix.sampling import Sampler
model = load_model("cifar10-gaussian-0.50", device=torch.device("cpu"), classes=10).module
input = torch.from_numpy(stack(load("cifar10-sample"), [0]))[0]
sampler, drawn = Sampler(model, 10, 0.5), 200
sampler.votes(input, 0, [drawn])
start = time.monotonic()
while time.monotonic() - start < float(sys.argv[2]):
    sampler.votes(input, 0, [drawn + 1000], start=drawn)
    drawn += 1000
print((drawn - 200) / (time.monotonic() - start))
"""
ALONE = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def throughput(setting: str, processes: int, seconds: float) -> float:
    """Samples a second of all processes together."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, setting, str(seconds)], stdout=subprocess.PIPE, env=ALONE
        )
        for _ in range(processes)
    ]
    return sum(float(one.communicate()[0]) for one in started)


def main() -> int:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(options.rounds):
        for processes in (1, 2):
            for setting in ("given back", "kept"):
                rate = throughput(setting, processes, options.seconds)
                found.setdefault((setting, processes), []).append(rate)
    middle = {key: statistics.median(rates) for key, rates in found.items()}
    for (setting, processes), rates in sorted(found.items(), key=lambda one: one[0][1]):
        spread = f"{min(rates):.0f} to {max(rates):.0f}"
        rate = middle[setting, processes]
        print(f"{processes} process(es), freed memory {setting:10}: {rate:6.0f}/s ({spread})")
    for processes in (1, 2):
        print(f"kept, {processes}: {middle['kept', processes] / middle['given back', processes]:.2f}x")
    for setting in ("given back", "kept"):
        print(f"two over one, {setting}: {middle[setting, 2] / middle[setting, 1]:.2f}x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
