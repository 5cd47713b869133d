"""The minimum-margin attack: for every input, robust ones too, the point of smallest margin that was seen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from certmix.attacks import ATTACKS
from certmix.attacks.losses import margin, probability_margin
from certmix.attacks.search import Model

__all__ = ["FOUND_BY", "MinimumMargins", "minimum_margin"]

FOUND_BY = ("clean", "apgd-ce", "apgd-targeted", "square")
"""What can find a point; `MinimumMargins.found_by` holds positions in this list."""


@dataclass(frozen=True)
class MinimumMargins:
    """The point of smallest margin of each input: an estimate, the true minimum is no larger.

    `points` (N, ...) lie in ball and box, `logits` (N, classes) are the model's there.  `margin`, float64
    (N,), is the probability of the label less the largest other, negative where the point is misclassified.
    `found_by` and `step`, int64 (N,), are a position in `FOUND_BY` and an evaluation within that attack.
    """

    points: Tensor
    logits: Tensor
    margin: Tensor
    found_by: Tensor
    step: Tensor

    @property
    def wrong(self) -> Tensor:
        """bool (N,): the point is misclassified."""
        return self.margin < 0


def label_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return, float64 (N,), the label's probability less the largest other (Definition 2.1 of MixedNUTS)."""
    return -margin(logits.double().softmax(1), labels)


@torch.no_grad()
def minimum_margin(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    norm: str = "linf",
    eps: float = 8 / 255,
    *,
    steps: int = 100,
    targets: int = 9,
    restarts: int = 1,
    queries: int = 5000,
    gradient_free: bool = False,
    early_stop: bool = False,
    box: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> MinimumMargins:
    """Look for each input's point of smallest margin in the ball (MMAA).

    APGD on the cross-entropy runs on every input; targeted APGD on the difference of logits ratio on those
    that it did not break.  Every point that either evaluates counts, the clean input included: section 4.4
    and Algorithm 2 of Bai, Zhou, Patel, Sojoudi, "MixedNUTS", TMLR 2024.

    Parameters
    ----------
    model
        Gives logits (N, classes); for MixedNUTS the layer-normalised logits of the robust classifier.
    inputs, labels, norm, eps, box, generator
        As for `certmix.attacks.pgd`.
    steps, restarts, targets
        Budget of both attacks, and the number of target classes.
    queries
        Budget of Square, which takes the place of both if `gradient_free`: for a black box.
    early_stop
        Leave an input as soon as it is misclassified: quicker, and the same for the inputs that stay right.
    """
    best, outputs, count = inputs.detach().clone(), inputs.new_zeros(0, 2), len(inputs)
    rank = inputs.new_full((count,), -torch.inf, dtype=torch.float64)
    found_by, step_of = torch.zeros((2, count), dtype=torch.int64, device=inputs.device)

    def attack(name: str, subset: Tensor, **budget: int) -> None:
        """Attack some inputs; keep each one's evaluated point of smallest margin, the earliest of equals."""

        def track(at: Tensor, points: Tensor, logits: Tensor, step: int) -> None:
            nonlocal outputs
            at = subset[at]
            if len(outputs) == 0:
                outputs = logits.new_zeros((count, logits.shape[1]))
            # by the log-odds of the margin: those of a sure model all round to margin 1
            found = probability_margin(logits, labels[at])
            rows = (found > rank[at]).nonzero().squeeze(1)
            to = at[rows]
            best[to], outputs[to], rank[to] = points[rows], logits[rows], found[rows]
            found_by[to], step_of[to] = FOUND_BY.index(name) if step else 0, step

        ATTACKS[name].function(
            model, inputs[subset], labels[subset], norm, eps, restarts=restarts, box=box,
            early_stop=early_stop, generator=generator, track=track, **budget,
        )  # fmt: skip

    everything = torch.arange(count, device=inputs.device)
    if gradient_free:
        attack("square", everything, queries=queries)
    else:
        attack("apgd-ce", everything, steps=steps)
        left = (label_margin(outputs, labels) >= 0).nonzero().squeeze(1)
        if len(left):
            attack("apgd-targeted", left, steps=steps, targets=targets)
    return MinimumMargins(best, outputs, label_margin(outputs, labels), found_by, step_of)
