"""Pickles that name anything but numpy's array reconstruction are refused before it can run."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from certmix.data.cifar import read_pickle
from certmix.errors import DataError


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (OrderedDict(data=1), "collections.OrderedDict"),
        ({"data": Path("a")}, "pathlib."),
        ({"data": eval}, "builtins.eval"),
        ({"data": np.load}, "numpy.load"),
        ({"data": np.float64(1)}, "multiarray.scalar"),
        ({"data": np.random.default_rng(0)}, "numpy.random"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_globals_are_refused_by_name(value, named, tmp_path):
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps(value, 4))
    with pytest.raises(DataError, match=f"{named}.*forbidden"):
        read_pickle(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        pickle.dumps({"data": 1}, 2)[:-3],
        pickle.dumps({"data": np.zeros(50, np.uint8)}, 2)[:-40],
        b"\x80\x02}X\x04\x00\x00\x00datacnumpy\ndtype\nX\x01\x00\x00\x00O\x85Rs.\n",
        b"\x80\x02}X\x04\x00\x00\x00datacnumpy\nndarray\nK\x05\x85Rs.",
        b"\x80\x02}X\x04\x00\x00\x00datac_codecs\nencode\nX\x01\x00\x00\x00aX\x06\x00\x00\x00rot_13\x86Rs.",
        b"\x80\x02]K\x01.",
        pickle.dumps({"data": np.array([{}, 1], object)}, 2),
        pickle.dumps({"data": np.zeros(3, "M8[s]")}, 2),
    ],
)
def test_damaged_or_foreign_pickle_is_refused(content, tmp_path):
    path = tmp_path / "batch"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"^[^\n]*batch[^\n]*official archive[^\n]*$"):
        read_pickle(path)
