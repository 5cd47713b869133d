"""Data in files as people have them: pairs of arrays, IDX, tables and Hugging Face's folders."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pandas as pd
import pytest

from certmix.data import dataset_of, load
from certmix.errors import DataError

INPUTS = np.random.default_rng(0).random((6, 4)).astype(np.float32)
PIXELS = np.random.default_rng(1).integers(0, 256, (6, 5, 7), np.uint8)
LABELS = np.array([0, 2, 1, 1, 0, 2])


def idx(array, code):
    head = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def pair(inputs, labels):
    def make(folder):
        np.save(folder / inputs, INPUTS)
        np.save(folder / labels, LABELS)
        return folder / inputs

    return make


def table(name, **more):
    def make(folder):
        frame = pd.DataFrame(INPUTS, columns=list("abcd")).assign(label=LABELS)
        if name.endswith(".parquet"):
            pytest.importorskip("pyarrow")
            frame.to_parquet(folder / name)
        else:
            frame.to_csv(folder / name, index=False, **more)
        return folder / name

    return make


def saved(folder):
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict({"x": INPUTS.tolist(), "label": LABELS.tolist()})
    datasets.DatasetDict({"test": made, "train": made.select([0, 1])}).save_to_disk(str(folder / "hub"))
    return folder / "hub"


FORMS = {
    "X and y": pair("X.npy", "y.npy"),
    "x_test and y_test": pair("x_test.npy", "y_test.npy"),
    "test_inputs and test_labels": pair("test_inputs.npy", "test_labels.npy"),
    "data and targets": pair("data.npy", "targets.npy"),
    "CSV": table("t.csv"),
    "TSV": table("t.tsv", sep="\t"),
    "Parquet": table("t.parquet"),
    "Hugging Face": saved,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_data(form, tmp_path):
    dataset = load(FORMS[form](tmp_path))
    reference = dataset_of((INPUTS, LABELS))
    np.testing.assert_allclose([dataset.read(k) for k in range(6)], INPUTS, rtol=1e-6)
    np.testing.assert_array_equal(dataset.labels, LABELS)
    assert dataset.class_names == reference.class_names
    if form not in ("CSV", "TSV"):
        assert dataset.checksum == reference.checksum


@pytest.mark.parametrize("packed", [False, True])
def test_idx(packed, tmp_path):
    for part, rows in (("t10k", slice(None)), ("train", slice(3))):
        for kind, array in (("images-idx3", PIXELS), ("labels-idx1", LABELS.astype(np.uint8))):
            raw = idx(array[rows], 8)
            name = f"{part}-{kind}-ubyte" + (".gz" if packed else "")
            (tmp_path / name).write_bytes(gzip.compress(raw) if packed else raw)
    whole, train = load(tmp_path), load(tmp_path, "train")
    assert whole.checksum == dataset_of((PIXELS, LABELS)).checksum and whole.read(0).shape == (1, 5, 7)
    assert (
        len(train) == 3
        and len(load(tmp_path / name.replace("train", "t10k").replace("labels-idx1", "images-idx3"))) == 6
    )
    with pytest.raises(DataError, match="has no split 'other': use test or train"):
        load(tmp_path, "other")


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_pairs_stay_in_their_files(tmp_path, monkeypatch, order):
    from certmix.data import pairs

    monkeypatch.setattr(pairs, "LARGE", 10)
    path = pair("X.npy", "y.npy")(tmp_path)
    np.save(tmp_path / "X.npy", np.asarray(INPUTS, order=order))
    dataset = load(path)
    np.testing.assert_array_equal(dataset.read(3), INPUTS[3])
    assert (
        type(dataset.read).__name__ == "RowsReader"
        and dataset.checksum == dataset_of((INPUTS, LABELS)).checksum
    )


def test_columns_of_numbers_and_class_names_of_hugging_face(tmp_path):
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features(
        {"a": datasets.Value("float32"), "kind": datasets.ClassLabel(names=["p", "q", "r"])}
    )
    datasets.Dataset.from_dict({"a": [0.1, 0.2], "kind": [2, 0]}, kinds).save_to_disk(str(tmp_path / "rows"))
    dataset = load(tmp_path / "rows", label_column="kind")
    assert dataset.features == ("a",) and dataset.labels.tolist() == [2, 0]
    with pytest.raises(DataError, match="no column called label.*--label-column"):
        load(tmp_path / "rows")
    grey = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["p", "q"])})
    from PIL import Image

    shown = [Image.fromarray(PIXELS[k]) for k in (0, 1)]
    datasets.Dataset.from_dict({"image": shown, "label": [1, 0]}, grey).save_to_disk(str(tmp_path / "grey"))
    dataset = load(tmp_path / "grey")
    assert dataset.class_names == ("p", "q") and dataset.read(1).shape == (1, 5, 7)
    np.testing.assert_array_equal(dataset.read(1)[0], PIXELS[1] / np.float32(255))


WRONG = {
    "no labels": (lambda f: np.save(f / "X.npy", INPUTS), "no labels lie beside it (y.npy"),
    "no word": (lambda f: np.save(f / "mine.npy", INPUTS), "(labels.npy, of inputs.npy)"),
    "objects": (lambda f: np.save(f / "X.npy", np.array([{}]), allow_pickle=True), "holds Python objects"),
    "cut off": (lambda f: (f / "X.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00"), "cannot be read"),
    "web page": (lambda f: (f / "X.npy").write_bytes(b"<!doctype html>"), "web page"),
    "short": (lambda f: (f / "t10k-images-idx3-ubyte").write_bytes(idx(PIXELS, 8)[:-1]), "claims shape (6, 5, 7)"),
    "no IDX": (lambda f: (f / "t10k-images-idx3-ubyte").write_bytes(b"PNG....."), "does not begin as an IDX file"),
    "unnamed": (lambda f: pd.DataFrame(INPUTS, columns=list("abcd")).assign(label=0).to_csv(f / "t.csv"), "index=False"),
    "no header": (lambda f: pd.DataFrame(INPUTS).to_csv(f / "t.csv", index=False, header=False), "the first row holds numbers"),
    "texts alone": (lambda f: pd.DataFrame({"a": ["x", "y"], "label": [0, 1]}).to_csv(f / "t.csv", index=False), "'a' holds other things than numbers"),
    "texts among numbers": (lambda f: pd.DataFrame({"a": [1, 2], "b": ["x", "2"], "label": [0, 1]}).to_csv(f / "t.csv", index=False), "'b' holds other things than numbers"),
    "missing": (lambda f: pd.DataFrame({"a": [1, None], "label": [0, 1]}).to_csv(f / "t.csv", index=False), "row 2 has no a"),
    "no label": (lambda f: pd.DataFrame({"a": [1], "b": [1]}).to_csv(f / "t.csv", index=False), "name the label's with --label-column"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_read(what, tmp_path):
    make, told = WRONG[what]
    make(tmp_path)
    if what not in (
        "no labels",
        "no word",
        "no IDX",
        "short",
        "unnamed",
        "no header",
        "texts",
        "missing",
        "no label",
    ):
        np.save(tmp_path / "y.npy", LABELS)
    if "IDX" in what or what == "short":
        (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS.astype(np.uint8), 8))
    (path,) = [one for one in tmp_path.iterdir() if one.name not in ("y.npy", "t10k-labels-idx1-ubyte")]
    with pytest.raises(DataError) as refused:
        load(path, input_range=None)
    assert told in str(refused.value) and "\n" not in str(refused.value)
