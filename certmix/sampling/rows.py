"""Does a row's answer depend on where it stands in a batch, or on the rows beside it?

Sequential and betting bounds speak of independent samples of one function.  At
one batch shape a row's logits usually depend on that row alone, bit for bit.
Where they depend on its place, h is the average over the places of a batch, and
bounds hold at the ends of full batches.  Where they depend on other rows, or
vary from run to run, samples are not independent, and nothing can be certified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from certmix.errors import ModelError
from certmix.sampling.ballots import LEVELS


def is_independent_of_place(call: Callable[[Tensor], Tensor], batch: Tensor) -> bool:
    """Return whether every row's logits are the same bits wherever it stands in the batch, which stays.

    It is computed twice as it is, with each half of its rows (drawn at random) exchanged for two kinds of
    other content, and in a random order.  A ModelError refuses a model whose equal batches give unequal
    logits, whose rows depend on one another, or whose logits are not finite.
    """
    if len(batch) < 2:
        return True

    def run(rows: Tensor) -> Tensor:
        return call(rows.clone(memory_format=torch.preserve_format)).clone()

    first = run(batch)
    if not first.isfinite().all():
        raise not_finite()
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0)).to(batch.device)
    kept_apart = all(torch.equal(run(other)[rows], first[rows]) for other, rows in _exchanged(batch, order))
    if not torch.equal(run(batch), first):
        raise ModelError(
            "the model gives other logits when the same batch is run again, so samples are not independent: "
            "leave out random operations, or call torch.use_deterministic_algorithms(True) (docs/noise.md)"
        )
    if not kept_apart:
        raise ModelError(
            "an input's logits change when other inputs of its batch do, so samples are not independent: use "
            "the model in evaluation mode, without statistics, quantisation or routing over a whole batch "
            "(docs/noise.md#rows-of-a-batch)"
        )
    return torch.equal(run(batch[order]), first[order])


def _exchanged(batch: Tensor, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches with half of their rows exchanged, and which rows (k,) are as they were."""
    half = len(order) // 2
    for content in (torch.zeros_like(batch), -2.0 * batch.roll(1, 0)):
        for kept, changed in ((order[:half], order[half:]), (order[half:], order[:half])):
            other = batch.clone(memory_format=torch.preserve_format)
            other[changed] = content[changed]
            yield other, kept


def not_finite() -> ModelError:
    """Return the error of a model whose logits are not finite."""
    return ModelError("the model gave logits that are not finite under noise: check its input range")


def ballots_of(logits: Tensor) -> Tensor:
    """Return int64 (n,), class * `LEVELS` + level, of logits (n, c): each row's from itself alone.

    The level is that of the largest softmax probability, 1 / sum exp(logit - largest logit), in float32.
    """
    winner = logits.argmax(1)
    values = logits.to(torch.promote_types(logits.dtype, torch.float32))  # float64 may be beyond float32
    sure = 1.0 / (values - values.gather(1, winner[:, None])).float().exp().sum(1)
    return winner * LEVELS + (sure * LEVELS).floor().clamp(0, LEVELS - 1).long()
