"""A CycloneDX 1.6 bill of materials: models, data, versions, and figures with their confidence intervals."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from certmix.assurance.facts import LETTERS, Facts
from certmix.bounds import clopper_pearson
from certmix.files import digest_of
from certmix.tables.table import Table
from certmix.tables.words import PATCH, classifier_label, deterministic, radius_heading
from certmix.text import ceil_digits, floor_digits, known, plain_decimal
from certmix.types import Summary

DIGITS = 6
"""Figures and lower ends are rounded down to these, upper ends up."""


def bom_of(facts: Facts) -> dict[str, Any]:
    """Return the bill of materials of the mix that was certified, for JSON."""
    described, request = facts.described, facts.request
    models = {role: one for role in LETTERS if (one := described["models"].get(role)) is not None}
    versions = described["versions"].items()
    libraries = [_library(name, str(number)) for name, number in versions if name != "python"]
    torch = [one["bom-ref"] for one in libraries if one["name"] == "torch"]
    tool = {"type": "application", "name": "certmix", "version": version("certmix")}
    alpha, g = plain_decimal(request.alpha), models.get("standard", {}).get("name", "any classifier")
    mix = {
        "type": "machine-learning-model", "bom-ref": "mix",
        "name": f"mix of {g} and {models['robust']['name']}, alpha {alpha}",
        "description": f"log((1 - alpha) g + alpha h), alpha = {alpha}",
        "modelCard": _card(facts),
        "properties": _properties(facts),
    }  # fmt: skip
    content = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {
            "timestamp": facts.time,
            "tools": {"components": [tool]},
            "component": mix,
        },
        "components": [
            *(_model(role, LETTERS[role], one) for role, one in models.items()),
            _data(described["data"]), *libraries,
        ],
        "dependencies": [
            {"ref": "mix", "dependsOn": [*models, "data"]},
            *({"ref": role, "dependsOn": torch} for role in models),
        ],
    }  # fmt: skip
    return {**content, "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, digest_of(content))}"}


def _model(role: str, letter: str, model: dict[str, Any]) -> dict[str, Any]:
    parts = {f"certmix:checksum of {name}": value for name, value in model["parts"].items()}
    return {
        "type": "machine-learning-model", "bom-ref": role, "name": str(model["name"]),
        "description": f"the {role} classifier {letter}", "hashes": [_hash(model["checksum"])],
        "properties": _named({"certmix:hash": "certmix's checksum of a model (docs/models.md)", **parts}),
    }  # fmt: skip


def _data(data: dict[str, Any]) -> dict[str, Any]:
    said = f"{data['inputs']:,} inputs of {len(data['class_names'])} classes, on which the mix was evaluated"
    return {
        "type": "data", "bom-ref": "data", "name": str(data["name"]), "hashes": [_hash(data["checksum"])],
        "data": [{"type": "dataset", "name": f"{data['name']}, {data['split']}", "description": said}],
        "properties": _named({"certmix:hash": "certmix's checksum of a data set (docs/data.md)"}),
    }  # fmt: skip


def _library(name: str, number: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{number.replace('+', '%2B')}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": number, "purl": purl}


def _hash(checksum: Any) -> dict[str, str]:
    return {"alg": "SHA-256", "content": str(checksum)}


def _named(values: dict[str, Any]) -> list[dict[str, str]]:
    return [{"name": name, "value": str(value)} for name, value in values.items() if value is not None]


def _properties(facts: Facts) -> list[dict[str, str]]:
    summary, data = facts.summary, facts.described["data"]
    box = data.get("input_range")
    said = {
        "certmix:result": facts.result, "certmix:result means": facts.meaning, "certmix:run": facts.name,
        "certmix:input range": "unbounded" if box is None else f"{box[0]:g} to {box[1]:g}",
        "certmix:python": facts.described["versions"].get("python"),
        "certmix:device": facts.described["device_name"],
    }  # fmt: skip
    if isinstance(summary, Table):
        said["certmix:claim"] = "; ".join([summary.title, summary.settings, *summary.notes])
    elif summary is not None:
        delta = "none: deterministic" if deterministic(summary) else summary.failure_probability
        said |= {
            "certmix:norm": summary.norm, "certmix:inputs": summary.inputs,
            "certmix:failure probability of each certificate": delta,
            "certmix:intervals": "95 %, two-sided, over inputs drawn at random, certificates taken as right",
        }  # fmt: skip
    if facts.found.claim is not None:
        said["certmix:requirements"] = "; ".join(facts.found.claim.sentences())
    return _named(said)


def _card(facts: Facts) -> dict[str, Any]:
    data = facts.described["data"]
    classes = ", ".join(map(str, data["class_names"][:20])) + (
        ", ..." if len(data["class_names"]) > 20 else ""
    )
    return {
        "modelParameters": {
            "task": "classification",
            "datasets": [{"ref": "data"}],
            "outputs": [{"format": f"class, one of {len(data['class_names'])}: {classes}"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": list(_metrics(facts))},
        "considerations": {
            "technicalLimitations": [
                re.sub("[`*]", "", f"not guaranteed: {one.what} ({one.why})") for one in facts.limits
            ]
        },
    }


def _metrics(facts: Facts) -> Iterator[dict[str, Any]]:
    """Yield the figures of a run that no check contradicts, and those that requirements were held against."""
    if isinstance(facts.summary, Summary):
        yield from _table_metrics(facts.summary)
    elif facts.summary is not None and (claim := facts.summary.data):
        told = f"share of the population ({claim['population']}) that is right and certified"
        least = float(claim["lower_bound"])
        yield _metric(
            f"{told} at {facts.norm} radius {radius_heading(claim['radius'])}, at least", least, least
        )
    for one in facts.found.judgements:
        if known(one.value):
            found = _metric(f"requirement {one.requirement}: {one.outcome}", one.value, one.lower)
            group = one.requirement.group
            yield found | ({} if group is None else {"slice": f"{group} {one.requirement.member}"})


def _table_metrics(summary: Summary) -> Iterator[dict[str, Any]]:
    standard, unit = "standard (g)", "patch" if summary.norm == PATCH else f"{summary.norm} radius"
    clean: dict[str, float | None] = {standard: summary.clean_accuracy.standard}
    for row in summary.rows:
        who = classifier_label(row, summary.alpha)
        clean.setdefault(who, row.clean_accuracy)
        about = f"{who}, certificate {row.certificate}"
        for radius, share, ends in zip(summary.radii, row.certified_accuracy, row.interval, strict=True):
            where = f"{unit} {radius_heading(radius, summary.norm)}"
            yield _metric(f"certified accuracy at {where}: {about}", share, *ends)
        if known(row.mean_certified_radius):
            told, interval = f"mean certified {unit}: {about}", row.mean_radius_interval or ()
            yield _metric(told, row.mean_certified_radius, *interval)
    for who, accuracy in clean.items():
        if accuracy is not None:
            kind = "" if deterministic(summary) or who == standard else ", estimated from votes"
            low, high = clopper_pearson.interval([round(accuracy * summary.inputs)], summary.inputs)
            yield _metric(f"clean accuracy{kind}: {who}", accuracy, float(low[0]), float(high[0]))


def _metric(told: str, value: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    ends = {"lowerBound": (low, floor_digits), "upperBound": (high, ceil_digits)}
    interval = {name: rounded(end, DIGITS) for name, (end, rounded) in ends.items() if known(end)}
    shown = {"confidenceInterval": interval} if interval else {}
    return {"type": told, "value": floor_digits(value, DIGITS), **shown}
