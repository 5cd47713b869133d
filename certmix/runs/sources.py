"""Data and models as the user names them, loaded and checked together."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from certmix.calling import InPlaceWarning
from certmix.data import load, stack
from certmix.errors import DataError, ModelError
from certmix.models.checks import (
    check_logits,
    looks_like_probabilities,
    noise_warnings,
    resolve_robust,
)
from certmix.models.spec import LoadedModel, load_model, wrap_model
from certmix.runs.source_names import Sources
from certmix.types import Dataset

__all__ = ["Loaded", "Sources", "join", "load_data", "load_models", "load_sources"]


@dataclass(frozen=True)
class Loaded:
    """A data set and its two models, checked to fit together; `standard` may be absent."""

    dataset: Dataset
    standard: LoadedModel | None
    robust: LoadedModel

    @property
    def models(self) -> dict[str, LoadedModel | None]:
        """Both by role."""
        return {"robust": self.robust, "standard": self.standard}


def _model(
    sources: Sources,
    role: str,
    given: str | nn.Module,
    dataset: Dataset,
    device: torch.device,
    say: Callable[[str], None],
) -> LoadedModel:
    """Load the model of a role, "standard" or "robust", and check that it fits the data."""
    weights, normalize, files = (
        getattr(sources, f"{role}_{what}") for what in ("weights", "normalize", "files")
    )
    if isinstance(given, nn.Module):
        model = wrap_model(given, device=device, normalize=normalize, files=files)
    else:
        model = load_model(
            given, weights=None if weights is None else Path(weights), normalize=normalize, files=files,
            device=device, classes=dataset.classes, no_label_zero=_no_label_zero(dataset), say=say,
        )  # fmt: skip
    _check(model, dataset, device, say)
    return model


def _no_label_zero(dataset: Dataset) -> bool:
    return bool(dataset.labels.min() > 0) and dataset.settings.get("source") != "images"


def _tell(dataset: Dataset, say: Callable[[str], None]) -> None:
    if "clipped" in dataset.settings:
        say(f"{dataset.name}: {dataset.settings['clipped']}")


def _check(model: LoadedModel, dataset: Dataset, device: torch.device, say: Callable[[str], None]) -> None:
    positions = range(min(4, len(dataset)))
    inputs = torch.from_numpy(stack(dataset, list(positions))).to(device)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", InPlaceWarning)
        logits = check_logits(
            model.module, inputs, dataset.classes, model.name, no_label_zero=_no_label_zero(dataset)
        )
    for one in heard:
        if issubclass(one.category, InPlaceWarning):
            say(str(one.message))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
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
    dataset = load_data(sources)  # before models: what is wrong with it is not hidden behind theirs
    robust_spec = sources.robust
    if robust_spec is None or isinstance(robust_spec, str):
        robust_spec = resolve_robust(robust_spec, sigma)
    loaded = _load_pair(dataset, sources, robust_spec, device, say)
    for warning in noise_warnings(loaded.robust.card, sigma, dataset.input_range):
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
    return _load_pair(load_data(sources), sources, robust_spec, device, say)


def _load_pair(
    dataset: Dataset,
    sources: Sources,
    robust_spec: str | nn.Module,
    device: torch.device,
    say: Callable[[str], None],
) -> Loaded:
    _tell(dataset, say)
    robust = _model(sources, "robust", robust_spec, dataset, device, say)
    standard = None
    if sources.standard is not None:
        standard = _model(sources, "standard", sources.standard, dataset, device, say)
    return Loaded(dataset, standard, robust)


def load_data(sources: Sources) -> Dataset:
    """Load the data set that the sources name.

    Raises
    ------
    DataError, ModelError
        If it cannot be loaded, or holds nothing.
    """
    dataset = sources.data
    if isinstance(dataset, Dataset):
        if sources.split not in (None, dataset.split):
            raise DataError(
                f"split = {sources.split!r}: the data are a Dataset already, of split {dataset.split!r}: "
                "leave it out, or give their name or path"
            )
    else:
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
    _tell(dataset, say)
    for model in (robust, standard):
        _check(model, dataset, device, say)
    return Loaded(dataset, standard, robust)
