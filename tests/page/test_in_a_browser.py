"""The page in a real browser: what its script does, what it asks for, how it fits."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from typing import Any

import pytest
from page.made import COLUMNS, HOSTILE, hostile_run, make_certified, make_run, make_study

from certmix.page import render
from certmix.text import accuracy, interval_ends

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), "")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")

PAGES = {
    "run": lambda: render([make_run()]),
    "linf": lambda: render([make_run("run", make_certified(norm="linf", certificate="margin"))]),
    "two": lambda: render([make_run("a"), make_run("b", make_certified(seed=2)), make_study()]),
    "hostile": lambda: render([hostile_run(), make_study(HOSTILE, HOSTILE)], HOSTILE),
}
USE = """
const COLUMNS = %s, told = {};

const use = async (frame) => {
  const w = frame.contentWindow, page = w.document, found = (told[frame.id] = {});
  const one = (s) => page.querySelector(s), all = (s) => [...page.querySelectorAll(s)];
  const shapes = () => all("path.line").map((p) => p.getAttribute("d"));
  const figures = () => [0, 1, 2].map((k) => one(`[data-value="r-s${k}"]`).innerText.replace(/\\s+/g, " "));
  const visible = (s) => all(s).filter((e) => e.getClientRects().length).length;
  const at = () => one("figure.chart").dataset.at;
  found.ready = page.documentElement.dataset.certmix || "";
  found.title = page.title;
  found.wide = page.documentElement.scrollWidth;
  found.asked = w.performance.getEntriesByType("resource").map((e) => e.name);
  found.foreign = all("main script, img:not([src^='data:'])").length;
  found.controls = visible("[data-slider], [data-switch]");
  found.drawn = shapes();
  found.cursor = w.getComputedStyle(one("[data-cursor]")).visibility;
  found.at = at() || "";
  if (!frame.id.startsWith("run") || !found.ready) return;
  const d = JSON.parse(one("#certmix-data").textContent).charts[0];
  const slide = (name, to) => {
    const slider = one(`[data-slider=${name}]`);
    slider.value = to;
    slider.dispatchEvent(new w.Event("input"));
  };
  found.columns = COLUMNS.map((radius) => {
    slide("radius", Math.round((radius * 10 ** d.digits) / d.stride));
    return [at(), figures()[1]];
  });
  slide("radius", Math.round((0.25 * 10 ** d.digits) / d.stride));
  found.weights = [0, 1, 0].map((k) => {
    slide("weight", k);
    return [shapes(), figures(), one('[data-label="r-s1"]').textContent, one('[data-clean="r-s1"]').textContent];
  });
  const plot = one("[data-plot]"), box = plot.getBoundingClientRect();
  const point = { clientX: box.left + 0.9 * box.width, clientY: box.top + 9, pointerType: "mouse" };
  plot.dispatchEvent(new w.PointerEvent("pointermove", point));
  found.pointed = [(at() * 10 ** d.digits) / d.end, one("[data-cursor]").getAttribute("x1")];
  found.aloud = one("[data-slider]").getAttribute("aria-valuetext");
  found.switched = [0, 1].map(() => {
    one('[data-switch="r-s1"]').click();
    return w.getComputedStyle(one('path.line[data-series="r-s1"]')).display;
  });
  found.refused = await new Promise((done) => {
    page.addEventListener("securitypolicyviolation", (e) => done(e.effectiveDirective));
    page.body.append(Object.assign(page.createElement("img"), { src: "https://certmix.invalid/x.png" }));
  });
};

addEventListener("load", async () => {
  for (const frame of document.querySelectorAll("iframe")) await use(frame);
  document.body.dataset.told = JSON.stringify(told);
});
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What one page tells that holds each page in frames: narrow, wide, and one without scripts."""
    place = tmp_path_factory.mktemp("browser")
    frames = [(f"{name} {width}", make(), width, "") for name, make in PAGES.items() for width in (320, 1280)]
    frames.append(("run still", PAGES["run"](), 1280, 'sandbox="allow-same-origin"'))
    held = (
        f'<iframe id="{key}" width="{width}" height="900" {more} srcdoc="{html.escape(text)}"></iframe>'
        for key, text, width, more in frames
    )
    script = USE % json.dumps(COLUMNS)
    (place / "all.html").write_text(
        f"<body>{''.join(held)}<script>{script}</script></body>", encoding="utf-8"
    )
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--virtual-time-budget=9000",
        f"--user-data-dir={place / 'profile'}", "--dump-dom", (place / "all.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(html.unescape(re.search(r'data-told="([^"]*)"', done.stdout)[1]))


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [320, 1280])
def test_the_script_runs_asks_for_nothing_and_all_fits(told, name, width):
    found = told[f"{name} {width}"]
    assert found["ready"] == "ready" and found["wide"] <= width
    assert all(address.startswith("data:") for address in found["asked"])
    assert found["at"].endswith("/255") == (name == "linf")
    assert found["foreign"] == 0 and (found["title"] == HOSTILE) == (name == "hostile")


def test_the_policy_refuses_the_network(told):
    assert told["run 1280"]["refused"] == "img-src"


def test_the_read_out_says_what_the_table_says(told):
    row, expected = make_certified().summary.rows[1], []
    for radius, share, ends in zip(COLUMNS, row.certified_accuracy, row.interval, strict=True):
        low, high = interval_ends(ends)
        expected.append([f"{radius:g}", f"{accuracy(share)} [{low}, {high}]"])
    assert told["run 1280"]["columns"] == expected


def test_the_weight_redraws_the_mix_alone(told):
    first, other, again = told["run 1280"]["weights"]
    same = [a == b for a, b in zip(first[0], other[0], strict=True)]
    assert same == [False, False, True, True]  # h, the histogram
    found = make_certified()
    held = found.weights[1][1][1][found.inputs.right(1)]
    assert other[1][1].split()[0] == accuracy(float((held >= 0.25).mean() * found.inputs.right(1).mean()))
    assert other[1][0] == first[1][0] and other[2:] == ["mixed (\u03b1 = 1)", "70.0"]
    assert again == first


def test_mouse_and_switches(told):
    found = told["run 1280"]
    assert found["pointed"][0] == pytest.approx(0.9, abs=0.02)
    assert float(found["pointed"][1].rstrip("%")) == pytest.approx(90, abs=2)
    assert "mixed (\u03b1 = 0.76), exact: 0.0 %" in found["aloud"]
    assert found["switched"][0] == "none" != found["switched"][1]


def test_without_the_script_everything_is_there_but_the_controls(told):
    still, moving = told["run still"], told["run 1280"]
    assert still["ready"] == "" and still["controls"] == 0 and still["cursor"] == "hidden"
    assert len(still["drawn"]) == 4  # three curves, and the histogram's outline
    for one, other in zip(still["drawn"], moving["drawn"], strict=True):
        shapes = ([float(number) for number in re.findall(r"[\d.]+", shape)] for shape in (one, other))
        assert next(shapes) == pytest.approx(next(shapes), abs=0.06)
