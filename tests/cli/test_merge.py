"""Shards: each an honest part, together the run that was never divided."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from forged import edit_record, records, sql
from spreading import rows

from certmix.certification.request.shard import Shard
from certmix.errors import ParameterError
from certmix.runs import read_run

GIVEN = ("--inputs", 11, "--samples", 600, "--format", "json")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the shards lie once they were made."""
    return tmp_path_factory.mktemp("shards")


@pytest.fixture
def shards(command, problem, kept):
    """Return the folders of three shards of eleven inputs, run once and copied."""
    if not any(kept.iterdir()):
        for folder in _run_shards(command, problem):
            shutil.copytree(folder, kept / folder.name)
    for folder in kept.iterdir():
        shutil.copytree(folder, problem.folder / folder.name, dirs_exist_ok=True)
    return [problem.folder / f"shard-{i}" for i in (1, 2, 3)]


def _run_shards(command, problem):
    folders = [problem.folder / f"shard-{i}" for i in (1, 2, 3)]
    for i, folder in enumerate(folders, 1):
        done = command("certify", *problem.options, *GIVEN, "--shard", f"{i}/3", "--output", folder)
        assert done.code == 0, done.err
        table = json.loads(done.out)
        assert (table["complete"], table["inputs"], table["planned_inputs"]) == (False, 4 - (i == 3), 11)
        assert any(note.startswith(f"Shard {i}/3") for note in table["notes"])
    return folders


def test_merged_shards_are_the_run_that_was_never_divided(command, problem, shards):
    alone = command("certify", *problem.options, *GIVEN, "--output", problem.folder / "alone")
    merged = command("merge", *shards[::-1], "--output", problem.folder / "run", "--format", "json")
    assert merged.code == 0, merged.err
    assert merged.out == alone.out
    assert rows(problem.folder / "run") == rows(problem.folder / "alone")
    described = read_run(problem.folder / "run")
    assert "shard" not in described
    assert [part["shard"]["number"] for part in described["merged"]] == [3, 2, 1]
    assert command("reproduce", "--run-code", problem.folder / "run").code == 0
    again = command("certify", *problem.options, *GIVEN, "--output", problem.folder / "run")
    assert (again.code, again.out) == (0, alone.out)
    other = command("recertify", problem.folder / "run", "--alpha", 0.9, "--format", "json")
    assert json.loads(other.out)["complete"] is True


def test_a_shard_that_is_not_named_is_missed_with_its_inputs(command, shards):
    done = command("merge", shards[0], shards[2], "--output", "run")
    assert done.code == 2
    numbers = sorted(index for index in range(11))[1::3]
    assert f"4 of 11 inputs are missing or unfinished ({', '.join(map(str, numbers))})" in done.err
    assert "name the folder of shard 2/3" in done.err


def test_an_unfinished_shard_is_named(command, shards):
    index = max(records(shards[1]))
    sql(shards[1], "DELETE FROM cells WHERE idx = ?", index)
    done = command("merge", *shards, "--output", "run")
    assert done.code == 2
    assert f"1 of 11 inputs are missing or unfinished ({index}): finish shard 2/3 ({shards[1]})" in done.err


def test_a_shard_may_come_twice_if_it_says_the_same(command, shards):
    shutil.copytree(shards[0], "copy")
    assert command("merge", *shards, "copy", "--output", "run").code == 0
    edit_record(Path("copy"), 3, selection=np.array([0, 0, 100]))
    done = command("merge", *shards, "copy", "--output", "other")
    assert done.code == 2
    assert "hold different counts of input 3" in done.err


def test_shards_that_began_with_other_values_are_told_in_one_short_line(command, shards):
    sql(shards[1], "UPDATE facts SET value = ? WHERE key = 'gates'", f"[{'9' * 5000}]")
    done = command("merge", *shards, "--output", "run")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "the shards began with different gates, 0 and [999" in done.err
    assert len(done.err) < 250


@pytest.mark.parametrize(
    "change, text",
    [
        (("--seed", 1), "seed is 1 there, 0 here"),
        (("--alpha", 0.9), "alpha is 0.76 and 0.9"),
        (("--samples", 700), "samples is 600 and 700"),
        (("--shard", "2/4"), "they are 1/3 and 2/4"),
        (("--standard", "none"), "the standard classifier is"),
        (("--inputs", 10), "inputs is 11 and 10"),
    ],
    ids=str,
)
def test_shards_of_other_requests_are_refused_and_say_why(command, problem, shards, change, text):
    given = (*problem.options, *GIVEN, "--shard", "2/3", "--output", "odd", *change)
    assert command("certify", *given).code == 0
    done = command("merge", shards[0], "odd", shards[2], "--output", "run")
    assert done.code == 2
    lines = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert text in lines[0]


STEPS = ("remember_planned", "standard_cell", "derive", "publish")


def test_other_folders_are_refused(command, problem, shards):
    assert command("certify", *problem.options, *GIVEN, "--output", "whole").code == 0
    done = command("merge", shards[0], "whole")
    assert done.code == 2
    assert "whole is not the folder of a shard" in done.err
    assert "holds a run already" in command("merge", *shards, "--output", "whole").err
    assert command("merge", *shards, "--output", "whole", "--fresh").code == 0
    assert "is one of the shards" in command("merge", *shards, "--output", shards[0]).err
    assert "holds no run.json" in command("merge", problem.folder).err
    assert command("merge").code == 2


@pytest.mark.parametrize(
    ("step", "fresh"),
    [
        *((step, ()) for step in STEPS), (STEPS[-1], ("--fresh",)),
        *(pytest.param(step, ("--fresh",), marks=pytest.mark.long) for step in STEPS[:-1]),
    ],
    ids=str,
)  # fmt: skip
def test_a_merge_that_was_killed_goes_on_with_the_same_command(command, shards, monkeypatch, step, fresh):
    from certmix.certification import shards as merging

    def kill(*given, **named):
        raise SystemExit("killed")

    given = ("merge", *shards, "--output", "run", "--format", "json")
    if fresh:
        assert command(*given).code == 0
    with monkeypatch.context() as patch:
        patch.setattr(merging, step, kill)
        assert command(*given, *fresh).code == 2
    merged, again = command(*given, *fresh), command(*given)
    assert merged.code == 0, merged.err
    assert (again.code, again.out) == (0, merged.out), again.err
    edit_record(Path("run"), 0, seconds=7.0)
    assert "run holds a run already" in command(*given).err


def test_shards_partition_the_inputs():
    for of in range(1, 12):
        parts = [Shard(i, of).of_positions(np.arange(0, 33, 3)) for i in range(1, of + 1)]
        assert sorted(np.concatenate(parts)) == list(range(0, 33, 3))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "1", "a/b", "1/3/5", "-1/3"])
def test_bad_shards_are_refused_with_a_remedy(command, problem, text):
    with pytest.raises(ParameterError, match="numbered from 1|write for example 2/8") as refused:
        Shard.parse(text)
    done = command("certify", *problem.options, f"--shard={text}")
    assert done.code == 2
    assert str(refused.value) in " ".join(done.err.split())


def test_more_shards_than_inputs(command, problem):
    done = command("certify", *problem.options, "--inputs", 3, "--shard", "2/4")
    assert done.code == 2
    assert "shard 2/4: there are 3 inputs only; use 3 shards at most" in done.err
