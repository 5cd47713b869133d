"""Names and places: specs, paths that files name, links, pipes, and names that are no text."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from fuzz.harness import accepted, fuzz, judged, lay, refused
from fuzz.readers import log, pictures, whole
from hypothesis import given
from hypothesis import strategies as st

from certmix.data import load
from certmix.errors import CertmixError, DataError, ModelError, RunError
from certmix.models.spec import load_model
from certmix.nuts.description import ModelReference
from certmix.nuts.folder import absolute
from certmix.page.runs import plots
from certmix.runs import Run
from certmix.runs.folder import Identity
from certmix.runs.logs import lowest_printed, read_log
from certmix.verification.falsify.falsify import read_finding


@pytest.mark.parametrize("name", ["missing", "", ".", "/", "a\0b", "\ud800", "~\0", "~\ud800", "x\ny.npz"])
def test_names_that_are_no_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(judged(lambda: read_finding(name), tmp_path), RunError)
    refused(lambda: load(name), tmp_path)


@given(
    st.text(max_size=30).filter(lambda text: ":" not in text)
    | st.sampled_from(["~\0", "\ud800", "~\ud800", "a\nb", "nuts:\0", "nuts:~\0", "x.pt2", "\0.pt2", "x.json", "\0.json", "timm:"])
    | st.text(max_size=10).map(lambda text: f"nuts:{text}")
)  # fmt: skip
@fuzz
def test_specs(place: Path, spec: str) -> None:
    outcome = judged(lambda: load_model(str(place / "none" / spec) if spec.startswith("/") else spec))
    assert isinstance(outcome, ModelError) or spec in ("", ".") or Path(spec).exists()


# places that a mix names

PLACES = st.one_of(
    st.text(max_size=20),
    st.lists(st.sampled_from(["..", ".", "models", "a b", "out", "inside", "~", "", "x.json"]), max_size=6).map("/".join),
    st.sampled_from(["./link/h.json", "link", "inside/../../h", "~/x", "~nobody/x", "./\0", "..\\h", "C:\\h", "./..", "file://h"]),
)  # fmt: skip


@given(PLACES, PLACES | st.none())
@fuzz
def test_relative_places_stay_in_the_folder(place: Path, spec: str, weights: str | None) -> None:
    (place / "mix" / "inside").mkdir(parents=True, exist_ok=True)
    if not (place / "mix" / "link").is_symlink():
        (place / "mix" / "link").symlink_to(place)
    found = judged(
        lambda: absolute(ModelReference(spec, weights, None, "a" * 64), place / "mix", "robust"), place
    )
    if isinstance(found, CertmixError):
        return
    for before, after in ((spec, found.spec), (weights, found.weights)):
        if before is None or after is None or after == before or before.startswith(("~", "/")):
            continue
        assert (place / "mix").resolve() in Path(after).parents, after


# folders of runs


@pytest.mark.parametrize("name", ["numbers.sqlite", "lock"])
def test_a_run_does_not_write_through_links(tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "outside" / "target")
    identity = Identity("points", "d" * 64, "net", "m" * 64, 0.5, 0, 100, "fp32")
    assert "link" in refused(lambda: Run(tmp_path / "run", identity, 3), tmp_path)


def test_plots_are_files_of_the_folder(tmp_path: Path) -> None:
    lay(tmp_path, {"secret": b"secret", "run/good.svg": b"<svg/>"})
    (tmp_path / "run" / "folder.svg").mkdir()
    (tmp_path / "run" / "linked.svg").symlink_to(tmp_path / "secret")
    (tmp_path / "run" / "gone.svg").symlink_to(tmp_path / "nothing")
    assert accepted(lambda: plots(tmp_path / "run"), tmp_path) == (("good", b"<svg/>"),)


# data sets


def test_links_among_inputs(tmp_path: Path) -> None:
    """Links are followed, as collections of links are common; what is there is only decoded as an input."""
    fine = pictures()["cat/0.png"]
    lay(tmp_path, dict.fromkeys(("i/cat/0.png", "i/dog/0.png", "out/fine.png"), fine))
    lay(tmp_path, {"out/secret.png": b"not an input"})
    folder, outside = tmp_path / "i", tmp_path / "out"
    (folder / "cat" / "1.png").symlink_to(outside / "fine.png")
    (folder / "cat" / "2.png").symlink_to(outside / "secret.png")
    assert "not a readable image" in refused(lambda: whole(folder), tmp_path)
    (folder / "cat" / "2.png").unlink()
    (folder / "cat" / "3.png").symlink_to(folder / "cat" / "3.png")
    (folder / "cat" / "4.png").symlink_to(outside / "missing.png")
    (folder / "dog" / "loop").symlink_to(folder)
    (folder / "dog" / "5.png").mkdir()
    if hasattr(os, "mkfifo"):  # a pipe is not waited for
        os.mkfifo(folder / "cat" / "pipe.png")
    assert len(accepted(lambda: whole(folder))) == 3


def test_names_that_are_no_text(tmp_path: Path) -> None:
    lay(tmp_path, pictures())
    try:
        os.rename(os.fsencode(tmp_path / "cat"), os.fsencode(tmp_path) + b"/c\xff\nt")
    except OSError:
        pytest.skip("file names are text here")
    accepted(lambda: whole(tmp_path), tmp_path)
    lay(tmp_path, {"dog/0.jpg": b""})
    refused(lambda: whole(tmp_path), tmp_path)
    assert isinstance(judged(lambda: whole(tmp_path, "a\nb")), DataError)


# text


def test_a_byte_order_mark_and_crlf_change_nothing(tmp_path: Path) -> None:
    plain = log()["log.tsv"]
    lay(tmp_path, {"plain.tsv": plain, "marked.tsv": b"\xef\xbb\xbf" + plain.replace(b"\n", b"\r\n")})
    one, other = read_log(tmp_path / "plain.tsv"), read_log(tmp_path / "marked.tsv")
    assert other.radius.tolist() == one.radius.tolist() and other.index.tolist() == one.index.tolist()


def test_the_lowest_number_that_prints_so_is_found_at_once() -> None:
    """Just below a power of ten, and in digits of other scripts, too."""
    short, long = (
        ("१", "1_0", "+1", " 1 ", "1e-310", "5e-324", "1e308"),
        ("9.9999999", "0.99999999", "999999.99"),
    )
    for text in (*short, *long, "9.99999999e22"):
        digits = len(text.strip(" +").partition("e")[0].replace(".", "").replace("_", "").lstrip("0"))
        style, lowest = f".{max(3, digits)}g", lowest_printed(text)
        assert float(format(lowest, style)) == float(text)
        assert float(format(np.nextafter(lowest, 0.0), style)) < float(text)
