"""Identity and folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from certmix.errors import RunError
from certmix.files import write_atomically
from certmix.runs import Identity, Run, StudyIdentity, read_run

IDENTITY = Identity("points", "d" * 64, "net", "m" * 64, 0.5, 0, 100, "fp32")


STUDY = StudyIdentity("mix-sweep", "points g/h", {"seed": 0, "eps": 8 / 255, "attack": ("pgd", 20)})


def test_every_part_of_the_identity_but_names_changes_the_digest():
    for name in Identity.__struct_fields__:
        kind = {"sigma": None, "noise": "uniform", "scale": 0.5} if name in ("noise", "scale") else {}
        one = IDENTITY.replace(**kind)
        value = getattr(one, name)
        other = one.replace(**{name: value + 1 if isinstance(value, int | float) else value + "x"})
        named = name in ("data", "robust")
        assert (other.folder_name()[-8:] == one.folder_name()[-8:]) == named
        assert bool(other.differences(one.as_dict())) != named


def test_folder_names_are_plain():
    name = IDENTITY.replace(data="a/b c").folder_name()
    assert "/" not in name
    assert " " not in name
    assert "sigma0.5" in name
    study = STUDY.folder_name()
    assert study.startswith("mix-sweep-points_g_h-") and "/" not in study
    assert StudyIdentity("mix-sweep", "points g/h", {**STUDY.parts, "seed": 1}).folder_name() != study


def test_folder_round_trip_and_refusals(tmp_path: Path):
    with Run(tmp_path / "run", IDENTITY, 3) as run:
        run.store.write("clean", [3], np.zeros((1, 2)))
    with Run(tmp_path / "run", IDENTITY, 3) as run:
        assert run.store.known("clean") == {3}
    with pytest.raises(RunError, match=r"sigma is 0\.5 there, 0\.25 asked"):
        Run(tmp_path / "run", IDENTITY.replace(sigma=0.25), 3)
    with Run(tmp_path / "run", IDENTITY.replace(sigma=0.25), 3, fresh=True) as run:
        assert not run.store.begun()


def test_a_run_of_another_study_or_setting_is_refused(tmp_path):
    with Run(tmp_path / "run", STUDY) as run:
        run.store.write("clean", [1], np.zeros((1, 2)))
    other = StudyIdentity("mix-sweep", "points", {**STUDY.parts, "seed": 1})
    with pytest.raises(RunError, match="seed is 0 there, 1 asked"):
        Run(tmp_path / "run", other)
    with pytest.raises(RunError, match="holds a run of certmix mix-sweep"):
        Run(tmp_path / "run", IDENTITY, 3)
    with pytest.raises(RunError, match="a run of certmix mix-sweep: name a run of certmix certify"):
        read_run(tmp_path / "run", "certify")
    with Run(tmp_path / "run", other, fresh=True) as run:
        assert run.store.known("clean") == set()


def test_descriptions_that_cannot_be_trusted(tmp_path: Path):
    with pytest.raises(RunError, match=r"no run\.json"):
        read_run(tmp_path)
    for content, message in (
        ("{", "not readable"),
        ('{"format_version": 99}', "update certmix"),
        ('{"format_version": 1}', "version 1, this certmix reads 2: make the run again"),
        ('{"format_version": 2, "identity": []}', "an identity that is no object"),
    ):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(RunError, match=message):
            read_run(tmp_path)


def test_counts_without_a_description_and_a_file_in_the_way_are_not_overwritten(tmp_path: Path):
    with Run(tmp_path / "run", IDENTITY, 3):
        (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(RunError, match=r"no run\.json"):
        Run(tmp_path / "run", IDENTITY, 3)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="choose another --output"):
        Run(tmp_path / "file", IDENTITY, 3)


@pytest.mark.skipif(os.name == "nt", reason="asking whether a process runs would end it there")
def test_what_a_killed_process_was_writing_goes_when_the_file_is_written_again(tmp_path: Path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    others = [f".x.json.{os.getppid()}.tmp", ".x.json.word.tmp", f".y.json.{ended.pid}.tmp", ".x.json.tmp"]
    for name in (f".x.json.{ended.pid}.tmp", f".x.json.{10**30}.tmp", *others):
        (tmp_path / name).write_bytes(b"half")
    write_atomically(tmp_path / "x.json", b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["x.json", *others])
