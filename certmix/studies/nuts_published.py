"""A nonlinear mix of models of one's own from a published optimum: no data, no attack, no fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from certmix.errors import CertmixError, ModelError, ParameterError
from certmix.nuts.description import PUBLISHED, MixSettings
from certmix.nuts.folder import save_nuts
from certmix.runs.folder import DESCRIPTION
from certmix.runs.sources import Sources, load_models
from certmix.sampling import resolve_device
from certmix.studies.empirical import ROBUST, StudyResult, warn
from certmix.studies.nuts_fit import base_models
from certmix.tables.table import Quantity, Table
from certmix.types import Dataset

__all__ = ["nuts_published"]

CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
SIDES = {"cifar10": 32, "cifar100": 32, "imagenet": 224}
"""The usual side of the data's square inputs, in pixels."""


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

    The numbers were tuned for other models: how well they do for these, an
    evaluation tells.

    Parameters
    ----------
    name
        ``cifar10``, ``cifar100`` or ``imagenet``: models must tell 10, 100 or
        1,000 classes apart, which is seen on inputs of random pixels.
    output
        Folder of the mix.
    sources
        The models.  Of the rest only ``crop`` counts: the side of the inputs,
        32 or 224 pixels if None.
    copy_weights
        Bundle the base models' weights with the mix.
    device, say
        Where models are tried; receives warnings of one line.

    Returns
    -------
    StudyResult
        ``.data`` is the `certmix.nuts.description.MixSettings`; ``.folder``
        loads as ``nuts:FOLDER``.

    Raises
    ------
    ParameterError
        If there is no such optimum, or the folder is a run.
    ModelError
        If a model cannot be loaded, is a Python object, or has another number of classes.

    References
    ----------
    Table 3 of Bai, Zhou, Patel, Sojoudi, "MixedNUTS", TMLR 2024.
    """
    if name not in PUBLISHED:
        raise ParameterError(f"no optimum is published for {name!r}: use one of {', '.join(PUBLISHED)}")
    named, folder, settings = sources or Sources(), Path(output), PUBLISHED[name]
    if not all(isinstance(one, str) for one in (named.standard, named.robust or ROBUST)):
        raise ModelError("a mix is saved by the names of its two models: name both, not objects or none")
    if (folder / DESCRIPTION).exists():
        raise ParameterError(f"{folder} is the folder of a run, whose mix would be lost: name another")
    side = named.crop or SIDES[name]
    images = replace(named, data=_random_images(CLASSES[name], side), split=None, crop=None)
    try:
        loaded = load_models(images, named.robust or ROBUST, resolve_device(device), say)
    except CertmixError as error:
        raise ModelError(f"the optimum for {name} is one of {CLASSES[name]:,} classes: {error}") from None
    save_nuts(folder, settings, *base_models(named, loaded), copy_weights=copy_weights)
    assert loaded.standard is not None
    table = _table(name, settings, (loaded.standard.name, loaded.robust.name))
    return StudyResult(table, folder, settings)


def _random_images(classes: int, side: int) -> Dataset:
    pixels = np.random.default_rng(0).random((2, 3, side, side), np.float32)
    numbers, names = np.arange(2), tuple(map(str, range(classes)))
    return Dataset("random pixels", "", numbers, numbers, names, pixels.__getitem__, (0.0, 1.0), "")


def _table(name: str, settings: MixSettings, pair: tuple[str, str]) -> Table:
    own, alpha = settings.transform, settings.alpha
    assert settings.alpha_d is not None
    normalized = "all" if own.top_k is None else f"the {own.top_k} largest"
    return Table(
        name="nuts-published",
        title=f"MixedNUTS: the published transform and mixing weight for {name}",
        settings=f"clamp {own.clamp}, LN over {normalized} logits",
        headings=("quantity", "value"),
        rows=(
            ("s", Quantity(own.s, 6)),
            ("p", Quantity(own.p, 6)),
            ("c", Quantity(own.c, 6)),
            ("alpha", Quantity(alpha, 6, rounding="up")),
            ("margin threshold q", Quantity((1.0 - alpha) / alpha, 6, rounding="down")),
            ("alpha_d of the auxiliary mix", Quantity(settings.alpha_d, 6)),
        ),
        notes=(
            "Tuned for the paper's models, not for these: see certmix nuts evaluate, on images that neither "
            "was trained on.",
            f"Models: standard {pair[0]}; robust {pair[1]}.",
        ),
    )
