"""Forward passes compiled by `torch.compile`, held against the model itself before they are trusted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import count
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from certmix.calling import call_model
from certmix.errors import ModelError, ParameterError, describe

__all__ = ["CompileError", "CompiledModel", "check_compilable", "is_compilable"]

OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {"freezing": True},
    "cuda": {"triton.cudagraphs": True},
}
"""For inductor, by type of device: constant weights, folded and packed; CUDA graphs."""

CHECKED = 3
"""Batches of each shape that are held against the model: a CUDA graph warms up, is recorded, and replays."""

TOLERANCE = {"fp32": 0.01}
HALF = 0.1
"""Part of the usual distance of the largest logit by which others may be off: rounding is less."""

FAR = 20.0
"""In the same units: logits beyond are not compared, as those of masked classes."""

_NUMBERS = count()


class CompileError(ModelError):
    """A model cannot be compiled, or is another function when it is."""


def is_compilable(device: torch.device) -> bool:
    """Whether models are compiled for such devices."""
    return device.type in OPTIONS


def check_compilable(device: torch.device) -> None:
    """Refuse devices that models are not compiled for.

    Raises
    ------
    ParameterError
        If `device` is one.
    """
    if not is_compilable(device):
        raise ParameterError(
            f"models are not compiled for device {device.type!r}: leave --compile out, or use --device "
            f"{' or '.join(OPTIONS)}"
        )


class CompiledModel:
    """A model for batches of few shapes, compiled when it sees the first of each.

    Its weights are taken as they are at that time.  It is compiled as a whole
    or not at all, so that threads may share it.

    Parameters
    ----------
    module
        In evaluation mode, on its device.
    device, precision
        As for `certmix.sampling.Sampler`, which also switches autocast on.

    Raises
    ------
    ParameterError
        For a device that models are not compiled for.
    """

    def __init__(self, module: nn.Module, device: torch.device, precision: str) -> None:
        check_compilable(device)
        self.module, self._cuda = module, device.type == "cuda"
        self._tolerance = TOLERANCE.get(precision, HALF)
        from torch._inductor import config  # takes a second

        self._options, self._patch = OPTIONS[device.type], config.patch  # tracing reads them there
        self._compiled = torch.compile(_whole(module), fullgraph=True, dynamic=False, options=self._options)
        self._checks: Counter[tuple[torch.Size, int]] = Counter()
        self._alone = Lock()

    def __call__(self, batch: Tensor) -> Tensor:
        """Return the logits of a batch; they are overwritten by the next call.

        Raises
        ------
        CompileError
            If the model cannot be compiled, or answers otherwise when it is.
        """
        key = batch.shape, torch.get_num_threads()  # another number of threads is compiled anew
        if self._checks[key] < CHECKED:
            with self._alone:
                if self._checks[key] < CHECKED:
                    expected = call_model(self.module, batch)
                    if not expected.isfinite().all():
                        return expected  # whoever asked says what is wrong
                    logits = self._checked(batch, expected)
                    self._checks[key] += 1
                    return logits
        try:
            return self._run(batch)
        except Exception as error:
            if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise _failure(error) from error
            raise

    def _run(self, batch: Tensor) -> Tensor:
        if self._cuda:
            torch.compiler.cudagraph_mark_step_begin()
        logits: Tensor = self._compiled(batch)
        return logits

    def _checked(self, batch: Tensor, expected: Tensor) -> Tensor:
        """Return the compiled model's logits, if they are `expected` but for rounding."""
        try:
            with self._patch(self._options):
                logits = self._run(batch)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise _failure(error) from error
        scale, off = _scale(expected), math.inf
        if logits.shape == expected.shape:
            off = float((_relevant(logits, scale) - _relevant(expected, scale)).abs().max())
        if not off <= self._tolerance * scale:
            raise CompileError(
                f"the robust model gives logits that differ by {off:.3g} of {scale:.3g} when it is compiled: "
                "leave --compile out (docs/scale.md#compiled-models)"
            )
        return logits


def _failure(error: Exception) -> CompileError:
    return CompileError(
        f"the robust model cannot be compiled here ({describe(error)}): leave --compile out "
        "(docs/scale.md#compiled-models)"
    )


def _whole(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the module as a function with code of its own: what is compiled is kept by code."""

    def whole(batch: Tensor) -> Tensor:
        logits: Tensor = module(batch)
        return logits

    whole.__code__ = whole.__code__.replace(co_name=f"whole_{next(_NUMBERS)}")
    return whole


def _scale(logits: Tensor) -> float:
    """Return by how much the largest logit of an input exceeds the middle one, for the median input."""
    distances = logits.amax(1) - logits.median(1).values
    return max(float(distances.median()), 1e-6)


def _relevant(logits: Tensor, scale: float) -> Tensor:
    """Return the logits below their largest; what is far below decides no vote."""
    return (logits - logits.amax(1, keepdim=True)).clamp(min=-FAR * scale)
