"""The database of empirical studies: what is written is read back, and damage is said."""

import sqlite3

import numpy as np
import pytest

from certmix.errors import RunError
from certmix.runs import Identity, RunFolder, Store, StudyIdentity, VectorStore, read_run

IDENTITY = StudyIdentity("mix-sweep", "points g/h", {"seed": 0, "eps": 8 / 255, "attack": ("pgd", 20)})


def vectors(folder):
    return VectorStore(folder / "vectors.sqlite")


def test_vectors_come_back_bit_for_bit_in_the_order_asked(tmp_path):
    values = np.array([[0.1, -np.inf], [np.pi, 5e-324], [1e308, 0.0]])
    store = VectorStore(tmp_path / "x.sqlite")
    store.write("clean", [4, 2, 9], values)
    store.write("other", [2], np.zeros((1, 3)))
    store.close()
    store = VectorStore(tmp_path / "x.sqlite", read_only=True)
    assert np.array_equal(store.read("clean", [9, 4]), values[[2, 0]])
    assert store.known("clean") == {2, 4, 9} and store.known("none") == set()
    assert store.cells() == ["clean", "other"]
    assert store.read("clean", []).shape == (0, 0)
    store.close()


def test_a_missing_image_is_named():
    store = VectorStore(None)
    store.write("clean", [1], np.zeros((1, 2)))
    with pytest.raises(RunError, match="lacks 2 images, such as 3"):
        store.read("clean", [3, 1, 4])
    store.close()


@pytest.mark.parametrize("damage", ["x'0011'", "'text'", "NULL + 5"])
def test_a_damaged_vector_is_refused(tmp_path, damage):
    store = VectorStore(tmp_path / "x.sqlite")
    store.write("clean", [1], np.zeros((1, 2)))
    store.close()
    db = sqlite3.connect(tmp_path / "x.sqlite")
    db.execute("CREATE TABLE t AS SELECT * FROM vectors")
    db.execute("DROP TABLE vectors")
    db.execute("ALTER TABLE t RENAME TO vectors")
    db.execute(f"UPDATE vectors SET vector = {damage}")
    db.commit()
    db.close()
    store = VectorStore(tmp_path / "x.sqlite", read_only=True)
    with pytest.raises(RunError, match="damaged"):
        store.read("clean", [1])
    store.close()


def test_another_file_is_not_a_database(tmp_path):
    (tmp_path / "x.sqlite").write_text("no database at all, and long enough to be looked at" * 20)
    for read_only in (True, False):
        with pytest.raises(RunError, match="not a readable run database"):
            VectorStore(tmp_path / "x.sqlite", read_only=read_only)


def test_a_run_of_another_study_or_setting_is_refused(tmp_path):
    with RunFolder(tmp_path / "run", IDENTITY, vectors) as run:
        run.store.write("clean", [1], np.zeros((1, 2)))
    with RunFolder(tmp_path / "run", IDENTITY, vectors) as run:
        assert run.store.known("clean") == {1}
    other = StudyIdentity("mix-sweep", "points", {**IDENTITY.parts, "seed": 1})
    with pytest.raises(RunError, match="seed is 0 there, 1 asked"):
        RunFolder(tmp_path / "run", other, vectors)
    certify = Identity("points", "d" * 64, "net", "m" * 64, 0.5, 0, 100, "fp32")
    with pytest.raises(RunError, match="holds a run of certmix mix-sweep"):
        RunFolder(tmp_path / "run", certify, lambda folder: Store(folder / "counts.sqlite", 3))
    with pytest.raises(RunError, match="a run of certmix mix-sweep: name a run of certmix certify"):
        read_run(tmp_path / "run", "certify")
    with RunFolder(tmp_path / "run", other, vectors, fresh=True) as run:
        assert run.store.known("clean") == set()


def test_folder_names_are_readable_unique_and_safe():
    name = IDENTITY.folder_name()
    assert name.startswith("mix-sweep-points_g_h-") and "/" not in name
    assert StudyIdentity("mix-sweep", "points g/h", {**IDENTITY.parts, "seed": 1}).folder_name() != name
