"""Projected gradient descent on the cross-entropy (Madry et al., 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from certmix.errors import ParameterError

__all__ = ["pgd"]


def _norms(tensor: Tensor) -> Tensor:
    """l2 norm of each sample, shaped to broadcast against the samples."""
    return tensor.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, *[1] * (tensor.ndim - 1))


def _project(delta: Tensor, norm: str, eps: float) -> Tensor:
    if norm == "linf":
        return delta.clamp(-eps, eps)
    return delta * (eps / _norms(delta)).clamp_max(1.0)


def _ascend(delta: Tensor, gradient: Tensor, norm: str, step: float) -> Tensor:
    if norm == "linf":
        return delta + step * gradient.sign()
    return delta + step * gradient / _norms(gradient)


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    norm: str = "linf",
    eps: float = 8 / 255,
    *,
    steps: int = 20,
    step_size: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return adversarial images found by projected gradient ascent from a random start.

    Parameters
    ----------
    model
        Gives logits (N, classes) for images (N, ...) in [0, 1].
    images, labels
        Inputs in [0, 1] and their labels, shapes (N, ...) and (N,).
    norm
        ``"linf"`` or ``"l2"``.
    eps
        Radius of the ball, in units of the [0, 1] input.
    steps, step_size
        Number of steps and their length (default ``2.5 * eps / steps``).
    generator
        Source of the random start, on the device of `images`.

    Returns
    -------
    Tensor
        The last iterates, within the ball and the box [0, 1].

    References
    ----------
    A. Madry et al., Towards Deep Learning Models Resistant to Adversarial
    Attacks, ICLR 2018.
    """
    if norm not in ("linf", "l2"):
        raise ParameterError(f"norm {norm!r} is unknown to pgd: use 'linf' or 'l2'")
    if not eps >= 0:
        raise ParameterError(f"eps = {eps}: the radius of the ball must be at least 0")
    step = 2.5 * eps / max(steps, 1) if step_size is None else step_size
    start = torch.empty_like(images).uniform_(-1, 1, generator=generator) * eps
    delta = _project(start, norm, eps)
    for _ in range(steps):
        delta = ((images + delta).clamp(0, 1) - images).requires_grad_(True)
        loss = F.cross_entropy(model(images + delta).float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, delta)
        delta = _project(_ascend(delta.detach(), gradient, norm, step), norm, eps)
    return (images + delta).clamp(0, 1).detach()
