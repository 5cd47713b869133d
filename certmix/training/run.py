"""From a recipe and a data set to weights with a card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from msgspec.structs import replace
from torch import Tensor, nn

from certmix.attacks import pgd
from certmix.data import load_arrays
from certmix.errors import DataError, ParameterError
from certmix.files import make_folder, unwritable
from certmix.models.architectures import DENOISER
from certmix.models.denoised import Denoised
from certmix.models.spec import load_model
from certmix.models.zoo import Card, load_zoo, save_zoo
from certmix.radii.smoothings import GAUSSIAN
from certmix.training.intervals import sharpen
from certmix.training.loop import Progress, train
from certmix.training.objectives import noisy
from certmix.training.recipes import Recipe
from certmix.types import Dataset

_ADDED = ("", GAUSSIAN, "laplace", "uniform")
"""Kinds of smoothing whose models see plain images too: what they add is noise."""


def _images(dataset: Dataset) -> tuple[Tensor, Tensor]:
    inputs, labels = load_arrays(dataset)
    images = torch.from_numpy(inputs)
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise DataError(
            f"{dataset.name} holds {images.dtype} inputs of shape {tuple(images.shape[1:])}: "
            "the recipes train on 8-bit colour images (3, H, W)"
        )
    return images, torch.from_numpy(labels)


@torch.no_grad()
def measure(
    model: nn.Module,
    recipe: Recipe,
    images: Tensor,
    labels: Tensor,
    *,
    behind: nn.Module | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> dict[str, float]:
    """Return a model's accuracies on uint8 images: clean, and under what its recipe trains for.

    ``noisy`` is the accuracy on single copies under the recipe's noise, ``pgd20`` under 20 steps of PGD at
    its norm and eps: neither is a certificate.  A denoiser is measured by the classifier `behind` it: none
    without one.
    """
    if recipe.name == DENOISER:
        if behind is None:
            return {}
        model = Denoised(model, behind)
    generator = torch.Generator(device).manual_seed(seed)
    right = Counter[str]()
    for x, y in zip(images.split(100), labels.split(100), strict=True):
        x, y = x.to(device).float() / 255, y.to(device)
        points = {"clean": x} if recipe.kind in _ADDED else {}  # which no other model is to see
        if recipe.kind:
            points["noisy"] = noisy(x, recipe, generator)
        if recipe.eps > 0:
            points["pgd20"] = pgd(model, x, y, recipe.norm, recipe.eps, steps=20, generator=generator)
        right.update({name: int((model(each).argmax(1) == y).sum()) for name, each in points.items()})
    return {name: count / len(labels) for name, count in right.items()}


def train_to_folder(
    recipe: Recipe,
    dataset: Dataset,
    evaluation: Dataset,
    output: Path,
    *,
    name: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "fp32",
    report: Callable[[Progress], None] | None = None,
) -> Card:
    """Train, measure and save a model as ``output/NAME.safetensors`` with its card.

    `dataset` is trained on, `evaluation` is where the card's accuracies are measured; `name` follows from
    data and recipe by default; the rest is as for `certmix.training.train`.  An interrupted training resumes
    from ``output/NAME.checkpoint``.
    """
    if name is None:  # such as cifar10-gaussian-0.50 or cifar10-adversarial-linf
        what = recipe.kind if recipe.name == GAUSSIAN else recipe.name
        more = "" if what == "standard" else f"-{recipe.norm}"
        if recipe.kind:
            level = recipe.noise_sigma or recipe.scale
            more = f"-{level:.2f}" if recipe.noise_sigma else f"-{level:.2f}".removesuffix(".00")
        name = f"{dataset.name}-{what}{more}"
    try:
        make_folder(output)
    except OSError as error:
        raise unwritable(output, error) from error
    images, labels = _images(dataset)
    denoises, behind, notes = recipe.name == DENOISER, None, ""
    classes, names = (None, None) if denoises else (dataset.classes, dataset.class_names)
    if denoises and any(side % 4 for side in images.shape[-2:]):
        raise DataError(
            f"{dataset.name} holds images {tuple(images.shape[-2:])}: a denoiser is trained on images "
            "whose sides are multiples of 4: resize them"
        )
    least, fixed = recipe.translate + 1, recipe.architecture in ("interval", "band")
    if min(images.shape[-2:]) < least or (fixed and images.shape[-2:] != (32, 32)):
        wanted = "32 x 32 images" if fixed else f"sides of {least} pixels or more"
        raise DataError(
            f"{dataset.name} holds images {tuple(images.shape[-2:])}: recipe {recipe.name} takes {wanted}: "
            "resize them"
        )
    if recipe.kind == "ablation" and recipe.scale >= images[0, 0].numel():
        raise ParameterError(
            f"scale = {recipe.scale:g}: {dataset.name} holds images of {images[0, 0].numel()} pixels: "
            "show fewer"
        )
    if denoises and recipe.classifier is not None:
        loaded = load_model(recipe.classifier, device=device, classes=dataset.classes)
        behind, notes = loaded.module, f"trained for {loaded.name}, checksum {loaded.checksum[:12]}"
    model = train(
        recipe, images, labels, classes=classes, behind=behind, seed=seed, device=device,
        precision=precision, checkpoint=output / f"{name}.checkpoint", report=report,
    )  # fmt: skip
    model = model.cpu()
    if recipe.sharpen_alpha:
        factor = sharpen(model, images, labels, recipe.eps, recipe.sharpen_alpha)
        notes = f"logits scaled by {factor:g} for alpha = {recipe.sharpen_alpha:g}, on training images"
    card = Card(
        name=name, architecture=recipe.architecture, classes=classes, class_names=names,
        input_shape=tuple(images.shape[1:]), input_range=(0.0, 1.0), noise_sigma=recipe.noise_sigma or None,
        recipe=recipe.as_dict(), seed=seed, data=f"{dataset.name} {dataset.split}",
        data_checksum=dataset.checksum, epochs=recipe.epochs, precision=precision, notes=notes,
    )  # fmt: skip
    most = torch.finfo(torch.float16).max  # of a weight or running variance
    fits = all(bool((value.abs() <= most).all()) for value in model.state_dict().values())
    dtype = "float16" if fits else "float32"
    saved = save_zoo(output, card, model, dtype)
    stored = load_zoo(saved.name, output).to(device)
    accuracy = measure(stored, recipe, *_images(evaluation), behind=behind, device=device, seed=seed)
    named = {f"{what} on {evaluation.name}": value for what, value in accuracy.items()}
    return save_zoo(output, replace(card, accuracy=named), model, dtype)
