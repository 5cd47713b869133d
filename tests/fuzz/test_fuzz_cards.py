"""Cards, pairs of a card and weights, and specs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from fuzz.harness import accepted, fuzz, fuzz_few, judged, mutated, odd_json, raw, refused, scratch
from fuzz.networks import STATE, little_memory
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from certmix.errors import ModelError
from certmix.models.architectures import ARCHITECTURES, ResidualNet, build
from certmix.models.spec import load_model
from certmix.models.zoo import Card, load_zoo, save_zoo, zoo_card


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


TINY = partial(ResidualNet, stages=((4,), (5,)))


@pytest.fixture(scope="module", autouse=True)
def _tiny_is_known() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "tiny", TINY)
        yield


@cache
def pair() -> tuple[dict[str, Any], bytes]:
    """The card and the weights of a tiny model."""
    card = Card(
        name="tiny", architecture="tiny", classes=3, class_names=("a", "b", "c"), input_shape=(3, 16, 16),
        input_range=(0.0, 1.0), noise_sigma=0.5, recipe={"name": "gaussian"}, seed=0, data="made up",
        data_checksum="0" * 64, epochs=1, precision="fp32", accuracy={"clean": 0.5},
    )  # fmt: skip
    with scratch() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "tiny", TINY)
        save_zoo(folder, card, build("tiny", 3), "float16")
        return json.loads((folder / "tiny.json").read_text()), (folder / "tiny.safetensors").read_bytes()


@given(odd_json(pair()[0]) | mutated(json.dumps(pair()[0]).encode()) | raw)
@fuzz
def test_cards(place: Path, content: bytes) -> None:
    (place / "tiny.json").write_bytes(content)
    card = judged(lambda: zoo_card("tiny", place), place)
    if isinstance(card, Card):
        assert (
            type(card.classes) is int and card.classes >= 2 and all(type(n) is int for n in card.input_shape)
        )
        assert all(isinstance(name, str) for name in (card.name, card.architecture, card.data, card.notes))
        assert card.noise_sigma is None or card.noise_sigma > 0
        json.dumps(dataclasses.asdict(card), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", 2.5), ("classes", True), ("classes", 10**12), ("class_names", "abc"), ("class_names", [1, 2, 3]),
        ("input_range", ["a", "b"]), ("input_range", [0, 1, 2]), ("noise_sigma", "0.5"), ("accuracy", {"x": "0.5"}),
        ("accuracy", {"x": float("nan")}), ("accuracy", []), ("recipe", "x"), ("name", "../../x"), ("name", "a\nb"),
        ("architecture", "os.system"), ("architecture", []), ("notes", "\ud800"), ("sha256", None),
    ],
)  # fmt: skip
def test_planted_faults_of_a_card(tmp_path: Path, name: str, value: Any) -> None:
    card, weights = pair()
    (tmp_path / "tiny.json").write_text(json.dumps({**card, name: value}))
    (tmp_path / "tiny.safetensors").write_bytes(weights)
    with little_memory():
        refused(lambda: load_model(str(tmp_path / "tiny.json")), tmp_path)


@given(st.data())
@fuzz
def test_pairs_whose_checksum_agrees(place: Path, data: st.DataObject) -> None:
    card, weights = pair()
    weights = data.draw(mutated(weights, save(STATE)) | raw | st.just(save(STATE)))
    card = {**card, "sha256": hashlib.sha256(weights).hexdigest()}
    (place / "tiny.json").write_text(json.dumps(card))
    (place / "tiny.safetensors").write_bytes(weights)
    judged(lambda: load_zoo("tiny", place), place)


def test_a_pair_is_good_to_begin_with_and_another_checksum_is_refused(tmp_path: Path) -> None:
    card, weights = pair()
    (tmp_path / "tiny.json").write_text(json.dumps(card))
    (tmp_path / "tiny.safetensors").write_bytes(weights)
    assert accepted(lambda: load_model(str(tmp_path)), tmp_path).noise_sigma == 0.5
    (tmp_path / "tiny.safetensors").write_bytes(weights + b"\0")
    assert "sha256" in refused(lambda: load_model(str(tmp_path)), tmp_path)


# specs


@given(
    st.text(max_size=30).filter(lambda text: ":" not in text)
    | st.sampled_from(["~\0", "\ud800", "~\ud800", "a\nb", "nuts:\0", "nuts:~\0", "x.pt2", "\0.pt2", "x.json", "\0.json", "timm:"])
    | st.text(max_size=10).map(lambda text: f"nuts:{text}")
)  # fmt: skip
@fuzz
def test_specs(place: Path, spec: str) -> None:
    outcome = judged(lambda: load_model(str(place / "none" / spec) if spec.startswith("/") else spec))
    assert isinstance(outcome, ModelError) or spec in ("", ".") or Path(spec).exists()


@given(raw)
@fuzz_few
def test_exported_programs_that_are_none(place: Path, content: bytes) -> None:
    (place / "net.pt2").write_bytes(content)
    refused(lambda: load_model(str(place / "net.pt2")), place)
