import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import cache

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from certmix.errors import ParameterError
from certmix.tables._drawing import COLOURS
from certmix.tables._labels import place_labels
from certmix.tables.confidence_plot import ConfidenceGaps, GapPanel, confidence_image
from certmix.tables.mix_sweep_plot import MixSweepCurves, SweepLine, mix_sweep_image
from certmix.tables.trust_plot import TrustCurve, TrustCurves, trust_image
from certmix.types import AttackedAccuracy, EstimatedAccuracy

MANY = tuple(k / 20 for k in range(21))
NAMES = ("clean", "STD attack", "ROB attack", "MIX attack", "worst case")
NONE = np.zeros(0)


def accuracy(share: float, kind: type[EstimatedAccuracy] = AttackedAccuracy) -> EstimatedAccuracy:
    right = round(1000 * share)
    return kind(right, 1000, (max(0.0, share - 0.03), min(1.0, share + 0.03)))


def sweep(
    alphas: tuple[float, ...] = MANY, share: float | None = None, title: str = "data: g with h"
) -> MixSweepCurves:
    lines = []
    for k, name in enumerate(NAMES):
        shares = (share if share is not None else 0.9 - 0.15 * k * (1 - a) for a in alphas)
        lines.append(SweepLine(name, "attacked" if k else "estimate", tuple(map(accuracy, shares))))
    return MixSweepCurves(alphas, tuple(lines), title, "pgd, 1,000 images")


def trust(
    alphas: tuple[float, ...] = MANY, share: float | None = None, title: str = "pgd, 1,000 images", **ball
) -> TrustCurves:
    curves = []
    for t, name in enumerate(("constant", "gradient", "max-gradient", "gradient-ratio")):
        for f, form in enumerate(("probabilities", "logits")):
            bent = [a ** (1 + 0.4 * t + 0.2 * f) for a in alphas]
            clean = tuple(
                accuracy(0.95 - 0.15 * u**2 if share is None else share, EstimatedAccuracy) for u in bent
            )
            attacked = tuple(accuracy(0.5 * u if share is None else share) for u in bent)
            curves.append(TrustCurve(name, form, alphas, clean, attacked))
    return TrustCurves(tuple(curves), ball.get("norm", "linf"), ball.get("eps", 8 / 255), title)


def gaps(title: str = "pgd, 1,000 images") -> ConfidenceGaps:
    rng = np.random.default_rng(0)
    return ConfidenceGaps(
        (
            GapPanel("g", "clean", rng.beta(9, 0.3, 95), rng.beta(2, 1.5, 5)),
            GapPanel("h", "clean", rng.beta(2, 1, 80), rng.beta(1, 3, 20)),
            GapPanel("g", "pgd attack", NONE, np.ones(100)),
            GapPanel("h", "pgd attack", rng.beta(1.5, 1.5, 50), rng.beta(1, 3, 50)),
        ),
        title,
    )  # fmt: skip


LONG = "a $long$ title " * 30
WORDLESS = "path/" * 80
DRAWN: dict[str, Callable[[str], bytes]] = {
    "sweep": lambda suffix: mix_sweep_image(sweep(), suffix),
    "sweep of one": lambda suffix: mix_sweep_image(sweep((0.75,)), suffix),
    "sweep of none": lambda suffix: mix_sweep_image(sweep(()), suffix),
    "sweep at 0": lambda suffix: mix_sweep_image(sweep((0.0, 1.0), 0.0), suffix),
    "sweep at 1, long": lambda suffix: mix_sweep_image(sweep((0.5, 1.0), 1.0, LONG), suffix),
    "no lines": lambda suffix: mix_sweep_image(MixSweepCurves((0.5,), (), "t"), suffix),
    "trust": lambda suffix: trust_image(trust(), suffix),
    "trust of one": lambda suffix: trust_image(trust((0.5,)), suffix),
    "trust at 0, bars": lambda suffix: trust_image(trust((0.0, 1.0), 0.0), suffix, error_bars=True),
    "trust at 1": lambda suffix: trust_image(trust((0.0, 1.0), 1.0, WORDLESS), suffix),
    "no curves": lambda suffix: trust_image(TrustCurves((), "linf", 0.5, "t"), suffix),
    "panels": lambda suffix: trust_image([trust((0, 0.5, 1)), trust(norm="l2", eps=0.5, title=LONG)], suffix),
    "gaps": lambda suffix: confidence_image(gaps(), suffix),
    "no gaps, long": lambda suffix: confidence_image(ConfidenceGaps((GapPanel("g", LONG, NONE, NONE),), LONG), suffix),
    "a lone corner": lambda suffix: confidence_image(
        ConfidenceGaps((GapPanel("g", "clean", NONE, np.zeros(1)), GapPanel("h", "pgd", np.ones(2), NONE)), WORDLESS),
        suffix,
    ),
}  # fmt: skip


@cache
def drawn(name: str, suffix: str) -> bytes:
    return DRAWN[name](suffix)


def words(svg: bytes) -> str:
    elements = ElementTree.fromstring(svg.decode()).iter()
    return " | ".join("".join(e.itertext()) for e in elements if e.tag.endswith("}text"))


@pytest.mark.parametrize("name", DRAWN)
def test_nothing_is_cut_off_at_the_edges(name: str) -> None:
    with Image.open(io.BytesIO(drawn(name, "png"))) as image:
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
        pixels = np.asarray(image.convert("L"))
    assert np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).min() == 255
    assert pixels.min() < 100


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("sweep", "png"),
        ("sweep of one", "svg"),
        ("trust", "png"),
        ("gaps", "svg"),
    ],
)
def test_same_bytes_whatever_the_users_settings(name: str, suffix: str) -> None:
    plain = drawn(name, suffix)
    with matplotlib.rc_context({"font.size": 30, "svg.hashsalt": "other", "axes.labelcolor": "red"}):
        assert DRAWN[name](suffix) == plain
        assert matplotlib.rcParams["font.size"] == 30


@pytest.mark.parametrize("name", ["sweep", "trust", "gaps"])
def test_other_suffixes_are_refused(name: str) -> None:
    with pytest.raises(ParameterError, match=r"'pdf' file: let the plot's name end in \.png or \.svg"):
        DRAWN[name]("pdf")


def test_a_sweep_names_its_lines_and_what_they_are() -> None:
    text = words(drawn("sweep", "svg"))
    assert "clean: estimate" in text
    for name in NAMES[1:]:
        assert f"{name}: attacked (upper bound)" in text
    assert text.count("attacked") == 4
    for label in ("\u03b1 = 1/2", "accuracy (%)", "data: g with h", "pgd, 1,000 images"):
        assert label in text
    assert "all at" not in text
    assert "all at \u03b1 = 0.75" in words(drawn("sweep of one", "svg"))


def drawn_figure(draw: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch) -> Figure:
    """Return the figure that a plot saves."""
    kept: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (kept.append(self), save(self, *a, **k)))
    draw()
    return kept[0]


def test_a_sweep_draws_the_figures_and_their_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    found = sweep((0.0, 0.25, 1.0))
    axes = drawn_figure(lambda: mix_sweep_image(found, "svg"), monkeypatch).axes[0]
    lines = {line.get_label().split(":")[0]: line for line in axes.get_lines()}
    for line, shade in zip(found.lines, axes.collections, strict=True):
        assert lines[line.name].get_xdata().tolist() == [0.0, 0.25, 1.0]
        assert lines[line.name].get_ydata() == pytest.approx([100 * one.accuracy for one in line.accuracies])
        corners = shade.get_paths()[0].vertices
        for alpha, one in zip(found.alphas, line.accuracies, strict=True):
            at = corners[np.isclose(corners[:, 0], alpha), 1]
            assert (at.min(), at.max()) == pytest.approx((100 * one.interval[0], 100 * one.interval[1]))
    assert any(list(line.get_xdata()) == [0.5, 0.5] for line in axes.get_lines())


def test_a_lone_alphas_marks_stand_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn_figure(lambda: mix_sweep_image(sweep((0.75,), 0.5), "png"), monkeypatch).axes[0]
    marks = [line for line in axes.get_lines() if len(line.get_xdata()) == 1]
    places = [line.get_transform().transform((0.75, 50.0))[0] for line in marks]
    assert len(marks) == 5
    assert np.diff(sorted(places)).min() > 5
    assert np.mean(places) == pytest.approx(axes.transData.transform((0.75, 50))[0])


def test_trust_joins_points_in_order_of_alpha_a_colour_a_term_a_style_a_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = trust((0.0, 0.5, 1.0))
    axes = drawn_figure(lambda: trust_image(found, "svg"), monkeypatch).axes[0]
    lines = axes.get_lines()
    for curve, line in zip(found.curves, lines, strict=True):
        assert line.get_xdata() == pytest.approx([100 * one.accuracy for one in curve.clean])
        assert line.get_ydata() == pytest.approx([100 * one.accuracy for one in curve.attacked])
    assert [line.get_color() for line in lines] == [c for c in COLOURS[:4] for _ in range(2)]
    assert len({line.get_linestyle() for line in lines}) == 2


def test_trust_says_what_its_axes_and_styles_are() -> None:
    text = words(drawn("panels", "svg"))
    for label in ("trust: max-gradient", "form: logits", "clean accuracy (%, estimate)", "attacked accuracy (%, upper bound)",
                  "\u2113\u221e, \u03b5 = 8/255", "\u2113\u2082, \u03b5 = 0.5", "pgd, 1,000 images", "a $long$ title"):  # fmt: skip
        assert label in text
    assert "numbers at the curves: weight of the robust classifier" in text


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_axes_hold_points_at_the_extremes(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn_figure(lambda: trust_image(trust((0.0, 1.0), share), "png"), monkeypatch).axes[0]
    for low, high in (axes.get_xlim(), axes.get_ylim()):
        assert -5 < low < 100 * share < high < 105
        assert high - low >= 4


def boxes_of(axes) -> list:
    return [text.get_window_extent() for text in axes.texts]


def test_alphas_overlap_neither_one_another_nor_points(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = drawn_figure(lambda: trust_image(trust(), "png"), monkeypatch)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = boxes_of(axes)
    assert len(boxes) >= 8
    assert {"0", "1"} <= {text.get_text() for text in axes.texts}
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:k])
        for line in axes.get_lines():
            points = axes.transData.transform(np.stack(line.get_data(), 1))
            assert not any(box.contains(*point) for point in points)


def test_labels_find_room_or_are_left_out() -> None:
    figure = Figure(figsize=(3, 3))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    apart, nowhere = np.array([[0.2, 0.2], [0.8, 0.8]]), np.array([[0.5, np.nan]])
    dense = np.stack([np.tile(np.linspace(0, 1, 200), 2), np.repeat([0.49, 0.51], 200)], 1)
    place_labels(axes, [apart, nowhere], [["a", "b"], ["c"]], ["red", "blue"])
    assert [text.get_text() for text in axes.texts] == ["a", "b"]
    before = len(axes.texts)
    place_labels(axes, [dense[::7]], [["w" * 80] * len(dense[::7])], ["red"])
    assert len(axes.texts) == before
    place_labels(axes, [apart, apart], [["x", "x"]] * 2, ["red", "blue"])
    assert [text.get_color() for text in axes.texts[before:]] == ["0.3", "0.3"]
    place_labels(axes, [], [], [])


def test_histograms_are_shares_of_each_group_with_means_and_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    right = np.array([0.0, 0.02, 0.99, 1.0])
    panel = GapPanel("h", "clean", right, np.array([0.5, 0.52, 0.51]))
    axes = drawn_figure(lambda: confidence_image(ConfidenceGaps((panel,), "t"), "png"), monkeypatch).axes[0]
    outlines = [patch for patch in axes.patches if not patch.get_fill()]
    heights = [patch.get_data().values for patch in outlines]
    assert heights[0].tolist() == [50.0, *[0.0] * 18, 50.0]
    assert heights[1].tolist() == [*[0.0] * 10, pytest.approx(100.0), *[0.0] * 9]
    marks = [line.get_xdata()[0] for line in axes.get_lines()]
    assert marks == pytest.approx([right.mean(), np.median(right), 0.51, 0.51])
    assert axes.get_ylim()[1] >= 100
    dashes = set(re.findall(r"stroke-dasharray: ([\d., ]+)", drawn("gaps", "svg").decode()))
    assert len(dashes) == 2


def test_panels_form_a_grid_and_empty_groups_say_none(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = drawn_figure(lambda: DRAWN["gaps"]("svg"), monkeypatch)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title.split("\n")[0] for title in titles] == [
        "standard (g), clean", "standard (g), pgd attack", "robust (h), clean", "robust (h), pgd attack",
    ]  # fmt: skip
    assert titles[1].split("\n")[1:] == ["right: none", "wrong: 100 images, mean 1.000, median 1.000"]
    for first, second in (figure.axes[:2], figure.axes[2:]):
        assert first.get_ylim() == second.get_ylim()
    assert figure.axes[0].get_ylim()[1] >= 100
    text = words(drawn("gaps", "svg"))
    for label in (
        "right images",
        "wrong images",
        "mean",
        "median",
        "gap between the two largest probabilities",
    ):
        assert label in text
    corner = words(drawn("a lone corner", "svg"))
    assert corner.count("gap between") == 2
    assert "wrong: 1 image, mean 0.000" in corner


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: mix_sweep_image(MixSweepCurves((0.5,), (SweepLine("x", "certified", ()),), "t"), "png"),
         "kind 'certified' of line 'x' is unknown: choose one of estimate, attacked"),
        (lambda: mix_sweep_image(MixSweepCurves((0.5,), (SweepLine("x", "attacked", ()),), "t"), "png"),
         "line 'x' has 0 accuracies for 1 alphas"),
        (lambda: trust_image([], "png"), "nothing to draw"),
        (lambda: trust_image(TrustCurves((TrustCurve("a", "b", (0.5,), (), ()),), "l2", 1.0, "t"), "png"),
         "curve 'a, b' has 0 clean and 0 attacked accuracies for 1 alphas"),
        (lambda: confidence_image(ConfidenceGaps((), "t"), "png"), "nothing to draw"),
        (lambda: confidence_image(ConfidenceGaps((GapPanel("g", "c", NONE, NONE),) * 2, "t"), "png"), "give each once"),
        (lambda: confidence_image(ConfidenceGaps((GapPanel("g", "c", np.array([1.5]), NONE),), "t"), "png"),
         r"gap = 1\.5 is not in \[0, 1\]"),
        (lambda: confidence_image(ConfidenceGaps((GapPanel("g", "c", NONE, np.array([np.nan])),), "t"), "png"),
         r"gap = nan is not in \[0, 1\]"),
    ],
)  # fmt: skip
def test_mistakes_are_refused_in_one_line(draw: Callable[[], bytes], message: str) -> None:
    with pytest.raises(ParameterError, match=message) as caught:
        draw()
    assert "\n" not in str(caught.value)


def test_images_without_any_answer_leave_a_gap_not_an_error() -> None:
    none = EstimatedAccuracy(0, 0, (0.0, 1.0))
    line = SweepLine("clean", "estimate", (none, accuracy(0.5)))
    assert mix_sweep_image(MixSweepCurves((0.0, 1.0), (line,), "t"), "svg")
    curve = TrustCurve("a", "b", (0.5,), (none,), (AttackedAccuracy(0, 0, (0.0, 1.0)),))
    text = words(trust_image(TrustCurves((curve,), "l2", 1.0, "t"), "svg"))
    assert re.search(r"\b100\b", text)


def test_user_text_is_text_not_markup() -> None:
    line = SweepLine("$\\frac$ <b> \u6f22 \x1b", "attacked", (accuracy(0.5),))
    text = words(mix_sweep_image(MixSweepCurves((0.5,), (line,), "$\\bad$ & \udc80", "$"), "svg"))
    assert "$\\frac$ <b> \u6f22 \\x1b: attacked (upper bound)" in text
    assert "$\\bad$ & \\udc80" in text
    curve = TrustCurve("$\\a$", "_$", (0.5,), (accuracy(0.5),), (accuracy(0.5),))
    text = words(trust_image(TrustCurves((curve,), "$\\n$", 1.0, "$\\t$"), "svg"))
    for label in ("trust: $\\a$", "form: _$", "$\\n$, \u03b5 = 1", "$\\t$"):
        assert label in text
