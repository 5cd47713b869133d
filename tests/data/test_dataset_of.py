"""Data that a program holds: every form gives the same data set, or says what is wrong with it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, Subset, SubsetRandomSampler, TensorDataset

from certmix.data import dataset_of, in_memory, load, load_arrays
from certmix.errors import DataError

INPUTS = np.random.default_rng(0).random((6, 3, 5)).astype(np.float32)
LABELS = np.array([0, 2, 1, 1, 0, 2])
PIXELS = np.random.default_rng(1).integers(0, 256, (6, 3, 4, 5), np.uint8)


class Items:
    """A map-style data set; `make` turns a place into an item."""

    def __init__(self, make, classes=None):
        self.make = make
        if classes:
            self.classes = classes

    def __len__(self):
        return len(LABELS)

    def __getitem__(self, place):
        return self.make(place)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(INPUTS, LABELS, strict=True))


def tensors(inputs=INPUTS):
    return TensorDataset(torch.from_numpy(inputs), torch.from_numpy(LABELS))


FORMS = {
    "tensors": lambda: (torch.from_numpy(INPUTS), torch.from_numpy(LABELS)),
    "arrays, float64": lambda: (INPUTS.astype(float), LABELS),
    "lists": lambda: [INPUTS.tolist(), LABELS.tolist()],
    "column of labels": lambda: (INPUTS, LABELS[:, None]),
    "labels as floats": lambda: (INPUTS, LABELS.astype(np.float32)),
    "one-hot": lambda: (INPUTS, np.eye(3)[LABELS]),
    "one-hot of booleans": lambda: (INPUTS, torch.eye(3)[LABELS].bool()),
    "texts of numbers": lambda: (INPUTS, LABELS.astype(str)),
    "a series": lambda: (INPUTS, pd.Series(LABELS, index=range(6, 0, -1))),
    "a dictionary": lambda: {"X": INPUTS, "Y": LABELS},
    "tensor data set": tensors,
    "map-style": lambda: Items(lambda k: (INPUTS[k], LABELS[k])),
    "map-style, with more": lambda: Items(lambda k: [torch.from_numpy(INPUTS[k]), int(LABELS[k]), "more"]),
    "map-style, of dictionaries": lambda: Items(lambda k: {"image": INPUTS[k], "label": int(LABELS[k])}),
    "loader": lambda: DataLoader(tensors(), batch_size=4),
    "loader that shuffles": lambda: DataLoader(tensors(), batch_size=4, shuffle=True, drop_last=True),
    "loader without batches": lambda: DataLoader(tensors(), batch_size=None),
    "loader of dictionaries": lambda: DataLoader(Items(lambda k: {"x": INPUTS[k], "label": LABELS[k]}), 4),
    "loader that collates": lambda: DataLoader(
        tensors(2 * INPUTS), 4, collate_fn=lambda rows: (torch.stack([x for x, _ in rows]) / 2, [y for _, y in rows])
    ),
    "loader of a stream": lambda: DataLoader(Stream(), batch_size=4),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_data(form):
    dataset = dataset_of(FORMS[form]())
    reference = dataset_of((INPUTS, LABELS))
    np.testing.assert_array_equal(dataset.labels, LABELS)
    np.testing.assert_array_equal(dataset.read(4), INPUTS[4])
    assert dataset.read(4).dtype == np.float32 and dataset.class_names == ("0", "1", "2")
    assert dataset.checksum == reference.checksum
    np.testing.assert_array_equal(load_arrays(dataset)[0], INPUTS)
    dataset.read(0)[:] = 9  # it was a copy
    np.testing.assert_array_equal(dataset.read(0), INPUTS[0])


IMAGES = {
    "channels last": lambda: (PIXELS.transpose(0, 2, 3, 1), LABELS),
    "channels first": lambda: (PIXELS, LABELS),
    "tensors": lambda: (torch.from_numpy(PIXELS), LABELS),
    "map-style, Pillow": lambda: Items(lambda k: (Image.fromarray(PIXELS[k].transpose(1, 2, 0)), LABELS[k])),
    "map-style, tensors": lambda: Items(lambda k: (torch.from_numpy(PIXELS[k]), LABELS[k])),
    "map-style, arrays": lambda: Items(lambda k: (PIXELS[k].transpose(1, 2, 0), LABELS[k])),
}


@pytest.mark.parametrize("form", IMAGES)
@pytest.mark.parametrize("kept", [True, False])
def test_8_bit_images(form, kept, monkeypatch):
    monkeypatch.setattr(in_memory, "IN_MEMORY", in_memory.IN_MEMORY if kept else 0)
    dataset = dataset_of(IMAGES[form]())
    np.testing.assert_array_equal(dataset.read(2), PIXELS[2].astype(np.float32) / np.float32(255))
    assert dataset.checksum == dataset_of(IMAGES["channels last"]()).checksum
    assert load_arrays(dataset)[0].dtype == np.uint8
    with pytest.raises(DataError, match="does not apply to uint8 images"):
        dataset_of(IMAGES[form](), input_range=(0.0, 255.0))


def test_grey_images():
    grey = [Image.fromarray(PIXELS[k, 0]) for k in range(6)]
    dataset = dataset_of(Items(lambda k: (grey[k], LABELS[k]), classes=["0 - zero", "1 - one", "2 - two"]))
    assert dataset.read(0).shape == (1, 4, 5) and dataset.class_names[2] == "2 - two"
    assert dataset.checksum == dataset_of((PIXELS[:, 0], LABELS)).checksum


def test_parts_of_data_sets():
    for part in (Subset(tensors(), [1, 3, 4]), DataLoader(tensors(), sampler=SubsetRandomSampler([4, 1, 3]))):
        np.testing.assert_array_equal(dataset_of(part).labels, LABELS[[1, 3, 4]])


def test_large_data_are_read_again(monkeypatch):
    monkeypatch.setattr(in_memory, "IN_MEMORY", 100)
    asked = []
    dataset = dataset_of(Items(lambda k: asked.append(k) or (INPUTS[k], LABELS[k])))
    assert dataset.checksum == dataset_of((INPUTS, LABELS)).checksum
    before = len(asked)
    np.testing.assert_array_equal(dataset.read(3), INPUTS[3])
    assert len(asked) == before + 1
    np.testing.assert_array_equal(load_arrays(dataset)[0], INPUTS)
    with pytest.raises(DataError, match="outside 0,0.5"):
        dataset_of(Items(lambda k: (INPUTS[k], LABELS[k])), input_range=(0.0, 0.5))


def labels(values, **more):
    return {"inputs": INPUTS, "labels": values, **more}


UNDERSTOOD = {
    "texts": (labels(["low", "high", "mid", "mid", "low", "high"]), [1, 0, 2, 2, 1, 0], "0 = high, 1 = low"),
    "texts that are named": (
        labels(["b", "a", "b", "b", "a", "b"], class_names=["c", "b", "a"]), [1, 2, 1, 1, 2, 1], "0 = c, 1 = b",
    ),
    "from 1": (labels(LABELS + 1, class_names=["a", "b", "c"]), LABELS, "from 1 to 3 and were read as classes 0 to 2"),
    "one-hot": (labels(np.eye(4)[LABELS]), LABELS, "one-hot labels were read as classes 0 to 3"),
    "booleans": (labels(LABELS > 0), LABELS > 0, None),
}  # fmt: skip


@pytest.mark.parametrize("form", UNDERSTOOD)
def test_labels_are_understood_and_said(form):
    data, wanted, told = UNDERSTOOD[form]
    dataset = dataset_of(data)
    np.testing.assert_array_equal(dataset.labels, wanted)
    assert dataset.labels.dtype == np.int64
    assert told is None or told in dataset.settings["labels"]


def drawn(k):
    return np.random.default_rng().random((3, 5)), LABELS[k]


def broken(k):
    if k == 3:
        raise RuntimeError("disk\nfailed")


REFUSED = {
    "an array": (lambda: INPUTS, "data of type ndarray hold no labels: give a pair"),
    "a tensor": (lambda: torch.zeros(3, 2), "hold no labels"),
    "None": (lambda: None, "data of type NoneType are no data set"),
    "three": (lambda: (1, 2, 3), "data of type tuple are no data set"),
    "an iterator": (lambda: iter(()), "are no data set"),
    "no labels": (lambda: {"inputs": INPUTS}, "holds inputs: call its parts inputs and labels"),
    "ragged": (lambda: ([[1.0], [1.0, 2.0]], [0, 1]), "inputs are no array"),
    "texts": (lambda: ([["a"], ["b"]], [0, 1]), "inputs are <U1"),
    "objects": (lambda: ([[{}], [{}]], [0, 1]), "inputs hold other things than numbers"),
    "another count": (lambda: (INPUTS, LABELS[:5]), "labels has shape (5,), expected (6,)"),
    "not one-hot": (lambda: (INPUTS, np.full((6, 3), 1 / 3)), "rows are not one-hot"),
    "half a class": (lambda: (INPUTS, LABELS + 0.5), "labels holds float64 values"),
    "missing": (lambda: (INPUTS, ["a", None, "a", "b", "b", "b"]), "labels[1] is missing"),
    "one text": (lambda: (INPUTS, ["a"] * 6), "all labels are 'a'"),
    "unknown text": (lambda: labels(list("abcabc"), class_names=["a", "b"]), "label 'c' is none of the class"),
    "range": (lambda: (255 * INPUTS, LABELS), "divide them by 255"),
    "whole numbers": (lambda: (np.full((6, 2), 2**25), LABELS), "beyond 16,777,216"),
    "random": (lambda: Items(drawn), "another input each time"),
    "broken": (lambda: Items(lambda k: broken(k) or (INPUTS[k], 0)), "item 3 cannot be read (RuntimeError: disk failed)"),
    "no pairs": (lambda: Items(lambda k: INPUTS[k]), "an item is of type ndarray: give pairs"),
    "no parts": (lambda: Items(lambda k: {"a": 1}), "an item is a dictionary of a"),
    "shapes": (lambda: Items(lambda k: (INPUTS[k, : 1 + k % 2], 0)), "input 1 is float32 of shape (2, 5)"),
    "weighted": (
        lambda: DataLoader(tensors(), sampler=torch.utils.data.WeightedRandomSampler([1.0] * 6, 6)),
        "has a WeightedRandomSampler, which may repeat",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_what_is_no_data_set(form):
    make, told = REFUSED[form]
    with pytest.raises(DataError) as refused:
        dataset_of(make())
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_names_paths_and_data_sets(tmp_path):
    np.savez(tmp_path / "mine.npz", inputs=INPUTS, labels=LABELS)
    dataset = dataset_of(tmp_path / "mine.npz")
    assert (
        dataset.checksum
        == load(str(tmp_path / "mine.npz")).checksum
        == dataset_of(np.load(tmp_path / "mine.npz")).checksum
    )
    assert dataset_of(dataset) is dataset and dataset_of("cifar10-sample").classes == 10
    with pytest.raises(DataError, match="one set without splits"):
        dataset_of((INPUTS, LABELS), split="train")
