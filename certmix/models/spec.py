"""From the text a user gives to a model that is ready to run.

>>> load_model("nets.py:wide", weights=Path("wide.safetensors"), normalize="0.5/0.25")  # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from certmix.errors import ModelError, describe
from certmix.models.adapters import Foreign, class_sources, evaluating
from certmix.models.checks import classes_remedy
from certmix.models.naming import check_text, find_card, find_scheme, is_factory, load_foreign
from certmix.models.normalize import Normalization, Normalized, parse_normalize
from certmix.models.state import draws_weights, hash_state
from certmix.models.weights import apply_weights, read_weights
from certmix.models.zoo import ZOO_FOLDER, Card, load_zoo, read_bytes, zoo_card

__all__ = ["LoadedModel", "Normalized", "load_model", "parse_normalize", "read_weights", "wrap_model"]

DRAWN = (
    "{spec} draws its weights at random and no weights were given, so that every run is of another network: "
    "give --robust-weights (or --standard-weights), or seed the factory"
)


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, without gradients of its parameters, and what is known of it.

    Parameters
    ----------
    module
        The torch module, normalisation included.
    name, spec
        A short name, and the text it was loaded by.
    checksum
        SHA-256 (hex) that changes when the weights, the code or the
        normalisation change.
    noise_sigma, input_range
        From the card or the library it comes from; None where unknown.
    card
        The card of a model that certmix trained.
    parts
        What the checksum covers, name to digest: weights, files of code, declared files, normalisation.
    doubt
        Why the checksum cannot vouch for what the model computes; "" where nothing is known against it.
    """

    module: nn.Module
    name: str
    spec: str
    checksum: str
    noise_sigma: float | None
    input_range: tuple[float, float] | None
    card: Card | None
    parts: Mapping[str, str] = field(default_factory=dict)
    doubt: str = ""


def load_model(
    spec: str,
    *,
    weights: Path | None = None,
    normalize: str | None = None,
    files: Sequence[str | Path] = (),
    device: str | torch.device = "cpu",
    classes: int | None = None,
    no_label_zero: bool = False,
    say: Callable[[str], None] | None = None,
    zoo: Path = ZOO_FOLDER,
) -> LoadedModel:
    """Load a model by its spec.

    Parameters
    ----------
    spec
        A shipped model's name; the path of a card (``.json``) or of a folder
        that holds one; ``package.module:factory`` or ``file.py:factory``,
        where the factory is a torch module or returns one when called without
        arguments; a ``.pt2`` file of `torch.export.save`; ``timm:NAME``;
        ``robustbench:MODEL[@dataset/threat]`` (default cifar10/Linf); or
        ``nuts:FOLDER[#PART]``, a nonlinear mix or one of
        `certmix.nuts.folder.PARTS` of it; the folder's path alone will do.
    weights
        A state dict to load: ``.safetensors``, or a torch file (``.pt``,
        ``.pth``) of tensors alone.
    normalize
        ``MEAN/STD``, one number or one a channel, applied inside the model.
    files
        Further files that the model reads: the checksum covers what they hold.
    device
        Where the model goes.
    classes
        Number of classes of the data, where known.
    no_label_zero
        Whether no input of the data has label 0: labels may count from 1.
    say
        Receives a warning where a factory draws its weights at random and none
        are given; the factory is called twice then.
    zoo
        Folder of the shipped models.

    Raises
    ------
    ModelError
        If the model cannot be loaded, or the weights do not fit it.
    ParameterError
        If `normalize` is not of that form.
    """
    digests = _digests(files)
    loaded = _load(spec, weights, normalize, device, classes, no_label_zero, say, zoo)
    return _declared(loaded, digests)


def _digests(files: Sequence[str | Path]) -> dict[str, str]:
    """Return what declared files hold, by their names; ModelError for one that is missing."""
    found: dict[str, str] = {}
    for file in files:
        data = read_bytes(Path(file).expanduser(), "restore the file that the model reads, or leave it out")
        name, digest = f"file {Path(file).name}", hashlib.sha256(data).hexdigest()
        found[name] = f"{found[name]}, {digest}" if name in found else digest
    return found


def _declared(loaded: LoadedModel, digests: dict[str, str]) -> LoadedModel:
    """Return a model whose checksum covers declared files as well."""
    if not digests:
        return loaded
    text = json.dumps([loaded.checksum, digests], sort_keys=True)
    checksum = hashlib.sha256(text.encode()).hexdigest()
    return replace(loaded, checksum=checksum, parts={**loaded.parts, **digests})


def _load(
    spec: str,
    weights: Path | None,
    normalize: str | None,
    device: str | torch.device,
    classes: int | None,
    no_label_zero: bool,
    say: Callable[[str], None] | None,
    zoo: Path,
) -> LoadedModel:
    check_text(spec)
    scheme = find_scheme(spec, zoo)
    if scheme is not None:
        _refuse_extras(spec, weights, normalize)
        module, folder, part = scheme
        load_part: Callable[..., LoadedModel] = importlib.import_module(module).load_part
        return load_part(folder, part, spec, device=device, classes=classes, zoo=zoo)
    found = find_card(spec, zoo)
    if found is not None:
        _refuse_extras(spec, weights, normalize)
        return _load_card(spec, found, device, classes, no_label_zero)
    if weights is not None and (spec.startswith("robustbench:") or spec.endswith(".pt2")):
        raise ModelError(f"{spec} brings its own weights: give no others")
    values = None if normalize is None else parse_normalize(normalize)
    foreign = load_foreign(spec, str(device), weights is None, classes, zoo)
    if values is None and foreign.normalize is not None:
        values = parse_normalize(foreign.normalize)
    if weights is None and say is not None and is_factory(spec):
        again = partial(load_foreign, spec, str(device), True, classes, zoo)
        if draws_weights(foreign.module, lambda: again().module):
            say(DRAWN.format(spec=spec))
    if weights is not None:
        apply_weights(foreign.module, read_weights(Path(weights)), Path(weights))
    return _finish(foreign, spec, values, device)


def wrap_model(
    module: nn.Module,
    *,
    name: str | None = None,
    device: str | torch.device = "cpu",
    normalize: str | None = None,
    files: Sequence[str | Path] = (),
) -> LoadedModel:
    """Take a torch module as it is; it is moved and put in evaluation mode in place.

    The checksum holds its weights, its structure and the source of its
    classes, but not what their methods take from elsewhere.

    Parameters
    ----------
    module
        Gives logits (N, classes).
    name
        What to call it; its class's name by default.
    device, normalize, files
        As for `load_model`.

    Raises
    ------
    ModelError, ParameterError
        If the device cannot be used, or `normalize` is not MEAN/STD.
    """
    values = None if normalize is None else parse_normalize(normalize)
    name = name or type(module).__name__
    identity = f"object\0{module!r}\0".encode() + class_sources(module)
    foreign = Foreign(module, name, identity, doubt="it is a module object in memory")
    return _declared(_finish(foreign, name, values, device), _digests(files))


def _finish(
    foreign: Foreign, spec: str, values: Normalization | None, device: str | torch.device
) -> LoadedModel:
    parts = {
        "weights": hash_state(foreign.module).hexdigest(),
        "code": hashlib.sha256(foreign.identity).hexdigest(),
        "normalisation": str(values),
        **{name: hashlib.sha256(source).hexdigest() for name, source in foreign.sources.items()},
    }
    checksum = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    module = foreign.module if values is None else Normalized(foreign.module, *values)
    module = _ready(module, spec, device)
    return LoadedModel(
        module, foreign.name, spec, checksum, None, foreign.input_range, None, parts, foreign.doubt
    )


def _refuse_extras(spec: str, weights: Path | None, normalize: str | None) -> None:
    if weights is not None:
        raise ModelError(f"{spec} brings its own weights: give no others")
    if normalize is not None:
        raise ModelError(f"{spec} normalises inside: give no other normalisation")


def _load_card(
    spec: str,
    path: Path,
    device: str | torch.device,
    classes: int | None,
    no_label_zero: bool,
) -> LoadedModel:
    stem, folder = path.name.removesuffix(".json"), path.parent
    card = zoo_card(stem, folder)
    if classes is not None and card.classes != classes:
        raise ModelError(
            f"{spec} tells {card.classes} classes apart, the data have {classes}: "
            + classes_remedy(card.classes, classes, no_label_zero)
        )
    module = _ready(load_zoo(stem, folder), spec, device)
    checksum = hashlib.sha256(f"zoo\0{card.name}\0{card.sha256}".encode()).hexdigest()
    parts = {"weights": card.sha256}
    return LoadedModel(module, card.name, spec, checksum, card.noise_sigma, card.input_range, card, parts)


def _ready(module: nn.Module, spec: str, device: str | torch.device) -> nn.Module:
    try:
        return evaluating(module.to(device)).requires_grad_(False)
    except (Exception, SystemExit) as error:
        raise ModelError(f"{spec} on device {device}: {describe(error)}: use --device cpu") from error
