"""`certmix report`: pages of real runs."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from certmix_cli.main import main
from forged import sql

from certmix.certification.request import CertifyRequest
from certmix.page.report_page_facts import commands
from certmix.runs.source_names import Sources

PICTURE_NET = '''
import torch
from torch import nn


def bright():
    """Three classes of pictures by their mean brightness."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 3))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([-0.5, 0.0, 0.5])[:, None].expand(3, 48))
        net[1].bias.copy_(torch.tensor([10.0, 1.0, -14.0]))
    return net
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs: two alphas on pictures, verified margins, a given constant, a sweep."""
    place = tmp_path_factory.mktemp("pages")
    (place / "nets.py").write_text(PICTURE_NET)
    rng = np.random.default_rng(0)
    inputs = (rng.random((12, 3, 4, 4)) * 0.2 + np.linspace(0, 0.8, 12)[:, None, None, None]).astype(
        np.float32
    )
    labels = np.clip(np.arange(12) // 4 + (np.arange(12) == 1), 0, 2)
    np.savez(
        place / "pictures.npz", inputs=inputs, labels=labels, class_names=["dark", "<b>grey</b>", "light"]
    )
    data = ("--data", place / "pictures.npz", "--images", "all")
    nets = ("--standard", f"{place / 'nets.py'}:bright", "--robust", f"{place / 'nets.py'}:bright")
    noise = ("certify", *data, *nets, "--sigma", 0.25, "--samples", 300, "--output", place / "noise")
    _run(*noise, "--alpha", 0.9, "--failure-probability", 0.01)
    _run(
        *noise,
        "--alpha",
        0.76,
        "--certificate",
        "exact",
        "--certificate",
        "smoothing",
        "--radii",
        "0,0.05,0.5",
    )
    plain = ("certify", *data, *nets, "--alpha", 0.76, "--certificate")
    _run(*plain, "margin", "--output", place / "margin")
    constant = (
        "lipschitz-constant",
        "--lipschitz-constant",
        7,
        "--norm",
        "l2",
        "--output",
        place / "constant",
    )
    _run(*plain, *constant)
    sweep = ("mix-sweep", *data, *nets, "--alphas", "0,0.5,1", "--steps", 2, "--output", place / "sweep")
    _run(*sweep)
    return place


def _run(*arguments: object) -> None:
    argv, sys.argv = sys.argv, ["certmix", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as stopped:
            main()
    finally:
        sys.argv = argv
    assert not stopped.value.code, arguments


@pytest.fixture
def noise(folder: Path, tmp_path: Path) -> Path:
    """A copy of the sampled run, to be spoilt."""
    return Path(shutil.copytree(folder / "noise", tmp_path / "noise"))


@pytest.fixture
def report(command: Callable[..., object]) -> Callable[..., str]:
    """Return a function that makes a page and returns its text."""

    def make(*arguments: object) -> str:
        done = command("report", *arguments)
        assert done.code == 0, done.err
        return Path(done.out.strip()).read_text()

    return make


def _charts(text: str) -> list[dict]:
    return json.loads(re.search(r'id="certmix-data">(.*?)</script>', text, re.DOTALL).group(1))["charts"]


def _words(text: str) -> str:
    body = re.sub("<[^>]*>", " ", text[text.index("<main>") : text.index('<script type="application/json"')])
    return re.sub(r"\s+", " ", html.unescape(body))


def test_the_page_lies_in_the_run_folder_and_repeats_itself(command, report, noise):
    first = report(noise)
    assert (noise / "report.html").read_text() == first == report(noise)
    assert "Run folder noise" in _words(first)
    other = command("report", noise, "--output", "there/page.html", "--title", "A & B", "--images", 0)
    assert other.code == 0 and other.out == "there/page.html\n"
    assert "<h1>A &amp; B</h1>" in Path("there/page.html").read_text()


def test_charts_hold_the_figures_of_every_stored_table(report, folder, noise):
    charts = _charts(report(noise))
    tables = [
        json.loads(path.read_text()) for path in sorted(noise.glob("results/*/certified-accuracy.json"))
    ]
    newest = json.loads((noise / "certified-accuracy.json").read_text())
    ordered = [newest, *(t for t in tables if t["alpha"] != newest["alpha"])]
    assert [t["alpha"] for t in ordered] == [0.76, 0.9]
    for chart, table in zip(charts, ordered, strict=True):
        series = {s["label"]: s for s in chart["series"]}
        for row in table["rows"]:
            curve = next(
                s for label, s in series.items() if row["classifier"] in label and row["certificate"] in label
            )
            for radius, share in zip(table["radii"], row["certified_accuracy"], strict=True):
                units = round(radius * 10 ** chart["digits"])
                count = next(
                    (c for u, c in zip(curve["units"], curve["counts"], strict=True) if u >= units), 0
                )
                assert count == round(share * table["images"]), (row["certificate"], radius)


def test_counts_that_were_changed_draw_no_curve(report, noise):
    before = len(_charts(report(noise)))
    sql(noise, "DELETE FROM cells WHERE cell = 'votes@300'")
    text = report(noise)
    assert (before, len(_charts(text))) == (2, 0)
    assert "records do not give this table" in _words(text)


def test_a_run_without_results_is_shown_as_far_as_it_got(report, noise):
    shutil.rmtree(noise / "results")
    text = report(noise)
    assert "Partial result" in _words(text) and len(_charts(text)) == 1


def test_pictures_are_the_pixels_of_the_data(report, folder, noise):
    from PIL import Image

    text = report(noise)
    inputs = np.load(folder / "pictures.npz")["inputs"]
    found = re.findall(r'src="data:image/png;base64,([^"]*)" alt="Picture of image (\d+)"', text)
    assert len(found) == 12 and len({index for _, index in found}) == 12
    for data, index in found:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        np.testing.assert_array_equal(pixels, np.rint(inputs[int(index)] * 255).transpose(1, 2, 0))
    assert "wrong class" in _words(text) and "<b>grey</b>" not in text


def test_the_number_of_pictures_is_chosen(report, noise):
    assert report(noise, "--images", 1).count('alt="Picture') == 3
    assert report(noise, "--images", 0).count('alt="Picture') == 0


@pytest.mark.parametrize(
    "spoil, words",
    [
        (
            lambda sources: sources.update(data="/nowhere/at-all.npz"),
            "cannot be loaded (it is missing or damaged)",
        ),
        (lambda sources: sources.update(data="cifar10-sample"), "other checksum"),
        (lambda sources: sources.update(objects=["data"]), "it was a Python object"),
        (lambda sources: sources.clear(), "run.json does not name it"),
    ],
)
def test_without_its_data_a_run_is_shown_without_pictures(report, noise, spoil, words):
    described = json.loads((noise / "run.json").read_text())
    spoil(described["sources"])
    (noise / "run.json").write_text(json.dumps(described))
    text = report(noise)
    assert words in _words(text) and 'alt="Picture' not in text
    assert "Largest certified radii" in text and "nowhere" not in text


def test_large_pictures_are_made_smaller():
    from certmix.page.report_page_images import SIDE, picture
    from certmix.types import Dataset

    wide = np.zeros((1, 40, 300), np.float32)
    data = Dataset(
        "x", "test", np.zeros(1, np.int64), np.zeros(1, np.int64), ("a",), lambda k: wide, (-1.0, 1.0), ""
    )
    from PIL import Image

    made = Image.open(io.BytesIO(picture(data, 0)))
    assert made.size[0] == SIDE and made.getpixel((0, 0)) == 128


def test_no_folder_of_this_machine_is_named(report, folder, noise):
    assert str(folder) not in report(noise)


def test_the_printed_command_makes_the_same_run(report, folder, noise, monkeypatch):
    line = next(
        html.unescape(line)
        for line in re.findall("<code>(.*?)</code>", report(noise))
        if line.startswith("certmix certify")
    )
    monkeypatch.chdir(folder)
    words = shlex.split(line)
    assert words[0] == "certmix"
    _run(*words[1:], "--output", noise.parent / "again")
    first, again = (json.loads((place / "run.json").read_text()) for place in (noise, noise.parent / "again"))
    for part in ("identity", "request", "failure_budget"):
        assert first[part] == again[part]


@pytest.mark.parametrize(
    "asked",
    [
        {}, {"scores": "soft"}, {"scores": "soft", "temperature": 1 / 3, "bound": "bernstein", "goal": "fixed"},
        {"scores": "soft", "bound": "layers", "goal": "fixed", "certificates": ("exact",)},
        {"bound": "beta-binomial", "goal": "radius", "relative_precision": 0.05, "precision": "bf16"},
        {"radii": (0.0, 8 / 255, 0.1), "images": "all", "seed": 2**40, "samples": 321, "selection_samples": 7},
        {"certificates": ("smoothing", "exact"), "failure_probability": 1e-7, "bound": "clopper-pearson-two-sided"},
    ],
)  # fmt: skip
def test_the_printed_command_asks_for_the_same(asked):
    from certmix_cli.certify import _divided
    from certmix_cli.certify import command as certify

    request = CertifyRequest(0.25, 0.76, **asked)
    described = {"request": json.loads(json.dumps(request.as_dict())), "sources": Sources().as_dict()}
    line = commands(described, "RUN", "certify")[0].line
    options = certify.make_context("certify", shlex.split(line)[2:]).params
    settings, _, _ = _divided(options, CertifyRequest)
    settings["radii"] = settings["radii"] or request.radii
    assert CertifyRequest(**settings) == request


@pytest.mark.parametrize("name", ["margin", "constant"])
def test_commands_of_runs_without_samples(report, folder, name):
    from certmix_cli.certify import command as certify

    line = next(
        html.unescape(line)
        for line in re.findall("<code>(.*?)</code>", report(folder / name, "--output", "x.html"))
        if line.startswith("certmix certify")
    )
    options = certify.make_context("certify", shlex.split(line)[2:]).params
    request = json.loads((folder / name / "run.json").read_text())["request"]
    assert options["certificates"] == (request["certificate"],)
    for key in ("alpha", "norm", "images", "lipschitz_constant"):
        assert options[key] == request[key]


def test_margins_have_no_failure_probability(report, folder):
    words = _words(report(folder / "margin", "--output", "margin.html"))
    assert "proved not to change its class" in words
    assert "no statement on this page can fail by chance" in words
    assert "failure probability 0" not in words


def test_a_given_constant_is_said_to_be_given(report, folder):
    words = _words(report(folder / "constant", "--output", "constant.html"))
    assert "if the Lipschitz constant that was given is right" in words
    assert "certmix does not prove it" in words


def test_studies_show_their_printed_figures_and_kinds(report, folder):
    text = report(folder / "sweep", "--output", "sweep.html")
    table = json.loads((folder / "sweep" / "mix-sweep.json").read_text())
    printed = (folder / "sweep" / "mix-sweep.md").read_text()
    figures = re.findall(r"([\d.]+) \[[\d.]+, [\d.]+\]", printed)
    shown = re.findall(r'<td class="number">([\d.]+) <span class="under interval">', text)
    assert shown == figures and len(shown) == 5 * len(table["rows"])
    assert text.count('class="badge attacked"') == 5 and 'class="badge certified"' not in text
    assert "data:image/svg+xml;base64," in text


def test_a_study_whose_files_disagree_is_refused(command, folder, tmp_path):
    place = shutil.copytree(folder / "sweep", tmp_path / "sweep")
    lines = (place / "mix-sweep.md").read_text().splitlines()
    (place / "mix-sweep.md").write_text("\n".join(line for line in lines if not line.startswith("| 0.5")))
    done = command("report", place)
    assert done.code == 2 and "other rows or columns" in done.err


def test_runs_are_compared(report, folder):
    text = report(folder / "noise", folder / "margin", folder / "sweep", "--output", "all.html")
    words = _words(text)
    assert "3 runs compared" in words and "Comparison of noise, margin and sweep" in words
    assert "Not comparable: radii are in different norms (A l2; B linf)." in words
    assert "Empirical studies are estimates" in words
    both = report(folder / "noise", folder / "constant", "--output", "both.html")
    assert "All runs are about the same data, images and norm." in _words(both)
    assert _charts(both)[0]["key"] == "all" and len(_charts(both)[0]["series"]) == 2


BAD = {
    "no run": (("nowhere",), "holds no run.json"),
    "several without a file": (("NOISE", "NOISE"), "--output"),
    "negative images": (("NOISE", "--images", "-1"), "images = -1"),
    "a foreign file": (("NOISE", "--output", "NETS"), "is no page of certmix report"),
    "a folder": (("NOISE", "--output", "."), "is a folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_errors_are_one_line(command, noise, folder, name):
    arguments, expected = BAD[name]
    known = {"NOISE": noise, "NETS": folder / "nets.py"}
    done = command("report", *(known.get(word, word) for word in arguments))
    assert done.code == 2 and done.out == ""
    assert expected in done.err and len(done.err.splitlines()) == 1
    assert (folder / "nets.py").read_text() == PICTURE_NET


@pytest.mark.parametrize("content", ["[]", "{}", '{"format_version": 2, "identity": {}}', "<html>"])
def test_damaged_descriptions_are_errors(command, noise, content):
    (noise / "run.json").write_text(content)
    done = command("report", noise)
    assert done.code == 2 and len(done.err.splitlines()) == 1


def test_damaged_tables_are_errors(command, noise):
    for path in noise.glob("results/*/certified-accuracy.json"):
        path.write_text('{"schema_version": 99}')
    done = command("report", noise)
    assert done.code == 2 and "schema version 99" in done.err


def test_no_torch_is_imported(noise):
    code = (
        "import sys; from certmix.page.report_page import write_report; "
        f"write_report([{str(noise)!r}]); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "False"
