"""Folders of nonlinear mixes: nuts.json, and the places of the base models that it names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from fuzz.harness import accepted, fuzz, judged, mutated, odd_json, raw, refused, scratch
from hypothesis import given
from hypothesis import strategies as st

from certmix.errors import CertmixError
from certmix.models.spec import load_model
from certmix.nuts.description import FitFacts, MixSettings, ModelReference, NutsDescription, TuningImages
from certmix.nuts.folder import absolute, load_nuts, read_nuts, write_nuts
from certmix.nuts.grid import GRIDS, TransformSettings

FACTS = FitFacts(0.985, "conservative", 0.7, 0.1, 0.99, 1, ("s",), False, 20, 3, 9, GRIDS["cifar10"])
TUNING = TuningImages("cifar10-sample", "test", "d" * 64, (0, 20, 40), {"name": "apgd-ce", "eps": 0.03})


def description(standard: str = "cifar10-standard", weights: str | None = None) -> NutsDescription:
    settings = MixSettings(TransformSettings(5.0, 4.0, -1.1), alpha=0.999, alpha_d=0.957)
    robust = ModelReference("./models/h.json", weights, None, "b" * 64)
    return NutsDescription(settings, ModelReference(standard, None, None, "a" * 64), robust, FACTS, TUNING)


def as_text() -> bytes:
    with scratch() as folder:
        write_nuts(folder, description())
        return (folder / "nuts.json").read_bytes()


TEXT = as_text()


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


@given(odd_json(json.loads(TEXT)) | mutated(TEXT) | raw)
@fuzz
def test_descriptions(place: Path, content: bytes) -> None:
    (place / "nuts.json").write_bytes(content)
    found = judged(lambda: read_nuts(place), place)
    if isinstance(found, NutsDescription):
        assert 0 <= found.settings.alpha <= 1 and found.settings.transform.s > 0
        for role in ("standard", "robust"):
            judged(lambda role=role: absolute(getattr(found, role), place, role), place)


PATHS = st.one_of(
    st.text(max_size=20),
    st.lists(
        st.sampled_from(["..", ".", "models", "a b", "out", "inside", "~", "", "x.json"]), max_size=6
    ).map("/".join),
    st.sampled_from(
        [
            "./link/h.json",
            "link",
            "inside/../../h",
            "~/x",
            "~nobody/x",
            "./\0",
            "..\\h",
            "C:\\h",
            "./..",
            "file://h",
        ]
    ),
)


@given(PATHS, PATHS | st.none())
@fuzz
def test_relative_places_stay_in_the_folder(place: Path, spec: str, weights: str | None) -> None:
    (place / "mix" / "inside").mkdir(parents=True, exist_ok=True)
    if not (place / "mix" / "link").is_symlink():
        (place / "mix" / "link").symlink_to(place)
    make = partial(ModelReference, spec, weights, None, "a" * 64)
    found = judged(lambda: absolute(make(), place / "mix", "robust"), place)
    if isinstance(found, CertmixError):
        return
    for before, after in ((spec, found.spec), (weights, found.weights)):
        if before is None or after is None or after == before or before.startswith(("~", "/")):
            continue
        assert (place / "mix").resolve() in Path(after).parents, after


def test_a_mix_is_good_to_begin_with_and_its_models_are_looked_for(tmp_path: Path) -> None:
    write_nuts(tmp_path, description())
    assert accepted(lambda: read_nuts(tmp_path), tmp_path) == description()
    assert "checksum" in refused(lambda: load_nuts(tmp_path), tmp_path)
    write_nuts(tmp_path, description(standard="./none.json"))
    assert "cannot be read" in refused(lambda: load_model(f"nuts:{tmp_path}#standard"), tmp_path)


def test_folders_and_missing_files(tmp_path: Path) -> None:
    refused(lambda: read_nuts(tmp_path), tmp_path)
    (tmp_path / "nuts.json").mkdir()
    refused(lambda: read_nuts(tmp_path), tmp_path)
