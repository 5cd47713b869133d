"""`certmix report`: pages of real runs."""

from __future__ import annotations

import base64
import html
import io
import json
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
from PIL import Image

from certmix.certification.stored import recertify
from certmix.page.gallery import SIDE, picture
from certmix.types import Dataset

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
    """A folder with runs: by noise on pictures, verified margins, a given constant, a sweep."""
    place = tmp_path_factory.mktemp("pages")
    (place / "nets.py").write_text(PICTURE_NET)
    rng = np.random.default_rng(0)
    inputs = (rng.random((12, 3, 4, 4)) * 0.2 + np.linspace(0, 0.8, 12)[:, None, None, None]).astype(
        np.float32
    )
    labels = np.clip(np.arange(12) // 4 + (np.arange(12) == 1), 0, 2)
    names = ["dark", "<b>grey</b>", "light"]
    np.savez(place / "pictures.npz", inputs=inputs, labels=labels, class_names=names)
    data = ("--data", place / "pictures.npz", "--inputs", "all")
    nets = ("--standard", f"{place / 'nets.py'}:bright", "--robust", f"{place / 'nets.py'}:bright")
    noise = ("certify", *data, *nets, "--sigma", 0.25, "--samples", 300, "--output", place / "noise")
    _run(*noise, "--alpha", 0.76, "--radii", "0,0.05,0.5")
    plain = ("certify", *data, *nets, "--alpha", 0.76, "--certificate")
    _run(*plain, "margin", "--output", place / "margin")
    given = ("lipschitz-constant", "--lipschitz-constant", 7, "--norm", "l2")
    _run(*plain, *given, "--output", place / "constant")
    _run("mix-sweep", *data, *nets, "--alphas", "0,0.5,1", "--steps", 2, "--output", place / "sweep")
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
    other = command("report", noise, "--output", "there/page.html", "--title", "A & B", "--inputs", 0)
    assert other.code == 0 and other.out == "there/page.html\n"
    assert "<h1>A &amp; B</h1>" in Path("there/page.html").read_text()


@pytest.mark.parametrize("alpha", [0.76, 1.0])
def test_curves_hold_the_figures_of_recertify_at_every_weight(report, noise, alpha):
    (chart,) = _charts(report(noise))
    table = recertify(noise, alpha=alpha)
    at = [float(weight) for weight in chart["weights"]].index(alpha)
    for row in table.rows:
        names = (row.classifier, row.certificate)
        curve = next(s for s in chart["series"] if names[0] in s["labels"][0] and names[1] in s["under"])
        ends, counts = curve["steps"][min(at, len(curve["steps"]) - 1)]
        for radius, share in zip(table.radii, row.certified_accuracy, strict=True):
            least = round(radius * 10 ** chart["digits"])
            reached = next((count for end, count in zip(ends, counts, strict=True) if end >= least), 0)
            assert reached == round(share * table.inputs), (row.certificate, radius)
        ends, counts = curve["reach"][min(at, len(curve["reach"]) - 1)]
        assert counts == sorted(counts, reverse=True)
        for radius, share in zip(table.radii, row.could_reach, strict=True):
            least = round(radius * 10 ** chart["digits"])
            most = next((count for end, count in zip(ends, counts, strict=True) if end >= least), 0)
            assert abs(most - round(share * table.inputs)) <= 1, (row.certificate, radius)
    mixed = next(s for s in chart["series"] if s["labels"][0].startswith("mixed"))
    assert mixed["clean"][at] == f"{np.floor(1000 * table.clean_accuracy.mixed) / 10:.1f}"


def test_pictures_are_the_pixels_of_the_data(report, folder, noise):
    text = report(noise)
    inputs = np.load(folder / "pictures.npz")["inputs"]
    found = re.findall(r'src="data:image/png;base64,([^"]*)" alt="Picture of input (\d+)"', text)
    assert len(found) == 12 and len({index for _, index in found}) == 12
    for data, index in found:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        np.testing.assert_array_equal(pixels, np.rint(inputs[int(index)] * 255).transpose(1, 2, 0))
    assert "wrong class" in _words(text) and "<b>grey</b>" not in text
    assert str(folder) not in text  # no folder of this machine is named
    assert report(noise, "--inputs", 1).count('alt="Picture') == 3
    assert report(noise, "--inputs", 0).count('alt="Picture') == 0


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda sources: sources.update(data="/nowhere/at-all.npz"), "(it is missing or damaged)"),
        (lambda sources: sources.update(data="cifar10-sample"), "other checksum"),
        (lambda sources: sources.update(objects=["data"]), "it was a Python object"),
    ],
)
def test_without_its_data_a_run_is_shown_without_pictures(report, noise, spoil, words):
    described = json.loads((noise / "run.json").read_text())
    spoil(described["sources"])
    (noise / "run.json").write_text(json.dumps(described))
    text = report(noise)
    assert words in _words(text) and 'alt="Picture' not in text
    assert "Largest certified radii" in text and "nowhere/" not in text


def test_large_pictures_are_made_smaller():
    wide, one = np.zeros((1, 40, 300), np.float32), np.zeros(1, np.int64)
    data = Dataset("x", "test", one, one, ("a",), lambda k: wide, (-1.0, 1.0), "")
    made = Image.open(io.BytesIO(picture(data, 0)))
    assert made.size[0] == SIDE and made.getpixel((0, 0)) == 128


@pytest.mark.parametrize("name", ["noise", "constant"])
def test_the_printed_command_makes_the_same_run(report, folder, tmp_path, name, monkeypatch):
    lines = re.findall("<code>(.*?)</code>", report(folder / name, "--output", tmp_path / "x.html"))
    words = shlex.split(html.unescape(next(line for line in lines if line.startswith("certmix certify"))))
    for file in ("nets.py", "pictures.npz"):
        shutil.copy(folder / file, tmp_path)
    monkeypatch.chdir(tmp_path)
    _run(*words[1:])
    first, again = (json.loads((place / name / "run.json").read_text()) for place in (folder, tmp_path))
    assert all(first[part] == again[part] for part in ("identity", "request"))


@pytest.mark.parametrize(
    "name, words",
    [
        ("margin", ("proved not to change its class", "no statement on this page can fail by chance")),
        ("constant", ("if the Lipschitz constant that was given is right", "certmix does not prove it")),
    ],
)
def test_runs_without_samples(report, folder, tmp_path, name, words):
    text = report(folder / name, "--output", tmp_path / "page.html")
    assert all(one in _words(text) for one in words) and "failure probability 0" not in _words(text)
    table = json.loads((folder / name / "certified-accuracy.json").read_text())
    (chart,) = _charts(text)
    for row, series in zip(table["rows"], chart["series"], strict=False):
        _, counts = series["steps"][0]
        assert (counts or [0])[0] == round(row["certified_accuracy"][0] * table["inputs"])


def test_studies_show_their_printed_figures_and_kinds(report, folder, tmp_path):
    text = report(folder / "sweep", "--output", tmp_path / "sweep.html")
    printed = (folder / "sweep" / "mix-sweep.md").read_text()
    figures = re.findall(r"([\d.]+) \[[\d.]+, [\d.]+\]", printed)
    shown = re.findall(r'<td class="number">([\d.]+) <span class="under interval">', text)
    assert shown == figures and len(shown) == 5 * 3
    assert text.count('class="badge attacked"') == 5 and 'class="badge certified"' not in text
    assert "data:image/svg+xml;base64," in text


def test_runs_are_compared(report, folder, tmp_path):
    text = report(folder / "noise", folder / "margin", folder / "sweep", "--output", tmp_path / "all.html")
    words = _words(text)
    assert "3 runs compared" in words and "Comparison of noise, margin and sweep" in words
    assert "Not comparable: radii are in different norms (A l2; B linf)." in words
    assert "Empirical studies are estimates" in words
    both = report(folder / "noise", folder / "constant", "--output", tmp_path / "both.html")
    assert "All runs are about the same data, inputs and norm." in _words(both)
    assert _charts(both)[0]["key"] == "all" and len(_charts(both)[0]["series"]) == 2


BAD = {
    "no run": (("nowhere",), "holds no run.json"),
    "several without a file": (("NOISE", "NOISE"), "--output"),
    "negative inputs": (("NOISE", "--inputs", "-1"), "inputs = -1"),
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


def test_no_torch_is_imported(noise):
    code = (
        "import sys; from certmix.page import write_report; "
        f"write_report([{str(noise)!r}]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
