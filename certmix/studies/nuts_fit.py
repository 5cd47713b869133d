"""MixedNUTS from two models and data: margins, Algorithm 1, and a folder that any command can load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from certmix.errors import Interrupted, ParameterError
from certmix.nuts.description import FitFacts, MixSettings, TuningImages, check_mix, check_shares
from certmix.nuts.fit import RIVALS, NutsFit, auxiliary_alpha, check_share, fit
from certmix.nuts.folder import BaseModel, save_nuts
from certmix.nuts.grid import BETAS, CLAMP_NAMES, GRIDS, TOP_K, Grid, check_choice, parse_grid
from certmix.nuts.margins import LAYER_NORM
from certmix.nuts.transform import NonlinearTransform, changed_share
from certmix.runs.attacking import fill
from certmix.runs.keywords import plain_numbers
from certmix.runs.sources import Loaded, Sources
from certmix.studies.attack_request import AttackRequest
from certmix.studies.empirical import Study, StudyResult, Surroundings, open_study
from certmix.studies.nuts_margins import (
    CachedLogits,
    margin_cells,
    own_attack,
    read_cells,
    read_logits,
    write_logits,
)
from certmix.tables.table import Quantity, Table
from certmix.text import plain_decimal

__all__ = ["AUXILIARY_BETAS", "FitChoices", "NutsFitted", "fit_cached", "fit_file", "nuts_fit"]

AUXILIARY_BETAS = {"cifar10": 0.95, "cifar100": 0.935, "imagenet": 0.95}
"""The beta behind alpha_d, by preset, as published code has it."""

LOGITS = "logits.npz"


@dataclass(frozen=True)
class FitChoices:
    """How Algorithm 1 is run; none of it needs new margins, but ``gradient_free`` and the preset's LN.

    Parameters
    ----------
    beta
        Share of rightly classified attacked images that keep their class
        whatever the standard classifier says; None takes the preset's, the paper's.
    clamp, grid, preset
        Clamp by name; a preset of `GRIDS`, or a grid such as
        ``s=0.05:5:8,p=1:4:8,c=-1.1:0:8`` that replaces the preset's.
    quantile, rival
        ``conservative`` or ``linear``; ``label`` or ``second``: what a wrong
        image's margin is measured against, see `certmix.nuts.margin_grid`.
    conditional
        Objective over images that the standard classifier gets right (D.8.3).
    temperature, r_d
        Of the mix, and of its auxiliary for attacks.
    gradient_free, early_stop
        How margins are searched for.
    copy_weights
        Bundle the base models' weights with the fitted mix.
    """

    beta: float | None = None
    clamp: str = "gelu"
    preset: str = "cifar10"
    grid: str | None = None
    quantile: str = "conservative"
    rival: str = RIVALS[0]
    conditional: bool = False
    temperature: float = 0.0
    r_d: float = 0.9
    gradient_free: bool = False
    early_stop: bool = True
    copy_weights: bool = False

    def __post_init__(self) -> None:
        plain_numbers(self)
        if self.preset not in GRIDS:
            raise ParameterError(f"preset {self.preset!r} is unknown: use one of {', '.join(GRIDS)}")
        if self.beta is None:
            object.__setattr__(self, "beta", BETAS[self.preset])
        check_share(self.share, self.quantile)
        check_choice("clamp", self.clamp, CLAMP_NAMES)
        check_choice("rival", self.rival, RIVALS)
        check_mix(1.0, self.temperature)
        check_shares(r_d=self.r_d)
        assert self.candidates.shape

    @property
    def share(self) -> float:
        """Beta, which is never None once the choices are made."""
        assert self.beta is not None
        return self.beta

    @property
    def candidates(self) -> Grid:
        """The grid of s, p and c."""
        return GRIDS[self.preset] if self.grid is None else parse_grid(self.grid)

    @property
    def top_k(self) -> int | None:
        """Logits behind LN's mean and variance."""
        return TOP_K[self.preset]


@dataclass(frozen=True)
class NutsFitted:
    """The fit, alpha_d, the share of predictions that the transform changes, and the logits behind it."""

    fit: NutsFit
    alpha_d: float
    changed: float
    logits: CachedLogits
    settings: MixSettings


def nuts_fit(
    request: AttackRequest | None = None,
    sources: Sources | None = None,
    where: Surroundings | None = None,
    *,
    choices: FitChoices | None = None,
) -> StudyResult:
    """Fit s, p, c and alpha on a tuning split, and save the mix into the run folder.

    Only the images of this study are looked at; their indices are kept, and
    evaluations leave them out.

    Parameters
    ----------
    request
        The ball, the steps (50 by default) and the tuning images of the
        minimum-margin attack: APGD on the cross-entropy, then targeted.
    sources, where
        Data and models; where and how to run.
    choices
        How Algorithm 1 is run.

    Returns
    -------
    StudyResult
        ``.data`` is the `NutsFitted`; ``.folder`` loads as ``nuts:FOLDER``.

    Raises
    ------
    CertmixError
        For anything the user can mend.

    References
    ----------
    Algorithm 1 of Bai, Zhou, Patel, Sojoudi, "MixedNUTS", TMLR 2024.
    """
    chosen = choices or FitChoices()
    request = own_attack(request, None if chosen.gradient_free else 50)
    named = sources or Sources()
    searched = {name: getattr(chosen, name) for name in ("gradient_free", "early_stop", "top_k")}
    with open_study(
        "nuts-fit", request, named, where or Surroundings(), asked=vars(chosen),
        identity={**searched, "layer_norm": LAYER_NORM},
    ) as study:  # fmt: skip
        held, complete = fill(study.bench, margin_cells(study.bench, study.pair, **searched))
        if not len(held) or not complete:
            raise Interrupted("interrupted before all tuning images were attacked")
        found = fit_cached(read_cells(study.bench, held), chosen)
        if study.run is not None:
            _save(study, named, found, chosen)
            write_logits(study.run.path / LOGITS, found.logits)
        return study.publish(_table_of_study(study, found, chosen), {}, found)


def fit_cached(logits: CachedLogits, choices: FitChoices) -> NutsFitted:
    """Run Algorithm 1 on logits that exist: any beta, clamp or temperature is a second away."""
    found = fit(
        logits.robust, logits.attacked, logits.labels, choices.candidates, choices.share, clamp=choices.clamp,
        top_k=choices.top_k, quantile=choices.quantile, rival=choices.rival,
        standard_correct=logits.standard_right if choices.conditional else None,
    )  # fmt: skip
    alpha_d = auxiliary_alpha(
        logits.attacked, logits.labels, AUXILIARY_BETAS[choices.preset], top_k=choices.top_k
    )
    own = found.settings
    transform = NonlinearTransform(own.s, own.p, own.c, own.clamp, own.top_k)
    changed = changed_share(torch.from_numpy(logits.robust), transform)
    settings = MixSettings(own, found.alpha, choices.temperature, alpha_d, choices.r_d)
    return NutsFitted(found, alpha_d, changed, logits, settings)


def fit_file(path: Path, choices: FitChoices) -> StudyResult:
    """Fit on a file of cached logits, such as the one a fit's run folder holds; nothing is saved."""
    found = fit_cached(read_logits(path), choices)
    return StudyResult(_table(found, choices, f"logits of {path.name}", ()), None, found)


def _save(study: Study, sources: Sources, found: NutsFitted, choices: FitChoices) -> None:
    assert study.run is not None
    objects = [role for role in ("standard", "robust") if not _named(getattr(sources, role))]
    if objects:
        study.bench.say(f"the mix is not saved: its {objects[0]} model is a Python object, which has no name")
        return
    data, request = study.bench.dataset, study.bench.request
    tuning = TuningImages(
        data.name, data.split, data.checksum, tuple(found.logits.indices.tolist()),
        {**request.identity(), "gradient_free": choices.gradient_free},
    )  # fmt: skip
    save_nuts(
        study.run.path, found.settings, *base_models(sources, study.loaded),
        fit=FitFacts.of(found.fit), tuning=tuning, copy_weights=choices.copy_weights,
    )  # fmt: skip


def base_models(sources: Sources, loaded: Loaded) -> tuple[BaseModel, BaseModel]:
    """Return g and h with what they were loaded with, as `save_nuts` takes them."""
    assert loaded.standard is not None
    return (
        BaseModel.of(loaded.standard, sources, "standard"),
        BaseModel.of(loaded.robust, sources, "robust"),
    )


def _named(model: Any) -> bool:
    return model is None or isinstance(model, str)


def _table_of_study(study: Study, found: NutsFitted, choices: FitChoices) -> Table:
    return _table(found, choices, study.bench.request.words(), (*study.bench.blind, study.provenance))


def _table(found: NutsFitted, choices: FitChoices, how: str, more: tuple[str, ...]) -> Table:
    own = found.fit
    rows: list[tuple[Any, ...]] = [
        ("s", Quantity(own.s, 6)),
        ("p", Quantity(own.p, 6)),
        ("c", Quantity(own.c, 6)),
        ("alpha", Quantity(own.alpha, 6, rounding="up")),
        ("margin threshold q", Quantity(own.margin_threshold, 6, rounding="down")),
        ("wrong clean images with margin >= q (share)", Quantity(own.objective, 4)),
        ("attacked right images with margin >= q (share)", Quantity(own.constraint_share, 4)),
        ("tied grid points", own.ties),
        ("predictions that the transform changes (share)", Quantity(found.changed, 4)),
        ("alpha_d of the auxiliary mix", Quantity(found.alpha_d, 6)),
    ]
    images = (
        f"{own.images:,} images: {own.attacked_right:,} right when attacked, {own.clean_wrong:,} wrong clean"
    )
    return Table(
        name="nuts-fit",
        title="MixedNUTS: the fitted transform and mixing weight (estimates on tuning images)",
        settings=f"beta {plain_decimal(own.beta)}, clamp {own.clamp}, {own.quantile} quantile; {how}",
        headings=("quantity", "value"),
        rows=tuple(rows),
        notes=(
            f"{images}.",
            *_warnings(found),
            "Report no result on these images: certmix nuts evaluate leaves them out.",
            *more,
        ),
        extra={"images": own.images, "attacked_right": own.attacked_right, "clean_wrong": own.clean_wrong},
    )


def _warnings(found: NutsFitted) -> list[str]:
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
    return notes
