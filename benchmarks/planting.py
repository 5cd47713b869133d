# mypy: disable-error-code="misc, func-returns-value"
"""Faults planted in runs of a small linear model, and whether `certmix verify` finds them."""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import forged
import numpy as np
from planted import TAMPERED, WRONG

from certmix.bounds import bound_counts
from certmix.errors import CertmixError
from certmix.verification.checks import Outcome
from certmix.verification.request import VerifyRequest
from certmix.verification.verify import verify

HONEST = "nothing"


@dataclass(frozen=True)
class Planted:
    """A place where a fault is planted: a copy of an honest run, one of its inputs, and chance."""

    run: Path
    folder: Path
    input: int
    samples: int
    rng: np.random.Generator


@dataclass(frozen=True)
class Fault:
    """How a fault is planted, whether certmix makes its tables anew then, and what is wrong in certmix."""

    plant: Callable[[Planted], object] = lambda planted: None
    published: bool = False
    wrong: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass
class Seen:
    """How often a fault was found, by which checks, and how often something could not be checked instead."""

    seeds: int = 0
    caught: int = 0
    unchecked: int = 0
    by: Counter[str] = field(default_factory=Counter)


def _better(share: float) -> Callable[[Planted], object]:
    """Give the selected class this share of all other votes, of all inputs."""

    def edit(selection: dict[str, int], looks: dict[str, Any]) -> None:
        top = max(selection, key=lambda label: selection[label])
        for votes in (selection, *looks.values()):
            forged.inflate(votes, share, top)

    return lambda planted: forged.edit_counts(planted.run, edit)


def _swapped(planted: Planted) -> None:
    """Exchange the counts of two inputs of different classes."""
    by_class: dict[int, list[int]] = {}
    for index, record in forged.records(planted.run).items():
        by_class.setdefault(record.selected, []).append(index)
    forged.swap(planted.run, *(int(planted.rng.choice(several)) for several in list(by_class.values())[:2]))


def _model(planted: Planted, agreeing: bool = False) -> None:
    """Move the decision boundary of the model; `agreeing`: run.json has its checksum."""
    path = planted.folder / "nets.py"
    path.write_text(path.read_text().replace("-0.8, 0.8, 0.8", "-0.7, 0.8, 0.8"))
    if agreeing:
        from certmix.models.spec import load_model

        checksum = load_model(f"{path}:linear").checksum

        def edit(d: dict[str, Any]) -> None:
            d["identity"]["robust_checksum"] = checksum
            for role in ("robust", "standard"):
                d["models"][role]["checksum"] = checksum

        forged.edit_json(planted.run / "run.json", edit)


def _data(planted: Planted, what: str, agreeing: bool = False) -> None:
    """Change an input by 0.01, or a label; `agreeing`: run.json has the new checksum."""
    path = planted.folder / "points.npz"
    with np.load(path) as stored:
        held = {name: stored[name].copy() for name in stored.files}
    if what == "inputs":
        held["inputs"][planted.input, 0] += 0.01 if held["inputs"][planted.input, 0] < 0.5 else -0.01
    else:
        held["labels"][planted.input] = (held["labels"][planted.input] + 1) % 3
    np.savez(path, **held)
    if agreeing:
        from certmix.data import load

        checksum = load(path).checksum

        def edit(d: dict[str, Any]) -> None:
            d["data"]["checksum"] = d["identity"]["data_checksum"] = checksum

        forged.edit_json(planted.run / "run.json", edit)


def _table(planted: Planted) -> None:
    """Raise one figure of the table in the folder by one input."""

    def edit(d: dict[str, Any]) -> None:
        shares = d["rows"][planted.rng.integers(len(d["rows"]))]["certified_accuracy"]
        shares[planted.rng.integers(len(shares))] += 1 / d["inputs"]

    forged.edit_json(planted.run / "certified-accuracy.json", edit)


def _log(planted: Planted) -> None:
    """Raise the radius of an input in the log in the folder."""
    path = planted.run / "records.tsv"
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    line = lines[1 + planted.rng.integers(len(lines) - 1)]
    line[3] = f"{float(line[3]) + 0.01:.6f}"
    path.write_text("".join("\t".join(line) + "\n" for line in lines))


def _evaluation(wrong: Callable[..., Any]) -> Fault:
    return Fault(wrong=lambda: patch("certmix.certification.publish.evaluate", wrong))


def _loose_bound(*given: Any, **named: Any) -> Any:
    """Bound the probability of the selected class a ten-thousandth too high."""
    found = bound_counts(*given, **named)
    object.__setattr__(found, "p_lower", np.minimum(found.p_lower + 1e-4, 1.0))
    return found


def consistent(samples: int) -> dict[str, Fault]:
    """Return changes of counts of which certmix makes tables anew: only samples drawn again can tell."""

    def more(share: float, after: int = 0, one: bool = False) -> Fault:
        def plant(planted: Planted) -> None:
            forged.more_votes(planted.run, share, after, [planted.input] if one else None)

        return Fault(plant, published=True)

    half = samples // 2
    return {
        "all other votes to the selected class": Fault(_better(1.0), published=True),
        "3 % more votes everywhere": more(0.03),
        "1 % more votes everywhere": more(0.01),
        f"3 % more votes after sample {half:,}": more(0.03, half),
        "two inputs swapped": Fault(_swapped, published=True),
        "3 % more votes of one input": more(0.03, one=True),
        f"3 % more votes of one input after sample {half:,}": more(0.03, half, one=True),
    }


def faults(samples: int) -> dict[str, Fault]:
    """Return all faults by their names; the first is none."""
    return {
        HONEST: Fault(),
        **{
            f"numbers: {name}": Fault(lambda planted, plant=plant: plant(planted.run, planted.input))
            for name, (plant, *_) in TAMPERED.items()
        },
        **{f"counts, published anew: {name}": fault for name, fault in consistent(samples).items()},
        "derived: bounds too high by 0.0001": Fault(
            wrong=lambda: patch("certmix.certification.stopping.bound_counts", _loose_bound)
        ),
        **{
            f"derived: {check}{f' {k}' if k > 1 else ''}": _evaluation(wrong)
            for check, several in WRONG.items()
            for k, wrong in enumerate(several, 1)
        },
        "model: its bias, since the run": Fault(_model),
        "model: its bias, checksums agree": Fault(partial(_model, agreeing=True)),
        "data: an input moved by 0.01": Fault(partial(_data, what="inputs")),
        "data: an input moved by 0.01, checksum agrees": Fault(partial(_data, what="inputs", agreeing=True)),
        "data: a label": Fault(partial(_data, what="labels")),
        "data: a label, checksum agrees": Fault(partial(_data, what="labels", agreeing=True)),
        "folder: a figure of certified-accuracy.json": Fault(_table),
        "folder: a radius in records.tsv": Fault(_log),
    }  # fmt: skip


def plant(
    names: list[str],
    seeds: range,
    scratch: Path,
    *,
    inputs: int,
    samples: int,
    goal: str,
    asked: VerifyRequest,
    seconds: float = math.inf,
) -> dict[str, Seen]:
    """Return what verify finds of each fault, in a run of its own a seed; no seed begins too late."""
    known, seen, end = faults(samples), {name: Seen() for name in names}, time.monotonic() + seconds
    drawn = ("curves.image", "fronts.image")  # plots take seconds, and faults are in what they draw
    one, other = (patch(f"certmix.tables.{name}", lambda *given: b"") for name in drawn)
    with one, other:
        for number in seeds:
            if time.monotonic() > end:
                break
            folder = scratch / "now"
            rng = np.random.default_rng(number)
            named = _points(folder, inputs, number)
            options = {
                **named,
                "sigma": 0.25,
                "samples": samples,
                "goal": goal,
                "inputs": "all",
                "seed": number,
            }
            honest = forged.certified(folder / "run", {}, **options)
            shutil.copytree(folder, scratch / "honest")
            several = [
                index for index, record in forged.records(honest).items() if len(record.estimation) > 1
            ]
            for name in names:
                shutil.rmtree(folder)
                shutil.copytree(scratch / "honest", folder)
                fault = known[name]
                fault.plant(Planted(honest, folder, int(rng.choice(several)), samples, rng))
                if fault.published:
                    forged.certified(honest, {}, **options)
                with fault.wrong():
                    _found(seen[name], honest, asked.replace(new_seed=10**6 + number))
            shutil.rmtree(scratch / "honest")
            shutil.rmtree(folder)
    return seen


def _points(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Write points, some near the boundary, and a linear model; return them as options."""
    named = forged.sources(folder)
    inputs = np.random.default_rng(seed).random((count, 2)).astype(np.float32)
    scores = np.stack([4 * inputs[:, 0] - 0.8, 0.8 - 4 * inputs[:, 0] + inputs[:, 1]], 1)
    np.savez(folder / "points.npz", inputs=inputs, labels=scores.argmax(1), class_names=list("abc"))
    return named


def _found(seen: Seen, run: Path, asked: VerifyRequest) -> None:
    """Verify a run, with samples drawn again where nothing else has failed, and count."""
    seen.seeds += 1
    try:
        found = verify(run, asked.replace(resample=0))
        if found.outcome is not Outcome.FAILS:
            found = verify(run, asked)
    except CertmixError:
        seen.unchecked += 1
        return
    failing = [one.check for one in found.checks if one.outcome is Outcome.FAILS]
    seen.caught += bool(failing)
    seen.unchecked += found.outcome is Outcome.UNCHECKED
    seen.by.update(failing)
