"""Folders of Hugging Face's library that somebody else made: only files that lie in them are opened."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from certmix.data import load
from certmix.errors import DataError

datasets = pytest.importorskip("datasets")
pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="no pipes and devices by path"),
    pytest.mark.usefixtures("soon"),
]
INPUTS = np.random.default_rng(0).random((6, 4)).round(3)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A folder of one set, and beside it one with splits and a pipe."""
    made = datasets.Dataset.from_dict({"x": INPUTS.tolist(), "label": [0, 1, 2] * 2})
    made.save_to_disk(str(tmp_path / "rows"))
    datasets.DatasetDict({"test": made}).save_to_disk(str(tmp_path / "splits"))
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "rows"


SPECIAL: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo, "zeros": lambda path: path.symlink_to("/dev/zero"), "gone": lambda path: None,
    "link": lambda path: path.symlink_to(path.parents[2 if path.parent.name == "test" else 1] / "pipe"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("file", [
    "rows/*.arrow", "rows/dataset_info.json", "splits/test/*.arrow",
    "splits/test/state.json", "splits/test/dataset_info.json",
])  # fmt: skip
def test_what_is_no_regular_file_is_refused(rows, kind, file):
    (path,) = rows.parent.glob(file)
    path.unlink()
    SPECIAL[kind](path)
    with pytest.raises(DataError, match="save it again|cannot be read"):
        load(rows.parent / file.partition("/")[0])


@pytest.mark.parametrize("name", ["../pipe", "/dev/zero", "..", "", ["pipe"], 3, None])
def test_what_a_folder_names_lies_in_it(rows, name):
    state = json.loads((rows / "state.json").read_text())
    (rows / "state.json").write_text(json.dumps({**state, "_data_files": [{"filename": name}]}))
    with pytest.raises(DataError, match="state.json names .*: save it again"):
        load(rows)
    splits = rows.parent / "splits"
    (splits / "dataset_dict.json").write_text(json.dumps({"splits": ["test", name]}))
    with pytest.raises(DataError, match="dataset_dict.json names .*: save it again"):
        load(splits)


@pytest.mark.parametrize("file, content", [
    ("state.json", b"{"), ("state.json", b"[]"), ("state.json", b'{"_data_files": 3}'), ("state.json", b"\xff"),
    ("dataset_dict.json", b'{"splits": null}'), ("dataset_dict.json", b"3"),
])  # fmt: skip
def test_what_says_nothing_is_refused(rows, file, content):
    (rows / file).write_bytes(content)
    with pytest.raises(DataError, match=f"{file} cannot be read .*: save it again"):
        load(rows)


def pictures(folder: Path, shown: list[Any], kind: Any = None) -> Path:
    """Save rows as they are: the library puts into the folder what they name, others need not."""
    import pyarrow

    folder.mkdir()
    features = datasets.Features({"image": kind or datasets.Image(), "label": datasets.Value("int64")})
    table = pyarrow.table({"image": shown, "label": [0, 1]}, schema=features.arrow_schema)
    with pyarrow.ipc.new_stream(str(folder / "data.arrow"), table.schema) as file:
        file.write_table(table)
    said = {
        "_data_files": [{"filename": "data.arrow"}], "_fingerprint": "0", "_format_columns": None,
        "_format_kwargs": {}, "_format_type": None, "_output_all_columns": False, "_split": None,
    }  # fmt: skip
    (folder / "state.json").write_text(json.dumps(said))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features.to_dict()}))
    return folder


def picture(kind: str = "PNG", mode: str = "L") -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.arange(35, dtype=np.uint8).reshape(5, 7)).convert(mode).save(file, kind)
    return file.getvalue()


def test_pictures_in_a_folder_are_read(tmp_path):
    shown = [{"bytes": picture(), "path": "/nowhere/a.png"}, {"bytes": picture("BMP"), "path": None}]
    dataset = load(pictures(tmp_path / "made", shown))
    assert dataset.read(1).shape == (1, 5, 7)


@pytest.mark.parametrize(
    "path", ["pipe", "secret.png", "http://127.0.0.1:9/a.png", "hf://datasets/a/b/c.png"]
)
def test_a_row_names_no_file_and_no_address(rows, path, monkeypatch):
    import socket

    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it asked the network"))
    (rows.parent / "secret.png").write_bytes(picture())
    path = path if "//" in path else str(rows.parent / path)
    shown = [{"bytes": picture(), "path": None}, {"bytes": None, "path": path}]
    with pytest.raises(DataError, match="row 1 holds no image but where one is: save it again"):
        load(pictures(rows.parent / "made", shown)).read(1)


@pytest.mark.parametrize("raw", [picture("EPS"), b"", b"none", picture()[:40]])
def test_a_picture_is_of_the_known_forms(tmp_path, raw):
    shown = [{"bytes": raw, "path": None}] * 2
    with pytest.raises(DataError, match="row 0 is not a readable image"):
        load(pictures(tmp_path / "made", shown))


def test_lists_of_pictures_are_refused(tmp_path):
    shown = [[{"bytes": picture(), "path": None}]] * 2
    with pytest.raises(DataError, match="column image names files"):
        load(pictures(tmp_path / "made", shown, datasets.List(datasets.Image())))
