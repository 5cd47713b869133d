"""Models of others in runs: how often they are asked, which classes they tell apart, and that changes are noticed."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from onnx_nets import W, graph

import certmix
from certmix.errors import ModelError

INPUTS = np.random.default_rng(2).random((12, 2, 2), dtype=np.float32)
LABELS = (INPUTS.reshape(12, 4) @ W).argmax(1)


def scores(x):
    return x.reshape(len(x), -1) @ W


def certified(models, labels=LABELS, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", certmix.CertmixWarning)
        given = {"sigma": 0.1, "alpha": 0.76, "samples": 200, "inputs": "all", "progress": False}
        return certmix.certify(models, (INPUTS, labels), **{**given, **more})


def test_g_is_asked_once_an_input_beside_the_checks(tmp_path):
    asked, base = [], []

    def counting(x):
        asked.append(len(x))
        return scores(x)

    def sampled(x):
        base.append(len(x))
        return scores(x)

    certified((counting, sampled), output=tmp_path / "run")
    assert sum(asked) == len(INPUTS) + 24
    assert sum(base) > 12 * 200


def test_the_number_of_classes_is_the_model_s(tmp_path):
    few = np.minimum(LABELS, 1)
    with pytest.warns(certmix.CertmixWarning) as heard:
        result = certmix.certify(
            scores,
            (INPUTS, few),
            sigma=0.1,
            samples=200,
            inputs="all",
            progress=False,
            output=tmp_path / "run",
        )
    told = [str(one.message) for one in heard]
    assert any(
        "shows 2 classes, the model tells 3 apart: those from 2 on have no input here" in one for one in told
    )
    assert all(record.selection.shape == (3,) for record in result.records)
    with pytest.raises(ModelError, match="tells 3 classes apart, the data have 5: choose a model trained on"):
        certified(scores, np.where(np.arange(12) == 0, 4, LABELS))
    with pytest.raises(ModelError, match="different numbers of classes apart .*mix models of one"):
        certified((lambda x: scores(x)[:, [0, 1, 2, 2]], scores), few)


def test_another_onnx_file_is_noticed(tmp_path):
    path = graph(tmp_path / "h.onnx")
    certified((scores, path), output=tmp_path / "run")
    certified((scores, path), output=tmp_path / "run")
    graph(tmp_path / "h.onnx", weight=W + 0.1)
    with pytest.raises(ModelError, match="the robust model h is not the one"):
        certified((scores, path), output=tmp_path / "run")


def test_declared_probabilities_are_the_logits_that_they_are_of():
    def shares(x):
        e = np.exp(scores(x))
        return e / e.sum(1, keepdims=True)

    first = certified((shares, scores), standard_outputs="probabilities").summary
    assert first == replace(certified((scores, scores)).summary, standard="shares")
