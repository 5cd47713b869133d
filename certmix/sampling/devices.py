"""Where forward passes run, how, and how many inputs at a time: rounding apart, all gives the same.

Importing this module imports no torch.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from certmix.errors import ParameterError

if TYPE_CHECKING:
    import torch

PRECISIONS = {"fp32": None, "bf16": "bfloat16", "fp16": "float16"}
"""Name -> torch dtype of autocast, None for none."""

AUTO = "auto"
"""Stands for one of `PRECISIONS`, which `automatic_precision` gives."""

PARTLY = "partly"
"""What ``run.json`` says of a run that was compiled at one time and not at another."""


@dataclass(frozen=True)
class Passes:
    """A device, inputs in one pass, and whether the model is compiled; None: an automatic choice.

    With `places_alike` a compiled model is refused if its rows depend on their place in a batch.
    """

    device: torch.device
    batch_size: int | None = None
    compiled: bool | None = None
    places_alike: bool = False


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device named, or the best one there is for ``auto``.

    Raises
    ------
    ParameterError
        If the device is unknown or not there.
    """
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind in present if present[kind]))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ParameterError(f"device {name!r} is unknown: use auto, cpu, cuda or mps") from None
    if not present.get(device.type, False):
        raise ParameterError(f"device {name!r} is not available here: use --device auto or cpu")
    return device


def automatic_precision(device: torch.device | str) -> str:
    """Return bf16 for a device that multiplies it natively, fp32 for one that imitates it or has none.

    Native are CUDA from compute capability 8.0 (Ampere), x86 with AMX or AVX512-BF16, Arm with its bf16.
    """
    import torch

    native, device = False, torch.device(device)
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu" and torch.backends.mkldnn.is_available():
        if platform.machine().lower() in ("aarch64", "arm64"):
            native = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # on x86 true of AVX-512, which imitates it
        else:
            tests = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
            native = any(getattr(torch.cpu, test, lambda: False)() for test in tests)
    return "bf16" if native else "fp32"


@contextmanager
def full_float32() -> Iterator[None]:
    """Have float32 be float32 on every device, whatever the process allows: no TF32, no bf16 within products.

    For all but sampled votes, whose certificates are about the arithmetic that drew them.
    """
    import torch

    backends: Any = torch.backends
    name, exact, kinds = "allow_tf32", cast(Any, False), [backends.cuda.matmul, backends.cudnn]  # torch 2.8
    if hasattr(backends.cudnn, "conv"):
        kinds = [backends.cuda.matmul, backends.mkldnn.matmul]
        kinds += [backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.conv]
        name, exact = "fp32_precision", "ieee"
    before = [getattr(kind, name) for kind in kinds]
    try:
        for kind in kinds:
            setattr(kind, name, exact)
        yield
    finally:
        for kind, value in zip(kinds, before, strict=True):
            setattr(kind, name, value)


def automatic_batch_size(shape: Sequence[int], device: torch.device) -> int:
    """Return a batch size for inputs of this shape: a multiple of 100 where memory allows."""
    values = max(1, math.prod(shape))
    budget, most = (300_000, 1000) if device.type == "cpu" else (6_000_000, 2000)
    size = min(budget // values, most)
    return max(100, size // 100 * 100) if size >= 25 else max(1, size)
