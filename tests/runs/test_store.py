"""The store of a run: what is written is read back, and damage is said."""

import pickle
import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from certmix.bounds.statistics import plan, start, to_vector, update
from certmix.errors import RunError
from certmix.runs import InputRecord, Store
from certmix.runs.records import Records


def record(index=3, classes=3) -> InputRecord:
    selection = np.zeros(classes, np.int64)
    selection[[0, classes - 1]] = [9, 1]
    scores = update(plan(update(start(classes, 0), np.eye(classes))), np.eye(classes))
    return InputRecord(
        index, 0, "0123456789abcdef" * 4, selection, {100: 9 * selection, 200: 19 * selection}, 1.5, "cuda",
        {classes: scores}, 2.0**-40, 1e-5, 7,
    )  # fmt: skip


@pytest.mark.parametrize("classes", [3, 500])
def test_a_record_survives_the_database(tmp_path, classes):
    store, kept = Store(tmp_path / "x.sqlite", classes), record(classes=classes)
    store.write_inputs([kept, record(9, classes)])
    store.close()
    store = Store(tmp_path / "x.sqlite", classes, read_only=True)
    inputs = store.inputs()
    assert list(inputs) == [3, 9]
    found = inputs[3]
    store.close()
    for name in ("index", "label", "input_checksum", "seconds", "device", "noise_error", "lost", "places"):
        assert getattr(found, name) == getattr(kept, name)
    assert (found.selected, found.drawn, list(found.estimation)) == (0, 200, [100, 200])
    assert found.selection.dtype == np.int64 and (found.selection == kept.selection).all()
    assert all((found.estimation[n] == votes).all() for n, votes in kept.estimation.items())
    assert (to_vector(found.scores[classes]) == to_vector(kept.scores[classes])).all()
    with pytest.raises(KeyError):
        found.estimation[500]


def test_a_reader_sees_one_moment_of_a_run_that_grows(tmp_path, monkeypatch):
    """Between two cells an input is added: of it one would be seen, and the other not."""
    writer = Store(tmp_path / "x.sqlite", 3)
    writer.write_inputs([record(3)])
    reader = Store(tmp_path / "x.sqlite", 3, read_only=True)
    column = reader.column

    def while_it_grows(*which, **how):
        found = column(*which, **how)
        writer.write_inputs([record(1000 + len(writer.records()))])
        return found

    monkeypatch.setattr(reader, "column", while_it_grows)
    assert reader.records().indices.tolist() == [3] and len(writer.records()) > 2
    reader.close()
    with closing(Store(tmp_path / "x.sqlite", 3, read_only=True)) as later:
        assert len(later.records()) == len(writer.records())
    writer.close()


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


def laid(kept: list[InputRecord], free: np.ndarray, how: str) -> Store:
    """Return a store of records and of numbers of their inputs, kept in one of the ways there are."""
    store = Store(None, 3)
    store.block = 3
    if how == "written again":  # what lies in blocks no longer counts, of every second input
        before = [replace(r, seconds=99.0, selection=r.selection[::-1].copy()) for r in kept if r.index % 2]
        store.write_inputs(before)
        store.write("free", range(1, 20, 2), 1 - free[1::2])
        store.gather()
    store.write_inputs(kept)
    store.write("free", range(20), free)
    if "blocks" in how or how == "merged":
        store.gather()
        assert store._rows("SELECT * FROM cells") == []
    if how in ("blocks, written in part", "blocks, gathered again"):
        store.write_inputs(kept[5:11])
        store.write("free", range(9, 14), free[9:14])
    if how == "blocks, gathered again":
        store.gather()
    if how == "merged":
        merged, half = Store(None, 3), np.array([r.index for r in kept])
        merged.block = 3
        for _ in range(2):  # also over what is there
            assert merged.holds_only([(store, half[:9]), (store, half[9:])])
            merged.copy([(store, half[:9]), (store, half[9:])])
        assert not merged.holds_only([(store, half[:9])])
        merged.write("free", range(20), free)
        store.write("selection", [half[0]], [kept[0].selection + 1])
        assert not merged.holds_only([(store, half)])
        return merged
    store._db.executescript({
        "other lengths": "UPDATE cells SET data = CAST(data || zeroblob(8) AS BLOB) WHERE idx = 7 AND cell = 'free'",
        "no keys": "ALTER TABLE cells RENAME TO old; CREATE TABLE cells AS SELECT * FROM old ORDER BY random()",
    }.get(how, ""))  # fmt: skip
    return store


@pytest.mark.parametrize("how", [
    "one by one", "blocks", "blocks, written in part", "blocks, gathered again", "written again", "merged",
    "other lengths", "no keys",
])  # fmt: skip
def test_columns_hold_what_rows_do(how):
    rng = np.random.default_rng(1)
    kept = [
        replace(record(i), seconds=i / 7, label=i % 3, places=1 + i % 2) for i in rng.permutation(20).tolist()
    ]
    kept = [replace(r, estimation={100: r.selection} if r.index % 3 else {}) for r in kept]
    store = laid(kept, free := rng.random((20, 4)), how)
    index, vectors = store.column("free")
    assert index.tolist() == list(range(20)) and isinstance(vectors, list) == (how == "other lengths")
    assert how == "other lengths" or np.array_equal(vectors, free)
    assert store.known("free") == set(range(20)) and store.known("votes@100", np.array([4, 8])) == {
        4,
        5,
        7,
        8,
    }
    assert how == "other lengths" or np.array_equal(store.read("free", [11, 4]), free[[11, 4]])
    assert store.cells() == ["free", "input", "sampling", "scores@3", "selection", "votes@100"]
    records = store.records()
    assert records.indices.tolist() == list(range(20)) and records.selected.tolist() == [0] * 20
    assert records.drawn.tolist() == [100 if i % 3 else 0 for i in range(20)]
    for some in (records, Records.of(kept), records.take(np.array([7, 3, 12])), Records.of(list(records)),
                 pickle.loads(pickle.dumps(records)), records.of_inputs([9, 40, 2]), records[4:9]):  # fmt: skip
        for found in some:
            one = next(r for r in kept if r.index == found.index)
            for name in ("label", "input_checksum", "seconds", "device", "noise_error", "lost", "places"):
                assert getattr(found, name) == getattr(one, name)
            assert found.selection.tolist() == one.selection.tolist() and found.drawn == one.drawn
            assert {n: v.tolist() for n, v in found.estimation.items()} == {
                n: v.tolist() for n, v in one.estimation.items()
            }
            assert list(found.scores) == [3] and found.scores.get(5) is None
    assert [r.index for r in records.of_inputs([9, 40, 2])] == [9, 2]
    assert records.take(np.array([7, 3, 12])).votes[100].of(np.array([0])).tolist() == [[9, 0, 1]]


def numbers_of(store: Store) -> dict[str, list]:
    return {cell: list(store.kept(cell).rows()) for cell in store.cells()}


def test_gathering_that_is_stopped_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Store, "block", 4)
    kept = [record(i, 3 + 500 * (i > 9)) for i in range(20)]  # of two kinds, which no block holds together
    for stop in range(1, 100):
        store = Store(tmp_path / f"{stop}.sqlite")
        store.write_inputs(kept)
        store.write("free", range(20), np.ones((20, 4)))
        before, commit, commits = numbers_of(store), store._commit, 0

        def some(*statements, commit=commit, stop=stop):
            nonlocal commits
            commits += 1
            if commits == stop:
                raise KeyboardInterrupt
            commit(*statements)

        monkeypatch.setattr(store, "_commit", some)
        try:
            store.gather()
        except KeyboardInterrupt:
            store._db.close()
            store = Store(tmp_path / f"{stop}.sqlite")
        assert numbers_of(store) == before
        store.gather()
        assert numbers_of(store) == before
        store.close()
        if commits < stop:
            break
    assert stop > 10


@pytest.mark.parametrize("change", [
    "inputs = zeroblob(8)", "inputs = 'x'", "inputs = x'00'", "lengths = zeroblob(16)", "lengths = 7", "data = x''",
    "dtype = 'object'", "first = first + 1", "last = 'x'", "first = -1",
])  # fmt: skip
def test_damaged_blocks_are_said(tmp_path, change):
    store = Store(tmp_path / "x.sqlite")
    store.block = 4
    store.write("free", range(20), np.ones((20, 4)))
    store.gather()
    store._db.execute(f"UPDATE blocks SET {change} WHERE first = 8")
    for read in (
        lambda: store.column("free"),
        lambda: store.read("free", range(20)),
        lambda: store.known("free"),
    ):
        with pytest.raises(RunError, match="free has a block that is damaged"):
            read()
    inputs = np.array([7, 9, 10, 11], "<i8").tobytes()
    store._db.execute("DELETE FROM blocks WHERE first != 4 AND last != 7")
    store._db.execute("INSERT INTO blocks SELECT cell, 7, 11, dtype, ?, lengths, data FROM blocks", (inputs,))
    with pytest.raises(RunError, match="an input is twice"):
        store.column("free")
    store.close()


def test_a_missing_input_is_named():
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


def test_many_inputs_are_stored_in_few_bytes(tmp_path):
    votes = np.zeros(1000, np.int64)
    votes[[3, 17, 400]] = [900, 90, 10]
    store = Store(tmp_path / "x.sqlite", 1000)
    store.write_inputs(InputRecord(i, 3, "0" * 64, votes, {1000: votes}) for i in range(200))
    store.close()
    assert (tmp_path / "x.sqlite").stat().st_size < 200 * 600
    with sqlite3.connect(tmp_path / "x.sqlite") as db:
        assert {row[0] for row in db.execute("SELECT DISTINCT dtype FROM cells")} == {
            "int64", "float64", "int64 zlib",
        }  # fmt: skip
    db.close()
