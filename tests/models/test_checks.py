"""What a model must give, and which shipped model goes with a noise level."""

import json

import numpy as np
import pytest
import torch
from msgspec.structs import asdict
from scipy.stats import binom
from torch import nn

from certmix.errors import ModelError
from certmix.models.checks import (
    check_logits,
    looks_like_probabilities,
    near_chance,
    noise_warnings,
    resolve_robust,
)
from certmix.radii import Smoothing

INPUTS = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))


class Wrapped(nn.Module):
    def __init__(self, change):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.change = nn.Linear(12, 5), change

    def forward(self, inputs):
        return self.change(self.linear(inputs.flatten(1)))


def test_a_sound_model_passes_and_its_logits_come_back():
    module = Wrapped(lambda logits: logits).eval()
    logits = check_logits(module, INPUTS, 5, "net")
    assert torch.equal(logits, module(INPUTS))
    assert not logits.requires_grad
    assert check_logits(module, INPUTS[:1], 5, "net").shape == (1, 5)
    assert check_logits(Wrapped(lambda logits: logits.bfloat16()), INPUTS, 5, "net").dtype == torch.bfloat16


def test_inputs_with_channels_last_are_recognised():
    last = r"channels last: save \(N, C, H, W\), e.g. transpose\(0, 3, 1, 2\)$"
    others = "of the shape the model takes"
    for shape, words in (
        ((4, 2, 2, 3), last),
        ((4, 6, 5, 1), last),
        ((4, 3, 3, 3), others),
        ((4, 12), others),
    ):
        with pytest.raises(ModelError, match=words):
            check_logits(nn.Conv2d(7, 3, 1), torch.zeros(shape), 5, "net")


def test_probabilities_are_told_from_logits():
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    given = (logits.softmax(1), logits, logits.log_softmax(1))
    assert [looks_like_probabilities(one) for one in given] == [True, False, False]


def poisoned(value):
    return lambda logits: logits.index_fill(1, torch.tensor([0]), value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {"scores": x}, "returns dict: return a tensor or an array of shape"),
        (lambda x: x[:, :3], "tells 3 classes apart, the data have 5: choose a model trained on these data"),
        (poisoned(float("nan")), "4 logits that are not finite of 20: check its weights"),
        (poisoned(float("inf")), "4 logits that are not finite of 20"),
        (lambda x: x @ x, r"fails on inputs \(4, 3, 2, 2\) float32: RuntimeError"),
        (lambda x: x - x.mean(0), "differ by .* in a batch and alone: put it in evaluation mode"),
        (lambda x: nn.functional.dropout(x, 0.5), "in a batch and alone"),
    ],
)
def test_unsound_models_are_refused_in_one_line(change, message):
    torch.manual_seed(0)
    with pytest.raises(ModelError, match=f"^net .*{message}|^net {message}") as caught:
        check_logits(Wrapped(change).eval(), INPUTS, 5, "net")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("inputs", [1, 2, 4])
@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False), nn.Dropout(0.5)]
)
def test_training_mode_is_noticed(layer, inputs):
    torch.manual_seed(0)
    module = nn.Sequential(layer, nn.Flatten(), nn.Linear(12, 5)).train()
    with pytest.raises(ModelError, match="in a batch and alone"):
        check_logits(module, INPUTS[:inputs], 5, "net")


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("total", [10, 57, 1000])
def test_near_chance_is_the_exact_test(total, classes):
    level = 1 / classes + (1 - 1 / classes) / (2 * classes)
    correct = np.arange(total + 1)
    few = correct <= min(2 * level, (1 + 2 * level) / 3) * total
    expected = few & (binom.sf(correct - 1, total, level) > 1e-3)
    assert [near_chance(int(c), total, classes) for c in correct] == expected.tolist()
    assert near_chance(total // classes, total, classes) and not any(near_chance(k, 9, 10) for k in range(10))
    assert not near_chance(total, total, classes)


@pytest.fixture
def zoo(tmp_path, make_card):
    for name, sigma in [("noisy-0.25", 0.25), ("noisy-1.00", 1.0), ("plain", None)]:
        (tmp_path / f"{name}.json").write_text(json.dumps(asdict(make_card(name, noise_sigma=sigma))))
    return tmp_path


def test_the_robust_model_follows_the_noise_level(zoo, tmp_path_factory):
    assert resolve_robust(None, 0.25, zoo) == "noisy-0.25"
    assert resolve_robust(None, 0.1 * 10 + 1e-12, zoo) == "noisy-1.00"
    assert resolve_robust("mine.py:net", 0.3, zoo) == "mine.py:net"
    for sigma in (0.3, 0.2500001):
        with pytest.raises(ModelError, match=r"^.*shipped: 0.25, 1\): use one .* give one with --robust$"):
            resolve_robust(None, sigma, zoo)
    with pytest.raises(ModelError, match="shipped: none"):
        resolve_robust(None, 0.25, tmp_path_factory.mktemp("empty"))


def test_another_noise_level_is_warned_of():
    unit = (0.0, 1.0)
    half, bands, far = Smoothing.of(0.5), Smoothing("bands", 4), Smoothing.of(64.0)
    for used, told in (
        (Smoothing.of(0.25), "sigma 0.25"),
        (Smoothing("laplace", 0.5), "laplace noise of scale 0.5"),
    ):
        (said,) = noise_warnings("noisy", half, used, unit)
        assert said.startswith(
            f"noisy was trained for sigma 0.5 and is used with {told}: the certificates hold,"
        )
    assert len(list(noise_warnings("noisy", bands, Smoothing("bands", 5), unit))) == 1
    for trained, used in ((half, Smoothing.of(0.5 * (1 + 1e-12))), (None, half), (bands, bands)):
        assert list(noise_warnings("noisy", trained, used, unit)) == []
    (said,) = noise_warnings("noisy", None, far, unit)
    assert "far above the input range [0, 1]" in said and list(noise_warnings("", None, far, None)) == []


@pytest.mark.parametrize(
    ("own", "classes", "no_label_zero", "words"),
    [
        (5, 6, True, "counted from 1: subtract 1"),
        (5, 6, False, "choose a model trained on these data"),
        (5, 7, True, "choose a model trained on these data"),
    ],
)
def test_another_number_of_classes_has_its_own_remedy(own, classes, no_label_zero, words):
    with pytest.raises(ModelError) as caught:
        check_logits(Wrapped(lambda x: x).eval(), INPUTS, classes, "net", no_label_zero=no_label_zero)
    assert f"net tells 5 classes apart, the data have {classes}: " in str(caught.value)
    assert words in str(caught.value)
