"""What each training recipe does: its settings, and the loss that it minimises."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from certmix.errors import ParameterError
from certmix.training.intervals import interval_pass, warm_up_terms, worst_case_logits


@dataclass(frozen=True)
class Recipe:
    """Settings of one training run; every field goes into the card.

    Parameters
    ----------
    name
        ``standard``, ``gaussian``, ``adversarial`` or ``interval``.
    architecture
        A name in `certmix.models.architectures.ARCHITECTURES`.
    epochs, batch_size, learning_rate, weight_decay, label_smoothing
        The optimiser: Nesterov momentum 0.9, linear warm-up over the first
        tenth, then a cosine to zero.
    translate
        Largest random shift, in pixels; images are mirrored at random too.
    ema_decay
        Decay, per step, of the averaged weights that are saved.
    noise_sigma, noise_copies, consistency, entropy
        Gaussian recipe: noise level, noisy copies of each image, and the
        weights of the consistency and entropy terms (Jeong and Shin, 2020).
    norm, eps, attack_steps
        Adversarial recipe: the ball and the number of PGD steps.  Interval
        recipe: `eps` is what the ball grows to.
    ramp
        Interval recipe: the share of the training over which eps grows from 0.
    regulariser
        Interval recipe: weight, while eps grows, of the terms that keep bounds
        tight and ReLUs balanced (Shi et al., 2021).
    sharpen_alpha
        Interval recipe: the mixing weight that logits are scaled for once
        training is over (`certmix.training.intervals`); 0 leaves them alone.
    """

    name: str
    architecture: str
    epochs: int
    batch_size: int = 256
    learning_rate: float = 0.2
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    translate: int = 2
    ema_decay: float = 0.998
    noise_sigma: float = 0.0
    noise_copies: int = 2
    consistency: float = 0.0
    entropy: float = 0.0
    norm: str = "linf"
    eps: float = 0.0
    attack_steps: int = 0
    ramp: float = 0.0
    regulariser: float = 0.0
    sharpen_alpha: float = 0.0

    def at(self, progress: float) -> Recipe:
        """Return the settings at a point of the training, 0 <= progress < 1: eps on its way up.

        The first fifth of the ramp has eps = 0; the regulariser fades as eps grows.
        """
        if self.ramp <= 0:
            return self
        grown = min(1.0, max(0.0, (progress / self.ramp - 0.2) / 0.8))
        return replace(self, eps=grown * self.eps, regulariser=(1 - grown) * self.regulariser)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain data, for the card and the checkpoint."""
        return asdict(self)


RECIPES = {
    "standard": Recipe(
        "standard", "conv", epochs=16, learning_rate=0.3, label_smoothing=0.1, ema_decay=0.995
    ),
    "gaussian": Recipe(
        "gaussian", "residual", epochs=24, batch_size=128, weight_decay=2e-4,
        noise_sigma=0.5, consistency=5.0, entropy=0.5,
    ),
    "adversarial": Recipe(
        "adversarial", "conv", epochs=16, eps=8 / 255, attack_steps=2,
    ),
    "interval": Recipe(
        "interval", "interval", epochs=30, batch_size=128, learning_rate=0.1, weight_decay=1e-4,
        eps=2 / 255, ramp=0.5, regulariser=0.5, sharpen_alpha=0.76,
    ),
}  # fmt: skip


def make_recipe(name: str, **changes: Any) -> Recipe:
    """Return a recipe with some settings changed; None leaves a setting alone.

    Raises
    ------
    ParameterError
        If the recipe is unknown or a setting is out of range.
    """
    if name not in RECIPES:
        raise ParameterError(f"recipe {name!r} is unknown: use one of {', '.join(RECIPES)}")
    recipe = replace(RECIPES[name], **{k: v for k, v in changes.items() if v is not None})
    if recipe.epochs < 1 or recipe.batch_size < 2:
        raise ParameterError(
            f"epochs = {recipe.epochs}, batch size = {recipe.batch_size}: "
            "at least 1 epoch and batches of at least 2 images are needed"
        )
    if name == "gaussian" and not recipe.noise_sigma > 0:
        raise ParameterError(f"sigma = {recipe.noise_sigma}: the gaussian recipe needs sigma > 0")
    if name in ("adversarial", "interval") and not recipe.eps > 0:
        raise ParameterError(f"eps = {recipe.eps}: the {name} recipe needs eps > 0")
    if name == "interval" and recipe.norm != "linf":
        raise ParameterError(f"norm = {recipe.norm}: the interval recipe trains for linf: leave it out")
    if recipe.sharpen_alpha and (name != "interval" or not 0.5 < recipe.sharpen_alpha <= 1):
        raise ParameterError(
            f"sharpen alpha = {recipe.sharpen_alpha}: "
            "give a mixing weight in (1/2, 1], to the interval recipe"
        )
    return recipe


def standard(
    model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, generator: torch.Generator
) -> Tensor:
    """Return the cross-entropy with label smoothing."""
    logits = model(images).float()
    return F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)


def gaussian(
    model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, generator: torch.Generator
) -> Tensor:
    """Return the cross-entropy under Gaussian noise plus a consistency term (Jeong and Shin, 2020).

    Each image is seen under `noise_copies` noise draws; the consistency term
    pulls their predictions F_k towards their mean F by KL(F || F_k) and the
    entropy of F is penalised.
    """
    copies = recipe.noise_copies
    repeated = images.repeat(copies, *[1] * (images.ndim - 1))
    noise = torch.empty_like(repeated).normal_(0, recipe.noise_sigma, generator=generator)
    logits = model(repeated + noise).float()
    loss = F.cross_entropy(logits, labels.repeat(copies))
    if recipe.consistency > 0:
        log_probabilities = logits.log_softmax(1).view(copies, len(images), -1)
        log_mean = log_probabilities.logsumexp(0) - torch.tensor(float(copies)).log()
        mean = log_mean.exp()
        divergence = (mean * (log_mean - log_probabilities)).sum(2).mean()
        entropy = -(mean * log_mean).sum(1).mean()
        loss = loss + recipe.consistency * divergence + recipe.entropy * entropy
    return loss


def adversarial(
    model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, generator: torch.Generator
) -> Tensor:
    """Return the cross-entropy where PGD ends (Madry et al., 2018), in linf or l2 within [0, 1].

    Unlike an attack it takes the model in training mode, checks nothing, evaluates no point twice and keeps
    no best point.
    """
    norm, eps, steps = recipe.norm, recipe.eps, recipe.attack_steps

    def lengths(tensor: Tensor) -> Tensor:
        return tensor.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, *[1] * (tensor.ndim - 1))

    def pulled_in(delta: Tensor) -> Tensor:
        return delta.clamp(-eps, eps) if norm == "linf" else delta * (eps / lengths(delta)).clamp_max(1.0)

    delta = pulled_in(torch.empty_like(images).uniform_(-1, 1, generator=generator) * eps)
    for _ in range(steps):
        delta = ((images + delta).clamp(0, 1) - images).requires_grad_(True)
        loss = F.cross_entropy(model(images + delta).float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, delta)
        way = gradient.sign() if norm == "linf" else gradient / lengths(gradient)
        delta = pulled_in(delta.detach() + 1.25 * eps / steps * way)
    attacked = (images + delta).clamp(0, 1).detach()
    return F.cross_entropy(model(attacked).float(), labels)


def interval(
    model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, generator: torch.Generator
) -> Tensor:
    """Return the cross-entropy of the worst logits that interval bounds allow (Gowal et al., 2018).

    While eps grows, two terms are added that keep the bounds tight and the
    ReLUs balanced (Z. Shi et al., NeurIPS 2021).  Above 5 the loss grows as its logarithm: bounds that
    burst, as they do when eps starts to grow, must not burst the weights.
    """
    found = interval_pass(model, images, recipe.eps)
    loss, limit = F.cross_entropy(worst_case_logits(found, labels).float(), labels), 5.0
    loss = torch.where(loss <= limit, loss, limit + limit * (loss / limit).clamp_min(1.0).log())
    if recipe.regulariser > 0 and found.before_relu:
        loss = loss + recipe.regulariser * warm_up_terms(found, recipe.eps)
    return loss


OBJECTIVES = {
    "standard": standard,
    "gaussian": gaussian,
    "adversarial": adversarial,
    "interval": interval,
}
