"""The page in a real browser: what its script does, what it asks for, how it fits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from page.browser import Browser, find_browser
from page.made import COLUMNS, HOSTILE, hostile_run, make_certified, make_run, make_study

from certmix.page import render
from certmix.text import accuracy, interval_ends

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium on this machine")

PAGES = {
    "run": lambda: render([make_run()]),
    "linf": lambda: render([make_run("run", make_certified(norm="linf", certificate="margin"))]),
    "two": lambda: render([make_run("a"), make_run("b", make_certified(seed=2)), make_study()]),
    "hostile": lambda: render([hostile_run(), make_study(HOSTILE, HOSTILE)], HOSTILE),
}
FIRST = "JSON.parse(document.getElementById('certmix-data').textContent).charts[0]"
AT = "document.querySelector('figure.chart').dataset.at"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    path = find_browser()
    assert path is not None
    found = Browser(path, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("pages")
    for name, make in PAGES.items():
        (place / f"{name}.html").write_text(make(), encoding="utf-8")
    return {name: place / f"{name}.html" for name in PAGES}


def _figure(browser: Browser, key: str = "r-s1") -> str:
    return browser.run(f"document.querySelector('[data-value=\"{key}\"]').innerText.replace(/\\s+/g, ' ')")


def _slide(browser: Browser, name: str, to: str) -> None:
    """Set a slider to the value of an expression in which `d` is the first chart."""
    browser.run(
        f"(() => {{ const s = document.querySelector('[data-slider={name}]'), d = {FIRST}; s.value = {to};"
        " s.dispatchEvent(new Event('input')); })()"
    )


@pytest.mark.parametrize("name", PAGES)
def test_the_script_runs_without_complaints_and_asks_for_nothing(browser, files, name):
    browser.open(files[name])
    assert browser.run("document.documentElement.dataset.certmix") == "ready"
    assert browser.complaints() == []
    addresses = browser.requests()
    assert browser.run(AT).endswith("/255") == (name == "linf")
    assert addresses[0] == files[name].as_uri()
    assert all(address.startswith("data:") for address in addresses[1:])


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [320, 1280])
def test_nothing_is_wider_than_the_window(browser, files, name, width):
    browser.open(files[name], width=width, height=844)
    assert browser.run("document.documentElement.scrollWidth") <= width


def test_hostile_names_run_nothing(browser, files):
    browser.open(files["hostile"])
    assert browser.run("document.title") == HOSTILE
    assert browser.run("document.querySelectorAll('main script, img:not([src^=\"data:\"])').length") == 0


def test_the_policy_refuses_the_network(browser, files):
    browser.open(files["run"])
    tried = (
        "new Promise(done => { document.addEventListener('securitypolicyviolation', e => done(e.effectiveDirective));"
        " const img = new Image(); img.src = 'https://certmix.invalid/x.png'; setTimeout(() => done('none'), 3000); })"
    )
    answer = browser.call("Runtime.evaluate", expression=tried, awaitPromise=True, returnByValue=True)
    assert answer["result"]["value"] == "img-src"


def test_the_read_out_says_what_the_table_says(browser, files):
    browser.open(files["run"])
    row = make_certified().summary.rows[1]
    for radius, share, ends in zip(COLUMNS, row.certified_accuracy, row.interval, strict=True):
        _slide(browser, "radius", f"Math.round({radius} * 10 ** d.digits / d.stride)")
        assert browser.run(AT) == f"{radius:g}"
        low, high = interval_ends(ends)
        assert _figure(browser) == f"{accuracy(share)} [{low}, {high}]"


def test_the_weight_redraws_the_mix_alone(browser, files):
    browser.open(files["run"])
    paths = "[...document.querySelectorAll('path.line')].map(p => p.getAttribute('d'))"
    before, figures = browser.run(paths), [_figure(browser, f"r-s{k}") for k in range(3)]
    _slide(browser, "weight", "1")
    after = browser.run(paths)
    same = [a == b for a, b in zip(before, after, strict=True)]
    assert same == [False, False, True, True]  # h, the histogram
    found = make_certified()
    held = found.weights[1][1][1][found.images.right]
    assert _figure(browser).split()[0] == accuracy(float((held >= 0.25).mean() * found.images.right.mean()))
    assert _figure(browser, "r-s0") == figures[0]
    assert browser.run("document.querySelector('[data-label=\"r-s1\"]').textContent") == "mixed (\u03b1 = 1)"
    assert browser.run("document.querySelector('[data-clean=\"r-s1\"]').textContent") == "70.0"
    _slide(browser, "weight", "0")
    assert browser.run(paths) == before and [_figure(browser, f"r-s{k}") for k in range(3)] == figures


def test_the_script_draws_what_stands_without_it(browser, files):
    drawn = []
    for script in (False, True):
        browser.open(files["run"], script=script)
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
        shapes = browser.run(
            "[...document.querySelectorAll('.chart .lines path')].map(p => p.getAttribute('d'))"
        )
        drawn.append([[float(number) for number in re.findall(r"[\d.]+", shape)] for shape in shapes])
    for one, other in zip(*drawn, strict=True):
        assert one == pytest.approx(other, abs=0.06)


def test_keys_move_the_cursor(browser, files):
    browser.open(files["run"])
    browser.run("document.querySelector('[data-slider]').focus()")
    before, figure = browser.run(AT), _figure(browser)
    browser.key("ArrowRight", 39)
    assert float(browser.run(AT)) > float(before)
    browser.key("End", 35)
    assert _figure(browser) != figure and _figure(browser).startswith("0.0 ")
    told = browser.run("document.querySelector('[data-slider]').getAttribute('aria-valuetext')")
    assert "mixed (\u03b1 = 0.76), exact: 0.0 %" in told


@pytest.mark.parametrize("way", ["point", "touch"])
def test_mouse_and_finger_move_the_cursor(browser, files, way):
    browser.open(files["run"], width=390, height=844)
    browser.run("document.querySelector('[data-plot]').scrollIntoView({block: 'center'})")
    left, top, width, height = browser.run(
        "(() => { const b = document.querySelector('[data-plot]').getBoundingClientRect();"
        " return [b.left, b.top, b.width, b.height]; })()"
    )
    getattr(browser, way)(left + 0.9 * width, top + height / 2)
    end = browser.run(f"{FIRST}.end / 10 ** {FIRST}.digits")
    assert float(browser.run(AT)) == pytest.approx(0.9 * end, abs=0.02 * end)
    x = browser.run("document.querySelector('[data-cursor]').getAttribute('x1')")
    assert float(x.rstrip("%")) == pytest.approx(90, abs=2)


def test_switches_hide_a_series(browser, files):
    browser.open(files["run"])
    seen = "getComputedStyle(document.querySelector('path.line[data-series=\"r-s1\"]')).display !== 'none'"
    for expected in (True, False, True):
        assert browser.run(seen) is expected
        browser.run("document.querySelector('[data-switch=\"r-s1\"]').click()")


def test_without_the_script_everything_is_there_but_the_controls(browser, files):
    browser.open(files["run"], script=False)
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.run("document.documentElement.dataset.certmix") is None
    visible = "[...document.querySelectorAll('%s')].filter(e => e.getClientRects().length).length"
    assert browser.run(visible % "[data-slider], [data-switch]") == 0
    assert browser.run(visible % "path.line") == 4  # three curves, and the histogram's outline
    assert browser.run("getComputedStyle(document.querySelector('[data-cursor]')).visibility") == "hidden"
