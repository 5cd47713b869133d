"""Everything that certmix reads: a valid folder, what reads it, and what holds of the value."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
from collections.abc import Callable
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec
import numpy as np
import pytest
import torch
from forged import certified, sources
from fuzz.harness import as_one_file, refused, scratch
from PIL import Image
from safetensors.torch import save
from torch import nn

from certmix.bounds.statistics import start, update
from certmix.certification import reproduce
from certmix.certification.analysis.audit import audit
from certmix.certification.publish import show
from certmix.certification.shards import Part, agree, merge, read_part
from certmix.certification.stored import open_run, recertify
from certmix.data import load, stack
from certmix.errors import CertmixError
from certmix.models.architectures import ARCHITECTURES, ResidualNet, build
from certmix.models.spec import load_model
from certmix.models.weights import apply_weights, read_weights
from certmix.models.zoo import Card, load_zoo, save_zoo, zoo_card
from certmix.nuts.description import FitFacts, MixSettings, ModelReference, NutsDescription, TuningInputs
from certmix.nuts.folder import absolute, read_nuts, write_nuts
from certmix.nuts.grid import GRIDS, TransformSettings
from certmix.page import report_page
from certmix.radii import Smoothing
from certmix.runs import InputRecord, Store, read_run, write_log
from certmix.runs.attack_request import AttackRequest
from certmix.runs.folder import Identity
from certmix.runs.logs import ClassCounts, PublishedLog, read_class_counts, read_log, read_published
from certmix.runs.sources import Sources
from certmix.studies.nuts_cached import read_inputs
from certmix.studies.nuts_fit import CachedLogits, FitChoices, read_logits, write_logits
from certmix.training.loop import _optimizer, _resume
from certmix.training.recipes import make_recipe
from certmix.types import Dataset
from certmix.verification.falsify.attack import Attacked, Claim, Claims, Target
from certmix.verification.falsify.falsify import Sampled, read_finding, replay, write_finding
from certmix.verification.guarantees.guarantee import read_guarantee
from certmix.verification.request import FalsifyRequest
from certmix.verification.stored import load as load_run

Files = dict[str, bytes]


class Reader(NamedTuple):
    """What is read of a folder."""

    made: Callable[[], Files]  # the files of a valid folder
    reads: tuple[Callable[[Path], Any], ...]  # each asserts what must hold of what it found
    odd: tuple[str, ...] = ()  # the files that are damaged, all by default
    slow: float = 1  # a property has CASES / slow cases for each of these
    settle: Callable[[Files], Files] = dict  # a damaged folder agrees with itself: behind its checksum

    def damaged(self) -> Files:
        """The files that are damaged."""
        good = self.made()
        return {name: good[name] for name in self.odd or good}


# data sets


def whole(path: Path, split: str | None = None, **options: Any) -> Dataset:
    """Load a data set and read every input of it."""
    found = load(path, split, **options)
    inputs = stack(found, range(len(found)))
    assert inputs.dtype == np.float32 and np.isfinite(inputs).all()
    assert found.labels.dtype == np.int64 and found.labels.min() >= 0 and found.labels.max() < found.classes
    assert len(found.indices) == len(inputs) and len(set(found.indices.tolist())) == len(inputs)
    return found


PIXELS = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)
BINARY = b"".join(bytes([label]) + row.tobytes() for label, row in zip((3, 9), PIXELS, strict=True))
TEN = list("abcdefghij")


def batch(protocol: int) -> bytes:
    """A batch of CIFAR-10 as Python wrote it."""
    content = {"data": PIXELS, "labels": [3, 9], "filenames": ["a.png", "b.png"], b"batch_label": b"test"}
    return pickle.dumps(content, protocol)


def cifar_python(protocol: int) -> Files:
    return {"test_batch": batch(protocol), "batches.meta": pickle.dumps({"label_names": TEN}, protocol)}


def archive(compressed: bool = False, **arrays: np.ndarray) -> bytes:
    """Six inputs in an archive of numpy."""
    buffer, labels = io.BytesIO(), np.arange(6) % 3
    names = np.array(["cat", "dog", "owl"])
    inputs = np.linspace(0, 1, 24, dtype=np.float32).reshape(6, 4)
    good = {"inputs": inputs, "labels": labels, "indices": 10 * np.arange(6), "class_names": names}
    (np.savez_compressed if compressed else np.savez)(buffer, **{**good, **arrays})
    return buffer.getvalue()


NPZ = {"plain": archive(), "packed": archive(True), "bytes": archive(inputs=np.zeros((6, 2, 2, 3), np.uint8))}


def picture(kind: str, size: tuple[int, int] = (5, 4), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 7).save(buffer, kind)
    return buffer.getvalue()


@cache
def pictures() -> Files:
    """Two classes of inputs in every format."""
    kinds = {"JPEG": "jpg", "BMP": "bmp", "GIF": "gif", "PPM": "ppm", "TIFF": "tif", "WEBP": "webp"}
    dogs = {f"dog/{k}.{suffix}": picture(kind) for k, (kind, suffix) in enumerate(kinds.items())}
    return {"cat/0.png": picture("PNG"), **dogs}


# models

STATE = {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}
TINY = patch.dict(ARCHITECTURES, {"tiny": partial(ResidualNet, stages=((4,), (5,)))})


@cache
def pair() -> Files:
    """The card and the weights of a tiny model."""
    card = Card(
        name="tiny", architecture="tiny", classes=3, class_names=("a", "b", "c"), input_shape=(3, 16, 16),
        input_range=(0.0, 1.0), noise_sigma=0.5, recipe={"name": "gaussian"}, seed=0, data="made up",
        data_checksum="0" * 64, epochs=1, precision="fp32", accuracy={"clean": 0.5},
    )  # fmt: skip
    with scratch() as folder, TINY:
        save_zoo(folder, card, build("tiny", 3), "float16")
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def read_card(folder: Path) -> Card:
    card = zoo_card("tiny", folder)
    assert card.classes is None or (type(card.classes) is int and card.classes >= 2)
    assert all(type(n) is int for n in card.input_shape)
    assert all(isinstance(name, str) for name in (card.name, card.architecture, card.data, card.notes))
    assert card.noise_sigma is None or card.noise_sigma > 0
    json.dumps(msgspec.structs.asdict(card), ensure_ascii=False).encode()
    return card


@TINY
def read_pair(folder: Path) -> nn.Module:
    return load_zoo("tiny", folder)


@TINY
def read_model(folder: Path) -> Any:
    return load_model(str(folder / "tiny.json"))


def with_checksum(files: Files) -> Files:
    """The card says which weights are its own."""
    found = hashlib.sha256(files["tiny.safetensors"]).hexdigest()
    return {**files, "tiny.json": json.dumps({**json.loads(files["tiny.json"]), "sha256": found}).encode()}


def saved(value: Any, legacy: bool = False, protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def use_weights(path: Path) -> None:
    """Read weights and put them into a module."""
    state = read_weights(path)
    kinds = (isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items())
    assert state and all(kinds)
    apply_weights(nn.Linear(2, 3), state, path)


def weights(name: str, content: Callable[[], bytes], slow: float = 1) -> Reader:
    return Reader(lambda: {name: content()}, (lambda folder: use_weights(folder / name),), slow=slow)


RECIPE = make_recipe("standard")
IDENTITY = {"recipe": RECIPE.as_dict(), "seed": 0, "inputs": 8, "precision": "fp32"}


def trained() -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    """A model, its average and its optimizer after a step."""
    torch.manual_seed(0)
    model, average = nn.Linear(2, 3), nn.Linear(2, 3)
    optimizer = _optimizer(model, RECIPE)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return model, average, optimizer


def checkpoint(**changes: Any) -> bytes:
    model, average, optimizer = (part.state_dict() for part in trained())
    state = {"identity": IDENTITY, "epoch": 1, "model": model, "average": average, "optimizer": optimizer}
    return saved({**state, **changes})


def resume(folder: Path) -> torch.optim.Optimizer:
    """Read a checkpoint and take a step from there."""
    model, average, optimizer = trained()
    assert 0 <= _resume(folder / "c.checkpoint", IDENTITY, model, average, optimizer, "cpu") <= RECIPE.epochs
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return optimizer


# nonlinear mixes


@cache
def mix(standard: str = "cifar10-standard") -> Files:
    facts = FitFacts(0.985, "conservative", 0.7, 0.1, 0.99, 1, ("s",), False, 20, 3, 9, GRIDS["cifar10"])
    tuning = TuningInputs("cifar10-sample", "test", "d" * 64, (0, 20, 40), {"name": "apgd-ce", "eps": 0.03})
    settings = MixSettings(TransformSettings(5.0, 4.0, -1.1), alpha=0.999, alpha_d=0.957)
    robust = ModelReference("./models/h.json", None, None, "b" * 64)
    described = NutsDescription(
        settings, ModelReference(standard, None, None, "a" * 64), robust, facts, tuning
    )
    with scratch() as folder:
        write_nuts(folder, described)
        return {"nuts.json": (folder / "nuts.json").read_bytes()}


def read_mix(folder: Path) -> NutsDescription:
    found = read_nuts(folder)
    assert 0 <= found.settings.alpha <= 1 and found.settings.transform.s > 0
    for role in ("standard", "robust"):
        absolute(getattr(found, role), folder, role)
    return found


@cache
def studied() -> Files:
    """A fit and an evaluation of nonlinear mixes."""
    fit = {
        "format_version": 2,
        "identity": {"study": "nuts-fit", "data_checksum": "d", "standard_checksum": "g", "robust_checksum": "h"},
        "request": json.loads(json.dumps({**AttackRequest(steps=20).as_dict(), **FitChoices().as_dict()})),
        "data": {"name": "planted", "split": "test", "class_names": ["a", "b", "c"]},
        "models": {"standard": {"name": "accurate"}, "robust": {"name": "steady"}},
    }  # fmt: skip
    points = {**fit, "identity": {**fit["identity"], "study": "nuts-evaluate"}}
    rng = np.random.default_rng(0)
    logits = CachedLogits(*rng.normal(size=(3, 6, 3)).round(3), np.arange(6) % 3, 10 * np.arange(6))
    with scratch() as folder:
        write_logits(folder / "logits.npz", logits)
        clean = np.concatenate([logits.standard, logits.robust], 1)
        for name, cells in (
            ("fit", {"clean": clean, "minimum margin": logits.attacked}),
            ("points", {"clean": clean, "STD": clean}),
        ):
            indices = [index + 5 * (name == "points") for index in logits.indices.tolist()]
            with closing(Store(folder / f"{name}.sqlite")) as store:
                for cell, vectors in cells.items():
                    store.write(cell, indices, vectors)
                shown = {"indices": indices, "labels": logits.labels.tolist(), "cells": list(cells)}
                store.put("shown", json.dumps({**shown, "blind": [], "complete": True}))
        return {
            "fit/run.json": json.dumps(fit).encode(),
            "fit/logits.npz": (folder / "logits.npz").read_bytes(),
            "fit/numbers.sqlite": as_one_file(folder / "fit.sqlite"),
            "points/run.json": json.dumps(points).encode(),
            "points/numbers.sqlite": as_one_file(folder / "points.sqlite"),
        }


def cached_logits(folder: Path) -> None:
    found = read_logits(folder / "fit" / "logits.npz")
    assert found.robust.dtype == np.float64 and np.isfinite(found.robust).all()
    assert found.labels.min(initial=0) >= 0 and found.labels.max(initial=0) < found.robust.shape[1]


# numbers of a run

SCORES = update(start(3, 0, (1,)), [[0.75, 0.125, 0.125], [0.5, 0.25, 0.25]])


IN_BLOCKS = {"": Store.block, " in blocks": 2}
"""Of how many inputs are vectors put together, by what the reader is called."""


@cache
def numbers(blocks: str = "") -> Files:
    """A database of two inputs with every kind of cell."""
    with scratch() as folder, patch.object(Store, "block", IN_BLOCKS[blocks]):
        with closing(Store(folder / "made.sqlite", 3)) as store:
            for index in (3, 9):
                looks = {100: np.array([90, 0, 10]), 200: np.array([181, 2, 17])}
                scores = {SCORES.samples: SCORES}
                store.write_inputs(
                    [InputRecord(index, 0, "c" * 64, np.array([9, 0, 1]), looks, 1.5, "cpu", scores)]
                )
            store.write("standard one", [3, 9], np.array([[0.25, 0.5, 0.25], [1.0, 0.0, 0.0]]))
            store.put("bound", "clopper-pearson")
            store.gather()
        return {"numbers.sqlite": as_one_file(folder / "made.sqlite")}


def read_records(folder: Path) -> dict[int, InputRecord]:
    with closing(Store(folder / "numbers.sqlite", 3, read_only=True)) as store:
        found, probabilities = store.inputs(), store.standard("one")
        store.get("bound")
    for record in found.values():
        arrays = [record.selection, *record.estimation.values()]
        assert all(a.shape == (3,) and a.dtype == np.int64 and a.min() >= 0 for a in arrays)
        assert isinstance(record.index, int) and isinstance(record.label, int) and record.label >= 0
        assert 0 <= record.seconds < np.inf and all(n >= 0 for n in record.estimation)
        assert all(s.classes == 3 and s.samples == n for n, s in record.scores.items())
    for row in probabilities.values():
        assert row.shape == (3,) and np.all((row >= 0) & (row <= 1))
    return found


def read_cells(folder: Path) -> list[str]:
    with closing(Store(folder / "numbers.sqlite", read_only=True)) as store:
        for name in (cells := store.cells()):
            indices = sorted(store.known(name))
            found = store.read(name, indices)
            assert found.dtype in (np.float64, np.int64) and found.shape[0] == len(indices)
            assert all(isinstance(index, int) for index in indices)
        return cells


# runs

OPTIONS: dict[str, dict[str, Any]] = {
    "sampled": {"samples": 200},
    "soft": {"samples": 200, "scores": "soft"},
    "first": {"samples": 200, "shard": "1/2"},
    "second": {"samples": 200, "shard": "2/2"},
    "plain": {
        "sigma": None, "certificates": ("lipschitz-constant",), "lipschitz_constant": 7.0, "norm": "l2",
    },
}  # fmt: skip
INPUTS = 6


@cache
def run(kind: str, blocks: str = "") -> Files:
    """What is read again of a run that certmix made."""
    with scratch() as place, patch.object(Store, "block", IN_BLOCKS[blocks]):
        made = certified(place / "run", sources(place), inputs=INPUTS, **OPTIONS[kind])
        for database in made.glob("*.sqlite"):
            as_one_file(database)
        found = (path for path in sorted(made.rglob("*")) if path.suffix in (".json", ".tsv", ".sqlite"))
        return {str(path.relative_to(made)): path.read_bytes() for path in found}


def described(folder: Path) -> None:
    found = read_run(folder)
    assert found["format_version"] == 2 and isinstance(found["identity"], dict)
    identity = Identity("points", "d" * 64, "net", "m" * 64, 0.5, 0, 100, "fp32")
    for difference in identity.differences(found["identity"]):
        assert len(difference.splitlines()) == 1 and len(difference) < 200


class _StoppedError(Exception):
    """Raised in place of a run."""


def _stop(request: Any, sources: Any, *, batch_size: Any, **_: Any) -> None:
    assert isinstance(sources, Sources) and isinstance(batch_size, int | None)
    raise _StoppedError


@patch.object(reproduce, "run_certify", _stop)
def reproduced(folder: Path) -> None:
    """Read all that a run needs, and run nothing."""
    with pytest.raises(_StoppedError):
        reproduce.reproduce(folder, folder / "new")


def shown(folder: Path) -> None:
    assert "certmix-data" in report_page([folder, folder], inputs=2)


def beside(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """The same of a run's own log."""
    return lambda folder: read(folder / "records.tsv")


RUN = ("run.json", "numbers.sqlite")
FIRST = ("first/run.json", "first/numbers.sqlite")


def shards(blocks: str = "") -> Files:
    kinds = ("first", "second")
    return {f"{kind}/{name}": content for kind in kinds for name, content in run(kind, blocks).items()}


def both(folder: Path) -> Part:
    """Read two shards and compare them, both ways."""
    parts: list[Part] = []
    try:
        for name in ("first", "second"):
            parts.append(read_part(folder / name))
        agree(*parts)
        agree(*parts[::-1])
    finally:
        for part in parts:
            part.store.close()
    found = parts[0]
    assert 1 <= found.shard.number <= found.shard.of <= len(found.planned) == len(set(found.planned))
    assert all(type(index) is int and 0 <= index < 2**63 for index in found.planned)
    assert len(found.description["data"]["class_names"]) >= 2
    assert {"standard", "robust"} <= set(found.description["models"])
    return found


def merged(folder: Path) -> None:
    """Merge into a new folder: a whole run or none at all."""
    with scratch() as place:
        output = place / "merged"
        try:
            found = merge((folder / "first", folder / "second"), output).summary
        except CertmixError:
            assert not output.exists(), sorted(output.iterdir())
            raise
        assert found.complete and recertify(output).inputs == found.inputs == INPUTS
        shutil.rmtree(output)


# what others publish, and what is shown


@cache
def log() -> Files:
    rows = [(20 * k, k % 3, -1 if k == 4 else k % 3, 0.0 if k == 4 else 0.25 * k, 1.5) for k in range(12)]
    with scratch() as folder:
        write_log(folder / "log.tsv", rows, "clopper-pearson")
        return {"log.tsv": (folder / "log.tsv").read_bytes()}


COUNTS = {"counts.txt": b"90 0 10 0\n1 99 0 1\n0 50 50 2\n30 30 40 2\n"}


def published(read: Callable[[Path], PublishedLog | ClassCounts], name: str) -> Callable[[Path], None]:
    def reads(folder: Path) -> None:
        found = read(folder / name)
        if isinstance(found, PublishedLog):
            assert np.isfinite(found.radius).all() and (found.lowest <= found.radius).all()
            assert (found.lowest >= 0).all() and np.isfinite(found.correct).all()
            assert (found.index >= 0).all() and (found.label >= 0).all() and (found.predict >= -1).all()
            assert len(found.seconds) == len(found)
        else:
            assert (found.counts >= 0).all() and (found.counts.sum(1) > 0).all()
            assert (found.label < found.counts.shape[1]).all()

    return reads


def judge(name: str, **how: Any) -> tuple[Callable[[Path], Any], ...]:
    """Audit a published file, and certify again what it says."""
    return tuple(
        lambda folder, read=read: read(folder / name, sigma=0.5)
        for read in (audit, recertify, partial(recertify, **how))
    )


POINT = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 2, 2)


@cache
def finding(sigma: float | None) -> Files:
    """Both files of a finding, with noise or without, of a run that is nowhere."""
    about = {"identity": {"data_checksum": "d" * 64, "robust_checksum": "h" * 64}}
    claim = Claim(3, 1, 0.5)
    claims = Claims(
        "exact", 0.76, "l2", sigma and Smoothing.of(sigma), 0.001 if sigma else 0.0, 4, (claim,), run=about
    )
    votes = np.array([100, 80, 20]) if sigma else None
    one = Attacked(claim, 2, 0.25, 0.1, 0.2, 0.3, 200 if sigma else 0, votes, True, POINT)
    target = Target(nn.Identity(), 3, torch.device("cpu"))
    with scratch() as folder:
        path = write_finding(folder, folder / "run", one, claims, FalsifyRequest(), target)
        said = {**json.loads(path.read_bytes()), "run": "/nowhere/run"}
        return {"f.json": json.dumps(said).encode(), "f.npz": path.with_suffix(".npz").read_bytes()}


def read_point(folder: Path) -> None:
    """A replay takes a finding as it is."""
    _, point, said = read_finding(folder / "f.json")
    assert point.tobytes() == POINT.tobytes() and point.dtype == np.float32
    assert 0.5 <= said.alpha <= 1
    if said.sigma is not None:
        assert isinstance(said, Sampled)
        assert said.votes is None or all(type(votes) is int for votes in said.votes)
    assert said == read_finding(folder / "f.npz")[2]


def replayed(folder: Path) -> None:
    refused(lambda: replay(folder / "f.json"))


GUARANTEE = b"""version = 1
requirements = ["certified_accuracy@0.5 >= 0.4", "robust.clean_accuracy >= 0.7 on value"]
[data]
name = "cifar10-sample"
inputs = 100
input_range = [0, 1]
[standard]
model = "cifar10-standard"
[robust]
model = "nets.py:robust"
checksum = "%s"
pin = true
[sampling]
samples = 10000
seed = 0
[certificate]
name = "exact"
alpha = 0.76
sigma = 0.5
failure_probability = 0.001
radii = [0, 0.25, "1/2", 0.75]
""" % (b"a" * 64)


def guaranteed(folder: Path) -> None:
    found = read_guarantee(folder / "guarantee.toml")
    assert len(found.requirements) >= 1 and found.asked


READERS: dict[str, Reader] = {
    "CIFAR, binary": Reader(lambda: {"test_batch.bin": BINARY, "batches.meta.txt": "\n".join(TEN).encode()}, (whole,)),
    **{
        f"CIFAR, pickled by protocol {protocol}": Reader(partial(cifar_python, protocol), (whole,), slow=2)
        for protocol in (0, 2, 4)
    },
    **{
        f"arrays, {name}": Reader(
            lambda content=content: {"m.npz": content}, (lambda folder: whole(folder / "m.npz"),), slow=2
        )
        for name, content in NPZ.items()
    },
    "images": Reader(pictures, (whole, partial(whole, crop=4), partial(whole, resize=200, crop=3)), slow=28),
    "card": Reader(pair, (read_card, read_pair), odd=("tiny.json",), slow=2),
    "card and weights": Reader(pair, (read_pair, read_model), odd=("tiny.safetensors",), slow=4, settle=with_checksum),
    "safetensors": weights("w.safetensors", lambda: save(STATE)),
    "torch": weights("w.pt", lambda: saved(STATE), slow=2),
    "torch, legacy": weights("w.pth", lambda: saved(STATE, legacy=True), slow=2),
    "checkpoint": Reader(lambda: {"c.checkpoint": checkpoint()}, (resume,)),
    "nonlinear mix": Reader(mix, (read_mix,)),
    "fit and evaluation": Reader(
        studied, (lambda folder: read_inputs([folder / "fit", folder / "points"]), cached_logits), slow=4
    ),
    "description": Reader(partial(run, "sampled"), (described,), odd=("run.json",)),
    **{
        name.format(kind=kind, blocks=blocks): Reader(partial(made, blocks=blocks), *rest)
        for blocks in IN_BLOCKS
        for kind in ("sampled", "soft")
        for name, made, *rest in (
            ("numbers{blocks}", numbers, (read_records, read_cells), (), 0.5),
            ("{kind} run{blocks}", partial(run, kind), (open_run, load_run, reproduced, show), RUN, 4),
            ("{kind} run{blocks}, judged", partial(run, kind), (recertify, audit, beside(recertify), beside(audit)), RUN, 15),
            ("page of a sampled run{blocks}", partial(run, "sampled"), (shown,), RUN, 30),
            ("shards{blocks}", shards, (both,), FIRST, 1),
            ("merge{blocks}", shards, (merged,), FIRST, 20),
        )
    },
    "run without samples": Reader(partial(run, "plain"), (load_run, reproduced, show), odd=RUN, slow=3),
    "page of a run without samples": Reader(partial(run, "plain"), (shown,), odd=RUN, slow=30),
    "log": Reader(log, (published(read_log, "log.tsv"), published(read_published, "log.tsv"))),
    "class counts": Reader(
        lambda: COUNTS, (published(read_class_counts, "counts.txt"), published(read_published, "counts.txt"))
    ),
    "log, judged": Reader(log, judge("log.tsv", as_printed=True, alpha=0.8), slow=3),
    "class counts, judged": Reader(lambda: COUNTS, judge("counts.txt", assume_selected=True), slow=3),
    **{f"finding, {sigma=}": Reader(partial(finding, sigma), (read_point, replayed), slow=2) for sigma in (0.5, None)},
    "guarantee": Reader(lambda: {"guarantee.toml": GUARANTEE}, (guaranteed,)),
}  # fmt: skip
