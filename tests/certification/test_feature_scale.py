"""Feature scales: noise, radii and attacks count them, and inputs stay in the user's units."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import certmix
from certmix.certification.stored import recertify
from certmix.data import dataset_of, scaled
from certmix.errors import CertmixError
from certmix.models.smoothed import SmoothedClassifier
from certmix.radii import Smoothing
from certmix.sampling.grid import Grid
from certmix.sampling.noise import Noise, NoiseKey, noise_integers, on_device
from certmix.verification.falsify.attack import Claim, Claims, Target, attack_claim
from certmix.verification.request import FalsifyRequest

NORMAL, OFFSET = np.array([1.5, -0.004, 30.0]), 40.0
SCALE = np.array([0.8, 150.0, 0.05])
CENTRE = np.array([290.0, 101325.0, 0.35])
UNIT = np.array([2.0, 128.0, 0.03125])
"""Powers of two: dividing and multiplying by them rounds nothing."""


class HalfSpace(nn.Module):
    """Class 0 where ``normal (x - centre) > 0``, in float64."""

    def __init__(self, unit=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(NORMAL))
        self.unit = torch.tensor(unit, dtype=torch.float64)

    def forward(self, x):
        score = ((x.double() * self.unit - torch.tensor(CENTRE)) * self.weight).sum(1)
        return torch.stack([score, -score], 1).float()


def rooms(count=12):
    rng = np.random.default_rng(1)
    inputs = (CENTRE + SCALE * rng.normal(0, 1.5, (count, 3))).astype(np.float32)
    return inputs, ((inputs - CENTRE) @ NORMAL < 0).astype(int)


@pytest.mark.parametrize("scale", [SCALE, UNIT, np.array([1e-6, 3.0, 7e5])])
@pytest.mark.parametrize("sigma", [0.25, 3.0, 1e-3])
def test_the_grid_point_is_as_near_as_it_says_and_noise_falls_on_the_grid(scale, sigma):
    grid = Grid.of(sigma, scale)
    values = (scale * np.random.default_rng(0).normal(0, 3, (20, 3))).astype(np.float32)
    for value in values:
        point = grid.nearest(value)
        exact = [
            Fraction(float(x)) / Fraction(float(s)) - int(k) / Fraction(grid.per_unit)
            for x, s, k in zip(value, scale, point.steps, strict=True)
        ]
        assert sum(one**2 for one in exact) <= Fraction(point.lost) ** 2
        assert point.lost <= 0.001 * sigma * 3**0.5
    noise, key, out = Noise(sigma, torch.device("cpu"), scale), NoiseKey(3, 4), torch.empty(50, 3)
    steps = noise.steps(torch.from_numpy(values[0]))
    noise.fill(out, steps, key, 0)
    drawn = noise_integers(
        key, torch.arange(50), 3, on_device(noise.law, torch.device("cpu")), noise.law.bits
    )
    np.testing.assert_array_equal(out.numpy(), grid.value(steps.numpy() + drawn.numpy()))


def test_channels_and_their_order():
    dataset = scaled(
        dataset_of((np.random.default_rng(0).random((4, 3, 2, 5)), [0, 1, 0, 1])), [1.0, 2.0, 4.0]
    )
    noise, out = Noise(0.5, torch.device("cpu"), dataset.scale), torch.empty(2000, 30)
    input = torch.from_numpy(dataset.read(0))
    noise.fill(out, noise.steps(input), NoiseKey(0, 0), 0)
    spread = (out.view(-1, 2, 5, 3).movedim(-1, 1) - input).std(dim=(0, 2, 3))
    assert torch.allclose(spread, torch.tensor([0.5, 1.0, 2.0]), rtol=0.03)


def run(model, data, **options):
    return certmix.certify(
        model,
        data,
        sigma=0.5,
        alpha=1.0,
        samples=400,
        input_range=None,
        progress=False,
        inputs="all",
        **options,
    )


def test_scaled_noise_is_noise_on_the_scaled_input():
    inputs, labels = rooms()
    one = run(HalfSpace(), (inputs, labels), feature_scale=UNIT)
    two = run(HalfSpace(UNIT), (inputs / UNIT.astype(np.float32), labels))
    assert (one.summary.norm, two.summary.norm) == ("scaled l2", "l2")
    np.testing.assert_allclose(one.outcomes.radii[0].radius, two.outcomes.radii[0].radius, rtol=1e-9)
    # no point of another class lies within a radius
    away = np.abs((inputs.astype(float) - CENTRE) @ NORMAL) / np.linalg.norm(NORMAL * UNIT)
    radii = one.outcomes.radii[0].radius
    assert np.all(radii < away) and radii.max() > 0.5
    smooth = SmoothedClassifier(HalfSpace(), 0.5, feature_scale=UNIT)
    plain = SmoothedClassifier(HalfSpace(UNIT), 0.5)
    found = smooth.certify(inputs, 400).radii.radius
    np.testing.assert_allclose(
        found, plain.certify(inputs / UNIT.astype(np.float32), 400).radii.radius, rtol=1e-9
    )
    again = certmix.certify(
        smooth, (inputs, labels), samples=400, input_range=None, progress=False, inputs="all", alpha=1.0
    )
    assert again.summary.norm == "scaled l2"
    np.testing.assert_array_equal(again.outcomes.radii[0].radius, radii)


@pytest.mark.parametrize("claimed, found", [(1.15, True), (0.9, False)])
def test_attacks_search_the_ellipsoid(claimed, found):
    inputs, _ = rooms()
    value = inputs[0]
    away = abs((value.astype(float) - CENTRE) @ NORMAL) / np.linalg.norm(NORMAL * SCALE)
    predicted = int(((value - CENTRE) @ NORMAL) < 0)
    target = Target(HalfSpace(), 2, torch.device("cpu"), None, None, SCALE)
    claim = Claim(0, predicted, claimed * away)
    claims = Claims("exact", 1.0, "l2", Smoothing.of(0.5), 0.001, 1, (claim,))
    seen = attack_claim(
        target, claims, claim, torch.from_numpy(value), FalsifyRequest(steps=15, samples=20_000)
    )
    assert seen.found is found and seen.distance < claim.radius
    moved = np.linalg.norm((seen.point.astype(float) - value) / SCALE)
    assert abs(moved - seen.distance) < 1e-3


NET = f"""
import torch
from torch import nn
def net():
    layer = nn.Linear(3, 2)
    normal = torch.tensor({NORMAL.tolist()})
    with torch.no_grad():
        layer.weight.copy_(torch.stack([normal, -normal]))
        offset = (normal.double() * torch.tensor({CENTRE.tolist()})).sum()
        layer.bias.copy_(torch.stack([-offset, offset]))
    return layer
"""


@pytest.fixture
def sensor(tmp_path):
    inputs, labels = rooms()
    frame = pd.DataFrame(inputs, columns=["temperature [K]", "pressure (Pa)", "humidity"])
    frame.assign(state=np.array(["bad", "good"])[labels]).to_csv(tmp_path / "rooms.csv", index=False)
    (tmp_path / "net.py").write_text(NET)
    return (
        "certify", "--data", "rooms.csv", "--label-column", "state", "--input-range", "none", "--sigma", 0.5, "--alpha",
        0.8, "--samples", 400, "--workers", 1, "--standard", "net.py:net", "--robust", "net.py:net",
    )  # fmt: skip


def test_commands(sensor, command, tmp_path):
    scale = ("--feature-scale", "0.8,150,0.05")
    made = command(*sensor, *scale, "--output", "run")
    assert made.code == 0, made.err
    assert "labels are texts: 0 = bad, 1 = good" in made.err
    text = " ".join(made.out.split())
    assert "Certified accuracy (%) at scaled l2 radius" in text
    assert (
        "allows changes of |temperature| <= 0.16 K or |pressure| <= 30 Pa or |humidity| <= 0.01 alone" in text
    )
    assert "image" not in made.out + made.err
    assert command(*sensor, *scale, "--output", "run").code == 0  # it goes on
    other = command(*sensor, "--feature-scale", "0.8,150,0.06", "--output", "run")
    assert other.code == 2 and "data_checksum" in other.err
    (tmp_path / "scale.json").write_text(
        json.dumps({"temperature [K]": 0.8, "humidity": 0.05, "pressure (Pa)": 150})
    )
    assert command(*sensor, "--feature-scale", "scale.json", "--output", "run").code == 0
    checked = command("verify", "run", "--run-code", "--resample", 3)
    assert checked.code == 0, checked.out + checked.err
    attacked = command("falsify", "run", "--run-code", "--steps", 3)
    assert attacked.code == 0 and "scaled l2" in attacked.out
    assert command("guarantee", "init", "run", "--output", "made.toml").code == 0
    assert "feature_scale" in (tmp_path / "made.toml").read_text()
    held = command("verify", "made.toml", "--runs", ".", "--resample", 0, "--run-code")
    assert held.code == 0 and "12 inputs reused" in held.out, held.out
    for number in (1, 2):
        assert command(*sensor, *scale, "--shard", f"{number}/2", "--output", f"part{number}").code == 0
    merged = command("merge", "part1", "part2", "--output", "whole")
    assert merged.code == 0 and "at scaled l2 radius" in merged.out, merged.err
    for source in ("run", "run/records.tsv"):
        told = command("recertify", source, *(() if source == "run" else ("--alpha", 0.8)), "--details")
        assert told.code == 0 and "scaled l2" in told.out, told.err
        assert "0.16 K" in told.out or "|value 1| <=" in told.out
    assert recertify(tmp_path / "run" / "records.tsv").feature_scale == (0.8, 150.0, 0.05)
    plain = command(*sensor, "--output", "plain")
    assert plain.code == 0
    mixed = command(
        "recertify", "run/records.tsv", "plain/records.tsv", "--alpha", 0.8, "--radii", "0,0.1", "--best"
    )
    assert mixed.code == 2 and "different feature scales" in mixed.err
    assert command("trade-off", "run", "--at-radius", 0.1).out.startswith(
        "Clean and certified accuracy (%) at scaled l2"
    )


REFUSED = {
    "too few": ("1,2", "holds 2 scales: give 3, one for each value of an input, or one for all"),
    "zero": ("1,0,2", "holds 0: a scale is a number above 0"),
    "negative": ("1,-1,2", "holds -1"),
    "infinite": ("1,inf,2", "feature scale"),
    "no file": ("missing.txt", "cannot be read"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_scales(what, sensor, command):
    given, told = REFUSED[what]
    done = command(*sensor, "--feature-scale", given, "--output", "run")
    assert done.code == 2 and told in done.err and done.err.count("\n") <= 2, done.err


@pytest.mark.parametrize("words", [("attack",), ("lipschitz",), ("confidence",)])
def test_commands_without_noise_have_no_scale(words, command):
    done = command(*words, "--feature-scale", "std")
    assert done.code == 2 and "--feature-scale" in done.err


def test_certificates_without_noise_refuse_it(sensor, command):
    words = [word for word in sensor if word not in ("--sigma", 0.5, "--samples", 400, "--workers", 1)]
    done = command(*words, "--certificate", "margin", "--norm", "l2", "--feature-scale", "std")
    assert done.code == 2 and "is not for certificate margin" in done.err


def test_std_is_the_spread_of_the_data():
    inputs, labels = rooms(50)
    data = dataset_of((inputs, labels), input_range=None)
    np.testing.assert_allclose(scaled(data, "std").scale, inputs.astype(float).std(0), rtol=1e-6)
    series = np.random.default_rng(0).normal(100, 3, (20, 2, 7)).astype(np.float32)
    found = scaled(dataset_of((series, np.arange(20) % 2), input_range=None), "std").scale
    np.testing.assert_allclose(found[:, 0], series.astype(float).std((0, 2)), rtol=1e-5)
    assert found.shape == (2, 7) and scaled(data, "std").checksum != data.checksum
    with pytest.raises(CertmixError, match="value 2 does not vary"):
        scaled(dataset_of(([[1.0, 2.0], [3.0, 2.0]], [0, 1]), input_range=None), "std")
    with pytest.raises(CertmixError, match="has feature scales already"):
        scaled(scaled(data, "std"), "std")
