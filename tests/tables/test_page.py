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
from pages import COLUMNS, HOSTILE, hostile_run, make_result, make_run, make_study

from certmix.page import Result, page
from certmix.page.compare import comparability, differing, letter
from certmix.page.values import lead_row
from certmix.tables import render

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


PAGES = {
    "one": lambda: page([make_run()]),
    "several results": lambda: page([make_run("run", make_result(), make_result(alpha=0.9, seed=1))]),
    "two runs": lambda: page([make_run("a"), make_run("b", make_result(seed=2, alpha=0.5))]),
    "with a study": lambda: page([make_run("a"), make_run("b"), make_study()]),
    "study": lambda: page([make_study()]),
    "hostile": lambda: page([hostile_run()], HOSTILE),
    "hostile study": lambda: page([make_study(HOSTILE, HOSTILE), hostile_run()]),
    "no images": lambda: page([make_run("run", Result("x", make_result().summary, None))]),
    "nothing": lambda: page([make_run("run", _empty())]),
}


def _empty() -> Result:
    summary = replace(make_result().summary, rows=(), images=0, complete=False)
    return Result("x", summary, None)


@pytest.fixture(params=PAGES, scope="module")
def read(request):
    text = PAGES[request.param]()
    return text, Reader(text)


def test_every_element_is_closed_in_order(read):
    assert read[1].open == []


def test_only_our_script_and_data_are_scripts(read):
    scripts = read[1].of("script")
    assert scripts == [{"type": "application/json", "id": "certmix-data"}, {}]


def test_no_handlers_no_inline_styles_no_addresses(read):
    text, reader = read
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
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL).group(1)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL).group(1)
    for name, content in (("style-src", style), ("script-src", script)):
        digest = b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_headings_do_not_skip_levels(read):
    levels = [int(name[1]) for name, _ in read[1].elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_tables_controls_and_pictures_say_what_they_are(read):
    reader = read[1]
    assert all(a.get("scope") in ("col", "row", "rowgroup") for a in reader.of("th"))
    labelled = {a.get("for") for a in reader.of("label")}
    assert all(a["id"] in labelled for a in reader.of("input", "select"))
    assert all(a.get("alt") for a in reader.of("img"))
    assert all(a.get("aria-label") for _, a in reader.elements if a.get("role") in ("img", "region"))
    found = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(found) == len(set(found))


def test_hostile_names_stand_as_text():
    reader = Reader(page([hostile_run()], HOSTILE))
    for element in ("title", "h1", "h3", "dt", "code", "td", "th", "li", "strong"):
        assert HOSTILE in " ".join(reader.text[element]), element


def test_data_for_the_script_cannot_end_it():
    text = page([make_run("run", make_result(), make_result(alpha=0.9))])
    block = re.search(r'id="certmix-data">(.*?)</script>', text, re.DOTALL).group(1)
    assert not set("<>&") & set(block)
    assert json.loads(block)["charts"][0]["series"]


def test_the_same_runs_give_the_same_bytes():
    assert page([make_run("a"), make_study()]) == page([make_run("a"), make_study()])


@pytest.mark.parametrize("count", [500, 10_000])
def test_the_page_stays_small(count):
    several = [make_result(count, alpha, seed) for seed, alpha in enumerate((0.76, 0.9, 0.6))]
    assert len(page([make_run("run", *several)])) < 400_000


def test_figures_are_those_of_the_other_tables():
    result = make_result(37)
    markdown = render(result.summary, "markdown")
    cells = [
        c.strip()
        for line in markdown.splitlines()
        if line.startswith("| mixed")
        for c in line.split("|")[3:-1]
    ]
    shown = " ".join(Reader(page([make_run("run", result)])).text["td"])
    spans = " ".join(Reader(page([make_run("run", result)])).text["span"])
    for cell in cells:
        figure, _, interval = cell.partition(" ")
        assert figure in shown and interval in spans


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", text[text.index("<main>") :]))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({}, "certified (failure probability 0.001 an image)"),
        ({"certificate": "margin", "failure_probability": None}, "proved not to change its class"),
        ({"certificate": "lipschitz-constant", "failure_probability": None}, "if the Lipschitz constant that was given"),
        ({"complete": False, "planned_images": 100}, "Partial result: 40 of 100 planned images."),
        ({"standard": None}, "any standard classifier (g)"),
        ({"goal": "radii"}, "between them curves are understated"),
        ({"failure_probability": 0.5}, "at most 20.000"),
        ({}, "all 40 certificates right at once with probability at least 0.960"),
    ],
)  # fmt: skip
def test_what_the_page_says(changes, words):
    assert words in _plain(page([make_run("run", make_result(**changes))]))


def test_half_chances_promise_nothing_together():
    assert "right at once" not in page([make_run("run", make_result(failure_probability=0.5))])


def test_the_headline_counts_the_lead_rows_images():
    result = make_result(41)
    images, lead = result.images, lead_row(result.summary.rows)
    hits = int((images.right & (images.radius[lead] >= 0.25)).sum())
    assert f"On {hits} of 41 images" in page([make_run("run", result)])


def test_studies_mark_what_each_figure_is():
    text = page([make_study()])
    assert '<span class="badge estimate">estimate</span>' in text
    assert "under attack: an upper bound of robust accuracy, never a certificate" in _plain(text)
    cell = re.search(r'<td class="number">50\.0.*?</td>', text).group(0)
    assert "badge certified" in cell
    assert "Partial result." in text


def test_without_records_the_table_stands_and_the_curve_is_left_out():
    text = _plain(page([make_run("run", Result("x", make_result().summary, None))]))
    assert "records do not give this table" in text
    assert "mean radius" in text


def _named(*runs):
    return [(letter(k), run) for k, run in enumerate(runs)]


@pytest.mark.parametrize(
    "other, words",
    [
        (make_run("b"), "All runs are about the same data, images and norm."),
        (make_run("b", make_result(30)), "different images of the same data (A 40; B 30; 30 in common)"),
        (
            make_run("b", data_checksum="b" * 64),
            "different data (A points aaaaaaaaaaaa; B points bbbbbbbbbbbb)",
        ),
        (make_run("b", make_result(norm="linf")), "different norms (A l2; B linf)"),
        (make_run("b", make_result(complete=False)), "Partial results: B."),
        (make_run("b", Result("x", make_result().summary, None)), "is not known"),
    ],
)
def test_runs_that_cannot_be_compared_are_told(other, words):
    said = comparability(_named(make_run("a"), other))
    assert words in " ".join(text for _, text in said)
    assert words in _plain(page([make_run("a"), other]))
    assert all(bad for bad, _ in said) == ("All runs" not in words)


def test_different_norms_share_no_chart_and_no_table():
    text = page([make_run("a"), make_run("b", make_result(norm="linf"))])
    assert 'id="all"' not in text and "h alone and the mix of each run" not in text
    assert 'id="all"' in page([make_run("a"), make_run("b")])


def test_figures_at_another_runs_radii_are_counted():
    first, other = make_result(40), make_result(40, seed=3)
    rows = tuple(
        replace(r, certified_accuracy=r.certified_accuracy[:1], interval=r.interval[:1])
        for r in other.summary.rows
    )
    short = replace(other, summary=replace(other.summary, radii=(0.0,), rows=rows))
    expected = other.summary.rows[1].certified_accuracy[COLUMNS.index(0.5)]
    text = page([make_run("a", first), make_run("b", short)])
    row = re.search(r"<tr><th scope=\"row\">B: mixed.*?</tr>", text).group(0)
    assert f"{np.floor(1000 * expected) / 10:.1f} " in re.findall(r"<td class=\"number\">([^<]*)", row)[2]


def test_parameters_that_differ_are_marked_and_first():
    facts = [(("x", "1"), ("y", "2")), (("x", "1"), ("y", "3"), ("z", "4"))]
    assert differing(facts) == ["y", "z"]
    assert differing(facts, alike=False) == ["y"]
    runs = [make_run(name, parameters=(("x", "1"), ("y", name))) for name in "ab"]
    rows = re.findall(r'<tr class="differs">(.*?)</tr>', page(runs))
    assert [_first(row) for row in rows] == ["y"]


def _first(row: str) -> str:
    return re.search(r'<th scope="row">([^<]*)', row).group(1)


def _colours(css: str) -> dict[str, dict[str, str]]:
    """Return the variables of the light and the dark theme."""
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    light, dark, printed = (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", block)) for block in blocks)
    return {"light": light, "dark": {**light, **dark}, "print": {**light, **printed}}


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: str, b: str) -> float:
    bright, dark = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_contrast_is_measured_as_defined():
    assert _contrast("#000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_text_and_lines_have_contrast(theme):
    colours = _colours((files("certmix.page") / "page.css").read_text())[theme]
    for ground in ("paper", "raised", "warn-paper"):
        for ink in ("ink", "soft", "warn", "accent", "good"):
            assert _contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for line in ("robust", "exact", "smoothing", "lipschitz", "lipschitz-paper", "standard"):
        assert _contrast(colours[line], colours["paper"]) >= 4.5, line
