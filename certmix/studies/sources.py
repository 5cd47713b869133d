"""Data and models as the user names them, loaded and checked together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from certmix.data import DATASETS, load, stack
from certmix.errors import ModelError, RunError
from certmix.models.checks import check_logits, looks_like_probabilities, resolve_robust, sigma_warning
from certmix.models.spec import LoadedModel, load_model, wrap_model
from certmix.models.zoo import zoo_names
from certmix.studies.from_json import from_json
from certmix.types import Dataset

__all__ = ["Loaded", "Sources", "join", "load_data", "load_models", "load_sources"]


@dataclass(frozen=True)
class Sources:
    """Names of data and models, as `certmix.data.load` and `certmix.models.spec.load_model` take them.

    `data`, `standard` and `robust` may also be a `Dataset` or torch modules;
    such a run can be resumed but not be reproduced from its description.
    ``standard`` None leaves the standard classifier out: certificates do not
    depend on it.  ``robust`` None takes the shipped model of the noise level.
    """

    data: str | Dataset = "cifar10-sample"
    split: str = "test"
    input_range: tuple[float, float] | None = (0.0, 1.0)
    resize: int | None = None
    crop: int | None = None
    standard: str | nn.Module | None = "cifar10-standard"
    standard_weights: str | None = None
    standard_normalize: str | None = None
    robust: str | nn.Module | None = None
    robust_weights: str | None = None
    robust_normalize: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``run.json``, paths made absolute."""
        shown, shipped = dict(vars(self)), {*zoo_names(), *DATASETS}
        for key in ("data", "standard", "robust", "standard_weights", "robust_weights"):
            value = getattr(self, key)
            shown[key] = value if value is None or isinstance(value, str) else None
            if isinstance(value, str) and value not in shipped:
                shown[key] = _absolute(value)
        shown["objects"] = [
            key
            for key in ("data", "standard", "robust")
            if getattr(self, key) is not None and not isinstance(getattr(self, key), str)
        ]
        return shown

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Sources:
        """Return the sources of a run from its description.

        Raises
        ------
        RunError
            If the run was made from objects that only its program holds.
        TypeError
            If the description holds something else.
        """
        known = dict(stored) if isinstance(stored, dict) else {"sources": stored}
        objects = known.pop("objects", None)
        if objects:
            named = " ".join(str(objects).split())[:80].strip("[]")
            raise RunError(
                f"the run was made from Python objects ({named}): "
                "only the program that made them can run it again"
            )
        return from_json(cls, known)


def _absolute(text: str) -> str:
    """Return a path, or the path in ``file:factory`` and ``nuts:folder#part``, made absolute if it exists."""
    if text.startswith("nuts:"):
        folder, mark, part = text.removeprefix("nuts:").partition("#")
        return f"nuts:{_absolute(folder)}{mark}{part}"
    file, colon, factory = text.rpartition(":")
    path = Path(file if colon else text).expanduser()
    return f"{path.resolve()}{colon}{factory if colon else ''}" if path.exists() else text


@dataclass(frozen=True)
class Loaded:
    """A data set and its two models, checked to fit together; `standard` may be absent."""

    dataset: Dataset
    standard: LoadedModel | None
    robust: LoadedModel


def _model(
    given: str | nn.Module, weights: str | None, normalize: str | None, device: torch.device, classes: int
) -> LoadedModel:
    if isinstance(given, nn.Module):
        return wrap_model(given, device=device, normalize=normalize)
    path = None if weights is None else Path(weights)
    return load_model(given, weights=path, normalize=normalize, device=device, classes=classes)


def _check(model: LoadedModel, dataset: Dataset, device: torch.device, say: Callable[[str], None]) -> None:
    positions = range(min(4, len(dataset)))
    inputs = torch.from_numpy(stack(dataset, list(positions))).to(device)
    logits = check_logits(model.module, inputs, dataset.classes, model.name)
    if looks_like_probabilities(logits):
        say(
            f"{model.name} seems to return probabilities: it should return logits; "
            "leave its softmax out, or clean accuracy of the mix will be wrong"
        )
    expected = model.input_range
    if expected is not None and dataset.input_range is not None and expected != dataset.input_range:
        say(f"{model.name} expects inputs in {expected}, the data lie in {dataset.input_range}")


def load_sources(sources: Sources, sigma: float, device: torch.device, say: Callable[[str], None]) -> Loaded:
    """Load data and models and check that they fit together.

    Parameters
    ----------
    sources
        What the user named.
    sigma
        Noise level: picks the shipped robust model where none is named.
    device
        Where models go.
    say
        Receives warnings, one line each.

    Raises
    ------
    DataError, ModelError, ParameterError
        If something cannot be loaded or does not fit.
    """
    robust_spec = sources.robust
    if robust_spec is None or isinstance(robust_spec, str):
        robust_spec = resolve_robust(robust_spec, sigma)
    loaded = load_models(sources, robust_spec, device, say)
    warning = sigma_warning(loaded.robust.card, sigma)
    if warning:
        say(warning)
    return loaded


def load_models(
    sources: Sources, robust_spec: str | nn.Module, device: torch.device, say: Callable[[str], None]
) -> Loaded:
    """Load data, the robust model `robust_spec` and the standard model, and check that they fit together.

    Raises
    ------
    DataError, ModelError, ParameterError
        If something cannot be loaded or does not fit.
    """
    dataset = load_data(sources)
    robust = _model(robust_spec, sources.robust_weights, sources.robust_normalize, device, dataset.classes)
    _check(robust, dataset, device, say)
    standard = None
    if sources.standard is not None:
        standard = _model(
            sources.standard, sources.standard_weights, sources.standard_normalize, device, dataset.classes
        )
        _check(standard, dataset, device, say)
    return Loaded(dataset, standard, robust)


def load_data(sources: Sources) -> Dataset:
    """Load the data set that the sources name.

    Raises
    ------
    DataError, ModelError
        If it cannot be loaded, or holds nothing.
    """
    dataset = sources.data
    if not isinstance(dataset, Dataset):
        dataset = load(
            dataset, sources.split, input_range=sources.input_range, resize=sources.resize, crop=sources.crop
        )
    if len(dataset) == 0:
        raise ModelError(f"{dataset.name} holds no inputs: choose other data or another --split")
    return dataset


def join(
    dataset: Dataset,
    standard: LoadedModel,
    robust: LoadedModel,
    device: torch.device,
    say: Callable[[str], None],
) -> Loaded:
    """Check that loaded models fit a data set, and return all three.

    Raises
    ------
    ModelError
        If one does not.
    """
    for model in (robust, standard):
        _check(model, dataset, device, say)
    return Loaded(dataset, standard, robust)
