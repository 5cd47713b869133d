"""The store of a run: what is written is read back, and damage is said."""

import sqlite3

import numpy as np
import pytest

from certmix.bounds.statistics import plan, start, to_vector, update
from certmix.errors import RunError
from certmix.runs import ImageRecord, Store


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


def test_a_missing_image_is_named():
    store = Store(None)
    store.write("clean", [1], np.zeros((1, 2)))
    with pytest.raises(RunError, match="lacks 2 images, such as 3"):
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
