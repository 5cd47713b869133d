"""Runs as a page takes them, made of a few numbers: no folder, no model."""

from __future__ import annotations

from typing import Any

import numpy as np

from certmix.certification.evaluate import table_row
from certmix.page import CertifiedRun, Command, Group, Images, Result, Shown, StudyRun
from certmix.page.values import Table
from certmix.types import CertifiedRadii, CleanAccuracy, Status, Summary

COLUMNS = (0.0, 0.25, 0.5, 1.0)
HOSTILE = "<script>document.title='taken'</script>\"'&</title><img src=x onerror=alert(1)>"


def make_result(count: int = 40, alpha: float = 0.76, seed: int = 0, **changes: Any) -> Result:
    """Return a result of `count` images with random radii; h's are twice the mix's."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    predicted = np.where(rng.random(count) < 0.8, labels, (labels + 1) % 3)
    mixed = np.where(rng.random(count) < 0.75, rng.random(count) * 0.7, 0.0)
    radius = np.stack([2 * mixed, mixed, mixed / 2])
    status = np.where(radius > 0, Status.CERTIFIED, Status.ABSTAIN).astype(np.int64)
    images = Images(np.arange(count) * 7, labels, predicted, radius, status)
    norm = changes.get("norm", "l2")
    plan = [("robust", "exact"), ("mixed", "exact"), ("mixed", "smoothing")]
    plan = [(name, changes.get("certificate", certificate)) for name, certificate in plan]
    rows = tuple(
        table_row(name, CertifiedRadii(certificate, norm, 0.5, alpha, r, s), images.right, COLUMNS)
        for (name, certificate), r, s in zip(plan, radius, status, strict=True)
    )
    about: dict[str, Any] = {
        "data": "points", "standard": "accurate", "robust": "noisy", "samples": 1000, "goal": "fixed",
        "planned_images": count,
    }  # fmt: skip
    about.update({key: value for key, value in changes.items() if key != "certificate"})
    delta = about.pop("failure_probability", 0.001)
    summary = Summary(0.5, alpha, count, delta, COLUMNS, CleanAccuracy(0.9, 0.7, 0.8), rows, **about)
    return Result(f"alpha{alpha:g}", summary, images)


def make_run(name: str = "run", *results: Result, **changes: Any) -> CertifiedRun:
    """Return a run of these results, by default of one."""
    shown = Shown(7, "cat", "dog", "wrong class", "12 of 20 votes, cat 5", None)
    values: dict[str, Any] = {
        "study": "certify", "parameters": (("noise level", "0.5"),), "provenance": (("seed", "0"),),
        "split": (("bound", "clopper-pearson"),), "looks": ((100, 0.25), (200, 0.125)),
        "data_checksum": "a" * 64, "gallery": (Group("Not certified", "1 of 40", (shown,)),),
        "gallery_note": "", "commands": (Command("This page", f"certmix report {name}"),),
    }  # fmt: skip
    return CertifiedRun(name=name, results=results or (make_result(),), **{**values, **changes})


def make_study(name: str = "study", text: str = "PGD") -> StudyRun:
    """Return an empirical study with every kind of figure; `text` stands in all of its words."""
    rows = (
        ((text, ""), ("90.0 [85.0, 95.0]", "estimate"), ("40.0 [35.0, 45.0]", "attacked")),
        (("h", ""), ("70.0 [65.0, 75.0]", "estimate"), ("50.0 [45.0, 55.0]", "certified")),
    )
    table = Table(
        text,
        text,
        ("model", "clean", text),
        (False, True, True),
        rows,
        (text,),
        False,
        ((text, 1), ("rest", 1)),
    )
    return StudyRun(name, text, (table,), ((text, b"<svg/>"),), ((text, text),), ((text, text),), ())


def hostile_run() -> CertifiedRun:
    """Return a run all of whose words are an attack on the page."""
    result = make_result(data=HOSTILE, standard=HOSTILE, robust=HOSTILE, bound=HOSTILE, notes=(HOSTILE,))
    shown = Shown(1, HOSTILE, HOSTILE, HOSTILE, HOSTILE, b"\x89PNG")
    facts = ((HOSTILE, HOSTILE),)
    return make_run(
        HOSTILE, result, make_result(alpha=0.9, goal=HOSTILE), parameters=facts, provenance=facts, split=facts,
        data_checksum=HOSTILE, gallery=(Group(HOSTILE, HOSTILE, (shown,)),), gallery_note=HOSTILE,
        commands=(Command(HOSTILE, HOSTILE),),
    )  # fmt: skip
