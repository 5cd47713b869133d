"""Faults that certmix verify must find: in the folder of a run, and in what the product derives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from forged import edit_counts, edit_json, edit_record, edit_vectors, records, sql

from certmix.certification.evaluate import evaluate

Plant = Callable[[Path, int], object]
"""Plants a fault in the folder of a run, where it needs an input in this one."""


def counts(edit: Callable[[Any, Any], object]) -> Plant:
    """Change the counts of the input."""
    return lambda run, input: edit_counts(run, edit, [input])


def described(edit: Callable[[Any], object]) -> Plant:
    """Change run.json."""
    return lambda run, input: edit_json(run / "run.json", edit)


def recorded(**changes: Any) -> Plant:
    """Change the record of the input."""
    return lambda run, input: edit_record(run, input, **changes)


def moved(selection: Any, looks: Any) -> None:
    looks["250"] = looks.pop("200")
    top = max(looks["250"], key=looks["250"].get)
    looks["250"][top] += 50


def one_more(_: Any, looks: Any) -> None:
    looks["200"]["0"] = looks["200"].get("0", 0) + 1


def other_standard(run: Path, input: int) -> None:
    [cell] = [name for (name,) in sql(run, "SELECT DISTINCT cell FROM cells WHERE cell GLOB 'standard *'")]
    edit_vectors(run, cell, lambda row: np.array([0.2, 0.8, 0.0]), [input])


def checksums(of: str) -> Plant:
    def edit(d: dict[str, Any]) -> None:
        (d["data"] if of == "data" else d["models"][of])["checksum"] = "0" * 64
        d["identity"][f"{of}_checksum"] = "0" * 64

    return described(edit)


TAMPERED = {
    "a count that does not add up": (counts(one_more), "counts", "votes of 200 samples add up to 201"),
    "fewer votes": (counts(lambda _, looks: looks.update({"100": {"0": 95, "1": 5}, "200": {"0": 199, "1": 1}})),
                    "counts", "fewer votes"),
    "selection": (counts(lambda votes, _: votes.update({"0": votes.get("0", 0) + 7})),
                  "counts", "selection adds up"),
    "data checksum": (checksums("data"), "data checksum", "run.json says 000"),
    "model checksum": (checksums("robust"), "robust model checksum", "is not the model of the run"),
    "input checksum": (recorded(input_checksum="0" * 64), "input checksums", "is not what the run stored"),
    "no noise": (recorded(noise_error=0.0), "noise", "the noise's error is"),
    "nothing lost": (recorded(lost=1e-12), "noise", "from the grid"),
    "other noise": (described(lambda d: d["noise"].update(fingerprint="0" * 16)), "noise", "has the fingerprint"),
    "coordinates": (described(lambda d: d["noise"].update(coordinates=1)), "noise", "run.json says otherwise"),
    "split": (described(lambda d: d["failure_budget"].update(split={"p": 0.001, "q": 0.001})),
              "failure budget", "splits it as"),
    "other rows": (described(lambda d: d["failure_budget"].update(other_rows={"gate 0.6": 7})),
                   "failure budget", "rows behind other gates"),
    "no schedule": (described(lambda d: d["failure_budget"].update(looks=None)), "failure budget", "looks = None"),
    "failure probability": (described(lambda d: d["request"].update(failure_probability=0.1)),
                            "failure budget", "the request 0.1"),
    "another look": (counts(moved), "look schedule", "250 samples, which is no look"),
    "a look left out": (counts(lambda _, looks: looks.pop("100")), "look schedule", "lacks its look at 100"),
    "fixed": (described(lambda d: d["request"].update(goal="fixed", samples=1000)),
              "fixed design", "sequential looks"),
    "sigma": (described(lambda d: d["request"].update(sigma=0.5)), "identity", "identity says sigma = 0.25"),
    "dimension": (described(lambda d: d["request"].update(norm="linf", dimension=1)),
                  "data checksum", "have the dimension 2, run.json says 1"),
    "label": (lambda run, input: edit_record(run, input, label=(records(run)[input].label + 1) % 3),
              "labels", "the run says"),
    "an input too many": (lambda run, input: sql(run, "INSERT INTO cells SELECT cell, 99, dtype, data "
                                                      "FROM cells WHERE idx = ?", input), "labels", "input 99 is stored"),
    "standard outputs": (other_standard, "standard model logits", "is not the model of the run"),
}  # fmt: skip
"""Fault -> how it is planted in a run of several looks, the check that must fail, and what it must say."""


def product(radii: Any, summary: Any, **changes: Any) -> Callable[..., Any]:
    """The product's evaluation with another first radius and other figures in its table."""

    def wrong(*given: Any, **named: Any) -> Any:
        found = evaluate(*given, **named)
        rows, kept = list(found.summary.rows), list(found.radii)
        for place, change in radii.items():
            first = kept[place].radius.copy()
            first[np.argmax(first)] += change
            kept[place] = replace(kept[place], radius=first)
        for place, change in summary.items():
            rows[place] = replace(rows[place], **change(rows[place]))
        told = replace(found.summary, rows=tuple(rows), **{k: v(found.summary) for k, v in changes.items()})
        return replace(found, outcomes=replace(found.outcomes, radii=tuple(kept)), summary=told)

    return wrong


WRONG: dict[str, list[Callable[..., Any]]] = {
    "radii": [product({0: 1e-6}, {}), product({1: 1e-6}, {})],
    "certified accuracy": [
        product({}, {1: lambda row: {"certified_accuracy": (1.0, *row.certified_accuracy[1:-1], 0.1)}})
    ],
    "intervals": [product({}, {0: lambda row: {"interval": ((0.99, 1.0), *row.interval[1:])}})],
    "mean radii": [
        product({}, {2: lambda row: {"mean_certified_radius": row.mean_certified_radius * (1 + 1e-5)}})
    ],
    "clean accuracy": [
        product({}, {}, clean_accuracy=lambda summary: replace(summary.clean_accuracy, mixed=0.05))
    ],
    "records": [
        product({}, {}, abstained=lambda summary: summary.abstained + 1),
        product({}, {}, mean_samples=lambda summary: summary.mean_samples - 1),
    ],
}
"""Check -> evaluations that it must find wrong."""
