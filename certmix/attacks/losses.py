"""What attacks maximise: one loss an input from logits, high where the input is misclassified.

Every loss is computed in float64 and takes ``(logits, labels, targets)``: logits (N, classes) with at least
two classes, int64 labels (N,) and, where a target class matters, int64 targets (N,).  It returns (N,) finite
values for finite logits, ties and logits of 1e30 included.  Attacks compare losses and follow the direction
of their gradients, no more: those of probabilities are logarithms of odds, which do not vanish.

F. Croce, M. Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks, ICML 2020, has the two ratios as equations 6 and 7.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_LEAST = 1e-12
"""Smallest denominator of the logits ratios: ties give 0, not NaN."""


def _at(scores: Tensor, classes: Tensor) -> Tensor:
    return scores.gather(1, classes[:, None]).squeeze(1)


def _others(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the scores with -inf at each label."""
    return scores.scatter(1, labels[:, None], float("-inf"))


def cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return ``log(exp L - 1)`` of the cross-entropy L, the log-odds against the label; no target counts."""
    scores = logits.double()
    return _others(scores, labels).logsumexp(1) - _at(scores, labels)


def margin(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return the rival's logit less the label's; the rival is the target, or the strongest other class."""
    scores = logits.double()
    rival = _others(scores, labels).amax(1) if targets is None else _at(scores, targets)
    return rival - _at(scores, labels)


def probability_margin(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return ``log (1 + m) - log (1 - m)``, m the rival's probability less the label's."""
    scores = logits.double()
    rivals = _others(scores, labels).argmax(1) if targets is None else targets
    more = torch.logaddexp(_others(scores, labels).logsumexp(1), _at(scores, rivals))
    less = torch.logaddexp(_others(scores, rivals).logsumexp(1), _at(scores, labels))
    return more - less


def dlr(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return the difference of logits ratio ``-(z_y - max_{i != y} z_i) / (z_(1) - z_(3))``, z_(k) by size.

    Invariant to scale and shift of the logits, whatever the targets.  Of two classes it is the margin: its
    sign and the direction of its gradient keep the invariance.
    """
    if logits.shape[1] < 3:
        return margin(logits, labels)
    scores = logits.double()
    largest = scores.topk(3, dim=1).values
    return margin(scores, labels) / (largest[:, 0] - largest[:, 2]).clamp_min(_LEAST)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Return the targeted ratio ``-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2)``, or z_t - z_y below 4.

    Without targets, the strongest other class is the target.
    """
    if logits.shape[1] < 4:
        return margin(logits, labels, targets)
    scores = logits.double()
    largest = scores.topk(4, dim=1).values
    spread = largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2
    return margin(scores, labels, targets) / spread.clamp_min(_LEAST)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "cross-entropy": cross_entropy,
    "dlr": dlr,
    "targeted-dlr": targeted_dlr,
    "margin": margin,
    "probability-margin": probability_margin,
}
