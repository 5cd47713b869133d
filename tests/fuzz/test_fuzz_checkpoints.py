"""Checkpoints of a training."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzz.harness import Payload, accepted, fuzz, judged, mutated, raw, refused, scratch
from fuzz.networks import STATE, linear, saved, torch_file
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from certmix.errors import CertmixError
from certmix.training.loop import _optimizer, _resume, _save
from certmix.training.recipes import make_recipe


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


RECIPE = make_recipe("standard")
IDENTITY = {"recipe": RECIPE.as_dict(), "seed": 0, "images": 8, "precision": "fp32"}


def parts() -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model, average = linear(), linear()
    optimizer = _optimizer(model, RECIPE)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return model, average, optimizer


@cache
def checkpoint(**changes: Any) -> bytes:
    model, average, optimizer = parts()
    state = {
        "identity": IDENTITY, "epoch": 1, "model": model.state_dict(), "average": average.state_dict(),
        "optimizer": optimizer.state_dict(), **changes,
    }  # fmt: skip
    return saved(state)


def resume(path: Path) -> int:
    model, average, optimizer = parts()
    epoch = _resume(path, IDENTITY, model, average, optimizer, "cpu")
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return epoch


@given(st.data())
@fuzz
def test_checkpoints(place: Path, data: st.DataObject) -> None:
    (place / "c.checkpoint").write_bytes(data.draw(mutated(checkpoint(), torch_file()) | raw))
    epoch = judged(lambda: resume(place / "c.checkpoint"), place)
    assert isinstance(epoch, CertmixError) or 0 <= epoch <= RECIPE.epochs


def _wrong_buffers() -> dict[str, Any]:
    state = parts()[2].state_dict()
    state["state"][0]["momentum_buffer"] = torch.zeros(7)
    return state


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": -1}, {"epoch": 10**6}, {"epoch": "1"}, {"epoch": 1.5}, {"model": {}}, {"model": STATE["bias"]},
        {"average": None}, {"optimizer": {}}, {"identity": torch.ones(3)}, {"identity": {"seed": torch.ones(2)}},
        {"optimizer": "buffers"},
    ],
    ids=str,
)  # fmt: skip
def test_planted_faults_of_a_checkpoint(tmp_path: Path, changes: dict[str, Any]) -> None:
    if changes.get("optimizer") == "buffers":
        changes = {"optimizer": _wrong_buffers()}
    model, average, optimizer = parts()
    state = {
        "identity": IDENTITY, "epoch": 1, "model": model.state_dict(), "average": average.state_dict(),
        "optimizer": optimizer.state_dict(), **changes,
    }  # fmt: skip
    (tmp_path / "c.checkpoint").write_bytes(saved(state))
    refused(lambda: resume(tmp_path / "c.checkpoint"), tmp_path)


def test_a_checkpoint_is_good_to_begin_with_and_does_not_change_settings(tmp_path: Path) -> None:
    state = parts()[2].state_dict()
    for group in state["param_groups"]:
        group.update(weight_decay="boom", momentum=7.0)
    model, average, _ = parts()
    content = {"identity": IDENTITY, "epoch": 1, "model": model.state_dict(), "average": average.state_dict()}
    _save(tmp_path / "c.checkpoint", {**content, "optimizer": state})
    model, average, optimizer = parts()
    assert (
        accepted(lambda: _resume(tmp_path / "c.checkpoint", IDENTITY, model, average, optimizer, "cpu")) == 1
    )
    assert [group["momentum"] for group in optimizer.param_groups] == [0.9, 0.9]


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_in_checkpoints_are_not_run(tmp_path: Path, protocol: int) -> None:
    witness = tmp_path / "witness"
    for content in (
        Payload(witness).pickled(protocol),
        saved({"identity": Payload(witness)}),
        pickle.dumps({"identity": Payload(witness)}, protocol),
    ):
        (tmp_path / "c.checkpoint").write_bytes(content)
        refused(lambda: resume(tmp_path / "c.checkpoint"), tmp_path)
    assert not witness.exists()
