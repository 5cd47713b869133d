"""Forward passes compiled by `torch.compile`, held against the model itself before they are trusted."""

from __future__ import annotations

from collections import Counter
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from certmix.errors import ModelError, ParameterError
from certmix.models.adapters import describe

__all__ = ["CompileError", "CompiledModel", "check_compilable"]

OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {"freezing": True},
    "cuda": {"triton.cudagraphs": True},
}
"""For inductor, by type of device: constant weights, folded and packed; CUDA graphs."""

CHECKED = 3
"""Batches of each shape that are held against the model: a CUDA graph warms up, is recorded, and replays."""

TOLERANCE = {"fp32": 0.01}
HALF = 0.1
"""Part of the largest logit by which compiled logits may be off: rounding is less, another function more."""


class CompileError(ModelError):
    """A model cannot be compiled, or is another function when it is."""


def check_compilable(device: torch.device) -> None:
    """Refuse devices that models are not compiled for.

    Raises
    ------
    ParameterError
        If `device` is one.
    """
    if device.type not in OPTIONS:
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
        self._compiled = torch.compile(module, fullgraph=True, dynamic=False, options=self._options)
        self._checks: Counter[torch.Size] = Counter()
        self._alone = Lock()

    def __call__(self, batch: Tensor) -> Tensor:
        """Return the logits of a batch; they are overwritten by the next call.

        Raises
        ------
        CompileError
            If the model cannot be compiled, or answers otherwise when it is.
        """
        if self._checks[batch.shape] < CHECKED:
            with self._alone:
                if self._checks[batch.shape] < CHECKED:
                    logits = self._checked(batch, self.module(batch))
                    self._checks[batch.shape] += 1
                    return logits
        return self._run(batch)

    def _run(self, batch: Tensor) -> Tensor:
        if self._cuda:
            torch.compiler.cudagraph_mark_step_begin()
        logits: Tensor = self._compiled(batch)
        return logits

    def _checked(self, batch: Tensor, expected: Any) -> Tensor:
        """Return the compiled model's logits, if they are `expected` but for rounding."""
        if not isinstance(expected, Tensor):
            return expected  # whoever asked says what is wrong
        try:
            with self._patch(self._options):
                logits = self._run(batch)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise CompileError(
                f"the robust model cannot be compiled here ({describe(error)}): leave --compile out "
                "(docs/scale.md#compiled-models)"
            ) from error
        if not expected.isfinite().all():
            return expected
        scale = max(float(expected.abs().max()), 1e-6)
        off = float((logits - expected).abs().max()) if logits.shape == expected.shape else float("inf")
        if not off <= self._tolerance * scale:
            raise CompileError(
                f"the robust model gives logits that differ by {off:.3g} of {scale:.3g} when it is compiled: "
                "leave --compile out (docs/scale.md#compiled-models)"
            )
        return logits
