"""Loading again what a run was made from, as far as it can be had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from certmix.errors import CertmixError, RunError
from certmix.models.spec import LoadedModel, load_model, wrap_model
from certmix.runs.source_names import named_split
from certmix.runs.sources import Sources, load_data
from certmix.types import Dataset

__all__ = ["ROLES", "Reloaded", "reload", "standard_checksum"]

ROLES = ("robust", "standard")


@dataclass(frozen=True)
class Reloaded:
    """Data and models of a run; ``problems`` says by name why something is not there."""

    dataset: Dataset | None
    models: dict[str, LoadedModel | None]
    problems: dict[str, str] = field(default_factory=dict)


def reload(
    description: dict[str, Any],
    dataset: Dataset | None = None,
    models: Mapping[str, nn.Module] | None = None,
    device: torch.device | str = "cpu",
) -> Reloaded:
    """Load the data set and the models that a description names; what is handed over comes first.

    Raises
    ------
    RunError
        If the description does not say what they are.
    """
    given, stored = dict(models or {}), dict(description["sources"])
    objects = stored.pop("objects", [])
    try:
        if stored.get("input_range") is not None:
            stored["input_range"] = tuple(stored["input_range"])
        stored["split"] = named_split(stored.get("split"))
        sources = Sources(**stored)
    except TypeError as error:
        raise RunError(f"the sources in run.json are not readable ({error}): restore the file") from None
    problems: dict[str, str] = {}
    if dataset is None and "data" in objects:
        problems["data"] = "it was a Python object: hand it over as dataset"
    elif dataset is None:
        try:
            dataset = load_data(sources)
        except CertmixError as error:
            problems["data"] = str(error)
    loaded: dict[str, LoadedModel | None] = {}
    for role in ROLES:
        loaded[role] = None
        if role not in given and role in objects:
            problems[role] = f"it was a Python object: hand it over in models[{role!r}]"
        elif role in given or description["models"].get(role) is not None:
            try:
                loaded[role] = _model(sources, role, given.get(role), description, device)
            except CertmixError as error:
                problems[role] = str(error)
    return Reloaded(dataset, loaded, problems)


def _model(
    sources: Sources,
    role: str,
    given: nn.Module | None,
    description: dict[str, Any],
    device: torch.device | str,
) -> LoadedModel:
    normalize, files = getattr(sources, f"{role}_normalize"), getattr(sources, f"{role}_files")
    if given is not None:
        return wrap_model(given, device=device, normalize=normalize, files=files)
    spec, weights = getattr(sources, role), getattr(sources, f"{role}_weights")
    if spec is None:  # the shipped one, which the run chose itself
        spec = description["models"][role].get("spec")
    classes = len(description["data"]["class_names"])
    path = None if weights is None else Path(weights)
    return load_model(
        str(spec), weights=path, normalize=normalize, files=files, device=device, classes=classes
    )


def standard_checksum(description: dict[str, Any]) -> str:
    """Return the checksum of a run's standard model as its description has it; empty without one."""
    stored = description["models"].get("standard")
    return str(stored.get("checksum", "")) if isinstance(stored, dict) else ""
