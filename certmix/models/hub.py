"""A classifier of transformers, from a folder or the hub, behind what its image processor does to pixels."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from certmix.calling import logits_of
from certmix.errors import ModelError, describe
from certmix.files import refuse_special_in
from certmix.models.foreign import Foreign, made_by, optional

RESAMPLING = {0: "nearest-exact", 1: "bicubic", 2: "bilinear", 3: "bicubic", 4: "area", 5: "bilinear"}
"""Pillow's number of a filter -> torch's name of it, or of the closest: torch has no Lanczos and Hamming."""
_DONE = {
    "do_resize",
    "do_center_crop",
    "do_rescale",
    "do_normalize",
    "do_convert_rgb",
    "do_flip_channel_order",
}
_UNTOLD = ("Perceiver", "Vivit", "ImageGPT")
"""Processors of which the configuration does not say all that they do."""
_NOT_TOLD = ("_name_or_path", "transformers_version")
"""What a configuration says of where it was, and of who wrote it."""
_REMEDY = "give a module that does it inside by file.py:factory"


class Steps(NamedTuple):
    """What a processor does to images (N, C, H, W) in [0, 1]: sizes in pixels, 0 for none, and (mean, std).

    `shorter` is the length of the shorter side, or `size` height and width; then the middle `crop` (height,
    width) is cut out.
    """

    shorter: int = 0
    size: tuple[int, int] = (0, 0)
    mode: str = "bilinear"
    crop: tuple[int, int] = (0, 0)
    flip: bool = False
    scale: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def words(self) -> str:
        """Return it in a sentence."""
        told = []
        if self.shorter:
            told.append(f"the shorter side is resized to {self.shorter} ({self.mode})")
        elif self.size[0]:
            told.append("resized to {} x {} ({})".format(*self.size, self.mode))
        told += ["the middle {} x {} cut out".format(*self.crop)] if self.crop[0] else []
        told += ["channels reversed"] if self.flip else []
        told += [f"(x - mean) / std, {self.normalize}"] if self.scale else []
        return f"inputs are prepared inside the model: {', then '.join(told)}" if told else ""

    @property
    def normalize(self) -> str | None:
        """Return mean and std as ``MEAN/STD``."""
        if self.scale is None:
            return None
        return "/".join(",".join(f"{value:.8g}" for value in one) for one in self.scale)


class Prepared(nn.Module):
    """A model of transformers behind the steps that leave values as they are; gives logits."""

    def __init__(self, model: nn.Module, steps: Steps, name: str) -> None:
        super().__init__()
        self.model, self.steps, self.name = model, steps, name

    def forward(self, inputs: Tensor) -> Any:
        return logits_of(self.model(**{self.name: resized(inputs, self.steps)}))[0]


def resized(images: Tensor, steps: Steps) -> Tensor:
    """Return images (N, C, H, W) of the size that the steps give them."""
    size, now = steps.size, (images.shape[-2], images.shape[-1])
    if steps.shorter:
        size = tuple(steps.shorter * side // min(now) for side in now)  # type: ignore[assignment]
    if size[0] and size != now:
        smooth = steps.mode in ("bilinear", "bicubic")
        how: dict[str, Any] = {"align_corners": False, "antialias": True} if smooth else {}
        images = nn.functional.interpolate(images, size, mode=steps.mode, **how)
    if steps.crop[0]:
        height, width = images.shape[-2:]
        if height < steps.crop[0] or width < steps.crop[1]:
            told = "{} x {}".format(*steps.crop)
            raise ModelError(f"images are {height} x {width}, of which {told} are to be cut out: {_REMEDY}")
        top, left = (height - steps.crop[0]) // 2, (width - steps.crop[1]) // 2
        images = images[..., top : top + steps.crop[0], left : left + steps.crop[1]]
    return images.flip(1) if steps.flip else images


def read_steps(config: Mapping[str, Any], where: str) -> Steps:
    """Return what an image processor's configuration says; ModelError for steps that are not known."""
    odd = [key for key, value in config.items() if key.startswith("do_") and value and key not in _DONE]
    odd += [kind for kind in _UNTOLD if _type(config).startswith(kind)]
    if odd:
        raise ModelError(f"{where}: its image processor does {odd[0]}, which certmix does not: {_REMEDY}")
    try:
        return _steps(config, where)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{where}: its image processor is not understood ({describe(error)}): {_REMEDY}"
        ) from None


def _type(config: Mapping[str, Any]) -> str:
    return str(config.get("image_processor_type", config.get("feature_extractor_type", "")))


def _steps(config: Mapping[str, Any], where: str) -> Steps:
    cut = bool(config.get("do_center_crop", "crop_size" in config)) and config.get("crop_size") is not None
    crop, shorter, size = _sides(config["crop_size"])[1] if cut else (0, 0), 0, (0, 0)
    if config.get("do_resize", "size" in config):
        shorter, size = _sides(config["size"], whole=not cut)
        if shorter and "crop_pct" in config and config["crop_pct"]:  # ConvNeXT, PoolFormer
            crop, square = crop if cut else (shorter, shorter), shorter >= 384 and not cut
            shorter, size = (0, crop) if square else (int(shorter / config["crop_pct"]), size)
            crop = (0, 0) if square else crop
    if _type(config).startswith("Levit"):
        shorter = int(256 / 224 * shorter)
    factor = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    unit, offset = float(f"{255.0 * factor:.9g}"), 1.0 if config.get("rescale_offset") else 0.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    if config.get("do_normalize", "image_mean" in config):
        mean, std = (_numbers(config[f"image_{name}"]) for name in ("mean", "std"))
        if config.get("include_top"):  # EfficientNet divides twice
            mean, std = mean, tuple(value * value for value in std)
    scale = tuple((m + offset) / unit for m in mean), tuple(value / unit for value in std)
    mode, plain = RESAMPLING[int(config.get("resample", 2))], scale == ((0.0,), (1.0,))
    flip = bool(config.get("do_flip_channel_order"))
    numbers = [*scale[0], *scale[1], shorter, *size, *crop]
    if not all(map(math.isfinite, numbers)) or min(scale[1]) <= 0 or min(shorter, *size, *crop) < 0:
        raise ValueError("a number out of range")
    return Steps(shorter, size, mode, crop, flip, None if plain else scale)


def _sides(given: Any, whole: bool = True) -> tuple[int, tuple[int, int]]:
    """Return the length of the shorter side, or height and width; a number is both, if `whole`."""
    if isinstance(given, Mapping):
        if "shortest_edge" in given:
            return int(given["shortest_edge"]), (0, 0)
        return 0, (int(given["height"]), int(given["width"]))
    if isinstance(given, list | tuple):
        return 0, (int(given[0]), int(given[1]))
    return (0, (int(given), int(given))) if whole else (int(given), (0, 0))


def _numbers(given: Any) -> tuple[float, ...]:
    return tuple(float(one) for one in (given if isinstance(given, list | tuple) else [given]))


def from_hf(text: str, pretrained: bool, classes: int | None) -> Foreign:
    """Load a classifier of transformers that takes pixels or other numbers, with its own weights."""
    spec, transformers = f"hf:{text}", optional("transformers", "hf")
    place = os.path.expanduser(text)
    place = place if os.path.isdir(place) else text
    with made_by(spec, "name a folder of save_pretrained, or a classifier on the hub"):
        refuse_special_in(place)
        config = transformers.AutoConfig.from_pretrained(place)
        kind = getattr(transformers, (config.architectures or ["?"])[0], None)
        if kind is None:
            named = ", ".join(config.architectures or ()) or "no architecture"
            raise ModelError(f"{spec} names {named}, which transformers does not have: {_REMEDY}")
        with _without_bars(transformers):
            model, info = kind.from_pretrained(place, dtype=torch.float32, output_loading_info=True)
        name = model.main_input_name
        images = name == "pixel_values"
        read = _processor(transformers, place) if images else None
    if lacking := sorted(info["missing_keys"]):
        raise ModelError(f"{spec} holds no weights for {lacking[0]}, which would be random: train them first")
    if name == "input_ids":
        raise ModelError(
            f"{spec} takes tokens, to which no noise can be added: name a model of images or signals"
        )
    steps = Steps() if read is None else read_steps(read, spec)
    note = steps.words()
    if images and read is None:
        note = "no preprocessor_config.json says how images are prepared: they go in as they are"
    elif not images:
        note = f"inputs are its {name} as they are, without a feature extractor"
    told = {key: value for key, value in config.to_dict().items() if key not in _NOT_TOLD}
    shown = f"hf\0{kind.__name__}\0{steps}\0{json.dumps(told, sort_keys=True, default=str)}"
    return Foreign(
        Prepared(model, steps, name), Path(place).name, shown.encode(), steps.normalize,
        (0.0, 1.0) if images else None, _sources(transformers, kind), notes=(note,) if note else (),
    )  # fmt: skip


def _processor(transformers: Any, place: str) -> dict[str, Any] | None:
    """Return the configuration of the image processor, None if there is none."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        found = transformers.utils.cached_file(place, name, _raise_exceptions_for_missing_entries=False)
        if found is not None:
            read = json.loads(Path(found).read_text(encoding="utf-8"))
            read = read.get("image_processor", read) if isinstance(read, dict) else None
            if not isinstance(read, dict):
                raise ModelError(f"{found} is no object: restore it")
            return read
    return None


def _sources(transformers: Any, kind: type) -> dict[str, bytes]:
    """Return the file of a model's class, and the library's version for the rest."""
    path = Path(sys.modules[kind.__module__].__file__ or "")
    return {path.name: path.read_bytes(), "transformers": transformers.__version__.encode()}


@contextmanager
def _without_bars(transformers: Any) -> Iterator[None]:
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
