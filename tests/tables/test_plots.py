"""Every figure: one checker (files, sameness, edges, text); then what each of them shows."""

import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from tables.conftest import TRADE_OFF, make_run

from certmix.errors import ParameterError, RunError
from certmix.tables import plot_certified_accuracy
from certmix.tables.curves import coinciding, curve_plot, probability_plot, trade_off_image
from certmix.tables.figure import COLOURS, survival_steps
from certmix.tables.fronts import certified_fronts, draw_fronts
from certmix.tables.nuts_plots import (
    beta_image,
    example_image,
    margin_bars_image,
    sensitivity_image,
    transform_image,
)
from certmix.tables.study_plots import (
    gaps_image,
    lipschitz_image,
    sweep_image,
    trust_image,
)
from certmix.types import AttackedAccuracy, Curve, EstimatedAccuracy

MANY = tuple(k / 20 for k in range(21))
NAMES = ("clean", "STD attack", "ROB attack", "MIX attack", "worst case")
NONE = np.zeros(0)
LONG = "a $long$ title " * 30
WORDLESS = "path/" * 80
MARKUP = "$\\frac$ <b> \u6f22 \x1b \udc80"


def accuracy(share: float, kind: type[EstimatedAccuracy] = EstimatedAccuracy) -> EstimatedAccuracy:
    return kind(round(1000 * share), 1000, (max(0.0, share - 0.03), min(1.0, share + 0.03)))


NOBODY = EstimatedAccuracy(0, 0, (0.0, 1.0))


def sweep(alphas: tuple[float, ...] = MANY, share: float | None = None, title: str = "data: g with h"):
    lines = {
        name: [
            accuracy(share if share is not None else 0.9 - 0.15 * k * (1 - a), AttackedAccuracy if k else EstimatedAccuracy)
            for a in alphas
        ]
        for k, name in enumerate(NAMES)
    }  # fmt: skip
    return partial(sweep_image, alphas, lines, title=title, subtitle="pgd, 1,000 inputs")


def trust(*balls, alphas: tuple[float, ...] = MANY, share: float | None = None):
    """Panels of these titles, norms and radii."""
    curves = {}
    for t, name in enumerate(("constant", "gradient", "max-gradient", "gradient-ratio")):
        for f, form in enumerate(("probabilities", "logits")):
            bent = [a ** (1 + 0.4 * t + 0.2 * f) for a in alphas]
            clean = [accuracy(0.95 - 0.15 * u**2 if share is None else share) for u in bent]
            curves[name, form] = (
                clean,
                [accuracy(0.5 * u if share is None else share, AttackedAccuracy) for u in bent],
            )
    panels = {title: (*ball, curves) for title, *ball in balls or [("pgd, 1,000 inputs", "linf", 8 / 255)]}
    return partial(trust_image, alphas, panels)


def gaps(title: str = "pgd, 1,000 inputs"):
    rng = np.random.default_rng(0)
    panels = {
        ("g", "clean"): (rng.beta(9, 0.3, 95), rng.beta(2, 1.5, 5)),
        ("h", "clean"): (rng.beta(2, 1, 80), rng.beta(1, 3, 20)),
        ("g", "pgd attack"): (NONE, np.ones(100)),
        ("h", "pgd attack"): (rng.beta(1.5, 1.5, 50), rng.beta(1, 3, 50)),
    }
    return partial(gaps_image, panels, title=title)


def maps(s=3, p=4, c=2, title="h: objective", chosen=None, **changes):
    values = np.add.outer(np.add.outer(np.arange(s) / s, np.arange(p) / p), np.arange(c) / c) + 0.01
    axes = [tuple(map(float, np.linspace(1, 5, n))) if n > 1 else (2.0,) for n in (s, p, c)]
    return partial(
        sensitivity_image, axes, changes.pop("values", values), chosen or (s - 1, p - 1, c // 2),
        name="objective", title=title, subtitle="beta 0.9", **changes,
    )  # fmt: skip


def bars(inputs=40, threshold=0.01, title="h"):
    rng = np.random.default_rng(0)
    groups = {("g", "clean"): (rng.beta(9, 1, inputs), NONE)}
    for name in ("h", "M(h)"):
        for condition in ("clean", "smallest margin"):
            groups[name, condition] = rng.beta(3, 1, inputs), rng.beta(1, 6, inputs)
    return partial(margin_bars_image, groups, bent="M(h)", threshold=threshold, title=title, subtitle="s 5")


def betas(count=9, panels=1):
    steps = [k / max(count - 1, 1) for k in range(count)]
    curves = {
        name: [
            (f"{t:.2g}", accuracy(0.9 - 0.2 * t - 0.03 * n), *[accuracy(0.3 + 0.2 * t)] * panels)
            for t in steps
        ]
        for n, name in enumerate(("MixedNUTS", "plain mix"))
    }
    names = [f"share {k} (%)" for k in range(panels)]
    return partial(beta_image, curves, names, title="g with h", subtitle="100 inputs")


def transform(suffix: str) -> bytes:
    z, t = np.linspace(-2, 3, 50), np.linspace(0, 1, 30)[:, None]
    path = (1 - t) / 3 + t * np.array([0, 1, 0])
    bends = {f"s {k}: $c$": z ** (k + 1) for k in range(4)}
    return transform_image(bends, {f"p = {k}": [path, path[:, ::-1]] for k in range(3)}, suffix)


def certified(suffix: str, curves: list[Curve] | None = None, **changes) -> bytes:
    shown = make_run((0.0, 0.5)).curves if curves is None else curves
    return curve_plot(shown, suffix, **{"title": "Certified", "sigma": 0.5, "alpha": 0.76, **changes})


FRONT = [
    (f"votes, {name}", np.linspace(0.5, 0.9, 9), np.linspace(top, 0.0, 9))
    for name, top in (("g", 0.5), (LONG, 0.6))
]
ENDS = {"h alone": (0.5, 0.5), "g alone": (0.9, 0.0)}
Z = np.array([1.0, -1.1, -1.0])
SURE = np.array([0.6, 0.99, 0.8])
P = np.exp(Z) / np.exp(Z).sum()
HOLES = np.where(np.arange(24).reshape(3, 4, 2) % 5 == 0, np.nan, 0.5)
CURVE = Curve("mixed", "exact", np.array([0.5, 0.25]), 4, 0.5)
SLOPES = {"largest slope": np.array([1.0, 3.0, np.nan])}
DRAWN: dict[str, Callable[[str], bytes]] = {
    "certified": certified,
    "no curves": partial(certified, curves=[]),
    "none certified": partial(certified, curves=[Curve("mixed", "exact", NONE, 100, None)]),
    "infinite": partial(certified, curves=[Curve("robust", "exact", np.array([np.inf, 0.5]), 2, float("nan"))]),
    "partial": partial(certified, curves=[CURVE], complete=False, title=MARKUP + "long/" * 40),
    "trade-off": partial(trade_off_image, TRADE_OFF),
    "sweep": sweep(),
    "sweep of one": sweep((0.75,)),
    "sweep of none": sweep(()),
    "sweep at 1, long": sweep((0.5, 1.0), 1.0, LONG),
    "nobody": partial(sweep_image, (0.0, 1.0), {"clean": [NOBODY, accuracy(0.5)]}, title="t"),
    "trust": trust(),
    "trust at 0": trust(alphas=(0.0, 1.0), share=0.0),
    "trust at 1": trust((WORDLESS, "linf", 0.5), alphas=(0.0, 1.0), share=1.0),
    "trust of nobody": partial(trust_image, (0.5,), {"t": ("$n$", 1.0, {(MARKUP, "_$"): ([NOBODY], [NOBODY])})}),
    "panels": trust(("t", "linf", 8 / 255), (LONG, "l2", 0.5)),
    "gaps": gaps(),
    "no gaps, long": partial(gaps_image, {("g", LONG): (NONE, NONE)}, title=LONG),
    "a lone corner": partial(gaps_image, {("g", "clean"): (NONE, np.zeros(1)), ("h", "pgd"): (np.ones(2), NONE)}, title=WORDLESS),
    "constants and radii": partial(lipschitz_image, SLOPES, unit="logits", title="h", eps=0.1, quotient=np.array([0.05, 0.3]), claimed=2.0),
    "maps": maps(),
    "maps of one point": maps(1, 1, 1),
    "maps with holes": maps(values=HOLES, title=LONG),
    "maps of nothing": maps(values=np.full((3, 4, 2), np.nan)),
    "thresholds": maps(logarithmic=True),
    "thresholds of 0": maps(values=np.zeros((3, 4, 2)), logarithmic=True),
    "bars": bars(),
    "bars of one input": bars(1, 0.0, LONG),
    "beta": betas(),
    "beta in two panels": betas(panels=2),
    "transform": transform,
    "fronts": partial(certified_fronts, SimpleNamespace(lines=FRONT, points=ENDS, at_radius=0.25), "100 inputs"),
    "front, chosen": partial(draw_fronts, FRONT[:1], ENDS, (0.8, 0.2), 0.25, LONG),
    "probabilities": partial(probability_plot, [("votes", SURE), (LONG, SURE[:1])], "100 inputs"),
    "example": partial(example_image, {"large margin": (Z, P, P), "small margin": (Z, P, P)}, classes="ABC"),
}  # fmt: skip


EACH = ("trade-off", "probabilities", "gaps", "bars", "beta", "fronts")
"""Pictures that are drawn each time, of each module; the others are in the long suite."""
WORDY = ("trust of nobody", "panels", "maps with holes", "sweep of one", "bars")
"""Texts that are in the long suite."""


@cache
def drawn(name: str, suffix: str) -> bytes:
    return DRAWN[name](suffix)


def words(name: str) -> str:
    elements = ElementTree.fromstring(drawn(name, "svg").decode()).iter()
    return " | ".join("".join(e.itertext()) for e in elements if e.tag.endswith("}text"))


@pytest.mark.parametrize("name", [n if n in EACH else pytest.param(n, marks=pytest.mark.long) for n in DRAWN])
def test_pictures_have_200_dots_an_inch_and_nothing_is_cut_off_at_the_edges(name: str) -> None:
    with Image.open(io.BytesIO(drawn(name, "png"))) as input:
        assert input.info["dpi"] == pytest.approx((200, 200), abs=0.1)
        pixels = np.asarray(input.convert("L"))
    assert np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).min() == 255
    assert pixels.min() < 128


@pytest.mark.parametrize("name", ["certified", pytest.param("trust", marks=pytest.mark.long)])
def test_the_same_text_whatever_the_users_settings(name: str) -> None:
    before = dict.get(matplotlib.rcParams, "backend")
    with matplotlib.rc_context({"font.size": 30, "svg.hashsalt": "other", "axes.labelcolor": "red"}):
        assert DRAWN[name]("svg") == drawn(name, "svg")
        assert matplotlib.rcParams["font.size"] == 30
    assert dict.get(matplotlib.rcParams, "backend") is before
    content = DRAWN[name]("pdf")
    assert content.startswith(b"%PDF-1") and b"CreationDate" not in content
    with pytest.raises(ParameterError, match=r"'eps' file: let the plot's name end in \.png, \.svg or \.pdf"):
        DRAWN[name]("eps")


SAYS: dict[str, tuple[str, ...]] = {
    "certified": ("robust (\u03b1 = 1): exact", "mixed (\u03b1 = 0.76): lipschitz (tight constant)",
                   "mixed (\u03b1 = 0.76): smoothing (Thm 3.7)", "robust: clean accuracy (estimate)",
                   "\u03c3 = 0.5, \u03b1 = 0.76, 200 inputs", "certified accuracy (%)"),
    "partial": ("4 inputs, partial result", "$\\frac$ <b> \u6f22 \\x1b \\udc80"),
    "trade-off": ("clean accuracy of the mix", "\u03c3 = 0.5, \u03b1 = 0.512", "smoothing (Thm 3.7)", "At equal clean accuracy, 94.00 %"),
    "sweep": ("clean: estimate", *(f"{name}: attacked (upper bound)" for name in NAMES[1:]),
               "\u03b1 = 1/2", "accuracy (%)", "data: g with h", "pgd, 1,000 inputs"),
    "sweep of one": ("all at \u03b1 = 0.75",),
    "trust of nobody": ("trust: $\\frac$ <b> \u6f22 \\x1b \\udc80", "form: _$", "$n$, \u03b5 = 1", "100"),
    "panels": ("trust: max-gradient", "form: logits", "clean accuracy (%, estimate)",
                "attacked accuracy (%, upper bound)", "\u2113\u221e, \u03b5 = 8/255", "\u2113\u2082, \u03b5 = 0.5",
                "a $long$ title", "numbers at the curves: weight of the robust classifier"),
    "gaps": ("right inputs", "wrong inputs", "mean", "median", "gap between the two largest probabilities"),
    "a lone corner": ("wrong: 1 input, mean 0.000",),
    "constants and radii": ("estimated by search, not certified", "claimed constant", "eps: r below it establishes nothing"),
    "maps with holes": ("ring: chosen, s 5, p 5, c 5", "grey: cannot meet beta"),
    "bars": ("q = 0.01", "smallest margin, wrong", "none"),
    "beta": ("MixedNUTS", "0.5", "share 0 (%)"),
    "fronts": ("certified accuracy at radius", "clean accuracy of the mix (%)", "h alone", "votes, g", "over \u03b1; 100 inputs"),
    "probabilities": ("votes: 3 rightly classified inputs", "inputs with at most this p (%)", "100 inputs"),
    "example": ("softmax(h): margin 0.687",),
}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.long) if n in WORDY else n for n in SAYS])
def test_figures_say_what_they_show(name: str) -> None:
    text = words(name)
    for label in SAYS[name]:
        assert label in text
    assert ("partial result" in text) == (name == "partial")


def drawn_figure(name: str, suffix: str = "svg") -> Figure:
    """Return the figure that a plot would save."""
    kept: list[Figure] = []
    with pytest.MonkeyPatch.context() as patch:  # later plots of the same test are saved
        patch.setattr(Figure, "savefig", lambda self, *a, **k: kept.append(self))
        DRAWN[name](suffix)
    return kept[0]


# certified accuracy

RADII = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 4.0, float("inf")]), max_size=12)


@given(RADII, st.integers(0, 5), st.floats(1e-3, 8.0))
def test_the_steps_are_the_share_of_radii_at_least_r(values: list[float], missed: int, r: float) -> None:
    radii, inputs = np.array(values), len(values) + missed
    x, y = survival_steps(radii, inputs, 5.0)
    assert np.all(np.diff(x) >= 0)
    assert np.all(np.diff(y) <= 0)
    for point in [*(v for v in values if 0 < v < 5), r]:
        index = np.searchsorted(x, point, side="left")  # steps-pre: y[i] on (x[i-1], x[i]]
        shown = y[index] if index < len(x) else y[-1]
        assert shown == pytest.approx(100 * np.sum(radii >= point) / max(inputs, 1))


def test_coinciding_curves_share_a_line() -> None:
    radii = np.array([0.5, 0.25])
    curves = [
        Curve("robust", "exact", radii, 4, None),
        Curve("robust", "smoothing", np.append(radii[::-1] * (1 + 1e-13), 0.0), 4, None),
        Curve("mixed", "exact", radii, 4, None),
        Curve("robust", "lipschitz", radii, 5, None),
    ]
    groups = [[c.certificate for c in group] for group in coinciding(curves)]
    assert groups == [["exact", "smoothing"], ["exact"], ["lipschitz"]]
    assert "robust (\u03b1 = 1): exact, smoothing (Thm 3.7)" in certified("svg", curves).decode()


def test_unwritable_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write .*plot\.svg"):
        plot_certified_accuracy([], tmp_path / "file" / "plot.svg", title="", sigma=0.5, alpha=0.76)


# studies


def test_a_sweep_draws_the_figures_and_their_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    alphas = (0.0, 0.25, 1.0)
    monkeypatch.setitem(DRAWN, "own", sweep(alphas))
    axes = drawn_figure("own").axes[0]
    lines = {line.get_label().split(":")[0]: line for line in axes.get_lines()}
    for (name, shares), shade in zip(sweep(alphas).args[1].items(), axes.collections, strict=True):
        assert lines[name].get_xdata().tolist() == list(alphas)
        assert lines[name].get_ydata() == pytest.approx([100 * one.accuracy for one in shares])
        corners = shade.get_paths()[0].vertices
        for alpha, one in zip(alphas, shares, strict=True):
            at = corners[np.isclose(corners[:, 0], alpha), 1]
            assert (at.min(), at.max()) == pytest.approx((100 * one.interval[0], 100 * one.interval[1]))
    assert any(list(line.get_xdata()) == [0.5, 0.5] for line in axes.get_lines())


def test_trust_joins_points_in_order_of_alpha_a_colour_a_term_a_style_a_form() -> None:
    ((*_, curves),) = DRAWN["trust"].args[1].values()
    lines = drawn_figure("trust").axes[0].get_lines()
    for (clean, attacked), line in zip(curves.values(), lines, strict=True):
        assert line.get_xdata() == pytest.approx([100 * one.accuracy for one in clean])
        assert line.get_ydata() == pytest.approx([100 * one.accuracy for one in attacked])
    assert [line.get_color() for line in lines] == [c for c in COLOURS[:4] for _ in range(2)]
    assert len({line.get_linestyle() for line in lines}) == 2


@pytest.mark.parametrize("name", ["trust", "beta"])
def test_labels_overlap_neither_one_another_nor_points(
    name: str,
) -> None:
    figure = drawn_figure(name, "png")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) >= 8
    assert {"0", "1"} <= {text.get_text() for text in axes.texts}
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:k])
        for line in axes.get_lines():
            points = axes.transData.transform(np.stack(line.get_data(), 1))
            assert not any(box.contains(*point) for point in points)


def test_histograms_are_shares_of_each_group_with_means_and_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    right = np.array([0.0, 0.02, 0.99, 1.0])
    panels = {("h", "clean"): (right, np.array([0.5, 0.52, 0.51]))}
    monkeypatch.setitem(DRAWN, "own", partial(gaps_image, panels, title="t"))
    axes = drawn_figure("own").axes[0]
    heights = [patch.get_data().values for patch in axes.patches if not patch.get_fill()]
    assert heights[0].tolist() == [50.0, *[0.0] * 18, 50.0]
    assert heights[1].tolist() == [*[0.0] * 10, pytest.approx(100.0), *[0.0] * 9]
    marks = [line.get_xdata()[0] for line in axes.get_lines()]
    assert marks == pytest.approx([right.mean(), np.median(right), 0.51, 0.51])
    assert axes.get_ylim()[1] >= 100
    assert len(set(re.findall(r"stroke-dasharray: ([\d., ]+)", drawn("gaps", "svg").decode()))) == 2


def test_panels_form_a_grid_and_empty_groups_say_none() -> None:
    figure = drawn_figure("gaps")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title.split("\n")[0] for title in titles] == [
        "standard (g), clean", "standard (g), pgd attack", "robust (h), clean", "robust (h), pgd attack",
    ]  # fmt: skip
    assert titles[1].split("\n")[1:] == ["right: none", "wrong: 100 inputs, mean 1.000, median 1.000"]
    for first, second in (figure.axes[:2], figure.axes[2:]):
        assert first.get_ylim() == second.get_ylim()
    assert figure.axes[0].get_ylim()[1] >= 100
    assert words("a lone corner").count("gap between") == 2


# MixedNUTS


@pytest.mark.parametrize(("count", "chosen"), [(2, 1), (13, 6)])
def test_maps_have_a_panel_for_each_c_or_twelve_and_ring_the_chosen_point(
    monkeypatch: pytest.MonkeyPatch, count: int, chosen: int
) -> None:
    monkeypatch.setitem(DRAWN, "own", maps(2, 2, count, chosen=(1, 0, chosen)))
    figure = drawn_figure("own", "png")
    shown = [axes for axes in figure.axes if axes.get_title().startswith("c = ")]
    assert len(shown) == min(count, 12)
    ((axes, rings),) = [(axes, axes.get_lines()) for axes in shown if axes.get_lines()]
    assert [(ring.get_xdata()[0], ring.get_ydata()[0]) for ring in rings] == [(0, 1)] * 2
    assert axes.get_title() == f"c = {np.linspace(1, 5, count)[chosen]:.3g}"


def test_medians_fit_their_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    medians = {0.0: ".00", 0.0049: "<.01", 0.384: ".38", 0.9951: "1.0", 1.0: "1.0"}
    groups = {(str(k), "clean"): (np.full(3, median), NONE) for k, median in enumerate(medians)}
    monkeypatch.setitem(DRAWN, "own", partial(margin_bars_image, groups, bent="0", threshold=0.1, title="t"))
    texts = [text.get_text() for text in drawn_figure("own", "png").axes[0].texts]
    assert [text for text in texts if text != "none"] == list(medians.values())
