"""Votes on their way from the device: sent without waiting, counted when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from certmix.errors import ModelError
from certmix.sampling.packing import Draw, Part
from certmix.types import IntArray

__all__ = ["Pending", "not_finite", "send"]


class Pending:
    """Votes that may still be on their way from the device.

    Parameters
    ----------
    draws, parts
        What was asked for, and what each entry of the answers belongs to.
    answers
        int64 on the host: the class of every sample, then 1 if all logits were finite.
    done
        Marks the end of the copy; None where there is nothing to wait for.
    classes
        Number of classes.
    """

    def __init__(
        self, draws: Sequence[Draw], parts: list[Part], answers: Tensor, done: torch.cuda.Event | None,
        classes: int,
    ) -> None:  # fmt: skip
        self._draws, self._parts, self._answers = draws, parts, answers
        self._done, self._classes = done, classes

    def result(self) -> list[IntArray]:
        """Return for each draw int64 (len(stops), classes): its counts, cumulative from its start.

        Raises
        ------
        ModelError
            If a logit was not finite.
        """
        if self._done is not None:
            self._done.synchronize()
        answers = self._answers.numpy()
        if not answers[-1]:
            raise not_finite()
        counts = [np.zeros((len(draw.stops), self._classes), np.int64) for draw in self._draws]
        at = 0
        for part in self._parts:
            found = np.bincount(answers[at : at + part.count], minlength=self._classes)
            counts[part.draw][part.stop] += found
            at += part.count
        return [rows.cumsum(0) for rows in counts]


def send(
    draws: Sequence[Draw], parts: list[Part], answers: Tensor, device: torch.device, classes: int
) -> Pending:
    """Send answers on `device` to the host without waiting for them; see `Pending`."""
    if device.type != "cuda":
        return Pending(draws, parts, answers.cpu(), None, classes)
    host = torch.empty(answers.shape, dtype=answers.dtype, pin_memory=True)
    host.copy_(answers, non_blocking=True)
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(device))  # by default it would be another device's
    return Pending(draws, parts, host, done, classes)


def not_finite() -> ModelError:
    """Return the error of a model whose logits are not finite."""
    return ModelError("the model gave logits that are not finite under noise: check its input range")
