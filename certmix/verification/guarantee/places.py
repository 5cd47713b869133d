"""Paths in a guarantee file: relative to its folder, whatever the working directory is."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from certmix.data import DATASETS
from certmix.models.zoo import zoo_names
from certmix.runs.source_names import named_split
from certmix.verification.guarantee.guarantees import DataClaim, Guarantee, ModelClaim

__all__ = ["relative_claims", "source_options"]

_LIBRARIES = ("timm:", "robustbench:")
_MODULE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def source_options(guarantee: Guarantee) -> dict[str, Any]:
    """Return the fields of `certmix.runs.sources.Sources`, with every path made absolute."""
    folder, data = Path(guarantee.path).parent.resolve(), guarantee.data
    options: dict[str, Any] = {
        "data": _data(data.name, folder), "split": named_split(data.split), "input_range": data.input_range,
        "resize": data.resize, "crop": data.crop, "standard": None,
    }  # fmt: skip
    for role, claim in (("standard", guarantee.standard), ("robust", guarantee.robust)):
        if claim is not None:
            options[role] = _model(claim.model, folder)
            weights = claim.weights
            options[f"{role}_weights"] = None if weights is None else str(_joined(weights, folder))
            options[f"{role}_normalize"] = claim.normalize
            options[f"{role}_files"] = tuple(str(_joined(file, folder)) for file in claim.files)
    return options


def _joined(text: str, folder: Path) -> Path:
    return Path(os.path.normpath(folder / text))


def _data(text: str, folder: Path) -> str:
    source = DATASETS.get(text)
    return text if source is not None and source.find is None else str(_joined(text, folder))


def _model(text: str, folder: Path) -> str:
    """Return a model's spec with its path, if it has one, made absolute.

    ``package.module:factory`` stays as it is unless a file of that name lies in the folder.
    """
    if text in zoo_names() or text.startswith(_LIBRARIES):
        return text
    if text.startswith("nuts:"):
        place, mark, part = text.removeprefix("nuts:").partition("#")
        return f"nuts:{_joined(place, folder)}{mark}{part}"
    file, colon, factory = text.rpartition(":")
    if not colon:
        return str(_joined(text, folder))
    if _MODULE.fullmatch(text) and not file.endswith(".py") and not (folder / file).exists():
        return text
    return f"{_joined(file, folder)}:{factory}"


def relative_claims(
    sources: dict[str, Any], folder: Path
) -> tuple[DataClaim, ModelClaim | None, ModelClaim | None]:
    """Return the claims that name what the stored sources of a run name, seen from a folder.

    Checksums are left out; ``robust`` is None where the run took the shipped model of its noise level.
    """
    limits = sources.get("input_range")
    data = DataClaim(
        _relative(sources["data"], folder), sources["split"], None if limits is None else tuple(limits),
        sources["resize"], sources["crop"],
    )  # fmt: skip
    models = []
    for role in ("standard", "robust"):
        spec, weights = sources[role], sources[f"{role}_weights"]
        models.append(
            None
            if spec is None
            else ModelClaim(
                _relative(spec, folder),
                None if weights is None else _relative(weights, folder),
                sources[f"{role}_normalize"],
                files=tuple(_relative(file, folder) for file in sources.get(f"{role}_files", ())),
            )
        )
    return data, models[0], models[1]


def _relative(text: str, folder: Path) -> str:
    """Return a stored spec with its absolute path, if it has one, as seen from a folder."""
    if text.startswith("nuts:"):
        return f"nuts:{_relative(text.removeprefix('nuts:'), folder)}"
    if not os.path.isabs(text):
        return text
    try:
        return Path(os.path.relpath(text, folder.resolve())).as_posix()
    except ValueError:  # another drive
        return text
