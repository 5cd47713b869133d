"""The store of a run: what is written is read back, and damage is said."""

import pickle
import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from certmix.bounds.statistics import plan, start, to_vector, update
from certmix.errors import RunError
from certmix.runs import ImageRecord, Store
from certmix.runs.records import Records


def record(index=3, classes=3) -> ImageRecord:
    selection = np.zeros(classes, np.int64)
    selection[[0, classes - 1]] = [9, 1]
    scores = update(plan(update(start(classes, 0), np.eye(classes))), np.eye(classes))
    return ImageRecord(
        index, 0, "0123456789abcdef" * 4, selection, {100: 9 * selection, 200: 19 * selection}, 1.5, "cuda",
        {classes: scores}, 2.0**-40, 1e-5, 7,
    )  # fmt: skip


@pytest.mark.parametrize("classes", [3, 500])
def test_a_record_survives_the_database(tmp_path, classes):
    store, kept = Store(tmp_path / "x.sqlite", classes), record(classes=classes)
    store.write_images([kept, record(9, classes)])
    store.close()
    store = Store(tmp_path / "x.sqlite", classes, read_only=True)
    images = store.images()
    assert list(images) == [3, 9]
    found = images[3]
    store.close()
    for name in ("index", "label", "input_checksum", "seconds", "device", "noise_error", "lost", "places"):
        assert getattr(found, name) == getattr(kept, name)
    assert (found.selected, found.drawn, list(found.estimation)) == (0, 200, [100, 200])
    assert found.selection.dtype == np.int64 and (found.selection == kept.selection).all()
    assert all((found.estimation[n] == votes).all() for n, votes in kept.estimation.items())
    assert (to_vector(found.scores[classes]) == to_vector(kept.scores[classes])).all()
    with pytest.raises(KeyError):
        found.estimation[500]


def test_vectors_come_back_bit_for_bit_in_the_order_asked(tmp_path):
    values = np.array([[0.1, -np.inf], [np.pi, 5e-324], [1e308, 0.0]])
    whole = np.array([[2**62, -1]])
    store = Store(tmp_path / "x.sqlite")
    store.write("clean", [4, 2, 9], values)
    store.write("other", [2], whole)
    store.put("key", "value")
    store.close()
    store = Store(tmp_path / "x.sqlite", read_only=True)
    assert np.array_equal(store.read("clean", [9, 4]), values[[2, 0]])
    assert np.array_equal(store.read("other", [2]), whole) and store.read("other", [2]).dtype == np.int64
    assert store.known("clean") == {2, 4, 9} and store.known("none") == set()
    assert store.cells() == ["clean", "other"] and store.begun()
    assert (store.get("key"), store.get("none"), store.facts()) == ("value", None, {"key": "value"})
    assert store.read("clean", []).shape == (0, 0)
    store.close()


def test_standard_outputs_are_kept_by_checksum():
    store = Store(None, 2)
    probabilities = np.array([[0.25, 0.75], [1.0, 0.0]])
    store.write("standard one", [5, 7], probabilities)
    assert store.standard("two") == {}
    found = store.standard("one")
    np.testing.assert_array_equal([found[5], found[7]], probabilities)


def odd(store: Store, what: str) -> None:
    """Change the cells, so that rows are no longer joined."""
    store._db.executescript({
        "joined in pieces": "",
        "other lengths": "UPDATE cells SET data = CAST(data || zeroblob(8) AS BLOB) WHERE idx = 7 AND cell = 'free'",
        "no keys": "ALTER TABLE cells RENAME TO old; CREATE TABLE cells AS SELECT * FROM old ORDER BY random()",
    }[what])  # fmt: skip


@pytest.mark.parametrize("what", ["joined in pieces", "other lengths", "no keys"])
def test_columns_hold_what_rows_do(monkeypatch, what):
    monkeypatch.setattr("certmix.runs.store._PIECE", 3)
    rng, store = np.random.default_rng(1), Store(None, 3)
    kept = [
        replace(record(i), seconds=i / 7, label=i % 3, places=1 + i % 2) for i in rng.permutation(20).tolist()
    ]
    kept = [replace(r, estimation={100: r.selection} if r.index % 3 else {}) for r in kept]
    store.write_images(kept)
    store.write("free", range(20), rng.random((20, 4)))
    odd(store, what)
    index, vectors = store.column("free")
    assert index.tolist() == list(range(20)) and isinstance(vectors, list) == (what == "other lengths")
    assert store.cells() == ["free", "input", "sampling", "scores@3", "selection", "votes@100"]
    records = store.records()
    assert records.indices.tolist() == list(range(20)) and records.selected.tolist() == [0] * 20
    assert records.drawn.tolist() == [100 if i % 3 else 0 for i in range(20)]
    for some in (records, Records.of(kept), records.take(np.array([7, 3, 12])), Records.of(list(records)),
                 pickle.loads(pickle.dumps(records)), records.of_images([9, 40, 2]), records[4:9]):  # fmt: skip
        for found in some:
            one = next(r for r in kept if r.index == found.index)
            for name in ("label", "input_checksum", "seconds", "device", "noise_error", "lost", "places"):
                assert getattr(found, name) == getattr(one, name)
            assert found.selection.tolist() == one.selection.tolist() and found.drawn == one.drawn
            assert {n: v.tolist() for n, v in found.estimation.items()} == {
                n: v.tolist() for n, v in one.estimation.items()
            }
            assert list(found.scores) == [3] and found.scores.get(5) is None
    assert [r.index for r in records.of_images([9, 40, 2])] == [9, 2]
    assert records.take(np.array([7, 3, 12])).votes[100].of(np.array([0])).tolist() == [[9, 0, 1]]


def test_a_missing_image_is_named():
    store = Store(None)
    store.write("clean", [1], np.zeros((1, 2)))
    with pytest.raises(RunError, match="lacks 2 inputs, such as 3"):
        store.read("clean", [3, 1, 4])
    store.close()


@pytest.mark.parametrize("content", [b"not a database" * 100, b"text" * 2000])
@pytest.mark.parametrize("read_only", [True, False])
def test_another_file_is_not_a_database(tmp_path, content, read_only):
    (tmp_path / "x.sqlite").write_bytes(content)
    with pytest.raises(RunError, match="not a readable run database") as error:
        Store(tmp_path / "x.sqlite", 2, read_only=read_only)
    assert "\n" not in str(error.value)


def test_many_images_are_stored_in_few_bytes(tmp_path):
    votes = np.zeros(1000, np.int64)
    votes[[3, 17, 400]] = [900, 90, 10]
    store = Store(tmp_path / "x.sqlite", 1000)
    store.write_images(ImageRecord(i, 3, "0" * 64, votes, {1000: votes}) for i in range(200))
    store.close()
    assert (tmp_path / "x.sqlite").stat().st_size < 200 * 600
    with sqlite3.connect(tmp_path / "x.sqlite") as db:
        assert {row[0] for row in db.execute("SELECT DISTINCT dtype FROM cells")} == {
            "int64", "float64", "int64 zlib",
        }  # fmt: skip
    db.close()
