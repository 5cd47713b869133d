import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from certmix.errors import ParameterError, RunError
from certmix.tables import plot_certified_accuracy
from certmix.tables.survival import coinciding, survival_steps
from certmix.types import Curve

RADII = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 4.0, float("inf")]), max_size=12)


def svg_text(path: Path) -> str:
    return " | ".join(
        "".join(element.itertext()) for element in ElementTree.parse(path).iter() if is_text(element)
    )


def is_text(element: ElementTree.Element) -> bool:
    return element.tag.endswith("}text")


def draw(path: Path, curves: list[Curve], **changes: object) -> Path:
    plot_certified_accuracy(curves, path, **{"title": "Certified", "sigma": 0.5, "alpha": 0.76, **changes})
    return path


@given(RADII, st.integers(0, 5), st.floats(1e-3, 8.0))
def test_the_steps_are_the_share_of_radii_at_least_r(values: list[float], missed: int, r: float) -> None:
    radii, images = np.array(values), len(values) + missed
    x, y = survival_steps(radii, images, 5.0)
    assert np.all(np.diff(x) >= 0)
    assert np.all(np.diff(y) <= 0)
    for point in [*(v for v in values if 0 < v < 5), r]:
        index = np.searchsorted(x, point, side="left")  # steps-pre: y[i] on (x[i-1], x[i]]
        drawn = y[index] if index < len(x) else y[-1]
        assert drawn == pytest.approx(100 * np.sum(radii >= point) / max(images, 1))


def test_an_image_counts_at_its_own_radius_and_not_beyond() -> None:
    x, y = survival_steps(np.array([0.0, 1.0]), 2, 5.0)
    assert (x.tolist(), y.tolist()) == ([0.0, 1.0, 1.0], [50.0, 50.0, 0.0])


def test_png_has_200_dots_an_inch_and_svg_every_label(tmp_path: Path, run_with: Callable) -> None:
    curves = run_with((0.0, 0.5)).curves
    with Image.open(draw(tmp_path / "plot.png", curves)) as image:
        assert image.size == (1400, 1000)
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
    assert {(0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (64, 64, 64)} <= colours
    text = svg_text(draw(tmp_path / "plot.svg", curves))
    for label in (
        "robust (\u03b1 = 1): exact",
        "mixed (\u03b1 = 0.76): exact",
        "mixed (\u03b1 = 0.76): smoothing (Thm 3.7)",
        "mixed (\u03b1 = 0.76): lipschitz (tight constant)",
        "mixed (\u03b1 = 0.76): lipschitz-paper (Thm 3.5)",
        "robust: clean accuracy (estimate)",
        "mixed: clean accuracy (estimate)",
        "\u03c3 = 0.5, \u03b1 = 0.76, 200 images",
        "certified accuracy (%)",
    ):
        assert label in text
    assert "partial" not in text


def test_nothing_is_drawn_outside_the_picture(tmp_path: Path, run_with: Callable) -> None:
    with Image.open(draw(tmp_path / "plot.png", run_with((0.5,)).curves)) as image:
        pixels = np.asarray(image.convert("L"))
    frame = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert frame.min() == 255


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_same_bytes_whatever_the_users_settings(tmp_path: Path, run_with: Callable, suffix: str) -> None:
    curves = run_with((0.5,), images=20).curves
    plain = draw(tmp_path / f"a.{suffix}", curves).read_bytes()
    with matplotlib.rc_context({"font.size": 30, "svg.hashsalt": "other", "axes.labelcolor": "red"}):
        assert draw(tmp_path / f"b.{suffix}", curves).read_bytes() == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_the_users_backend_and_figures_are_left_alone(tmp_path: Path) -> None:
    before = dict.get(matplotlib.rcParams, "backend")
    draw(tmp_path / "plot.png", [])
    assert dict.get(matplotlib.rcParams, "backend") is before


@pytest.mark.parametrize(
    "curves",
    [
        [],
        [Curve("mixed", "exact", np.array([]), 100, None)],
        [Curve("mixed", "exact", np.zeros(3), 3, 0.5)],
        [Curve("mixed", "exact", np.array([4.0]), 1, 1.0)],
        [Curve("robust", "exact", np.array([np.inf, 0.5]), 2, float("nan"))],
        [Curve("mixed", "exact", np.array([]), 0, None)],
    ],
    ids=["no curves", "none certified", "only zeros", "one image", "infinite", "no images"],
)
def test_edge_cases_make_a_plot(tmp_path: Path, curves: list[Curve]) -> None:
    text = svg_text(draw(tmp_path / "plot.svg", curves))
    assert all(f"{curve.classifier} (" in text for curve in curves)


def test_partial_is_in_the_heading(tmp_path: Path) -> None:
    curve = Curve("mixed", "exact", np.array([0.5]), 1, None)
    assert "1 image, partial result" in svg_text(draw(tmp_path / "plot.svg", [curve], complete=False))


def test_titles_are_text_not_markup_and_never_cut(tmp_path: Path) -> None:
    title = "$\\frac$ & <b> \u6f22 " + "long/" * 40
    text = svg_text(draw(tmp_path / "plot.svg", [], title=title))
    assert "$\\frac$ & <b> \u6f22" in text
    with Image.open(draw(tmp_path / "plot.png", [], title="DATA_SET/" * 40)) as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels[:, [0, -1]].min() == 255


def test_coinciding_curves_share_a_line_and_its_label(tmp_path: Path) -> None:
    radii = np.array([0.5, 0.25])
    curves = [
        Curve("robust", "exact", radii, 4, None),
        Curve("robust", "smoothing", np.append(radii[::-1] * (1 + 1e-13), 0.0), 4, None),
        Curve("mixed", "exact", radii, 4, None),
        Curve("robust", "lipschitz", radii, 5, None),
    ]
    assert [[c.certificate for c in group] for group in coinciding(curves)] == [
        ["exact", "smoothing"],
        ["exact"],
        ["lipschitz"],
    ]
    assert "robust (\u03b1 = 1): exact, smoothing (Thm 3.7)" in svg_text(draw(tmp_path / "plot.svg", curves))


def test_other_suffixes_and_unwritable_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"'pdf' file: let the plot's name end in \.png or \.svg"):
        draw(tmp_path / "plot.pdf", [])
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write .*plot\.svg"):
        draw(tmp_path / "file" / "plot.svg", [])
