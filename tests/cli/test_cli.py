"""The command line: errors in one line, models and splits that are named."""

from __future__ import annotations

import numpy as np
import pytest
from forged import edit_record, records

BAD = {
    "radii": ("0.5,x", "not a list of numbers"),
    "inputs": ("few", "neither a number nor 'all'"),
    "device": ("abacus", "unknown"),
    "data": ("no-such.npz", "no-such.npz"),
    "standard": ("no-such-model", "no-such-model"),
    "robust": ("nets.py:Wrong", "not finite"),
    "standard-normalize": ("0.5", "MEAN/STD"),
    "certificate": ("magic", "magic"),
}


@pytest.mark.parametrize("option", BAD)
def test_bad_values_are_one_line_and_exit_2(command, problem, option):
    value, expected = BAD[option]
    done = command("certify", *problem.options, "--inputs", 2, "--samples", 200, f"--{option}", value)
    assert done.code == 2
    assert done.out == ""
    lines = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert expected in lines[0]
    assert "Traceback" not in done.err


def test_without_robust_sigma_must_be_shipped(command):
    done = command("certify", "--sigma", 0.37, "--alpha", 0.76)
    assert done.code == 2
    assert "0.37" in done.err
    assert "--robust" in done.err


def test_reproduce_shows_what_differs(command, problem):
    run = problem.folder / "run"
    command("certify", *problem.options, "--samples", 300, "--inputs", 5, "--output", run)
    index = min(records(run))
    edit_record(run, index, selection=np.array([0, 0, 100]))
    again = command("reproduce", "--run-code", run)
    assert again.code == 1
    assert f"input {index}: " in again.out
    assert "4 of 5 inputs have equal counts" in again.out


def test_models_names_the_models_where_one_is_unknown(command):
    near, far = command("models", "cifar10-standrd"), command("models", "nope")
    assert near.code == far.code == 2 and near.out == far.out == ""
    assert near.err.startswith(
        "Error: no model called 'cifar10-standrd' is shipped: did you mean cifar10-standard?"
    )
    assert "use one of cifar10-adversarial-l2, " in far.err and ".json" not in far.err
    assert command("models", "cifar10-standard").code == 0


def test_an_option_for_images_names_the_one_for_inputs(command):
    assert "No such option '--images'. Did you mean '--inputs'?" in command("certify", "--images", 3).err


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_of_one_set_is_refused(command, problem, split):
    done = command("certify", *problem.options, "--inputs", 2, "--samples", 200, "--split", split)
    assert done.code == 2 and f"--split {split} would be all of it" in done.err


def test_training_takes_one_set_without_a_split(command, problem, monkeypatch):
    seen = []

    def trained(recipe, data, measured, *arguments, **options):
        seen.extend([data, measured])
        raise KeyboardInterrupt

    monkeypatch.setattr("certmix.training.train_to_folder", trained)
    told = command("train", "standard", "--data", problem.folder / "points.npz").err
    assert "accuracies will be of the inputs trained on" in told and "--evaluation" in told
    assert [(data.split, len(data)) for data in seen] == [("train", 12), ("test", 12)]
    done = command("train", "standard", "--data", problem.folder / "points.npz", "--split", "train")
    assert done.code == 2 and "two files" in done.err
