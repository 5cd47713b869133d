"""Identity, database, folder and log."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from certmix.errors import RunError
from certmix.runs import Identity, ImageRecord, RunFolder, Store, read_run, write_log


def counts(folder):
    return Store(folder / "counts.sqlite", 3)


IDENTITY = Identity("points", "d" * 64, "net", "m" * 64, 0.5, 0, 100, "fp32")


def record(index=3) -> ImageRecord:
    looks = {100: np.array([90, 0, 10]), 200: np.array([181, 2, 17])}
    return ImageRecord(index, 0, "c" * 64, np.array([9, 0, 1]), looks, 1.5, "cpu")


def same(a: ImageRecord, b: ImageRecord) -> bool:
    return (
        (a.index, a.label, a.input_checksum, a.seconds, a.device)
        == (b.index, b.label, b.input_checksum, b.seconds, b.device)
        and a.selection.tolist() == b.selection.tolist()
        and {n: c.tolist() for n, c in a.estimation.items()}
        == {n: c.tolist() for n, c in b.estimation.items()}
    )


def test_a_record_survives_the_database(tmp_path: Path):
    store = Store(tmp_path / "x.sqlite", 3)
    store.write_image(record())
    store.close()
    store = Store(tmp_path / "x.sqlite", 3, read_only=True)
    (found,) = store.images().values()
    store.close()
    assert same(found, record())
    assert (found.selected, found.drawn) == (0, 200)
    assert found.selection.dtype == np.int64


def test_standard_outputs_are_kept_by_checksum():
    store = Store(None, 2)
    probabilities = np.array([[0.25, 0.75], [1.0, 0.0]])
    store.write_standard("one", [5, 7], probabilities)
    assert store.standard("two") == {}
    found = store.standard("one")
    np.testing.assert_array_equal([found[5], found[7]], probabilities)


def test_a_damaged_database_is_one_line(tmp_path: Path):
    (tmp_path / "x.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(RunError, match="not a readable run database") as error:
        Store(tmp_path / "x.sqlite", 2)
    assert "\n" not in str(error.value)


def test_every_part_of_the_identity_but_names_changes_the_digest():
    for part in fields(Identity):
        value = getattr(IDENTITY, part.name)
        other = replace(IDENTITY, **{part.name: value + 1 if isinstance(value, int | float) else value + "x"})
        named = part.name in ("data", "robust")
        assert (other.digest() == IDENTITY.digest()) == named
        assert bool(other.differences(IDENTITY.as_dict())) != named


def test_folder_names_are_plain():
    name = replace(IDENTITY, data="a/b c").folder_name()
    assert "/" not in name
    assert " " not in name
    assert "sigma0.5" in name


def test_folder_round_trip_and_refusals(tmp_path: Path):
    with RunFolder(tmp_path / "run", IDENTITY, counts) as run:
        run.store.write_image(record())
    with RunFolder(tmp_path / "run", IDENTITY, counts) as run:
        assert 3 in run.store.images()
    with pytest.raises(RunError, match=r"sigma is 0\.5 there, 0\.25 asked"):
        RunFolder(tmp_path / "run", replace(IDENTITY, sigma=0.25), counts)
    with RunFolder(tmp_path / "run", replace(IDENTITY, sigma=0.25), counts, fresh=True) as run:
        assert run.store.images() == {}


def test_descriptions_that_cannot_be_trusted(tmp_path: Path):
    with pytest.raises(RunError, match=r"no run\.json"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunError, match="not readable"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"format_version": 99}))
    with pytest.raises(RunError, match="update certmix"):
        read_run(tmp_path)


def test_counts_without_a_description_are_not_overwritten(tmp_path: Path):
    with RunFolder(tmp_path / "run", IDENTITY, counts):
        (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(RunError, match=r"no run\.json"):
        RunFolder(tmp_path / "run", IDENTITY, counts)


def test_a_file_in_the_way(tmp_path: Path):
    (tmp_path / "run").write_text("")
    with pytest.raises(RunError, match="choose another --output"):
        RunFolder(tmp_path / "run", IDENTITY, counts)


def test_logs_round_radii_down(tmp_path: Path):
    write_log(
        tmp_path / "log",
        [(0, 3, 3, 0.1234567, 1.5), (20, 8, -1, 0.0, 61.0), (40, 1, 2, 0.29, 0.0)],
        "betting",
    )
    assert (tmp_path / "log").read_text().splitlines() == [
        "idx\tlabel\tpredict\tradius\tcorrect\ttime\tbound",
        "0\t3\t3\t0.123456\t1\t0:00:01.500000\tbetting",
        "20\t8\t-1\t0.000000\t0\t0:01:01\tbetting",
        "40\t1\t2\t0.289999\t0\t0:00:00\tbetting",
    ]
