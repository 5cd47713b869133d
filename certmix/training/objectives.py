"""The loss that each training recipe minimises."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from certmix.attacks.geometry import make_ball
from certmix.sampling.ablation import random_ablation
from certmix.sampling.bands import random_bands
from certmix.sampling.splitting import random_splits
from certmix.training.intervals import interval_pass, warm_up_terms, worst_case_logits
from certmix.training.recipes import Recipe


def standard(
    model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, generator: torch.Generator
) -> Tensor:
    """Return the cross-entropy with label smoothing."""
    logits = model(images).float()
    return F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)


def smoothed(
    model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, generator: torch.Generator
) -> Tensor:
    """Return the cross-entropy under noise plus a consistency term (Jeong and Shin, 2020).

    Each image is seen under `noise_copies` draws of the recipe's noise; the consistency term pulls their
    predictions F_k towards their mean F by KL(F || F_k) and the entropy of F is penalised.
    """
    copies = recipe.noise_copies
    repeated = images.repeat(copies, *[1] * (images.ndim - 1))
    logits = model(noisy(repeated, recipe, generator)).float()
    loss = F.cross_entropy(logits, labels.repeat(copies))
    if recipe.consistency > 0:
        log_probabilities = logits.log_softmax(1).view(copies, len(images), -1)
        log_mean = log_probabilities.logsumexp(0) - torch.tensor(float(copies)).log()
        mean = log_mean.exp()
        divergence = (mean * (log_mean - log_probabilities)).sum(2).mean()
        entropy = -(mean * log_mean).sum(1).mean()
        loss = loss + recipe.consistency * divergence + recipe.entropy * entropy
    return loss


def noisy(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Return images in [0, 1] as the base model sees them under one draw of the recipe's noise each."""
    shown = {"splitting": random_splits, "bands": random_bands, "ablation": random_ablation}.get(recipe.kind)
    if shown is not None:
        return shown(images, recipe.scale, generator)
    noise = torch.empty_like(images)
    if recipe.kind == "uniform":
        return images + noise.uniform_(-recipe.scale, recipe.scale, generator=generator)
    if recipe.kind == "laplace":  # the difference of two exponentials
        noise.exponential_(1 / recipe.scale, generator=generator)
        return images + noise - torch.empty_like(images).exponential_(1 / recipe.scale, generator=generator)
    return images + noise.normal_(0, recipe.noise_sigma, generator=generator)


def adversarial(
    model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, generator: torch.Generator
) -> Tensor:
    """Return the cross-entropy where PGD ends (Madry et al., 2018), in linf or l2 within [0, 1].

    Unlike an attack it takes the model in training mode, checks nothing and keeps no best point.
    """
    ball, eps = make_ball(images, recipe.norm, recipe.eps, (0.0, 1.0)), recipe.eps
    length = torch.full((len(images),), 1.25 * eps / max(1, recipe.attack_steps), dtype=torch.float64)
    points = ball.project(images + eps * torch.empty_like(images).uniform_(-1, 1, generator=generator))
    for _ in range(recipe.attack_steps):
        points.requires_grad_(True)
        loss = F.cross_entropy(model(points).float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, points)
        points = ball.ascend(points.detach(), gradient, length.to(images.device))
    return F.cross_entropy(model(points).float(), labels)


def interval(
    model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, generator: torch.Generator
) -> Tensor:
    """Return the cross-entropy of the worst logits that interval bounds allow (Gowal et al., 2018).

    While eps grows, two terms keep bounds tight and ReLUs balanced (Z. Shi et al., NeurIPS 2021).  Above 5
    the loss grows as its logarithm: bounds that burst when eps starts to grow must not burst the weights.
    """
    found = interval_pass(model, images, recipe.eps)
    loss, limit = F.cross_entropy(worst_case_logits(found, labels).float(), labels), 5.0
    loss = torch.where(loss <= limit, loss, limit + limit * (loss / limit).clamp_min(1.0).log())
    if recipe.regulariser > 0 and found.before_relu:
        loss = loss + recipe.regulariser * warm_up_terms(found, recipe.eps)
    return loss


def denoiser(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
    behind: nn.Module | None = None,
) -> Tensor:
    """Return the squared error of denoised images, and the cross-entropy of the classifier `behind` on them.

    The stability objective of Salman et al. (2020), with the labels of the training data.
    """
    denoised = model(noisy(images, recipe, generator))
    loss = recipe.pixel_weight * F.mse_loss(denoised.float(), images)
    if behind is None:
        return loss
    return loss + F.cross_entropy(behind(denoised).float(), labels)


OBJECTIVES = {
    **{each.__name__: each for each in (standard, adversarial, interval, denoiser)},
    **dict.fromkeys(("gaussian", "splitting", "bands"), smoothed),
}
"""What each training recipe is set to."""
