"""What the transform does to logits: its curve, and two examples with three classes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from certmix.nuts.description import PUBLISHED
from certmix.nuts.grid import TransformSettings
from certmix.nuts.margins import clean_margin, transform_numpy
from certmix.studies.nuts_studies.inputs import FitCache, Inputs, Product
from certmix.tables.nuts_example_plot import ExampleCase, example_image
from certmix.tables.nuts_transform_plot import Bend, Trajectories, transform_image
from certmix.tables.table import Quantity, Table
from certmix.types import FloatArray

__all__ = ["CASES", "FIGURE_3", "study"]

CASES = {"large margin": (1.0, -1.1, -1.0), "small margin": (-1.0, 1.1, 1.0)}
"""The logits of classes A, B and C in Figure 3."""
CLASSES = ("A", "B", "C")

FIGURE_3 = TransformSettings(300.0, 4.0, -0.67)
"""Not printed in the paper; these, like some others, give every digit of its Figure 3."""

BENT = (
    ("p = 1, c = 0", TransformSettings(1.0, 1.0, 0.0)),
    ("p = 2, c = -0.67", TransformSettings(1.0, 2.0, -0.67)),
    ("p = 4, c = -0.67 (Figure 3)", FIGURE_3),
)
"""Trajectories over temperature, in which s drops out."""


def study(inputs: Inputs) -> Product:
    """Tabulate Figure 3 of the paper, and draw it, the curve of M, and Figure 4.

    References
    ----------
    Section 4.4, Figures 3 and 4, of Bai, Zhou, Patel, Sojoudi, "MixedNUTS", TMLR 2024.
    """
    logits = np.array(list(CASES.values()))
    raw, bent = _softmax(logits), _softmax(transform_numpy(logits, FIGURE_3))
    rows: list[tuple[Any, ...]] = []
    for k in range(len(CASES)):
        rows += [
            (name, Quantity(logits[k, j], 1), Quantity(raw[k, j], 3), Quantity(bent[k, j], 3))
            for j, name in enumerate(CLASSES)
        ]
        rows.append(("margin", Quantity(None, 1), *(_margin(p, k) for p in (raw, bent))))
    table = Table(
        name="nuts-transform",
        title="Three classes before and after the transform: the example of Figure 3",
        settings=f"s {FIGURE_3.s:g}, p {FIGURE_3.p:g}, c {FIGURE_3.c:g}, clamp gelu",
        headings=("class", "logit", "softmax(h)", "softmax(M(h))"),
        rows=tuple(rows),
        groups=tuple((name, len(CLASSES) + 1) for name in CASES),
        notes=(
            "margin: the largest probability less the second. The paper prints .698 for the raw "
            "large margin, the distance to the smallest class; to the runner-up it is .687.",
            "The paper does not print s, p and c of this figure; these, like some others, give all its other "
            "digits.",
            f"The figure's curve of {inputs.fit.folder.name}: {_words(_own(inputs.fit))}.",
        ),
    )
    return Product(
        table,
        {
            "nuts-transform": partial(transform_image, _bends(inputs.fit), _trajectories()),
            "nuts-example": partial(example_image, _example(logits, raw, bent)),
        },
    )


def _own(fit: FitCache) -> TransformSettings:
    return fit.fitted.fit.settings


def _words(own: TransformSettings) -> str:
    return f"s {own.s:.3g}, p {own.p:.3g}, c {own.c:.3g}, clamp {own.clamp}"


def _softmax(logits: FloatArray) -> FloatArray:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def _margin(probabilities: FloatArray, k: int) -> Quantity:
    return Quantity(float(clean_margin(np.log(probabilities[k : k + 1]))[0]), 4)


def _bends(fit: FitCache) -> tuple[Bend, ...]:
    """M of a normalised logit, as each setting has it; the identity is LN alone."""
    from certmix.nuts.margins import CLAMPS, signed_power

    at = np.linspace(-2.0, 3.0, 401)
    named = {f"{fit.folder.name} (this fit)": _own(fit), "Figure 3": FIGURE_3}
    named |= {f"{name} (paper)": PUBLISHED[name].transform for name in ("cifar10", "cifar100")}
    bends = [
        Bend(f"{name}: {_words(one)}", at, one.s * signed_power(CLAMPS[one.clamp](at + one.c), one.p))
        for name, one in named.items()
    ]
    return (Bend("LN alone: s 1, p 1, c 0, no clamp", at, at), *bends)


def _trajectories() -> tuple[Trajectories, ...]:
    """Paths of both cases on the simplex as the temperature falls from infinity to 0."""
    temperatures = np.geomspace(1e-7, 1e5, 1601)[::-1]
    found = []
    for name, settings in (("raw logits", None), *BENT):
        logits = np.array(list(CASES.values()))
        bent = logits if settings is None else transform_numpy(logits, settings)
        found.append(Trajectories(name, tuple(_softmax(one / temperatures[:, None]) for one in bent)))
    return tuple(found)


def _example(logits: FloatArray, raw: FloatArray, bent: FloatArray) -> tuple[ExampleCase, ...]:
    def margin(p: FloatArray, k: int) -> float:
        return float(_margin(p, k).value or 0.0)

    return tuple(
        ExampleCase(name, CLASSES, logits[k], raw[k], bent[k], margin(raw, k), margin(bent, k))
        for k, name in enumerate(CASES)
    )
