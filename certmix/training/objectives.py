"""The training losses, one function a recipe: `(model, images, labels, recipe, generator) -> loss`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from certmix.attacks.pgd import training_points
from certmix.training.intervals import interval_pass, warm_up_terms, worst_case_logits
from certmix.training.recipes import Recipe

__all__ = ["OBJECTIVES", "adversarial", "gaussian", "interval", "standard"]


def standard(
    model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, generator: torch.Generator
) -> Tensor:
    """Return the cross-entropy with label smoothing."""
    logits = model(images).float()
    return F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)


def gaussian(
    model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, generator: torch.Generator
) -> Tensor:
    """Return the cross-entropy under Gaussian noise plus a consistency term.

    Each image is seen under `noise_copies` noise draws; the consistency term
    pulls their predictions F_k towards their mean F by KL(F || F_k) and the
    entropy of F is penalised.

    References
    ----------
    J. Jeong and J. Shin, Consistency Regularization for Certified Robustness
    of Smoothed Classifiers, NeurIPS 2020.
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
    """Return the cross-entropy at PGD examples (Madry et al., 2018)."""
    steps = recipe.attack_steps
    attacked = training_points(
        model, images, labels, recipe.norm, recipe.eps,
        steps=steps, step_size=1.25 * recipe.eps / max(steps, 1), generator=generator,
    )  # fmt: skip
    return F.cross_entropy(model(attacked).float(), labels)


def _tempered(loss: Tensor, limit: float = 5.0) -> Tensor:
    return torch.where(loss <= limit, loss, limit + limit * (loss / limit).clamp_min(1.0).log())


def interval(
    model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, generator: torch.Generator
) -> Tensor:
    """Return the cross-entropy of the worst logits that interval bounds allow in the ball.

    While eps grows, two terms are added that keep the bounds tight and the
    ReLUs balanced.  Above 5 the loss grows as its logarithm: bounds that
    burst, as they do when eps starts to grow, must not burst the weights.

    References
    ----------
    S. Gowal et al., On the Effectiveness of Interval Bound Propagation for
    Training Verifiably Robust Models, 2018; Z. Shi et al., Fast Certified
    Robust Training with Short Warmup, NeurIPS 2021.
    """
    found = interval_pass(model, images, recipe.eps)
    loss = _tempered(F.cross_entropy(worst_case_logits(found, labels).float(), labels))
    if recipe.regulariser > 0 and found.before_relu:
        loss = loss + recipe.regulariser * warm_up_terms(found, recipe.eps)
    return loss


OBJECTIVES = {
    "standard": standard,
    "gaussian": gaussian,
    "adversarial": adversarial,
    "interval": interval,
}
