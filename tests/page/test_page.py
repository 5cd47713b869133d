"""The HTML page: escaping, policy, structure, contrast, size, words."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pytest
from page.made import COLUMNS, HOSTILE, hostile_run, make_certified, make_run, make_study

from certmix.page import render
from certmix.page.gallery import Inputs
from certmix.page.runs import Weight
from certmix.page.views import compared

VOID = {"meta", "link", "input", "img", "br", "line", "rect", "circle", "path"}


class Reader(HTMLParser):
    """Keeps elements with their attributes, and text by the element that holds it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.setdefault(self.open[-1] if self.open else "", []).append(data)

    def of(self, *names):
        return [attributes for name, attributes in self.elements if name in names]


def _empty():
    nothing, found = np.empty(0, np.int64), make_certified()
    summary = replace(found.summary, rows=(), inputs=0, complete=False)
    return replace(found, summary=summary, inputs=Inputs(nothing, nothing, nothing, (), ()), weights=())


PAGES = {
    "one": lambda: render([make_run()]),
    "two runs": lambda: render([make_run("a"), make_run("b", make_certified(seed=2, alpha=0.5))]),
    "with a study": lambda: render([make_run("a"), make_run("b"), make_study()]),
    "study": lambda: render([make_study()]),
    "hostile": lambda: render([hostile_run()], HOSTILE),
    "hostile study": lambda: render([make_study(HOSTILE, HOSTILE), hostile_run()]),
    "nothing": lambda: render([make_run("run", _empty()), make_run("other", _empty())]),
}


@pytest.fixture(params=PAGES, scope="module")
def read(request):
    text = PAGES[request.param]()
    return text, Reader(text)


def test_a_page_is_whole_and_asks_for_nothing(read):
    text, reader = read
    assert reader.open == []
    assert reader.of("script") == [{"type": "application/json", "id": "certmix-data"}, {}]
    names = {name for _, attributes in reader.elements for name in attributes}
    assert not any(name.startswith("on") or name == "style" for name in names)
    sources = [a.get("src") or a.get("href") or "data:" for a in reader.of("img", "link", "script", "a")]
    assert all(source.startswith("data:") for source in sources)
    assert "http:" not in text.replace("http-equiv", "") and "https:" not in text


def test_the_policy_allows_only_our_style_and_script(read):
    text, reader = read
    policy = next(a["content"] for a in reader.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    for name, element in (("style-src", "style"), ("script-src", "script")):
        content = re.search(rf"<{element}>(.*?)</{element}>", text, re.DOTALL).group(1)
        digest = b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_headings_tables_controls_and_pictures_say_what_they_are(read):
    reader = read[1]
    levels = [int(name[1]) for name, _ in reader.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(a.get("scope") in ("col", "row", "rowgroup") for a in reader.of("th"))
    labelled = {a.get("for") for a in reader.of("label")}
    assert all(a["id"] in labelled for a in reader.of("input"))
    assert all(a.get("alt") for a in reader.of("img"))
    assert all(a.get("aria-label") for _, a in reader.elements if a.get("role") in ("img", "region"))
    found = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(found) == len(set(found))


def test_hostile_names_stand_as_text():
    reader = Reader(render([hostile_run()], HOSTILE))
    for element in ("title", "h1", "h3", "dt", "code", "td", "th", "li", "strong"):
        assert HOSTILE in " ".join(reader.text[element]), element
    assert "\\x1b" in render([make_study("a\x1bb")])
    block = re.search(r'id="certmix-data">(.*?)</script>', PAGES["hostile"](), re.DOTALL).group(1)
    assert not set("<>&") & set(block) and json.loads(block)["charts"][0]["series"]


def test_the_same_runs_give_the_same_bytes_and_stay_small():
    assert render([make_run("a"), make_study()]) == render([make_run("a"), make_study()])
    many = make_certified(500)
    alphas = (0.76, *(0.5 + k / 20 for k in range(1, 11)))
    weights = tuple(Weight(a, tuple(r * a for r in many.weights[0].rows), 0.8) for a in alphas)
    assert len(render([make_run("run", replace(many, weights=weights))])) < 400_000


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", text[text.index("<main>") :]))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({}, "certified (failure probability 0.001 an input)"),
        ({"certificate": "margin", "failure_probability": None}, "proved not to change its class"),
        ({"certificate": "lipschitz-constant", "failure_probability": None}, "if the Lipschitz constant that was given"),
        ({"complete": False, "planned_inputs": 100}, "Partial result: 40 of 100 planned inputs."),
        ({"standard": None}, "any standard classifier (g)"),
        ({}, "Shaded lightly: the 95 % interval"),
        ({"failure_probability": 0.5}, "at most 20.000"),
        ({}, "all 40 certificates right at once with probability at least 0.960"),
    ],
)  # fmt: skip
def test_what_the_page_says(changes, words):
    assert words in _plain(render([make_run("run", make_certified(**changes))]))


def test_the_headline_counts_the_lead_rows_inputs():
    found = make_certified(41)
    hits = int((found.inputs.right(1) & (found.inputs.radius[1] >= 0.25)).sum())
    assert f"On {hits} of 41 inputs" in render([make_run("run", found)])


def test_studies_mark_what_each_figure_is():
    text = render([make_study()])
    assert '<span class="badge estimate">estimate</span>' in text
    assert "under attack: an upper bound of robust accuracy, never a certificate" in _plain(text)
    assert "badge certified" in re.search(r'<td class="number">50\.0.*?</td>', text).group(0)
    assert "Partial result." in text


@pytest.mark.parametrize(
    "other, words",
    [
        (make_run("b"), "All runs are about the same data, inputs and norm."),
        (make_run("b", make_certified(30)), "different inputs of the same data (A 40; B 30; 30 in common)"),
        (
            make_run("b", data_checksum="b" * 64),
            "different data (A points aaaaaaaaaaaa; B points bbbbbbbbbbbb)",
        ),
        (make_run("b", make_certified(norm="linf")), "different norms (A l2; B linf)"),
        (make_run("b", make_certified(complete=False)), "Partial results: B."),
    ],
)
def test_runs_that_cannot_be_compared_are_told(other, words):
    said = compared([make_run("a"), other])["said"]
    assert words in " ".join(text for _, text in said)
    text = render([make_run("a"), other])
    assert words in _plain(text)
    assert all(bad for bad, _ in said) == ("All runs" not in words)
    one_norm = other.certified.summary.norm == "l2"
    assert ('id="all"' in text) == one_norm == ("h alone and the mix of each run" in text)


def test_figures_at_another_runs_radii_are_counted():
    other = make_certified(40, seed=3)
    rows = tuple(
        replace(r, certified_accuracy=r.certified_accuracy[:1], interval=r.interval[:1])
        for r in other.summary.rows
    )
    short = replace(other, summary=replace(other.summary, radii=(0.0,), rows=rows))
    figures = compared([make_run("a"), make_run("b", short)])["figures"]
    row = other.summary.rows[1].certified_accuracy
    assert tuple(cell.accuracy for cell in figures.rows[3][2:6]) == row and len(row) == len(COLUMNS)


def test_parameters_that_differ_are_marked_and_first():
    first = make_run("a", parameters=(("x", "1"), ("y", "2")), provenance=())
    second = make_run("b", parameters=(("x", "1"), ("y", "3"), ("z", "4")), provenance=())
    differs = [row[:2] for row in compared([first, second])["parameters"]]
    assert differs == [("y", True), ("z", True), ("x", False)]
    of_another = replace(second, study="attack")
    assert [row[0] for row in compared([first, of_another])["parameters"] if row[1]] == ["y"]


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: str, b: str) -> float:
    bright, dark = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_text_and_lines_have_contrast():
    assert _contrast("#000", "#ffffff") == pytest.approx(21)
    css = (files("certmix.page") / "page.css").read_text()
    pairs = re.findall(r"--([a-z-]+): light-dark\((#[0-9a-f]+), (#[0-9a-f]+)\)", css)
    light, dark = ({name: each[k] for name, *each in pairs} for k in (0, 1))
    printed = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", css[css.index("@media print") :]))
    for theme in (light, dark, {**light, **printed}):
        for ground in ("paper", "raised", "warn-paper"):
            for ink in ("ink", "soft", "warn", "accent", "good"):
                assert _contrast(theme[ink], theme[ground]) >= 4.5, (ink, ground)
        for line in ("robust", "exact", "smoothing", "lipschitz", "lipschitz-paper", "standard"):
            assert _contrast(theme[line], theme["paper"]) >= 4.5, line
