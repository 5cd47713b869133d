"""The training loop: augmentation, cosine schedule, averaged weights, checkpoints."""

from __future__ import annotations

import copy
import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from certmix.errors import ParameterError, RunError
from certmix.files import BULK, read_file, remedy_of, write_atomically
from certmix.models.architectures import DENOISER, BandNet, ConvNet, Denoiser, build
from certmix.models.weights import hash_state, load_tensors
from certmix.models.zoo import load_zoo
from certmix.training.objectives import OBJECTIVES
from certmix.training.recipes import Recipe, start_card

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Progress:
    """What the loop reports after each batch."""

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    seconds: float


def _augmented_batches(
    images: Tensor, labels: Tensor, recipe: Recipe, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of shifted and mirrored float batches; `images` is padded uint8."""
    shift, size = recipe.translate, images.shape[-1] - 2 * recipe.translate
    order = torch.randperm(len(images), generator=generator)
    for batch in order.split(recipe.batch_size):
        if len(batch) < recipe.batch_size and len(order) >= recipe.batch_size:
            return
        offsets = torch.randint(0, (2 * shift + 1) ** 2, (len(batch),), generator=generator)
        mirror = torch.rand(len(batch), generator=generator) < 0.5
        chosen = images[batch]
        cropped = torch.empty((len(batch), images.shape[1], size, size))
        for offset in offsets.unique().tolist():
            top, left = divmod(offset, 2 * shift + 1)
            here = offsets == offset
            cropped[here] = chosen[here, :, top : top + size, left : left + size].float()
        cropped[mirror] = cropped[mirror].flip(-1)
        yield cropped.div_(255), labels[batch]


def train(
    recipe: Recipe,
    images: Tensor,
    labels: Tensor,
    *,
    classes: int | None = 10,
    behind: nn.Module | None = None,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "fp32",
    checkpoint: Path | None = None,
    report: Callable[[Progress], None] | None = None,
) -> nn.Module:
    """Train a model by a recipe and return its averaged weights, in evaluation mode.

    `images` are uint8 (N, C, H, W), `labels` int64 (N,); `behind` is the frozen classifier, on `device`, that
    a denoiser is trained for; `seed` keys initial weights, order, augmentation, noise and attack starts;
    `precision` is ``fp32``, or ``bf16`` or ``fp16`` autocast.  Deterministic for one
    seed, device type, precision and thread count.  The state is saved to `checkpoint` after each epoch, and
    an interrupted training goes on from there: RunError for other settings or a full disk.  `report` gets
    each batch.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build(recipe.architecture, classes) if recipe.start is None else _begun(recipe, classes)
    if isinstance(model, ConvNet) and recipe.start is None:
        model.whiten(images[:5000] / 255.0)
    if isinstance(model, BandNet):
        model.width.fill_(int(recipe.scale))
    if isinstance(model, Denoiser):
        model.fit_filter(images[:1000] / 255.0, recipe.noise_sigma, torch.Generator().manual_seed(seed))
    model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(model).eval()
    optimizer = _optimizer(model, recipe)
    identity = {"recipe": recipe.as_dict(), "seed": seed, "images": len(images), "precision": precision}
    if behind is not None:
        identity["behind"] = hash_state(behind)
    first = 0
    if checkpoint is not None:
        first = _resume(checkpoint, identity, model, average, optimizer, device)
    pad = [recipe.translate] * 4
    padded = F.pad(images.float(), pad, mode="reflect").to(torch.uint8) if any(pad) else images
    dtype, kind = AUTOCAST[precision], torch.device(device).type
    objective: Callable[..., Tensor] = OBJECTIVES[recipe.name]
    if behind is not None:
        objective = partial(objective, behind=behind.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    batches = max(1, len(images) // recipe.batch_size)
    steps = recipe.epochs * batches
    warm = max(1, steps // 10)
    for epoch in range(first, recipe.epochs):
        # its random numbers depend on the seed and the epoch alone
        order = torch.Generator().manual_seed(seed * 100_003 + 2 * epoch)
        draws = torch.Generator(device).manual_seed(seed * 100_003 + 2 * epoch + 1)
        start = time.monotonic()
        model.train()
        for batch, (x, y) in enumerate(_augmented_batches(padded, labels, recipe, order)):
            step = epoch * batches + batch
            rate = (step + 1) / warm
            if step >= warm:
                rate = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * rate
            x = x.to(device, memory_format=torch.channels_last)
            with torch.autocast(kind, dtype or torch.bfloat16, enabled=dtype is not None):
                loss = objective(model, x, y.to(device), recipe.at(step / steps), draws)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            new = 1 - min(recipe.ema_decay, (1 + step) / (10 + step))
            with torch.no_grad():
                pairs = zip(average.state_dict().values(), model.state_dict().values(), strict=True)
                for target, source in pairs:
                    if target.is_floating_point():
                        target.lerp_(source, new)
                    else:
                        target.copy_(source)
            if report is not None:
                seconds = time.monotonic() - start
                report(Progress(epoch + 1, recipe.epochs, batch + 1, batches, loss.item(), seconds))
        if checkpoint is not None:
            state = {
                "identity": identity, "epoch": epoch + 1, "model": model.state_dict(),
                "average": average.state_dict(), "optimizer": optimizer.state_dict(),
            }  # fmt: skip
            buffer = io.BytesIO()  # torch's own writer hides what the disk says
            torch.save(state, buffer)
            write_atomically(checkpoint, buffer.getvalue())
    return average.eval()


def _begun(recipe: Recipe, classes: int | None) -> nn.Module:
    """Return the trained model that a recipe goes on from, or a denoiser with the layers that it shares."""
    card, folder = start_card(str(recipe.start))
    model = load_zoo(card.name, folder, fold=False)
    if recipe.architecture == DENOISER:
        own, given = build(DENOISER), model.state_dict()
        fresh = own.state_dict()
        shared = {k: given[k] for k, v in fresh.items() if k in given and given[k].shape == v.shape}
        if "stem.weight" not in shared:
            raise ParameterError(
                f"start = {recipe.start}: it shares no layers with a denoiser: start from a model of the "
                "gaussian recipe, from another denoiser, or from none"
            )
        own.load_state_dict({**fresh, **shared})
        return own
    if card.classes != classes:
        raise ParameterError(
            f"start = {recipe.start}: it has {card.classes} classes and the data have {classes}: "
            "start from another model, or from none"
        )
    return model


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Nesterov momentum, AdamW for a denoiser; biases and normalisations are not decayed."""
    weights = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in weights if p.ndim > 1]},
        {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.name == DENOISER:
        return torch.optim.AdamW(groups, lr=0.0, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay)


def _resume(
    checkpoint: Path,
    identity: dict[str, Any],
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    device: str,
) -> int:
    """Load a checkpoint's state and return the next epoch, 0 if there is none."""
    try:
        state = load_tensors(read_file(checkpoint, BULK), device)
        same = bool(state["identity"] == identity)
    except FileNotFoundError:
        return 0
    except Exception as error:
        remedy = remedy_of(error, "remove it to start over")
        raise RunError(f"{checkpoint} cannot be read ({type(error).__name__}): {remedy}") from None
    if not same:
        raise RunError(
            f"{checkpoint} was made with other settings: "
            "remove it, name another --output, or repeat the settings"
        )
    try:
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        own = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        optimizer.load_state_dict(state["optimizer"])
        for group, settings in zip(optimizer.param_groups, own, strict=True):
            group.update(settings)  # the recipe's, in which the checkpoint has no say
        for weight, buffers in optimizer.state.items():
            if any(buffer.ndim and buffer.shape != weight.shape for buffer in buffers.values()):
                raise ValueError("buffers of another shape")
        return range(identity["recipe"]["epochs"] + 1).index(state["epoch"])
    except Exception as error:
        raise RunError(f"{checkpoint} is damaged ({type(error).__name__}): remove it to start over") from None
