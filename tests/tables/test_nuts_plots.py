"""Figures of MixedNUTS: files, sameness, extremes, and that nothing lies outside or on top of other words."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from functools import cache

import matplotlib
import numpy as np
import pytest
from PIL import Image

from certmix.errors import ParameterError
from certmix.tables.nuts_beta_plot import BetaCurve, BetaCurves, beta_image
from certmix.tables.nuts_example_plot import ExampleCase, example_image
from certmix.tables.nuts_margin_plot import MarginBars, MarginGroup, _short, margin_bars_image
from certmix.tables.nuts_sensitivity_plot import MOST, SensitivityMaps, _panels, sensitivity_image
from certmix.tables.nuts_transform_plot import Bend, Trajectories, transform_image
from certmix.types import EstimatedAccuracy

LONG = "a $long$ title " * 20


def maps(s=3, p=4, c=2, title="h: objective", **changes):
    values = np.add.outer(np.add.outer(np.arange(s) / s, np.arange(p) / p), np.arange(c) / c) + 0.01
    chosen = (s - 1, p - 1, c // 2)
    axes = [tuple(map(float, np.linspace(1, 5, n))) if n > 1 else (2.0,) for n in (s, p, c)]
    return SensitivityMaps(
        *axes, changes.pop("values", values), chosen, "objective", title, "beta 0.9", **changes
    )


def groups(images=40):
    rng = np.random.default_rng(0)
    found = [
        MarginGroup(name, condition, rng.beta(3, 1, images), rng.beta(1, 6, images))
        for name in ("h", "M(h)")
        for condition in ("clean", "smallest margin")
    ]
    return (MarginGroup("g", "clean", rng.beta(9, 1, images), np.zeros(0)), *found)


def bars(some=None, threshold=0.01, title="h"):
    return MarginBars(groups() if some is None else some, "M(h)", threshold, title, "s 5")


def accuracy(share):
    right = round(1000 * share)
    return EstimatedAccuracy(right, 1000, (max(0.0, share - 0.03), min(1.0, share + 0.03)))


def betas(count=9, panels=1, share=None, title="g with h"):
    steps = [k / max(count - 1, 1) for k in range(count)]
    curves = tuple(
        BetaCurve(
            name, tuple(f"{t:.2g}" for t in steps),
            tuple(accuracy(0.9 - 0.2 * t - 0.03 * n if share is None else share) for t in steps),
            tuple(accuracy(0.3 + 0.2 * t if share is None else share) for t in steps),
        )
        for n, name in enumerate(("MixedNUTS", "plain mix"))
    )  # fmt: skip
    return BetaCurves({f"share {k} (%)": curves for k in range(panels)}, title, "100 images")


def bends(count=4):
    z = np.linspace(-2, 3, 50)
    return tuple(Bend(f"s {k}: $c$", z, z ** (k + 1)) for k in range(count))


def paths(count=3):
    t = np.linspace(0, 1, 30)[:, None]
    return tuple(
        Trajectories(f"p = {k}", ((1 - t) / 3 + t * np.array([0, 1, 0]), (1 - t) / 3 + t * np.eye(3)[0]))
        for k in range(count)
    )


def case(name="large margin"):
    z = np.array([1.0, -1.1, -1.0])
    p = np.exp(z) / np.exp(z).sum()
    return ExampleCase(name, ("A", "B", "C"), z, p, p, 0.5, 0.6)


HOLES = np.where(np.arange(24).reshape(3, 4, 2) % 5 == 0, np.nan, 0.5)
DRAWN = {
    "maps": lambda suffix: sensitivity_image(maps(), suffix),
    "maps of one point": lambda suffix: sensitivity_image(maps(1, 1, 1), suffix),
    "maps of 5 c": lambda suffix: sensitivity_image(maps(3, 20, 5), suffix),
    "maps with holes": lambda suffix: sensitivity_image(maps(values=HOLES, title=LONG), suffix),
    "maps of nothing": lambda suffix: sensitivity_image(maps(values=np.full((3, 4, 2), np.nan)), suffix),
    "thresholds": lambda suffix: sensitivity_image(maps(logarithmic=True), suffix),
    "thresholds of 0": lambda suffix: sensitivity_image(
        maps(values=np.zeros((3, 4, 2)), logarithmic=True), suffix
    ),
    "bars": lambda suffix: margin_bars_image(bars(), suffix),
    "bars of one image": lambda suffix: margin_bars_image(bars(groups(1), 0.0, LONG), suffix),
    "beta": lambda suffix: beta_image(betas(), suffix),
    "beta in two panels": lambda suffix: beta_image(betas(panels=2), suffix),
    "beta of one": lambda suffix: beta_image(betas(1, share=1.0, title=LONG), suffix),
    "transform": lambda suffix: transform_image(bends(), paths(), suffix),
    "example": lambda suffix: example_image([case(), case("small margin")], suffix),
}


@cache
def svg(name):
    return DRAWN[name]("svg")


@pytest.mark.parametrize("name", DRAWN)
def test_svg_files_are_well_formed(name):
    ElementTree.fromstring(svg(name))


@pytest.mark.parametrize("name", ["thresholds", "bars", "beta", "transform", "example"])
def test_figures_are_the_same_each_time(name):
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True}):
        assert DRAWN[name]("svg") == svg(name)


@pytest.mark.parametrize("name", ["maps with holes", "bars", "beta in two panels", "transform", "example"])
def test_nothing_is_cut_off(name):
    """The outermost pixels of the picture are blank."""
    pixels = np.asarray(Image.open(io.BytesIO(DRAWN[name]("png"))).convert("L"))
    edges = (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:])
    assert all((edge == 255).all() for edge in edges)
    assert (pixels < 128).any()


def words(drawn):
    return " ".join(
        "".join(one.itertext()) for one in ElementTree.fromstring(drawn).iter() if "text" in one.tag
    )


def test_maps_tell_the_chosen_point_and_what_cannot_be_chosen():
    text = words(svg("maps with holes"))
    assert "ring: chosen, s 5, p 5, c 5" in text and "grey: cannot meet beta" in text
    assert "grey" not in words(svg("maps"))
    assert text.count("c = ") == 2


@pytest.mark.parametrize("count, chosen", [(1, 0), (MOST, 3), (13, 12), (40, 20), (500, 1)])
def test_many_panels_hold_the_chosen_one(count, chosen):
    shown = _panels(count, chosen)
    assert chosen in shown and len(shown) == min(count, MOST) and shown == sorted(set(shown))
    assert set(shown) <= set(range(count))


def test_the_ring_lies_on_the_chosen_cell():
    """White surrounds the chosen cell of one panel only: its cell's middle keeps the map's colour."""
    one = maps(2, 2, 1, values=np.array([[[0.1], [0.2]], [[0.3], [0.9]]]))
    moved = SensitivityMaps(one.s, one.p, one.c, one.values, (0, 0, 0), one.name, one.title, one.subtitle)
    pictures = [
        np.asarray(Image.open(io.BytesIO(sensitivity_image(m, "png"))).convert("RGB")).astype(int)
        for m in (one, moved)
    ]
    differing = (np.abs(pictures[0] - pictures[1]).max(2) > 40)[120:]  # below the heading, whose words differ
    rows, columns = differing.nonzero()
    upper, lower = rows < rows.mean(), rows > rows.mean()
    assert columns[upper].mean() > columns[lower].mean()  # larger s and p: above, on the right


def test_betas_are_written_beside_points():
    text = words(svg("beta"))
    assert "MixedNUTS" in text and "0.5" in text and "share 0 (%)" in text


@pytest.mark.parametrize(
    "value, text", [(0.0, ".00"), (0.0049, "<.01"), (0.384, ".38"), (0.9951, "1.0"), (1.0, "1.0")]
)
def test_medians_fit_their_bars(value, text):
    assert _short(value) == text


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: sensitivity_image(maps(values=np.zeros((2, 2, 2))), "png"), "give one a point"),
        (lambda: margin_bars_image(bars(()), "png"), "at least one"),
        (lambda: beta_image(BetaCurves({}, "t"), "png"), "at least one"),
        (
            lambda: beta_image(BetaCurves({"a": (BetaCurve("m", ("1",), (), ()),)}, "t"), "png"),
            "give as many",
        ),
        (lambda: transform_image((), paths(), "png"), "at least one"),
        (lambda: transform_image(bends(), (Trajectories("x", (np.zeros((3, 4)),)),), "png"), "three classes"),
        (lambda: example_image((), "png"), "at least one"),
        (lambda: example_image([case()], "pdf"), "pdf"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message):
    with pytest.raises(ParameterError, match=message):
        call()
