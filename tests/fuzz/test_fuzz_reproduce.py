"""Reproducing: the description decides what runs, so it is read with care; nothing is run here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.harness import fuzz, odd_json, refused, scratch
from fuzz.runs import RUN, prepare
from hypothesis import given

from certmix.certification import reproduce
from certmix.certification.deterministic_request import Margin
from certmix.errors import CertmixError
from certmix.runs.from_json import from_json
from certmix.runs.sources import Sources


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


class _StopError(CertmixError):
    """Raised in place of a run."""


def _stop(request, sources, *, output, device, batch_size, say, progress=None, like=None):
    assert isinstance(sources, Sources) and isinstance(batch_size, int | None)
    raise _StopError("all that a run needs was read")


@pytest.fixture(autouse=True, scope="module")
def _nothing_runs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduce, "run_certify", _stop)
        patch.setattr(reproduce, "run_deterministic", _stop)
        patch.setattr(reproduce, "refuse_unfinished", lambda folder: None)
        patch.setattr(reproduce, "derived", lambda *_: [None])
        patch.setattr(reproduce, "radii_by_image", lambda _: {})
        yield


PLAIN = {
    **RUN,
    "identity": {"study": "certify-margin"},
    "request": json.loads(json.dumps(Margin(0.76, images=4).as_dict())),
}


@pytest.mark.parametrize("run", [RUN, PLAIN], ids=["samples", "no samples"])
def test_what_is_good_would_run(place: Path, run: dict[str, Any]) -> None:
    prepare(place, json.dumps(run).encode())
    assert "was read" in refused(lambda: reproduce.reproduce(place, place / "new"), place)


@given(odd_json(RUN) | odd_json(PLAIN))
@fuzz
def test_descriptions_to_reproduce(place: Path, content: bytes) -> None:
    prepare(place, content)
    refused(lambda: reproduce.reproduce(place, place / "new"), place)


@pytest.mark.parametrize("sources", [None, [], "x", {"data": 5}, {"a\nb": 1}, {"objects": ["robust"]}])
def test_sources_that_are_none(place: Path, sources: Any) -> None:
    prepare(place, json.dumps({**RUN, "sources": sources}).encode())
    assert (
        "read" not in refused(lambda: reproduce.reproduce(place, place / "new"), place).rpartition("was")[2]
    )


def test_objects_of_a_program_are_told_on_one_line(place: Path) -> None:
    told = refused(lambda: Sources.from_dict({"objects": ["data\n", "robust"]}))
    assert "Python objects" in told


@dataclass(frozen=True)
class Everything:
    """A field of each type."""

    number: float
    count: int = 1
    flag: bool = False
    name: str | None = None
    pair: tuple[float, float] | None = None
    names: tuple[str, ...] = ()
    images: int | str = 1


GOOD = asdict(Everything(0.5, 2, True, "a", (0.0, 1.0), ("a", "b"), "all"))


@given(odd_json(json.loads(json.dumps(GOOD))))
@fuzz
def test_dataclasses_hold_what_their_fields_say(content: bytes) -> None:
    told = ""
    try:
        plain = json.loads(content)
        made = from_json(Everything, plain)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        told = str(error)
    else:
        assert isinstance(made.number, int | float) and np.isfinite(made.number) and abs(made.number) < 2**63
        assert type(made.count) is int and type(made.flag) is bool and isinstance(made.name, str | None)
        assert made.pair is None or (isinstance(made.pair, tuple) and len(made.pair) == 2)
        assert isinstance(made.names, tuple) and all(isinstance(name, str) for name in made.names)
    assert len(told.splitlines()) <= 1
