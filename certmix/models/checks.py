"""Does a model do what certmix takes for granted, and is it the right one for this noise?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from certmix.errors import ModelError
from certmix.models.zoo import ZOO_FOLDER, shipped_for
from certmix.radii.smoothings import GAUSSIAN, SMOOTHINGS, Smoothing
from certmix.sampling.devices import full_float32

if TYPE_CHECKING:
    from torch import Tensor, nn


@full_float32()
def check_logits(
    module: nn.Module, inputs: Tensor, classes: int, name: str, *, no_label_zero: bool = False
) -> Tensor:
    """Run a model, called `name` in messages, on a small batch and return its logits, of `classes` or more.

    The first two inputs are run alone as well: a model left in training mode gives them other logits than in
    the batch.  `no_label_zero` says that no input has label 0, as where labels count from 1.  ModelError if
    the model fails, its output is not finite or of fewer classes, or an input's logits depend on its batch by
    more than 1 % (10 % in half precision) of the largest logit.
    """
    import torch

    from certmix.calling import call_model

    with torch.no_grad():
        logits = call_model(module, inputs, name)
        if logits.shape[1] < classes:
            raise ModelError(fewer_classes(name, logits.shape[1], classes, no_label_zero))
        bad = int((~logits.isfinite()).sum())
        if bad:
            remedy = "check its weights and its normalisation"
            raise ModelError(f"{name} returns {bad} logits that are not finite of {logits.numel()}: {remedy}")
        pair = inputs[:2] if len(inputs) > 1 else torch.cat([inputs, torch.zeros_like(inputs)])
        together = call_model(module, pair, name)
        alone = torch.cat([call_model(module, one, name) for one in (pair[:1], pair[1:])])
    tolerance = 0.01 if together.dtype in (torch.float32, torch.float64) else 0.1
    difference, scale = float((together - alone).abs().max()), float(together.abs().max())
    if not difference <= tolerance * max(scale, 1e-6):
        raise ModelError(
            f"{name} gives an input logits that differ by {difference:.3g} in a batch and alone: "
            "put it in evaluation mode, and let no layer mix the inputs of a batch or draw at random"
        )
    return logits


def fewer_classes(name: str, own: int, classes: int, no_label_zero: bool = False) -> str:
    """Return the message on a model that tells fewer classes apart than the data have."""
    remedy = "choose a model trained on these data, or leave out the inputs of other classes"
    if own == classes - 1 and no_label_zero:
        remedy = "no label is 0, so the labels seem to be counted from 1: subtract 1, so that they start at 0"
    return f"{name} tells {own} classes apart, the data have {classes}: {remedy}"


def looks_like_probabilities(logits: Tensor) -> bool:
    """Whether every row is >= 0 and sums to 1: a softmax that the model should leave out."""
    return bool((logits >= 0).all() and ((logits.double().sum(1) - 1).abs() < 1e-3).all())


def near_chance(correct: int, total: int, classes: int) -> bool:
    """Whether an accuracy is so low that the model was probably fed wrongly normalised inputs.

    True if, of at least 10 inputs, at most a fraction min(2 r, (1 + 2 r) / 3) are right and the exact
    one-sided binomial test at level 1e-3 does not show the accuracy to be above r = c + c (1 - c) / 2 with c
    = 1 / classes: about 1.5 times chance, and 0.625 for two classes.
    """
    from scipy.special import bdtrc

    chance = 1 / classes
    level = chance + chance * (1 - chance) / 2
    if total < 10 or correct > min(2 * level, (1 + 2 * level) / 3) * total:
        return False
    return correct == 0 or bool(bdtrc(correct - 1, total, level) > 1e-3)


def chance_warning(name: str, correct: int, total: int, classes: int, where: str = "") -> str | None:
    """Return a warning where a model's accuracy is `near_chance`; `where` follows the number of inputs."""
    if not near_chance(correct, total, classes):
        return None
    return (
        f"{name} is right on {correct} of {total} inputs{where}, near chance: is its normalisation "
        "(MEAN/STD inside the model) or the class order wrong? (docs/models.md#normalisation)"
    )


def resolve_robust(robust: str | None, level: float | Smoothing, zoo: Path = ZOO_FOLDER) -> str:
    """Return the robust model's spec: the user's, or the shipped model trained for the noise."""
    if robust is not None:
        return robust
    smoothing = Smoothing.of(level)
    kind, shipped = smoothing.kind, shipped_for(smoothing.kind, zoo)
    for scale, name in shipped.items():
        if math.isclose(scale, smoothing.scale, rel_tol=1e-9):
            return name
    levels = ", ".join(f"{level:g}" for level in shipped) or "none"
    recipe = kind if kind == GAUSSIAN or SMOOTHINGS[kind].cases else f"{GAUSSIAN} --noise {kind}"
    amount = f"{'sigma' if kind == GAUSSIAN else 'scale'} {smoothing.scale:g}"
    raise ModelError(
        f"no model is shipped for {smoothing.told} (shipped: {levels}): "
        f"{'use one of these, ' if shipped else ''}train one (certmix train {recipe} --{amount}) or give one "
        "with --robust"
    )


def is_trained_for(trained: Smoothing | None, used: Smoothing) -> bool:
    """Whether noise is what a model was trained for, as far as that is known."""
    return trained is None or (
        trained.kind == used.kind and math.isclose(trained.scale, used.scale, rel_tol=1e-9)
    )


def noise_warnings(
    name: str, trained: Smoothing | None, used: Smoothing, input_range: tuple[float, float] | None
) -> Iterator[str]:
    """Yield warnings where the noise is not what a model was trained for, or far above the inputs' range."""
    if trained is not None and not is_trained_for(trained, used):
        yield (
            f"{name} was trained for {trained.told} and is used with {used.told}: the certificates hold, but "
            "expect low accuracy"
        )
    level = used.level
    if level is not None and input_range is not None and level > 2 * (input_range[1] - input_range[0]):
        low, high = input_range
        word = "scale" if used.sigma is None else "sigma"
        yield (
            f"{word} = {level:g} is far above the input range [{low:g}, {high:g}]: such noise leaves nothing "
            f"of an input; a {word} of pixels from 0 to 255 is written --{word} {level:g}/255"
        )
