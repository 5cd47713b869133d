"""The page in a real browser: what its script does, what it asks for, how it fits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, find_browser
from pages import COLUMNS, HOSTILE, hostile_run, make_result, make_run, make_study

from certmix.page import page
from certmix.text import accuracy, interval_ends

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium on this machine")

PAGES = {
    "run": lambda: page([make_run("run", make_result(), make_result(alpha=0.9, seed=1))]),
    "linf": lambda: page([make_run("run", make_result(norm="linf", certificate="margin"))]),
    "two": lambda: page([make_run("a"), make_run("b", make_result(seed=2)), make_study()]),
    "hostile": lambda: page([hostile_run(), make_study(HOSTILE, HOSTILE)], HOSTILE),
}


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


def _figure(browser: Browser, key: str = "r-0-s1") -> str:
    return browser.run(f"document.querySelector('[data-value=\"{key}\"]').innerText.replace(/\\s+/g, ' ')")


@pytest.mark.parametrize("name", PAGES)
def test_the_script_runs_without_complaints_and_asks_for_nothing(browser, files, name):
    browser.open(files[name])
    assert browser.run("document.documentElement.dataset.certmix") == "ready"
    assert browser.complaints() == []
    addresses = browser.requests()
    assert addresses[0] == files[name].as_uri()
    assert all(address.startswith("data:") for address in addresses[1:])


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [320, 390, 1280])
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
    summary, compared = make_result().summary, 0
    for place, radius in enumerate(COLUMNS):
        browser.run(
            "(() => { const s = document.querySelector('[data-slider]'), d = JSON.parse(document.getElementById("
            f"'certmix-data').textContent).charts[0]; s.value = Math.round({radius} * 10 ** d.digits / d.stride);"
            " s.dispatchEvent(new Event('input')); })()"
        )
        if browser.run("document.getElementById('r-0').dataset.at") != f"{radius:g}":
            continue  # beyond the axis
        row, compared = summary.rows[1], compared + 1
        low, high = interval_ends(row.interval[place])
        assert _figure(browser) == f"{accuracy(row.certified_accuracy[place])} [{low}, {high}]"
    assert compared == len(COLUMNS)


def test_keys_move_the_cursor(browser, files):
    browser.open(files["run"])
    browser.run("document.querySelector('[data-slider]').focus()")
    before, figure = browser.run("document.getElementById('r-0').dataset.at"), _figure(browser)
    browser.key("ArrowRight", 39)
    after = browser.run("document.getElementById('r-0').dataset.at")
    assert float(after) > float(before)
    browser.key("End", 35)
    assert _figure(browser) != figure
    assert _figure(browser).startswith("0.0 ")
    assert "mixed (\u03b1 = 0.76), exact: 0.0 %" in browser.run(
        "document.querySelector('[data-slider]').getAttribute('aria-valuetext')"
    )


def _middle(browser: Browser) -> tuple[float, float]:
    browser.run("document.querySelector('[data-plot]').scrollIntoView({block: 'center'})")
    box = browser.run(
        "(() => { const b = document.querySelector('[data-plot]').getBoundingClientRect();"
        " return [b.left, b.top, b.width, b.height]; })()"
    )
    return box[0] + 0.9 * box[2], box[1] + box[3] / 2


@pytest.mark.parametrize("way", ["point", "touch"])
def test_mouse_and_finger_move_the_cursor(browser, files, way):
    browser.open(files["run"], width=390, height=844)
    getattr(browser, way)(*_middle(browser))
    shown = float(browser.run("document.getElementById('r-0').dataset.at"))
    end = browser.run("(() => { const d = JSON.parse(document.getElementById('certmix-data').textContent).charts[0];"
                      " return d.end / 10 ** d.digits; })()")  # fmt: skip
    assert shown == pytest.approx(0.9 * end, abs=0.02 * end)
    x = browser.run("document.querySelector('[data-cursor]').getAttribute('x1')")
    assert float(x.rstrip("%")) == pytest.approx(90, abs=2)


def test_switches_hide_a_series(browser, files):
    browser.open(files["run"])
    seen = "getComputedStyle(document.querySelector('path.line[data-series=\"r-0-s1\"]')).display"
    assert browser.run(seen) != "none"
    browser.run("document.querySelector('[data-switch=\"r-0-s1\"]').click()")
    assert browser.run(seen) == "none"
    browser.run("document.querySelector('[data-switch=\"r-0-s1\"]').click()")
    assert browser.run(seen) != "none"


def test_the_selector_shows_one_stored_result(browser, files):
    browser.open(files["run"])
    shown = "[...document.querySelectorAll('[data-result]')].map(r => r.offsetHeight > 0)"
    assert browser.run(shown) == [True, False]
    browser.run(
        "(() => { const s = document.querySelector('[data-chooser]'); s.value = 'r-1';"
        " s.dispatchEvent(new Event('change')); })()"
    )
    assert browser.run(shown) == [False, True]
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.run(shown) == [True, True]
    browser.call("Emulation.setEmulatedMedia", media="")


def test_controls_can_be_reached_by_keyboard(browser, files):
    browser.open(files["run"])
    browser.run("document.body.focus()")
    reached = set()
    for _ in range(14):
        browser.key("Tab", 9)
        reached.add(browser.run("document.activeElement.type || document.activeElement.getAttribute('role')"))
    assert {"select-one", "range", "checkbox", "region"} <= reached


def test_without_the_script_everything_is_there_but_the_controls(browser, files):
    browser.open(files["run"], script=False)
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.run("document.documentElement.dataset.certmix") is None
    visible = (
        "[...document.querySelectorAll('%s')].filter(e => e.offsetHeight || e.getClientRects().length).length"
    )
    assert browser.run(visible % "[data-slider], [data-switch], select") == 0
    assert browser.run(visible % "[data-result]") == 2
    assert browser.run(visible % "path.line") >= 6
    assert browser.run("getComputedStyle(document.querySelector('[data-cursor]')).visibility") == "hidden"


def test_dark_and_light_follow_the_system(browser, files):
    grounds = []
    for dark in (False, True):
        browser.open(files["run"], dark=dark)
        grounds.append(browser.run("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(253, 253, 251)", "rgb(22, 24, 26)"]


def test_movement_stops_where_it_is_not_wanted(browser, files):
    browser.open(files["run"])
    moving = "getComputedStyle(document.querySelector('path.line')).transitionDuration"
    found = []
    for wish in ("no-preference", "reduce"):
        browser.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": wish}]
        )
        found.append(browser.run(moving))
    assert found[1] == "0s" != found[0]


def test_radii_are_grey_levels_in_linf(browser, files):
    browser.open(files["linf"])
    assert browser.run("document.getElementById('r-0').dataset.at").endswith("/255")
