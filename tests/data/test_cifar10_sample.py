"""The sample inside the package: which images, which labels, which pixels."""

from __future__ import annotations

import hashlib
import json
import os
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from certmix.data import load, load_arrays
from certmix.data.cifar import CIFAR10

LOG = Path(__file__).parents[3] / "shared/data/logs/gaussian-resnet110-cifar10-sigma0.25-500.tsv"


@pytest.fixture(scope="module")
def sample():
    return load("cifar10-sample")


def test_images_indices_classes_and_pixels(sample):
    np.testing.assert_array_equal(sample.indices, np.arange(0, 10_000, 20))
    assert (sample.class_names, sample.input_range) == (CIFAR10.class_names, (0.0, 1.0))
    counts = np.bincount(sample.labels).tolist()  # those of the published 500-image logs
    assert counts == [48, 46, 50, 56, 47, 48, 47, 55, 52, 51]
    inputs, labels = load_arrays(sample)
    assert inputs.dtype == np.uint8 and inputs.shape == (500, 3, 32, 32)
    digest = hashlib.sha256(inputs.tobytes()).hexdigest()
    assert digest == "732ef934edcc2c28e267480ec415e8816f1756a980cbc6afd9168f3596d27f90"
    # the cat of test image 0 starts with these two RGB pixels in the official binary version
    np.testing.assert_array_equal(inputs[0, :, 0, :2].T, [[158, 112, 49], [159, 111, 47]])
    assert labels is sample.labels
    assert sample.checksum == "c8f3b395e842550256a7eb5fe02554147bc7731b5d0b90e2884129fbe82d54fd"
    first = sample.read(0)
    np.testing.assert_array_equal(first[:, 0, 0], np.array([158, 112, 49], np.float32) / np.float32(255))
    facts = json.loads((files("certmix.data") / "cifar10_sample.json").read_text())
    assert "Krizhevsky" in facts["source"] and len(facts["test_batch_sha256"]) == 64


@pytest.mark.skipif(not LOG.exists(), reason="the published logs are not here")
def test_labels_agree_with_a_published_log(sample):
    log = np.loadtxt(LOG, skiprows=1, usecols=(0, 1), dtype=np.int64)
    np.testing.assert_array_equal(log[:, 0], sample.indices)
    np.testing.assert_array_equal(log[:, 1], sample.labels)


@pytest.mark.skipif("CERTMIX_CIFAR10" not in os.environ, reason="CERTMIX_CIFAR10 names no CIFAR-10 folder")
def test_sample_equals_the_official_images(sample):
    inputs, labels = load_arrays(load(os.environ["CERTMIX_CIFAR10"]))
    np.testing.assert_array_equal(inputs[::20], load_arrays(sample)[0])
    np.testing.assert_array_equal(labels[::20], sample.labels)


def test_damaged_package_files_are_noticed(refusal, tmp_path, monkeypatch):
    names = ("cifar10_sample.png", "cifar10_sample.json")
    sheet, facts = ((files("certmix.data") / name).read_bytes() for name in names)
    monkeypatch.setattr("certmix.data.cifar.files", lambda package: tmp_path)
    for contents in ((sheet[:5000], facts), (sheet, facts.replace(b"732ef934", b"00000000")), (sheet, b"{")):
        for name, content in zip(names, contents, strict=True):
            (tmp_path / name).write_bytes(content)
        assert "install certmix again" in refusal("cifar10-sample")
