"""Naming a data set: the table, paths that are missing or of no known kind, input ranges; which inputs are taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certmix.data import DATASETS, load, load_arrays, parse_input_range, spread, stack
from certmix.errors import ParameterError


def test_table_describes_each_source_in_one_line():
    assert list(DATASETS) == [
        "cifar10-sample",
        "cifar10-tuning",
        "cifar10",
        "cifar100",
        "images",
        "npz",
        "table",
        "npy",
        "huggingface",
    ]
    for source in DATASETS.values():
        assert source.description and "\n" not in source.description


def put(folder, *files):
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(bytes(10))


NO_DATA = {
    "cifar10-smple": ([], "did you mean cifar10-sample?"),
    "CIFAR10-sample": ([], "did you mean cifar10-sample?"),
    "cifar10_sample": ([], "did you mean cifar10-sample?"),
    "nowhere/zzz": ([], "no such path exists: give an existing path or cifar10-sample"),
    "pik.npz": ([], "no such path exists: give an existing path or cifar10-sample"),
    "x" * 5000: ([], "cannot be read"),
    **{
        name: ([], "give its path")
        for name in ("cifar10", "cifar100", "images", "npz", "table", "npy", "huggingface")
    },
    ".": ([], "found nothing): give a CIFAR folder, or a folder with a sub-folder of images"),
    "./": (["a.txt", "b.txt", "c.txt", "d.txt"], "found a.txt, b.txt, c.txt, ..."),
    "data.txt": (
        ["data.txt"],
        "is a .txt file: give an .npz or .npy file, a table or a folder; unpack archives first",
    ),
    "data.tar.gz": (["data.tar.gz"], "unpack archives first"),
    "data": (["data"], "suffix-less file"),
    ".//": (
        ["cifar-10-batches-bin/test_batch.bin", "cifar-100-binary/test.bin"],
        "holds several data sets, cifar-10-batches-bin (cifar10), cifar-100-binary (cifar100): name one of them",
    ),
}


@pytest.mark.parametrize("name", NO_DATA, ids=lambda name: name[:20])
def test_what_names_no_data_set(name, refusal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files, words = NO_DATA[name]
    put(tmp_path, *files)
    assert words in refusal(name)


@pytest.mark.parametrize("given", [np.zeros((4, 3)), (np.zeros((4, 3)), np.zeros(4)), None])
def test_arrays_are_refused_with_a_way_to_save_them(given, refusal):
    message = refusal(given)
    assert type(given).__name__ in message and "np.savez('mine.npz', inputs=..., labels=...)" in message


def test_home_is_expanded_the_name_is_short_and_the_split_as_asked(save_npz, monkeypatch):
    path = save_npz()
    monkeypatch.setenv("HOME", str(path.parent))
    dataset = load(Path("~/mine.npz"), default_split="train")
    assert (len(dataset), dataset.name, dataset.split) == (4, "mine", "train")
    assert load(path).split == "test"
    assert dataset.labels.dtype == dataset.indices.dtype == np.int64


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resize": 40}, "--resize 40 does not apply"),
        ({"crop": 32}, "--crop 32 does not apply"),
        ({"input_range": None}, "--input-range none does not apply"),
        ({"input_range": (0.0, 255.0)}, "--input-range 0,255 does not apply"),
        ({"split": "val"}, "has no split 'val': use t"),
        ({"split": ""}, "has no split ''"),
    ],
)
def test_options_that_do_not_apply(options, words, refusal, tmp_path, save_npz):
    (tmp_path / "test_batch.bin").write_bytes(bytes(3073))
    for where in ("cifar10-sample", tmp_path):
        assert words in refusal(where, **options)
    if "resize" in options or "crop" in options:
        assert words in refusal(save_npz(), **options)
    if "resize" in options:
        assert "resize = 0: give a number of pixels" in refusal(tmp_path, error=ParameterError, resize=0)
    if options.get("input_range"):
        assert "LO < HI" in refusal(tmp_path, error=ParameterError, input_range=(1.0, 0.0))
        assert words in refusal(save_npz(inputs=np.zeros((4, 2, 2, 3), np.uint8)), **options)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_that_is_named_is_refused_where_every_split_would_be_the_same(split, save_npz, refusal):
    message = refusal(save_npz(), split)
    assert f"one set without splits, so --split {split} would be all of it" in message
    assert "two files" in message


@pytest.mark.parametrize(
    ("text", "expected"), [("-1, 1", (-1.0, 1.0)), ("0,255", (0.0, 255.0)), ("none", None), ("None ", None)]
)
def test_input_range_is_parsed(text, expected):
    assert parse_input_range(text) == expected


@pytest.mark.parametrize("text", ["", "1", "0,1,2", "a,b", "1,0", "1,1", "nan,1", "0,inf"])
def test_bad_input_range_is_refused(text):
    with pytest.raises(ParameterError, match=r"^[^\n]*input range[^\n]*none[^\n]*$"):
        parse_input_range(text)


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 20_000), count=st.integers(1, 2000))
def test_spread_is_even(length, count):
    positions = spread(length, count)
    taken = min(length, count)
    assert positions.dtype == np.int64
    assert positions.tolist() == [k * length // taken for k in range(taken)]
    gaps = np.diff(np.append(positions, length))
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1
    np.testing.assert_array_equal(spread(length, "all"), np.arange(length))


@pytest.mark.parametrize("count", [0, -3, "some", "10"])
def test_bad_count(count):
    with pytest.raises(ParameterError, match="at least 1, or for all"):
        spread(10, count)


def test_stack_keeps_the_order_asked_for_and_a_plain_reader_gives_floats():
    sample = load("cifar10-sample")
    np.testing.assert_array_equal(spread(10_000, 500), sample.indices)
    inputs = stack(sample, np.array([7, 3]))
    assert inputs.dtype == np.float32 and inputs.shape == (2, 3, 32, 32)
    np.testing.assert_array_equal(inputs, [sample.read(7), sample.read(3)])
    assert stack(sample, []).shape == (0, 3, 32, 32)
    shorter = replace(sample, labels=sample.labels[:3], read=lambda k: sample.read(k))
    inputs, labels = load_arrays(shorter)
    assert inputs.dtype == np.float32 and len(labels) == 3
    np.testing.assert_array_equal(inputs, stack(sample, range(3)))
