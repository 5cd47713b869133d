"""Verified accuracy of each propagation method, and what it costs.

    python benchmarks/bound_propagation.py ROBUST [--eps 2] [--norm linf] [--inputs 100] [--alpha 0.76]

ROBUST is a model's spec, as for --robust; eps is in 255ths.  One line a
method: share of inputs whose label is verified over the whole ball by the
model alone (mu = 0) and within the mix (mu = (1 - alpha) / alpha), seconds an
input, and the ratio of its time to that of interval bounds.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from certmix.data import load, load_arrays
from certmix.margins.linear_bounds import METHODS
from certmix.margins.propagation import margin_lower
from certmix.margins.translation import build_graph
from certmix.models.spec import load_model


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("robust")
    parser.add_argument("--eps", type=float, default=2.0)
    parser.add_argument("--norm", choices=["linf", "l2"], default="linf")
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--alpha", type=float, default=0.76)
    parser.add_argument("--methods", default=",".join(METHODS))
    wanted = parser.parse_args()
    pixels, labels = (part[: wanted.inputs] for part in load_arrays(load("cifar10-sample", "test")))
    inputs = torch.from_numpy(pixels).float() / 255
    model = load_model(wanted.robust).module
    graph = build_graph(model, inputs)
    with torch.no_grad():
        clean = float((model(inputs).argmax(1).numpy() == labels).mean())
    print(
        f"{wanted.robust}: {len(labels)} inputs, clean {100 * clean:.1f} %, {wanted.norm} {wanted.eps:g}/255"
    )
    print(f"{'method':12}{'h alone':>10}{'mix':>10}{'s/input':>10}{'ratio':>8}")
    mu, first = (1 - wanted.alpha) / wanted.alpha, None
    for method in wanted.methods.split(","):
        begun = time.process_time()
        margin = margin_lower(
            graph, inputs, labels, wanted.norm, wanted.eps / 255, method=method, input_range=(0.0, 1.0)
        )
        seconds = (time.process_time() - begun) / len(labels)
        first = first or seconds
        shares = [100 * float(np.mean((margin > 0) & (margin >= level))) for level in (0.0, mu)]
        print(f"{method:12}{shares[0]:9.1f}%{shares[1]:9.1f}%{seconds:10.3f}{seconds / first:8.1f}")


if __name__ == "__main__":
    main()
