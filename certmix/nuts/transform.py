"""The nonlinear transform of MixedNUTS on tensors: differentiable, and finite wherever its input is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from certmix.errors import ModelError
from certmix.nuts.grid import TransformSettings, check_top_k
from certmix.nuts.margins import standardize

STEEPEST_AT = 1e-6
"""Below this |z| the slope of |z|^p with p < 1 stays what it is here, instead of growing to infinity."""

CLAMPS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": lambda x: x * 0.5 * torch.erfc(-math.sqrt(0.5) * x),
    "relu": torch.relu,
    "elu": nn.functional.elu,
    "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "linear": lambda x: x,
}
"""Clamps by name (Section 4.2 of MixedNUTS); GELU is the exact x Phi(x)."""


def layer_normalize(logits: Tensor, top_k: int | None = None) -> Tensor:
    """Return LN(z) = (z - mean z) / sqrt(var z + 1e-8), float64 (..., c), over the classes of each input.

    The variance is the unbiased one, as in the reference implementation; equal logits give zeros.  Logits are
    finite, at most 1e307 in magnitude.  Mean and variance are those of the `top_k` largest, all are
    normalised, and where these k are equal LN is cut off at 1e8: Section 4.2 and Appendix D.7 of MixedNUTS.

    >>> layer_normalize(torch.tensor([[0.0, 2.0], [7.0, 7.0]])).round(decimals=4)
    tensor([[-0.7071,  0.7071],
            [ 0.0000,  0.0000]], dtype=torch.float64)
    """
    check_top_k(top_k)
    if logits.ndim < 1 or logits.shape[-1] < 2:
        raise ModelError(f"logits have shape {tuple(logits.shape)}: a transform needs at least 2 classes")
    z = logits.double()
    shifted = z - z.detach().amax(-1, keepdim=True)
    kept = shifted if top_k is None or top_k >= z.shape[-1] else shifted.topk(top_k, -1).values
    normalized: Tensor = standardize(shifted, kept, -shifted.detach().amin(-1, keepdim=True))
    return normalized


class _SignedPower(torch.autograd.Function):
    """|z|^p sgn(z) with the slope p |z|^(p-1), held finite at 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, p: float) -> Tensor:
        return z.sign() * z.abs().pow(p)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        z, ctx.p = inputs
        ctx.save_for_backward(z)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        magnitude = z.abs().clamp_min(STEEPEST_AT) if ctx.p < 1.0 else z.abs()
        return grads[0] * ctx.p * magnitude.pow(ctx.p - 1.0), None


class NonlinearTransform(nn.Module):
    """M(z) = s |z_c|^p sgn(z_c) with z_c = clamp(LN(z) + c), equation 4 of MixedNUTS: logits to logits.

    Parameters are those of `certmix.nuts.grid.TransformSettings`, kept as `settings`.

    >>> transform = NonlinearTransform(s=5.0, p=4.0, c=-1.1)
    >>> transform(torch.tensor([[1.0, -1.1, -1.0]])).argmax(-1)
    tensor([0])
    """

    def __init__(self, s: float, p: float, c: float, clamp: str = "gelu", top_k: int | None = None) -> None:
        super().__init__()
        self.settings = TransformSettings(s, p, c, clamp, top_k)

    @classmethod
    def of(cls, settings: TransformSettings) -> NonlinearTransform:
        """Return the transform with these settings."""
        return cls(*msgspec.structs.astuple(settings))

    def forward(self, logits: Tensor) -> Tensor:
        """Return M(logits), float64 (..., c)."""
        own = self.settings
        clamped = CLAMPS[own.clamp](layer_normalize(logits, own.top_k) + own.c)
        power: Tensor = _SignedPower.apply(clamped, own.p)
        return own.s * power


def changed_share(logits: Tensor, transform: Callable[[Tensor], Tensor]) -> float:
    """Return the share of logits (m, c) whose prediction a transform changes: 0 under Assumption 4.2.

    GELU falls below about -0.75, and ReLU makes classes tie.  Ties go to the lowest class, before and after.
    """
    with torch.no_grad():
        changed = transform(logits).argmax(-1) != logits.argmax(-1)
    return changed.double().mean().item()
