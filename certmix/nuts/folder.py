"""A fitted nonlinear mix in a folder: saved, loaded, and offered part by part as ``nuts:FOLDER#PART``.

The folder holds ``nuts.json`` and, where asked, copies of the weights.  Code
is never copied: a base model that is a Python file is named by its path.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from certmix.errors import ModelError, ParameterError
from certmix.models.spec import LoadedModel, load_model
from certmix.models.zoo import ZOO_FOLDER
from certmix.nuts.description import FitFacts, MixSettings, NutsDescription, TuningImages
from certmix.nuts.loaded import LoadedNuts, transform_of
from certmix.nuts.margins import LAYER_NORM
from certmix.nuts.mixture import TransformedRobust
from certmix.nuts.nuts_file import FILE, read_nuts, write_nuts
from certmix.nuts.references import BaseModel, absolute, refer

__all__ = ["PARTS", "BaseModel", "LoadedNuts", "load_nuts", "load_part", "save_nuts"]

PARTS = ("robust", "bypass", "auxiliary", "standard", "base")
"""What may follow ``#``: M(h), the mix with the auxiliary's gradient, the auxiliary, g and h."""


def save_nuts(
    folder: Path,
    settings: MixSettings,
    standard: BaseModel,
    robust: BaseModel,
    *,
    fit: FitFacts | None = None,
    tuning: TuningImages | None = None,
    copy_weights: bool = False,
    zoo: Path = ZOO_FOLDER,
) -> NutsDescription:
    """Write a fitted mix to a folder, and see that it can be loaded again.

    ``nuts.json`` is written last and in one step: a folder that is left behind
    half done holds the earlier mix, or none.

    Parameters
    ----------
    folder
        Where to; made if missing.
    settings
        The numbers.
    standard, robust
        Base models, as they were tuned, and what they were loaded with.
    fit, tuning
        How the numbers were found, and on which images.
    copy_weights
        Copy weights, cards and exported programs into the folder, under names
        made of their checksums.  Shipped models, and those that timm or
        RobustBench fetch, stay names; Python code stays where it is.
    zoo
        Folder of the shipped models.

    Raises
    ------
    ModelError
        If a model cannot be loaded as described, or is then another.
    RunError
        If the folder cannot be written.

    Examples
    --------
    >>> from certmix.nuts import TransformSettings
    >>> settings = MixSettings(TransformSettings(5.0, 4.0, -1.1), alpha=0.999, alpha_d=0.957)
    >>> pair = [BaseModel(load_model(f"cifar10-{name}")) for name in ("standard", "adversarial-linf")]
    >>> save_nuts(Path("mix"), settings, *pair).standard.spec  # doctest: +SKIP
    'cifar10-standard'
    """
    place = Path(folder)
    description = NutsDescription(
        settings,
        refer(standard, place, zoo, copy=copy_weights),
        refer(robust, place, zoo, copy=copy_weights),
        fit,
        tuning,
    )
    _load(place, description, "cpu", None, zoo)
    write_nuts(place, description)
    return description


def load_nuts(
    folder: Path,
    *,
    device: str | torch.device = "cpu",
    classes: int | None = None,
    zoo: Path = ZOO_FOLDER,
) -> LoadedNuts:
    """Load a mix and its base models.

    Code runs only where a base model's spec names code, such as
    ``file.py:factory``: load such folders where you trust them.

    Parameters
    ----------
    folder
        Holds ``nuts.json``.
    device, classes, zoo
        As for `certmix.models.spec.load_model`.

    Raises
    ------
    ModelError
        If ``nuts.json`` or a base model cannot be read, or a base model is
        not the one that was tuned.
    """
    place = Path(folder)
    return _load(place, read_nuts(place), device, classes, zoo)


def load_part(
    folder: Path,
    part: str,
    spec: str,
    *,
    device: str | torch.device = "cpu",
    classes: int | None = None,
    zoo: Path = ZOO_FOLDER,
) -> LoadedModel:
    """Load the mix (part ``""``) or one of `PARTS`, as `load_model` returns it.

    ``robust``, ``standard`` and ``base`` load one base model alone.  The
    checksum covers the numbers that the part depends on, and its base models.

    Raises
    ------
    ModelError
        As `load_nuts`, or if the part is unknown, or needs alpha_d where there is none.
    """
    if part and part not in PARTS:
        ways = ", ".join(f"#{name}" for name in PARTS)
        raise ModelError(f"{spec}: part #{part} is unknown: use one of {ways}, or none for the mix")
    place = Path(folder)
    description = read_nuts(place)
    own = description.settings
    name = f"nuts:{place.resolve().name}" + (f"#{part}" if part else "")
    if part in ("standard", "base", "robust"):
        role = "standard" if part == "standard" else "robust"
        one = _base(place, description, role, device, classes, zoo)
        if part != "robust":
            return replace(one, spec=spec)
        bent = TransformedRobust(one.module, transform_of(own)).eval()
        return replace(
            one, module=bent, name=name, spec=spec, card=None, checksum=_checksum(part, own, [one])
        )
    loaded = _load(place, description, device, classes, zoo)
    pair = [loaded.standard, loaded.robust]
    module: nn.Module = getattr(loaded, part or "mixture")
    return LoadedModel(
        module, name, spec, _checksum(part, own, pair), None, _input_range(pair, place), None
    )  # fmt: skip


def _load(
    place: Path, description: NutsDescription, device: str | torch.device, classes: int | None, zoo: Path
) -> LoadedNuts:
    pair = [_base(place, description, role, device, classes, zoo) for role in ("standard", "robust")]
    _input_range(pair, place)
    return LoadedNuts(place, description, *pair)


def _base(
    place: Path,
    description: NutsDescription,
    role: str,
    device: str | torch.device,
    classes: int | None,
    zoo: Path,
) -> LoadedModel:
    """Load one base model, and refuse another than the one that was tuned."""
    reference = getattr(description, role)
    known = absolute(reference, place, role, zoo)
    weights = None if known.weights is None else Path(known.weights)
    try:
        loaded = load_model(
            known.spec, weights=weights, normalize=known.normalize, files=known.files, device=device,
            classes=classes, zoo=zoo,
        )  # fmt: skip
    except (ModelError, ParameterError) as error:
        raise ModelError(f"{place / FILE}: the {role} model: {error}") from error
    if loaded.checksum != reference.checksum:
        raise ModelError(
            f"{place / FILE}: the {role} model {reference.spec} has checksum {loaded.checksum[:12]}..., "
            f"the one that was tuned {reference.checksum[:12]}...: restore its weights, code and "
            "normalisation, or tune again and save with copy_weights"
        )
    return loaded


def _input_range(pair: list[LoadedModel], place: Path) -> tuple[float, float] | None:
    """Return the range of the inputs that both models take."""
    ranges = {one.input_range for one in pair} - {None}
    if len(ranges) > 1:
        standard, robust = (one.input_range for one in pair)
        raise ModelError(
            f"{place}: the standard model takes inputs in {standard}, the robust one in {robust}: "
            "mix models of one range"
        )
    return ranges.pop() if ranges else None


_COUNTS = {"robust": (), "": ("alpha", "temperature"), "auxiliary": ("alpha_d", "r_d")}
_COUNTS["bypass"] = _COUNTS[""] + _COUNTS["auxiliary"]


def _checksum(part: str, settings: MixSettings, models: list[LoadedModel]) -> str:
    """SHA-256 over the part's name, the numbers it depends on, and its base models."""
    own = {**vars(settings.transform), **{name: getattr(settings, name) for name in _COUNTS[part]}}
    text = json.dumps(["nuts", LAYER_NORM, part, own, [one.checksum for one in models]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
