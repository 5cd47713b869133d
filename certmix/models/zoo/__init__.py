"""The shipped models: a card (NAME.json), read without torch, beside weights (NAME.safetensors)."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from certmix.errors import ModelError, ParameterError, brief
from certmix.files import BULK, TEXT, digest_of, parse_json, read_file, write_atomically
from certmix.radii.smoothings import GAUSSIAN, SMOOTHINGS, Smoothing

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ZOO_FOLDER", "Card", "Plan", "load_zoo", "save_zoo", "shipped_for", "zoo_card", "zoo_names"]

ZOO_FOLDER = Path(__file__).parent


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a shipped robust model is best mixed with a shipped standard one, as ``certmix tune`` chose.

    `gate` of h's votes, temperature of g and mixing weight, for certified accuracy at `at_radius`; `data` is
    the name of the data set that they were chosen on.
    """

    standard: str
    gate: float
    standard_temperature: float
    alpha: float
    at_radius: float
    data: str


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a trained model; ModelError if a value is out of range.

    Parameters
    ----------
    name, architecture
        Name of its two files, and a name in `certmix.models.architectures.ARCHITECTURES`.
    classes, class_names, input_shape, input_range
        Number of classes, None of a denoiser, and their names where known; shape and range of one input.
    noise_sigma
        Gaussian noise the model was trained for, in input units; None for none, or of another kind.
    accuracy, sha256
        Measured accuracies in [0, 1], each under a name that says of what; digest of the weights file, which
        `save_zoo` fills in.
    tuned
        The `Plan` of a shipped model that is smoothed.
    """

    name: str
    architecture: str
    classes: int | None
    class_names: tuple[str, ...] | None
    input_shape: tuple[int, ...]
    input_range: tuple[int | float, int | float] | None
    noise_sigma: int | float | None
    recipe: dict[str, Any]
    seed: int
    data: str
    data_checksum: str
    epochs: int
    precision: str
    accuracy: dict[str, int | float] = {}
    sha256: str = ""
    notes: str = ""
    tuned: Plan | None = None

    @property
    def trained_for(self) -> Smoothing | None:
        """The noise that it was trained for, None for none."""
        name, kind = str(self.recipe.get("name")), str(self.recipe.get("noise", GAUSSIAN))
        kind = name if kind == GAUSSIAN and name in SMOOTHINGS else kind
        scale = self.noise_sigma or self.recipe.get("scale")
        return Smoothing(kind, scale) if scale else None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ModelError(f"model name {self.name!r}: use letters, digits, '.', '_' and '-' only")
        wrong = ""
        names = None if self.class_names is None else len(self.class_names)
        if self.classes is not None and (self.classes < 2 or names not in (None, self.classes)):
            found = "" if names is None else f" and {names} class names"
            wrong = f"{self.classes} classes{found}: at least 2 are needed, one name each"
        elif self.noise_sigma is not None and not 0 < self.noise_sigma < math.inf:
            wrong = f"noise_sigma = {self.noise_sigma}: give a number > 0, or none at all"
        elif self.input_range is not None and not self.input_range[0] < self.input_range[1]:
            wrong = f"input_range = {self.input_range}: give (low, high), low < high"
        elif odd := {what: value for what, value in self.accuracy.items() if not 0 <= value <= 1}:
            wrong = f"accuracy {odd}: give fractions in [0, 1]"
        if wrong:
            raise ModelError(f"card {self.name}: {wrong}")


def zoo_names(folder: Path = ZOO_FOLDER) -> list[str]:
    """Return the names of the models in a folder, sorted."""
    return sorted(path.name.removesuffix(".json") for path in Path(folder).glob("*.json"))


def zoo_card(name: str, folder: Path = ZOO_FOLDER) -> Card:
    """Return the card of a model; ModelError if there is none, or it cannot be read."""
    path = Path(folder) / f"{name}.json"
    known = ", ".join(zoo_names(folder)) or "none"
    text = read_bytes(path, f"the models of this folder are {known}", TEXT)
    try:
        plain = parse_json(text)
        json.dumps(plain, ensure_ascii=False).encode()  # text that cannot be printed
        return msgspec.convert(plain, Card)
    except (ValueError, msgspec.ValidationError) as error:
        told = brief(error)
        raise ModelError(f"{path} is no card ({told}): name a card that certmix wrote") from None


def load_zoo(name: str, folder: Path = ZOO_FOLDER, *, fold: bool = True) -> nn.Module:
    """Return a model in float32 and evaluation mode, batch normalisation folded in unless told otherwise.

    ModelError if it is unknown, or its weights are missing or not those the card was written for.
    """
    from safetensors.torch import load

    from certmix.models.architectures import fold_batch_norm

    card, path = zoo_card(name, folder), Path(folder) / f"{name}.safetensors"
    data = read_bytes(path, "put the weights beside the card, or train again")
    found = digest_of(data)
    if found != card.sha256:
        raise ModelError(
            f"{path} has sha256 {found[:12]}..., its card says {card.sha256[:12]}...: "
            "the file is damaged or was replaced; install or train again"
        )
    try:
        state = load(data)
    except Exception as error:
        told = brief(error)
        raise ModelError(f"{path} is no safetensors file ({told}): train again") from None
    model = _build(card, state)
    return (fold_batch_norm(model) if fold else model).eval()


def save_zoo(folder: Path, card: Card, model: nn.Module, dtype: str = "float16") -> Card:
    """Write weights and card, each whole or not at all, and return the finished card, with its `sha256`.

    `model` is of the card's architecture, batch normalisation not folded; floats are stored as `dtype`,
    ``float16`` or ``float32``, else ParameterError.  ModelError for weights that do not fit it or the
    architecture, RunError for a folder that cannot be written.
    """
    import torch
    from safetensors.torch import save

    if dtype not in ("float16", "float32"):
        raise ParameterError(f"dtype {dtype!r} is unknown: use float16 or float32")
    state = {}
    for key, value in model.state_dict().items():
        kept = value.detach().cpu().to(getattr(torch, dtype) if value.is_floating_point() else value.dtype)
        state[key] = kept.clone(memory_format=torch.contiguous_format)
    bad = [key for key, value in state.items() if not value.isfinite().all()]
    if bad:
        raise ModelError(f"weights {bad[0]} are not finite in {dtype}: use float32, or a lower learning rate")
    _build(card, state)
    data = save(state)
    card = msgspec.structs.replace(card, sha256=digest_of(data))
    text = json.dumps(msgspec.to_builtins(card), indent=2, allow_nan=False) + "\n"
    write_atomically(Path(folder) / f"{card.name}.safetensors", data)
    write_atomically(Path(folder) / f"{card.name}.json", text.encode())
    return card


def shipped_for(kind: str = GAUSSIAN, folder: Path = ZOO_FOLDER) -> dict[float, str]:
    """Return the scale and name of each classifier trained for a kind of smoothing, in rising order."""
    cards = [zoo_card(name, folder) for name in zoo_names(folder)]
    own = ((card.trained_for, card.name) for card in cards if card.classes)
    return dict(
        sorted((noise.scale, name) for noise, name in own if noise is not None and noise.kind == kind)
    )


def read_bytes(path: Path, remedy: str, most: int = BULK) -> bytes:
    """Return a file's bytes, at most so many, or raise a ModelError that ends with the remedy."""
    try:
        return read_file(path, most)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{path} cannot be read ({reason}): {remedy}") from None


def _build(card: Card, state: dict[str, Tensor]) -> nn.Module:
    """Build the card's architecture with these weights."""
    from certmix.models.architectures import ARCHITECTURES, DENOISER, build

    if card.architecture not in ARCHITECTURES:
        raise ModelError(
            f"card {card.name}: architecture {card.architecture!r} is unknown: "
            f"this version has {', '.join(ARCHITECTURES)}"
        )
    if (card.architecture == DENOISER) != (card.classes is None):
        raise ModelError(f"card {card.name}: a denoiser has no classes, and every other model has some")
    try:
        sizes = {size for value in state.values() for size in value.shape}
        expected = card.classes or card.input_shape[0]
        if expected not in sizes or any(value.is_complex() for value in state.values()):
            raise RuntimeError("not of this architecture")  # before much is allocated
        model = build(card.architecture, card.classes)
        model.load_state_dict(state)
    except RuntimeError:
        raise ModelError(
            f"card {card.name}: the weights do not fit architecture {card.architecture!r} with "
            f"{card.classes or 'no'} classes: give the pair that certmix wrote, batch normalisation not "
            "folded"
        ) from None
    return model
