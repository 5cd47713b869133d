"""A run's description as names and values, and the commands that make it again.  No torch."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from certmix.bounds import BOUNDS
from certmix.certification.request import GOALS
from certmix.certification.unfinished import repeat_command
from certmix.page import Command
from certmix.page.values import Facts
from certmix.runs.identity import CERTIFY
from certmix.sampling.passes import PARTLY
from certmix.sampling.schedule import looks, share
from certmix.tables.words import radius_heading
from certmix.text import plain_decimal

__all__ = ["commands", "looks_of", "parameters", "provenance", "split_of", "without_folders"]

NAMES = {
    "sigma": "noise level \u03c3", "alpha": "mixing weight \u03b1", "eps": "attack radius", "bound": "bound",
    "samples": "most samples an image", "certificates": "certificates", "radii": "radii of the table",
}  # fmt: skip
SPLIT = {
    "p": "lower bound p of the chosen class",
    "q": "upper bound q of every other class",
    "own": "distribution of the chosen class",
    "each rival": "distribution of each rival",
    "rest": "all other classes together",
}
ONLY_SOFT, ONLY_PRECISE = ("temperature",), ("relative_precision",)
"""What the command line takes where an option is not given."""


def without_folders(value: str) -> str:
    """Return text with the folders of absolute paths left out: a page may be shown to others.

    Examples
    --------
    >>> without_folders("/home/me/nets.py:linear"), without_folders("nuts:/a/b#g")
    ('nets.py:linear', 'nuts:b#g')
    """
    return re.sub(r"(^|(?<=nuts:))(?:[A-Za-z]:)?[/\\](?:[^/\\#]*[/\\])*", "", value)


def parameters(described: dict[str, Any], norm: str | None) -> Facts:
    """Return what was asked for; parameters that had no effect are left out."""
    request = dict(described["request"])
    gone = set() if request.get("scores") == "soft" else {*ONLY_SOFT}
    gone |= set() if request.get("goal") == "radius" else {*ONLY_PRECISE}
    gone |= {"batch_size", "seed", "precision", "save"}
    facts = [(NAMES.get(k, k.replace("_", " ")), _shown(k, v)) for k, v in request.items() if k not in gone]
    if norm is not None and "norm" not in request:
        facts.append(("norm", norm))
    return tuple((name, value) for name, value in facts if value)


def _shown(name: str, value: Any) -> str:
    """Return a parameter in print, empty where it was not given."""
    if value is None:
        return ""
    if name == "goal" and value in GOALS:
        return f"{value}: {GOALS[value]}"
    if name in ("radii", "eps") or name.endswith("radius"):
        return ", ".join(map(_radius, value if isinstance(value, list) else [value]))
    return _plain(value)


def _radius(value: float) -> str:
    return radius_heading(value).removeprefix(">= ").removeprefix("> ")


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return plain_decimal(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return without_folders(str(value))


def provenance(described: dict[str, Any]) -> Facts:
    """Return data, models, seed, device and versions."""
    data, request = described["data"], described["request"]
    box = data.get("input_range")
    facts = [
        ("data", f"{data['name']}, {data['split']}, {data['inputs']:,} inputs"),
        ("input range", "unbounded" if box is None else f"{box[0]:g} to {box[1]:g}"),
        ("data checksum", data["checksum"]),
    ]
    for role, letter in (("standard", "g"), ("robust", "h")):
        model = described["models"].get(role)
        facts.append((f"{role} ({letter})", "none" if model is None else without_folders(str(model["name"]))))
        if model is not None:
            facts.append((f"{role} checksum", str(model["checksum"])))
    if isinstance(noise := described.get("noise"), dict):
        step, eps = _plain(noise.get("steps_per_unit")), _plain(noise.get("eps"))
        told = f"multiples of 1/{step}, law within {eps} of the Gaussian's"
        facts.append(("noise", told))
    if isinstance(independent := described.get("rows_independent"), bool):
        facts.append(("rows of a batch", "independent" if independent else "averaged over their places"))
    facts += [
        (name, _plain(value))
        for name, value in (("seed", request.get("seed")), ("precision", request.get("precision")))
        if value is not None
    ]
    facts.append(("device", f"{described['device']} ({described['device_name']})"))
    if how := described.get("compiled"):
        facts.append(("model", f"{'partly ' if how == PARTLY else ''}compiled by torch.compile"))
    facts.append(("models", "not checked for this page (certmix verify compares them with the run)"))
    facts += [(name, str(number)) for name, number in described["versions"].items()]
    return tuple(facts)


def split_of(described: dict[str, Any]) -> Facts:
    """Return how one image's failure probability is divided."""
    found = described["failure_budget"]
    parts = [(SPLIT.get(name, name), plain_decimal(value)) for name, value in found["split"].items()]
    return (("bound", str(found["bound"])), *parts)


def looks_of(described: dict[str, Any]) -> tuple[tuple[int, float], ...]:
    """Return the looks up to the most samples and their shares; none where bounds hold at all at once."""
    request = described["request"]
    time_uniform = BOUNDS[request["bound"]].time_uniform
    if described["failure_budget"]["looks"] is None or time_uniform:
        return ()
    return tuple((samples, share(k)) for k, samples in enumerate(looks(request["samples"])))


def commands(described: dict[str, Any], name: str, study: str) -> tuple[Command, ...]:
    """Return the commands that make the run and its products again."""
    run, lines = shlex.quote(name), []
    certified = study == CERTIFY or study.startswith("certify-")
    if certified and not described["sources"].get("objects"):
        lines.append(Command("The run itself (paths are shortened to their last part)", _certify(described)))
    if certified:
        lines.append(Command("Run it again and compare image by image", f"certmix reproduce {run}"))
        lines.append(Command("Look for what would change a table", f"certmix audit {run}"))
    if study == CERTIFY:
        words = "Another mixing weight, without sampling"
        lines.append(Command(words, f"certmix recertify {run} --alpha 0.9"))
    return (*lines, Command("This page", f"certmix report {run}"))


def _certify(described: dict[str, Any]) -> str:
    words = shlex.split(repeat_command(Path("run"), described))[:-2]
    return shlex.join(map(without_folders, words))
