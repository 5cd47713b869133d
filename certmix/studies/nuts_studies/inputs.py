"""What studies of cached results read: run folders of fits, and one of an evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from certmix.errors import DataError, ParameterError, RunError
from certmix.runs import read_run
from certmix.runs.from_json import from_json
from certmix.runs.identity import CERTIFY, command_of
from certmix.studies.attack_request import AttackRequest
from certmix.studies.nuts_fit import LOGITS, FitChoices, NutsFitted, fit_cached
from certmix.studies.nuts_margins import CachedLogits, read_logits
from certmix.studies.nuts_studies.points import AttackedPoints, read_points
from certmix.tables.table import Table

__all__ = ["FitCache", "Inputs", "Product", "read_inputs"]

FIT, EVALUATION = "nuts-fit", "nuts-evaluate"


@dataclass(frozen=True)
class Product:
    """A study's table, and its figures: stem -> function that takes ``png`` or ``svg``."""

    table: Table
    plots: dict[str, Callable[[str], bytes]] = field(default_factory=dict)


@dataclass(frozen=True)
class FitCache:
    """A run folder of a fit.

    Parameters
    ----------
    folder
        The folder.
    logits
        Cached logits of its tuning images.
    choices
        How Algorithm 1 was run last.
    request
        The attack behind the points of smallest margin.
    run
        Contents of ``run.json``.
    """

    folder: Path
    logits: CachedLogits
    choices: FitChoices
    request: AttackRequest
    run: dict[str, Any]

    @cached_property
    def fitted(self) -> NutsFitted:
        """The fit on all cached images, run again: it is deterministic."""
        return fit_cached(self.logits, self.choices)

    def halves(self) -> tuple[CachedLogits, CachedLogits]:
        """Return the images at even positions, to fit on, and at odd ones, to judge on."""
        positions = np.arange(len(self.logits.labels))
        return self.logits.take(positions[::2]), self.logits.take(positions[1::2])

    def model(self, role: str) -> str:
        """Return the name of the standard or the robust model."""
        return str(self.run["models"][role]["name"])

    @property
    def origin(self) -> str:
        """A line on where the logits come from."""
        data = self.run["data"]
        return (
            f"Logits: {self.folder.name}, {len(self.logits.labels):,} images of {data['name']} "
            f"({data['split']}); standard {self.model('standard')}; robust {self.model('robust')}; "
            f"{self.request.words()}."
        )


@dataclass(frozen=True)
class Inputs:
    """The folders that a study was given."""

    fits: tuple[FitCache, ...]
    points: AttackedPoints | None = None

    @property
    def fit(self) -> FitCache:
        """The only fit, or the first."""
        return self.fits[0]


def read_inputs(folders: Sequence[str | Path]) -> Inputs:
    """Read run folders, and keep of the evaluation only images that no fit was tuned on.

    Raises
    ------
    ParameterError
        If two of them are evaluations.
    RunError, DataError
        If a folder is another run, or the evaluation is of other models.
    """
    fits: list[FitCache] = []
    evaluations: list[tuple[Path, dict[str, Any]]] = []
    for folder in map(Path, folders):
        run = read_run(folder)
        study = run.get("identity", {}).get("study")
        if study == FIT:
            fits.append(_read_fit(folder, run))
        elif study == EVALUATION:
            evaluations.append((folder, run))
        else:
            raise RunError(
                f"{folder} is a run of {command_of(study or CERTIFY)}: "
                "name runs of certmix nuts fit and certmix nuts evaluate"
            )
    if len(evaluations) > 1:
        raise ParameterError(f"{len(evaluations)} of the folders are evaluations: name at most one")
    if not evaluations or not fits:
        return Inputs(tuple(fits))
    _check_models(fits[0], *evaluations[0])
    return Inputs(tuple(fits), _unseen(read_points(*evaluations[0]), fits))


def _read_fit(folder: Path, run: dict[str, Any]) -> FitCache:
    path = folder / LOGITS
    if not path.exists():
        raise RunError(f"{folder} has no {LOGITS}, its fit did not finish: run certmix nuts fit again")
    logits = read_logits(path)
    if len(logits.labels) < 2:
        raise DataError(f"{path} holds {len(logits.labels)} images: fit on more")
    asked = run.get("request")
    try:
        choices, request = _some(FitChoices, asked), _some(AttackRequest, asked)
    except (ParameterError, TypeError) as error:
        raise RunError(
            f"{folder}: its run.json does not say how it was fitted ({error}): fit again"
        ) from None
    return FitCache(folder, logits, choices, request, run)


def _some(kind: Any, asked: Any) -> Any:
    """Make a dataclass of those of the stored settings that it knows."""
    if not isinstance(asked, dict):
        raise TypeError("no request")
    return from_json(
        kind, {one.name: asked[one.name] for one in dataclasses.fields(kind) if one.name in asked}
    )


def _check_models(fit: FitCache, folder: Path, run: dict[str, Any]) -> None:
    for role in ("standard", "robust"):
        key = f"{role}_checksum"
        if run["identity"].get(key) != fit.run["identity"].get(key):
            raise RunError(
                f"{folder} evaluates another {role} model than {fit.folder} was fitted for: "
                "name an evaluation of its mix"
            )


def _unseen(points: AttackedPoints, fits: Sequence[FitCache]) -> AttackedPoints:
    """Leave out the images that a fit has seen."""
    seen = [f.logits.indices for f in fits if f.run["identity"].get("data_checksum") == points.data_checksum]
    keep = ~np.isin(points.indices, np.concatenate(seen)) if seen else np.ones(len(points.indices), bool)
    if not keep.any():
        raise DataError(f"all images of {points.folder} were tuned on: evaluate on others")
    return points.take(keep.nonzero()[0])
