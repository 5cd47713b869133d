"""Robust accuracy and time of certmix's attacks beside their counterparts in other libraries.

Every implementation gets the same inputs, the same number of steps (or
queries) and one run, in one thread unless told otherwise.  "Outside" counts points that
are further than eps from their input in float64.  Libraries that are not
installed are skipped.

    python benchmarks/attack_parity.py --inputs 100 --steps 20
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

from certmix.attacks import apgd_ce, apgd_targeted, pgd
from certmix.attacks.geometry import distance
from certmix.attacks.square import square
from certmix.data import load, spread, stack
from certmix.models.spec import load_model

TARGETS = 9
Run = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Counted(nn.Module):
    """A model that counts the inputs it is asked about."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.evaluations = model, 0
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits."""
        self.evaluations += len(inputs)
        return self.model(inputs)


@dataclass(frozen=True)
class Budget:
    """What every implementation is given."""

    norm: str
    eps: float
    steps: int
    queries: int
    seed: int

    @property
    def step_size(self) -> float:
        """The step of plain PGD."""
        return 2.5 * self.eps / self.steps


def ours(budget: Budget) -> Iterator[tuple[str, Run]]:
    """Yield (attack, run) of certmix."""
    steps = {"steps": budget.steps}

    def bound(attack: Callable[..., Tensor], **settings: Any) -> Run:
        def run(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
            generator = torch.Generator().manual_seed(budget.seed)
            return attack(model, inputs, labels, budget.norm, budget.eps, generator=generator, **settings)

        return run

    yield "pgd", bound(pgd, **steps, step_size=budget.step_size)
    yield "apgd-ce", bound(apgd_ce, **steps)
    yield "apgd-targeted", bound(apgd_targeted, **steps, targets=TARGETS)
    yield "square", bound(square, queries=budget.queries)


def pyautoattack(package: ModuleType, budget: Budget) -> Iterator[tuple[str, Run]]:
    """Yield (attack, run) of pyautoattack, the maintained fork of the authors' code."""
    base = importlib.import_module("pyautoattack.autopgd_base")
    squares = importlib.import_module("pyautoattack.square")
    shared = {"norm": budget.norm.capitalize(), "eps": budget.eps, "seed": budget.seed, "device": "cpu"}

    def apgd(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        return base.APGDAttack(model, n_iter=budget.steps, loss="ce", **shared).perturb(inputs, labels)

    def targeted(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        attack = base.APGDAttack_targeted(model, n_iter=budget.steps, n_target_classes=TARGETS, **shared)
        return attack.perturb(inputs, labels)

    def square(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        attack = squares.SquareAttack(model, n_queries=budget.queries, resc_schedule=True, **shared)
        return attack.perturb(inputs, labels)

    yield from (("apgd-ce", apgd), ("apgd-targeted", targeted), ("square", square))


def torchattacks(package: ModuleType, budget: Budget) -> Iterator[tuple[str, Run]]:
    """Yield (attack, run) of torchattacks."""
    shared = {"norm": budget.norm.capitalize(), "eps": budget.eps, "seed": budget.seed}
    plain = package.PGD if budget.norm == "linf" else package.PGDL2

    def pgd(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        return plain(model, eps=budget.eps, alpha=budget.step_size, steps=budget.steps)(inputs, labels)

    def apgd(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        return package.APGD(model, steps=budget.steps, loss="ce", **shared)(inputs, labels)

    def targeted(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        return package.APGDT(model, steps=budget.steps, n_classes=TARGETS + 1, **shared)(inputs, labels)

    def square(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        return package.Square(model, n_queries=budget.queries, **shared)(inputs, labels)

    yield from (("pgd", pgd), ("apgd-ce", apgd), ("apgd-targeted", targeted), ("square", square))


def foolbox(package: ModuleType, budget: Budget) -> Iterator[tuple[str, Run]]:
    """Yield (attack, run) of foolbox."""
    kinds = {"linf": "LinfProjectedGradientDescentAttack", "l2": "L2ProjectedGradientDescentAttack"}

    def pgd(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        wrapped = package.PyTorchModel(model, bounds=(0, 1), device="cpu")
        attack = getattr(package.attacks, kinds[budget.norm])(
            abs_stepsize=budget.step_size, steps=budget.steps, random_start=True
        )
        return attack(wrapped, inputs, labels, epsilons=budget.eps)[1]

    yield "pgd", pgd


def stand_in(*names: str) -> None:
    """Let foolbox be imported without what its download of models needs and its attacks do not."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = MagicMock()


PEERS = {"pyautoattack": pyautoattack, "torchattacks": torchattacks, "foolbox": foolbox}


def runs(budget: Budget) -> list[tuple[str, str, Run]]:
    """Return (attack, library, run), the attacks together and certmix first; tell who is absent."""
    stand_in("git", "requests")
    found = [(name, "certmix", run) for name, run in ours(budget)]
    for library, counterparts in PEERS.items():
        try:
            package = importlib.import_module(library)
        except ImportError as error:
            print(f"{library} is skipped: {error}")
            continue
        found += [(name, library, run) for name, run in counterparts(package, budget)]
    order = [name for name, _ in ours(budget)]
    return sorted(found, key=lambda row: order.index(row[0]))


def parse() -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="cifar10-adversarial-linf")
    parser.add_argument("--norm", choices=("linf", "l2"), default="linf")
    parser.add_argument("--eps", type=lambda text: float(Fraction(text)), default=None, help="8/255 or 0.5")
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--queries", type=int, default=200, help="of square")
    parser.add_argument("--attacks", default="pgd,apgd-ce,apgd-targeted,square")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.eps = options.eps or {"linf": 8 / 255, "l2": 0.5}[options.norm]
    return options


def main() -> None:
    """Print one line an implementation."""
    options = parse()
    torch.set_num_threads(options.threads)
    data = load("cifar10-sample")
    positions = spread(len(data), options.inputs)
    inputs, labels = torch.from_numpy(stack(data, positions)), torch.from_numpy(data.labels[positions])
    model = load_model(options.model).module
    budget = Budget(options.norm, options.eps, options.steps, options.queries, options.seed)
    judge = Counted(model)
    pgd(model, inputs, labels, budget.norm, budget.eps, steps=1)  # so that no row pays for the warm-up
    with torch.no_grad():
        clean = (judge(inputs).argmax(1) == labels).double().mean().item()
    rows = [row for row in runs(budget) if row[0] in options.attacks.split(",")]
    print(f"{options.model}: {len(inputs)} inputs, clean accuracy {clean:.2f}; {budget}")
    columns = f"{'attacked accuracy':>17} {'passes/input':>13} {'CPU time':>9} {'outside':>9}"
    print(f"{'attack':14} {'library':13} {columns}")
    own: dict[str, float] = {}
    for name, library, run in rows:
        counted, begun = Counted(model), time.process_time()
        points = run(counted, inputs.clone(), labels.clone()).detach()
        seconds = time.process_time() - begun
        own.setdefault(name, seconds)
        with torch.no_grad():
            accuracy = (judge(points).argmax(1) == labels).double().mean().item()
        beyond = int((distance(points, inputs, options.norm) > options.eps).sum())
        passes = counted.evaluations / len(inputs)
        row = f"{name:14} {library:13} {accuracy:17.3f} {passes:13.1f}"
        print(f"{row} {seconds / own[name]:8.2f}x {beyond:9d}", flush=True)


if __name__ == "__main__":
    main()
