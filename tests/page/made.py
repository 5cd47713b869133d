"""Runs as a page takes them, made of a few numbers: no folder, no model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from certmix.certification.evaluate import table_row
from certmix.page.gallery import Inputs
from certmix.page.runs import Certified, Run, Weight
from certmix.tables.table import Table
from certmix.types import (
    AttackedAccuracy,
    CertifiedRadii,
    CertifiedShare,
    CleanAccuracy,
    EstimatedAccuracy,
    Status,
    Summary,
)

COLUMNS = (0.0, 0.25, 0.5, 1.0)
HOSTILE = "<script>document.title='taken'</script>\"'&</title><img src=x onerror=alert(1)>"


def make_certified(count: int = 40, alpha: float = 0.76, seed: int = 0, **changes: Any) -> Certified:
    """Return a certification of `count` inputs with random radii; h's are twice the mix's, which shrink with alpha."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    predicted = np.where(rng.random(count) < 0.8, labels, (labels + 1) % 3)
    mixed = np.where(rng.random(count) < 0.75, rng.random(count) * 0.7, 0.0)
    radii = (2 * mixed, mixed, mixed / 2)
    status = tuple(np.where(r > 0, Status.CERTIFIED, Status.ABSTAIN).astype(np.int64) for r in radii)
    inputs = Inputs(np.arange(count) * 7, labels, [predicted] * len(radii), radii, status)
    norm, certificate = changes.get("norm", "l2"), changes.pop("certificate", None)
    plan = [("robust", "exact"), ("mixed", "exact"), ("mixed", "smoothing")]
    rows = tuple(
        table_row(name, CertifiedRadii(certificate or one, norm, 0.5, alpha, r, s), inputs.right(0), COLUMNS)
        for (name, one), r, s in zip(plan, radii, status, strict=True)
    )
    delta = changes.pop("failure_probability", 0.001)
    about: dict[str, Any] = {
        "data": "points", "standard": "accurate", "robust": "noisy", "samples": 1000, "goal": "fixed",
        "planned_inputs": count, **changes,
    }  # fmt: skip
    summary = Summary(0.5, alpha, count, delta, COLUMNS, CleanAccuracy(0.9, 0.7, 0.8), rows, **about)
    weights = (Weight(alpha, radii, 0.8), Weight(1.0, (radii[0], mixed * 2, mixed), 0.7))
    return Certified(summary, inputs, weights, (("bound", "clopper-pearson"),), ((100, 0.25), (200, 0.125)))


def make_run(name: str = "run", certified: Certified | None = None, **changes: Any) -> Run:
    """Return a certification run."""
    card = dict(index=7, label="cat", predicted="dog", outcome="wrong class", votes="12 of 20", png=None)
    pictures = {"groups": [{"title": "Not certified", "note": "1 of 40", "cards": [card]}], "note": ""}
    values: dict[str, Any] = {
        "study": "certify", "tables": (), "plots": (), "gallery": pictures, "parameters": (("noise level", "0.5"),),
        "provenance": (("seed", "0"),), "data_checksum": "a" * 64, "commands": (("This page", f"certmix report {name}"),),
    }  # fmt: skip
    return Run(name=name, certified=certified or make_certified(), **{**values, **changes})


def make_study(name: str = "study", text: str = "PGD") -> Run:
    """Return an empirical study with every kind of figure; `text` stands in all of its words."""
    ends, facts = (0.25, 0.75), ((text, text),)
    rows = (
        (text, EstimatedAccuracy(90, 100, ends), AttackedAccuracy(40, 100, ends)),
        ("h", EstimatedAccuracy(70, 100, ends), CertifiedShare(50, 100, ends)),
    )
    groups = ((text, 1), ("rest", 1))
    table = Table("mine", text, text, ("model", "clean", text), rows, (text,), complete=False, groups=groups)
    return Run(name, text, (table,), ((text, b"<svg/>"),), None, {}, facts, facts, text, facts)


def hostile_run() -> Run:
    """Return a run all of whose words are an attack on the page."""
    names = dict.fromkeys(("data", "standard", "robust", "bound"), HOSTILE)
    certified = make_certified(**names, notes=(HOSTILE,))
    card = dict(index=1, png="iVBORw==", label=HOSTILE, outcome=HOSTILE, votes=HOSTILE, predicted="x")
    pictures = {"groups": [{"title": HOSTILE, "note": HOSTILE, "cards": [card]}], "note": HOSTILE}
    facts = ((HOSTILE, HOSTILE),)
    return make_run(
        HOSTILE, replace(certified, split=facts), parameters=facts, provenance=facts, data_checksum=HOSTILE,
        gallery=pictures, commands=facts,
    )  # fmt: skip
