"""MixedNUTS from two models and data: margins, Algorithm 1, and a folder that any command can load."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from certmix.attacks.minimum_margin import minimum_margin
from certmix.calling import call_model
from certmix.errors import CertmixError, DataError, Interrupted, ModelError, ParameterError
from certmix.files import open_file, read_arrays, remedy_of, write_atomically
from certmix.nuts.algorithm import NutsFit, auxiliary_alpha, fit
from certmix.nuts.description import (
    PUBLISHED,
    FitFacts,
    MixSettings,
    ModelReference,
    NutsDescription,
    TuningInputs,
)
from certmix.nuts.folder import BaseModel, LoadedNuts, save_nuts
from certmix.nuts.margins import LAYER_NORM
from certmix.nuts.transform import NonlinearTransform, changed_share, layer_normalize
from certmix.runs.attack_request import AttackRequest
from certmix.runs.attacking import Bench, outputs, reduced
from certmix.runs.cells import Batch, Cell
from certmix.runs.folder import DESCRIPTION
from certmix.runs.sources import Loaded, Sources, load_models
from certmix.sampling import resolve_device
from certmix.studies.nuts_choices import FitChoices
from certmix.studies.study import CLEAN, ROBUST, Numbers, StudyResult, Surroundings, open_study, some, warn
from certmix.tables.table import Quantity, Table
from certmix.text import plain_decimal
from certmix.types import Dataset, FloatArray, IntArray

__all__ = ["CachedLogits", "FitChoices", "NutsFitted", "fit_file", "nuts_fit", "nuts_published"]

AUXILIARY_BETAS = {"cifar10": 0.95, "cifar100": 0.935, "imagenet": 0.95}
"""The beta behind alpha_d, by preset, as published code has it."""

SHAPES = {"cifar10": (10, 32), "cifar100": (100, 32), "imagenet": (1000, 224)}
"""Classes, and the usual side of the data's square inputs, in pixels."""

LOGITS = "logits.npz"
MARGIN = "minimum margin"
KEYS = ("standard", "robust", "attacked", "labels", "indices")


@dataclass(frozen=True)
class CachedLogits:
    """All that a fit depends on: logits (m, c); `attacked` are h's at its points of smallest margin."""

    standard: FloatArray
    robust: FloatArray
    attacked: FloatArray
    labels: IntArray
    indices: IntArray

    def take(self, rows: IntArray) -> CachedLogits:
        return CachedLogits(*(getattr(self, key)[rows] for key in KEYS))


@dataclass(frozen=True)
class NutsFitted:
    """The fit, the share of predictions that the transform changes, the logits and the mix's numbers.

    ``mix`` is the mix itself, where its base models are there.
    """

    fit: NutsFit
    changed: float
    logits: CachedLogits
    settings: MixSettings
    mix: LoadedNuts | None = None


def nuts_fit(
    request: AttackRequest | None = None,
    sources: Sources | None = None,
    where: Surroundings | None = None,
    *,
    choices: FitChoices | None = None,
) -> StudyResult:
    """Fit s, p, c and alpha on a tuning split by Algorithm 1, and save the mix into the run folder.

    The request is the ball, the steps (50 by default) and the tuning inputs of the minimum-margin attack:
    APGD on the cross-entropy, then targeted.  The inputs' indices are kept, and evaluations leave them out.
    ``.data`` of the result is the `NutsFitted`; ``.folder`` loads as ``nuts:FOLDER``.
    """
    chosen, named = choices or FitChoices(), sources or Sources()
    request = own_attack(request, None if chosen.gradient_free else 50)
    searched = {name: getattr(chosen, name) for name in ("gradient_free", "early_stop", "top_k")}
    with open_study(
        "nuts-fit", request, named, where, asked=chosen.as_dict(),
        identity={**searched, "layer_norm": LAYER_NORM},
    ) as study:  # fmt: skip
        bench, pair = study.bench, study.pair
        target = _Normalized(pair[1], chosen.top_k).eval()
        cells = [
            Cell(CLEAN, lambda batch: outputs(pair, batch.inputs)),
            Cell(MARGIN, partial(_margins, bench, pair[1], target, chosen)),
        ]
        numbers = study.fill(cells)
        if not numbers.complete:
            raise Interrupted("interrupted before all tuning inputs were attacked")
        result = view(numbers)
        found: NutsFitted = result.data
        attack = {**request.identity(), "gradient_free": chosen.gradient_free}
        mix = _in_memory(study.run.path, found, study.loaded, numbers.indices, attack)
        result = replace(result, data=replace(found, mix=mix))
        if (folder := study.run.path) is not None:
            save_mix(
                folder, found.settings, named, study.loaded, numbers.indices, attack, bench.say,
                fit=FitFacts.of(found.fit), copy_weights=chosen.copy_weights,
            )  # fmt: skip
            write_logits(folder / LOGITS, found.logits)
        return numbers.publish(study.run, result)


def _in_memory(
    folder: Path | None, found: NutsFitted, loaded: Loaded, indices: IntArray, attack: dict[str, Any]
) -> LoadedNuts:
    """Return the mix of a fit as `certmix.nuts.load_nuts` would."""
    assert loaded.standard is not None
    g, h = (ModelReference(one.spec, None, None, one.checksum) for one in (loaded.standard, loaded.robust))
    data = loaded.dataset
    tuning = TuningInputs(data.name, data.split, data.checksum, tuple(indices.tolist()), attack)
    told = NutsDescription(found.settings, g, h, FitFacts.of(found.fit), tuning)
    return LoadedNuts(folder or Path("the fit in memory"), told, loaded.standard, loaded.robust)


def view(numbers: Numbers) -> StudyResult:
    """Run Algorithm 1 on a run's stored logits, as its request says, and return its table."""
    found = fit_cached(cached(numbers), some(FitChoices, numbers.asked))
    table = fit_table(found, numbers.request.words(), (*numbers.blind, numbers.provenance))
    return StudyResult(table, data=found)


def cached(numbers: Numbers) -> CachedLogits:
    """Return the logits that a run keeps."""
    g, h = (one.numpy() for one in numbers.pair(CLEAN))
    return CachedLogits(g, h, numbers.read(MARGIN), numbers.labels, numbers.indices)


def fit_cached(logits: CachedLogits, choices: FitChoices) -> NutsFitted:
    """Run Algorithm 1 on logits that exist: any beta, clamp or temperature is a second away."""
    right = logits.standard.argmax(1) == logits.labels
    found = fit(
        logits.robust, logits.attacked, logits.labels, choices.candidates, choices.beta, clamp=choices.clamp,
        top_k=choices.top_k, quantile=choices.quantile, rival=choices.rival,
        standard_correct=right if choices.conditional else None,
    )  # fmt: skip
    alpha_d = auxiliary_alpha(
        logits.attacked, logits.labels, AUXILIARY_BETAS[choices.preset], top_k=choices.top_k
    )
    changed = changed_share(torch.from_numpy(logits.robust), NonlinearTransform.of(found.settings))
    settings = MixSettings(found.settings, found.alpha, choices.standard_temperature, alpha_d, choices.r_d)
    return NutsFitted(found, changed, logits, settings)


def fit_file(path: Path, choices: FitChoices) -> StudyResult:
    """Fit on a file of cached logits, such as the one a fit's run folder holds; nothing is saved."""
    found = fit_cached(read_logits(path), choices)
    return StudyResult(fit_table(found, f"logits of {path.name}", ()), data=found)


def fit_table(found: NutsFitted, how: str, more: tuple[str, ...]) -> Table:
    """Return the table of a fit; `how` says what it rests on, `more` are further notes."""
    own, notes = found.fit, []
    if own.on_edge:
        notes.append(
            f"The optimum lies on the grid's edge in {', '.join(own.on_edge)}: a wider --grid may do better."
        )
    if found.changed > 0:
        notes.append(
            "The transform changes predictions, so Assumption 4.2 (class preservation) fails on this share."
        )
    if own.saturated:
        notes.append("The threshold is within 1e-6 of 0 or 1: in float32 such a mix is close to a tie.")
    return Table(
        name="nuts-fit",
        title="MixedNUTS: the fitted transform and mixing weight (estimates on tuning inputs)",
        settings=f"beta {plain_decimal(own.beta)}, clamp {own.settings.clamp}, {own.quantile} quantile; "
        f"{how}",
        headings=("quantity", "value"),
        rows=(
            *_numbers(found.settings, own.margin_threshold),
            ("wrong clean inputs with margin >= q (share)", Quantity(own.objective, 4)),
            ("attacked right inputs with margin >= q (share)", Quantity(own.constraint_share, 4)),
            ("tied grid points", own.ties),
            ("predictions that the transform changes (share)", Quantity(found.changed, 4)),
            ("alpha_d of the auxiliary mix", Quantity(found.settings.alpha_d, 6)),
        ),
        notes=(
            f"{own.inputs:,} inputs: {own.attacked_right:,} right when attacked, "
            f"{own.clean_wrong:,} wrong clean.",
            *notes,
            "Report no result on these inputs: certmix nuts evaluate leaves them out.",
            *more,
        ),
        extra={"inputs": own.inputs, "attacked_right": own.attacked_right, "clean_wrong": own.clean_wrong},
    )


def _numbers(mix: MixSettings, q: float) -> tuple[tuple[Any, ...], ...]:
    return (
        *((name, Quantity(getattr(mix.transform, name), 6)) for name in "spc"),
        ("alpha", Quantity(mix.alpha, 6, rounding="up")),
        ("margin threshold q", Quantity(q, 6, rounding="down")),
    )


class _Normalized(nn.Module):
    """LN of a classifier's logits: the scale at which margins are comparable between inputs."""

    def __init__(self, model: nn.Module, top_k: int | None) -> None:
        super().__init__()
        self.model, self.top_k = model, top_k

    def forward(self, inputs: Tensor) -> Tensor:
        return layer_normalize(call_model(self.model, inputs), self.top_k)


def _margins(
    bench: Bench, robust: nn.Module, target: nn.Module, choices: FitChoices, batch: Batch
) -> FloatArray:
    """Return robust logits at the points of smallest margin."""
    request, free = bench.request, choices.gradient_free
    budget = {"queries" if free else "steps": request.steps} if request.steps else {}
    found = minimum_margin(
        reduced(bench, target), batch.inputs, batch.labels, request.norm, request.eps, **budget,
        restarts=request.restarts, targets=min(9, bench.dataset.classes - 1), gradient_free=free,
        early_stop=choices.early_stop, box=bench.box, generator=batch.generator,
    )  # fmt: skip
    return outputs([robust], found.points)


def own_attack(request: AttackRequest | None, steps: int | None) -> AttackRequest:
    """Return a request for the attacks of MixedNUTS studies; `steps` are its steps where it gives none."""
    asked = AttackRequest() if request is None else request
    if asked.attack not in ("apgd-ce", AttackRequest().attack):
        raise ParameterError(f"attack {asked.attack!r}: MixedNUTS studies run their own suite; leave it out")
    return asked.replace(attack="apgd-ce", steps=steps if asked.steps is None else asked.steps)


def write_logits(path: Path, cached: CachedLogits) -> None:
    """Write an ``.npz`` of float64 `standard`, `robust`, `attacked` and int64 `labels`, `indices`."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{key: getattr(cached, key) for key in KEYS})
    write_atomically(path, buffer.getvalue())


def read_logits(path: Path) -> CachedLogits:
    """Read such a file, or raise DataError: the arrays are checked, and nothing in it is executed."""
    try:
        with open_file(path) as file:
            arrays, _ = read_arrays(file, KEYS)
    except Exception as error:
        told = f"{path} is not a readable .npz of logits ({type(error).__name__})"
        raise DataError(f"{told}: {remedy_of(error, 'name one')}") from None
    lacking = [key for key in KEYS if key not in arrays]
    if lacking:
        raise DataError(f"{path} lacks {lacking[0]!r}: cached logits hold {', '.join(KEYS)}")
    shape, most = arrays["robust"].shape, np.iinfo(np.int64).max
    for key in KEYS[:3]:
        one = arrays[key]
        good = one.shape == shape and len(shape) == 2 and one.dtype in (np.float32, np.float64)
        if not good or not np.isfinite(one).all():
            raise DataError(f"{path}: {key} must be finite logits (inputs, classes), as robust {shape}")
    for key, end in (("labels", shape[1] - 1), ("indices", most)):
        one = arrays[key]
        if one.shape != shape[:1] or one.dtype.kind not in "iu" or ((one < 0) | (one > end)).any():
            found = f"{path}: {key} must be whole numbers in 0..{end}"
            raise DataError(f"{found}, one for each of {shape[0]} inputs")
    made: dict[str, Any] = {key: arrays[key].astype("f8" if key in KEYS[:3] else "i8") for key in KEYS}
    return CachedLogits(**made)


def save_mix(
    folder: Path, settings: MixSettings, sources: Sources, loaded: Loaded, indices: IntArray,
    attack: dict[str, Any], say: Callable[[str], None], *, copy_weights: bool, fit: FitFacts | None = None,
) -> bool:  # fmt: skip
    """Save a mix of models that go by names, and say where one does not; `indices` were tuned on."""
    for role in ("standard", "robust"):
        if not isinstance(getattr(sources, role), str | type(None)):
            say(f"the mix is not saved: its {role} model is a Python object, which has no name")
            return False
    data = loaded.dataset
    tuning = TuningInputs(data.name, data.split, data.checksum, tuple(indices.tolist()), attack)
    pair = base_models(sources, loaded)
    save_nuts(folder, settings, *pair, fit=fit, tuning=tuning, copy_weights=copy_weights)
    return True


def base_models(sources: Sources, loaded: Loaded) -> list[BaseModel]:
    """Return g and h with what they were loaded with, as `save_nuts` takes them."""
    assert loaded.standard is not None
    pair = ("standard", loaded.standard), ("robust", loaded.robust)
    return [BaseModel(one, **sources.how(role)) for role, one in pair]


def nuts_published(
    name: str,
    output: str | Path,
    sources: Sources | None = None,
    *,
    copy_weights: bool = False,
    device: str = "auto",
    say: Callable[[str], None] = warn,
) -> StudyResult:
    """Save the mix of two models with the (s, p, c, alpha) that the paper found for its own.

    No data, no attack, no fit: how well these numbers do for other models, an evaluation tells.  ``.data`` of
    the result is the `certmix.nuts.description.MixSettings`; ``.folder`` loads as ``nuts:FOLDER``.  Models
    for ``cifar10``, ``cifar100`` or ``imagenet`` must tell 10, 100 or 1,000 classes apart, which is seen on
    inputs of random pixels; their side is ``crop`` of the sources, 32 or 224 pixels if None.  `copy_weights`
    bundles the base models' weights with the mix.
    """
    if name not in PUBLISHED:
        raise ParameterError(f"no optimum is published for {name!r}: use one of {', '.join(PUBLISHED)}")
    named, folder, mix = sources or Sources(), Path(output), PUBLISHED[name]
    robust = named.robust or ROBUST
    if not isinstance(named.standard, str) or not isinstance(robust, str):
        raise ModelError("a mix is saved by the names of its two models: name both, not objects or none")
    if os.path.exists(folder / DESCRIPTION):
        raise ParameterError(f"{folder} is the folder of a run, whose mix would be lost: name another")
    classes, side = SHAPES[name]
    shape, two = (2, 3, named.crop or side, named.crop or side), np.arange(2)
    pixels = np.random.default_rng(0).random(shape, np.float32)
    inputs = Dataset(
        "random pixels", "", two, two, tuple(map(str, range(classes))), pixels.__getitem__, (0.0, 1.0), ""
    )
    tried = named.replace(data=inputs, split=None, crop=None)
    try:
        loaded = load_models(tried, robust, resolve_device(device), say)
    except CertmixError as error:
        raise ModelError(f"the optimum for {name} is one of {classes:,} classes: {error}") from None
    g, h = base_models(named, loaded)
    save_nuts(folder, mix, g, h, copy_weights=copy_weights)
    normalized = "all" if mix.transform.top_k is None else f"the {mix.transform.top_k} largest"
    table = Table(
        name="nuts-published",
        title=f"MixedNUTS: the published transform and mixing weight for {name}",
        settings=f"clamp {mix.transform.clamp}, LN over {normalized} logits",
        headings=("quantity", "value"),
        rows=(
            *_numbers(mix, (1.0 - mix.alpha) / mix.alpha),
            ("alpha_d of the auxiliary mix", Quantity(mix.alpha_d, 6)),
        ),
        notes=(
            "Tuned for the paper's models, not for these: see certmix nuts evaluate, on inputs that neither "
            "was trained on.",
            f"Models: standard {g.loaded.name}; robust {h.loaded.name}.",
        ),
    )
    return StudyResult(table, data=mix, folder=folder)
