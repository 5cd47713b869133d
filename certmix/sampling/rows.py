"""Does a row's answer depend on where it stands in a batch, or on the rows beside it?

Sequential and betting bounds speak of independent samples of one function.  At
one batch shape a row's logits usually depend on that row alone, bit for bit.
Where they depend on its place, h is the average over the places of a batch, and
bounds hold at the ends of full batches.  Where they depend on other rows,
samples are not independent, and nothing can be certified.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from certmix.errors import ModelError
from certmix.sampling.pending import not_finite

__all__ = ["is_independent_of_place"]

_NOTICEABLE = 1e-3
"""Share of the logits' spread: less may be rounding where equal batches give unequal logits."""


def is_independent_of_place(call: Callable[[Tensor], Tensor], batch: Tensor) -> bool:
    """Return whether every row's logits are the same bits wherever it stands in the batch.

    Parameters
    ----------
    call
        The model, on the batch's device.
    batch
        Some noisy inputs; it is not changed.

    Raises
    ------
    ModelError
        If a row's logits depend on the other rows of the batch, or one is not finite.
    """
    if len(batch) < 2:
        return True
    first = call(batch).clone()
    if not first.isfinite().all():
        raise not_finite()
    again = call(batch).clone()
    louder = batch.clone(memory_format=torch.preserve_format)
    louder[1::2] *= 1.25
    kept = (call(louder)[::2] - first[::2]).abs().max()
    repeatable = torch.equal(first, again)
    spread = float((first.amax(1) - first.amin(1)).median())
    if float(kept) > (0.0 if repeatable else _NOTICEABLE * spread):
        raise ModelError(
            f"an input's logits move by {float(kept):.3g} when other inputs of its batch change, so samples "
            "are not independent: use the model in evaluation mode, without statistics or quantisation of a "
            "whole batch (docs/limits.md)"
        )
    turned = batch.flip(0).clone(memory_format=torch.preserve_format)
    return repeatable and torch.equal(call(turned).flip(0), first)
