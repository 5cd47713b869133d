"""Can gradients guide an attack on this model at all?  A look before the attack."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from certmix.attacks.losses import LOSSES
from certmix.attacks.search import direction
from certmix.calling import backward, call_model
from certmix.errors import ModelError, ParameterError
from certmix.models.checks import looks_like_probabilities

__all__ = ["GradientHealth", "diagnose_gradients"]

TOLERATED = 0.05
"""Share of the inputs whose gradient may vanish before it is reported; see `diagnose_gradients`."""

SEPARABLE = 10.0
"""Gap of logits that leaves every probability and gradient representable in float32."""


@dataclass(frozen=True)
class GradientHealth:
    """What gradient-based attacks meet on a sample of inputs: shares of them, where it is no other number.

    Parameters
    ----------
    vanishing, one_hot
        Classified right, with a gradient that is zero or denormal in every input; outputs all 0 but one 1.
    saturated, non_finite
        Largest probability 1 (so that the loss is 0 if its class is right) or a log-probability -inf, in the
        precision of the output; a logit or a gradient that is not finite.
    logit_gap
        Median difference of the two largest logits; NaN if none is finite.
    detached, probabilities
        Whether the output does not depend on the inputs as far as autograd sees, and whether it looks like
        probabilities instead of logits.
    """

    inputs: int
    vanishing: float
    saturated: float
    non_finite: float
    one_hot: float
    logit_gap: float
    detached: bool
    probabilities: bool

    @property
    def blind(self) -> bool:
        """Whether there is reason to think that a gradient-based attack sees little or nothing."""
        return bool(self.messages)

    @property
    def messages(self) -> tuple[str, ...]:
        """One line a reason, each with a remedy; empty for a healthy model."""

        def percent(share: float) -> str:
            return f"{100 * share:.2g} %" if share < 0.995 else "100 %"

        def rough(value: float) -> str:  # one digit: 400, 4e4
            return f"{value:.0e}".replace("e+0", "e") if value >= 1e4 else f"{float(f'{value:.0e}'):g}"

        blind, found = "attack may be blind", []
        vanish = f"{blind}: {percent(self.vanishing)} of the gradients vanish"
        square = "or use --attack square"
        if self.non_finite > 0:
            found.append(
                f"{blind}: {percent(self.non_finite)} of the inputs have logits or gradients that are not "
                f"finite; keep probabilities away from 0 before their logarithm, {square}"
            )
        if self.probabilities and self.one_hot > TOLERATED:
            found.append(
                f"{blind}: {percent(self.one_hot)} of the outputs are one-hot; "
                f"attack a version that gives logits, {square}"
            )
        elif self.probabilities:
            found.append(
                "attack may be weak: the outputs look like probabilities, which the loss takes for logits "
                "and flattens; leave the softmax out, or return the logarithm"
            )
        if self.detached:
            found.append(
                "attack is blind: no gradient reaches the inputs (detach, no_grad, argmax or numpy inside "
                f"the model); attack a differentiable version, {square}"
            )
        elif self.vanishing > TOLERATED and self.saturated >= self.vanishing and self.logit_gap > SEPARABLE:
            divisor = 10.0 ** math.ceil(math.log10(self.logit_gap / SEPARABLE))
            found.append(
                f"{vanish} (logits {rough(self.logit_gap)} apart: saturated softmax); attack a version with "
                f"logits divided by {rough(divisor)}, {square}"
            )
        elif self.vanishing > TOLERATED:
            found.append(
                f"{vanish} though the softmax is not saturated (rounding, a threshold or argmax inside the "
                f"model?); attack a version without that step, {square}"
            )
        return tuple(found)


def diagnose_gradients(
    model: Callable[[Tensor], Tensor],
    inputs: Tensor,
    labels: Tensor,
    *,
    loss: str = "cross-entropy",
    plain: bool = False,
    batch_size: int = 100,
) -> GradientHealth:
    """Look at the gradient of an attack's loss in some inputs, and say where it cannot guide the attack.

    A warning needs more than 5 % of the gradients to vanish (which leaves room for the odd input, such as a
    black one), outputs that are probabilities, or a single output that is not finite.  Saturation alone is a
    figure, not a warning: with the logits of `cifar10-standard` times 1, 5, 20, 40, 100 the loss is exactly 0
    for 0, 64, 95, 97, 100 % of the inputs, plain gradients vanish for 0, 0, 14, 80, 89 %, and APGD on the
    plain cross-entropy leaves an accuracy of .67, .66, .69, .83, .89, certmix's `pgd` .67, .64, .64, .64, .64
    (linf eps 0.5/255).  Gradients that are there and point elsewhere are not seen: try `square`.

    Parameters
    ----------
    model, inputs, labels
        Gives logits (N, classes) for inputs (N, ...), of classes int64 (N,): 16 inputs will do.
    loss, plain
        What the attack maximises, a name in `certmix.attacks.LOSSES`; or the plain cross-entropy, in the
        precision of the logits, as other attack libraries take it.  The losses of certmix do not vanish, and
        their gradient is scaled to size 1 before it enters the model.
    batch_size
        Inputs a pass.

    Examples
    --------
    >>> inputs, labels = torch.eye(3), torch.arange(3)
    >>> diagnose_gradients(lambda x: 4 * x, inputs, labels).blind
    False
    >>> print(diagnose_gradients(lambda x: 4e4 * x, inputs, labels, plain=True).messages[0][:79])
    attack may be blind: 100 % of the gradients vanish (logits 4e4 apart: saturated
    """
    if len(inputs) == 0 or len(inputs) != len(labels):
        raise ParameterError(
            f"{len(inputs)} inputs and {len(labels)} labels: give as many of both, at least 1"
        )
    outputs, gradients = [], []
    for part, classes in zip(inputs.split(batch_size), labels.split(batch_size), strict=True):
        points = part.detach().clone().requires_grad_(True)
        try:
            with torch.enable_grad():
                output = call_model(model, points)
        except ModelError:  # numpy() refuses what requires a gradient; if that was not it, this fails too
            with torch.no_grad():
                output = call_model(model, part.detach())
        precision = output.dtype if output.dtype in (torch.float32, torch.float64) else torch.float32
        scores = output.detach().to(precision)
        outputs.append(scores.cpu())
        if not output.requires_grad:
            continue
        with torch.enable_grad():
            scores = (scores if plain else scores.double()).clone().requires_grad_(True)
            if plain:
                (slope,) = torch.autograd.grad(F.cross_entropy(scores, classes, reduction="sum"), scores)
            else:
                slope, _ = direction(LOSSES[loss](scores, classes, None), scores)
        (gradient,) = backward(output, points, slope.to(output.dtype), allow_unused=True)
        if gradient is not None:
            gradients.append(gradient.abs().flatten(1).amax(1).cpu())
    logits, detached = torch.cat(outputs), len(gradients) < len(outputs)
    finite = logits.isfinite().all(1)
    vanishing = torch.ones(len(logits), dtype=torch.bool)
    if not detached:
        largest = torch.cat(gradients)
        right = logits.argmax(1) == labels.cpu()  # where it is wrong, nothing has to be found
        vanishing = right & (largest < torch.finfo(largest.dtype).tiny)
        finite &= largest.isfinite()
    likely = logits.log_softmax(1)
    highest = logits.topk(min(2, logits.shape[1]), 1).values
    gaps = (highest[:, 0] - highest[:, -1])[finite]

    def share(mask: Tensor) -> float:
        return float(mask.double().mean())

    return GradientHealth(
        inputs=len(logits),
        vanishing=share(vanishing),
        saturated=share((likely.amax(1).exp() == 1) | likely.isneginf().any(1)),
        non_finite=1.0 - share(finite),
        one_hot=share(((logits == 0) | (logits == 1)).all(1) & (logits.sum(1) == 1)),
        logit_gap=float(gaps.median()) if len(gaps) else math.nan,
        detached=detached,
        probabilities=looks_like_probabilities(logits),
    )
