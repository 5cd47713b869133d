"""Forward passes compiled by `torch.compile`, held against the model itself before they are trusted."""

from __future__ import annotations

import math
import os
import shutil
import sys
import warnings
from collections import Counter
from contextlib import nullcontext
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from certmix import guard
from certmix.calling import call_model, has_no_room, logits_of
from certmix.errors import ModelError, ParameterError, describe
from certmix.sampling.devices import full_float32

OPTIONS: dict[str, dict[str, Any]] = {"cpu": {"freezing": True}, "cuda": {"triton.cudagraphs": True}}
"""For inductor: constant weights, folded and packed; CUDA graphs."""
CHECKED = 3  # batches of each shape: a CUDA graph warms up, is recorded, and replays
TOLERANCE, HALF, FAR = 0.01, 0.1, 20.0
"""Parts of the usual distance of the largest logit: by which others may be off, in full and in half
precision, and beyond which they are not compared, as those of masked classes."""
_NUMBERS = count()


WARM_UP = 16.0
"""Seconds that compilation takes at most, and so must save to be chosen (5 to 16 were measured)."""
GAINS = {("fp32", True): 1.4, ("fp32", False): 1.1, ("bf16", True): 2.3, ("bf16", False): 1.4}
"""Precision, and whether there is batch normalisation to fold -> how much faster compiled passes are."""
SPEED = {"fp32": 4e10, "bf16": 1.2e11}
"""Operations a second of one thread, about; fixed, so that what is chosen does not depend on the moment."""


class CompileError(ModelError):
    """A model cannot be compiled, or is another function when it is."""


def check_compilable(device: torch.device) -> None:
    """Refuse devices that models are not compiled for."""
    if device.type not in OPTIONS:
        others = f"leave --compile out, or use --device {' or '.join(OPTIONS)}"
        raise ParameterError(f"models are not compiled for device {device.type!r}: {others}")


def pays(model: nn.Module, input: Tensor, samples: float, threads: int, precision: str, device: str) -> bool:
    """Return whether samples of inputs like `input` on so many threads are enough to compile a model for.

    Never where no gain was measured (other devices than the CPU, fp16) or there is no C++ compiler.
    """
    norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    gain = GAINS.get((precision, norms), 1.0) if torch.device(device).type == "cpu" else 1.0
    if gain == 1.0 or not has_compiler():
        return False
    seconds = samples * operations(model, input) / SPEED[precision] / threads
    return seconds * (1.0 - 1.0 / gain) >= WARM_UP


def has_compiler() -> bool:
    """Return whether there is the C++ compiler that models are compiled with on a CPU."""
    usual = "clang++" if sys.platform == "darwin" else "g++"
    return shutil.which(os.environ.get("CXX", usual)) is not None


@full_float32()
def operations(model: nn.Module, input: Tensor) -> float:
    """Return additions and multiplications of the convolutions and dense layers in one input's pass."""
    found = 0.0

    def look(module: nn.Module, _: Any, output: Any) -> None:
        nonlocal found
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and isinstance(output, Tensor) and weight.ndim > 1:
            found += 2.0 * weight.numel() * output.numel() / max(1, len(weight))

    handle = nn.modules.module.register_module_forward_hook(look)
    try:
        with torch.inference_mode():
            call_model(model, input[None])
    finally:
        handle.remove()
    return found


class CompiledModel:
    """A model for batches of few shapes; compiled when it sees the first of each, as it is then."""

    def __init__(self, module: nn.Module, device: torch.device, precision: str) -> None:
        check_compilable(device)
        self._module, self._cuda = module, device.type == "cuda"
        self._tolerance = TOLERANCE if precision == "fp32" else HALF
        from torch._inductor import config  # takes a second

        def whole(batch: Tensor) -> Any:
            return logits_of(module(batch))[0]

        # torch keeps what is compiled by code: each model needs code of its own
        whole.__code__ = whole.__code__.replace(co_name=f"whole_{next(_NUMBERS)}")
        self._options, self._patch = OPTIONS[device.type], config.patch  # tracing reads them there
        self._compiled = torch.compile(whole, fullgraph=True, dynamic=False, options=self._options)
        self._checks: Counter[tuple[torch.Size, int]] = Counter()

    def __call__(self, batch: Tensor) -> Tensor:
        """Return the logits of a batch, overwritten by the next; the first are compared with the model's."""
        key = batch.shape, torch.get_num_threads()  # another number of threads is compiled anew
        checked, remedy = self._checks[key] < CHECKED, "use --compile off (docs/scale.md#compiled-models)"
        expected = call_model(self._module, batch) if checked else batch
        if checked and not expected.isfinite().all():
            return expected  # whoever asked says what is wrong
        try:
            with self._patch(self._options), warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # torch's own tracing gives some
                if self._cuda:
                    torch.compiler.cudagraph_mark_step_begin()
                with guard.unwatched() if checked else nullcontext():  # it is compiled now
                    logits: Tensor = self._compiled(batch)
        except Exception as error:
            theirs = type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
            if has_no_room(error) or not (checked or theirs):
                raise
            raise CompileError(
                f"the robust model cannot be compiled here ({describe(error)}): {remedy}"
            ) from error
        if checked:
            scale = max(float((expected.amax(1) - expected.median(1).values).median()), 1e-6)
            near = [(x - x.amax(1, keepdim=True)).clamp(min=-FAR * scale) for x in (logits, expected)]
            off = float((near[0] - near[1]).abs().max()) if logits.shape == expected.shape else math.inf
            if not off <= self._tolerance * scale:
                told = f"logits that differ by {off:.3g} of {scale:.3g} when it is compiled"
                raise CompileError(f"the robust model gives {told}: {remedy}")
            self._checks[key] += 1
        return logits
