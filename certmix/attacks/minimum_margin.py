"""The minimum-margin attack: for every image, robust ones too, the point of smallest margin that was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from certmix.attacks.apgd import apgd_ce, apgd_targeted
from certmix.attacks.losses import margin, probability_margin
from certmix.attacks.search import Model, Track
from certmix.attacks.square import square

__all__ = ["FOUND_BY", "MinimumMargins", "minimum_margin"]

FOUND_BY = ("clean", "apgd-ce", "apgd-targeted", "square")
"""What can find a point; `MinimumMargins.found_by` holds positions in this list."""


@dataclass(frozen=True)
class MinimumMargins:
    """The point of smallest margin of each image: an estimate, the true minimum is no larger.

    Parameters
    ----------
    points, logits
        (N, ...), in ball and box, and the model's outputs there, (N, classes).
    margin
        float64 (N,): probability of the label less the largest other; negative
        where the point is misclassified.
    found_by, step
        int64 (N,): position in `FOUND_BY`, and number of the evaluation, within that attack, that found it.
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


class _Smallest:
    """Keeps, image by image, the evaluated point of smallest margin; the earliest of equals.

    Points are ranked by the log-odds of the margin: those of a sure model all round to margin 1.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        n = len(images)
        self.labels, self.points, self.logits = labels, images.detach().clone(), images.new_zeros(0, 2)
        self.rank = images.new_full((n,), -torch.inf, dtype=torch.float64)
        self.found_by = torch.zeros(n, dtype=torch.int64, device=images.device)
        self.step = torch.zeros_like(self.found_by)

    def watch(self, attack: str, subset: Tensor) -> Track:
        """Return the callback of one attack that runs on the images `subset`."""
        code = FOUND_BY.index(attack)

        def track(at: Tensor, points: Tensor, logits: Tensor, step: int) -> None:
            at = subset[at]
            if len(self.logits) == 0:
                self.logits = logits.new_zeros((len(self.labels), logits.shape[1]))
            rank = probability_margin(logits, self.labels[at])
            rows = (rank > self.rank[at]).nonzero().squeeze(1)
            to = at[rows]
            self.points[to], self.logits[to] = points[rows], logits[rows]
            self.rank[to], self.step[to] = rank[rows], step
            self.found_by[to] = code if step else 0

        return track


def label_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return, float64 (N,), the label's probability less the largest other (Definition 2.1 of MixedNUTS)."""
    return -margin(logits.double().softmax(1), labels)


@torch.no_grad()
def minimum_margin(
    model: Model,
    images: Tensor,
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
    """Look for each image's point of smallest margin in the ball (MMAA).

    APGD on the cross-entropy runs on every image; targeted APGD on the
    difference of logits ratio on those that it did not break.  Every point
    that either evaluates counts, the clean image included.

    Parameters
    ----------
    model
        Gives logits (N, classes); for MixedNUTS the layer-normalised logits of
        the robust classifier.
    images, labels, norm, eps, box, generator
        As for `certmix.attacks.pgd`.
    steps, restarts, targets
        Budget of both attacks, and the number of target classes.
    queries
        Budget of Square, which takes the place of both if `gradient_free`: for a black box.
    early_stop
        Leave an image as soon as it is misclassified: quicker, and the same for
        the images that stay right.

    References
    ----------
    Section 4.4 and Algorithm 2 of Bai, Zhou, Patel, Sojoudi, "MixedNUTS", TMLR 2024.
    """
    kept = _Smallest(images, labels)
    everything = torch.arange(len(images), device=images.device)
    common: dict[str, Any] = {
        "restarts": restarts, "box": box, "early_stop": early_stop, "generator": generator
    }  # fmt: skip
    if gradient_free:
        watch = kept.watch("square", everything)
        square(model, images, labels, norm, eps, queries=queries, track=watch, **common)
    else:
        watch = kept.watch("apgd-ce", everything)
        apgd_ce(model, images, labels, norm, eps, steps=steps, track=watch, **common)
        left = (label_margin(kept.logits, labels) >= 0).nonzero().squeeze(1)
        if len(left):
            watch = kept.watch("apgd-targeted", left)
            apgd_targeted(
                model, images[left], labels[left], norm, eps,
                steps=steps, targets=targets, track=watch, **common,
            )  # fmt: skip
    found = label_margin(kept.logits, labels)
    return MinimumMargins(kept.points, kept.logits, found, kept.found_by, kept.step)
