"""Where forward passes run, how, and how many inputs at a time: rounding apart, all gives the same.

Importing this module imports no torch.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from timeit import repeat
from typing import TYPE_CHECKING, Any

from certmix.errors import ParameterError

if TYPE_CHECKING:
    import torch

PRECISIONS = {"fp32": None, "bf16": "bfloat16", "fp16": "float16"}
"""Name -> torch dtype of autocast, None for none."""

TF32 = "tf32"
SAMPLED = {**PRECISIONS, TF32: None}
"""What noisy copies may be computed in besides: float32 whose products CUDA devices round to 10 bits."""

AUTO = "auto"
"""Stands for one of `PRECISIONS`, which `automatic_precision` gives."""

WORTH_BF16 = 1.3
"""How many times faster bf16 must be, where that depends on the processor: it has 8 bits for fp32's 24."""

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

    Native are CUDA from compute capability 8.0 (Ampere), x86 with AMX, Arm with its bf16; x86 with
    AVX512-BF16 alone where that is faster, which is tried: some processors take as long as for fp32.
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
            amx, avx512 = (
                getattr(torch.cpu, test, lambda: False)()
                for test in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
            )
            native = amx or (avx512 and gain_of_bf16() > WORTH_BF16)
    return "bf16" if native else "fp32"


@lru_cache(maxsize=1)
def gain_of_bf16() -> float:
    """Return how many times faster than in fp32 a convolution is in bf16 on this processor (0.1 s)."""
    import torch

    took, layout = [], torch.channels_last
    for kind in (torch.float32, torch.bfloat16):
        layer = torch.nn.Conv2d(96, 96, 3, padding=1, dtype=kind).to(memory_format=layout)  # type: ignore[call-overload]
        batch = torch.zeros(8, 96, 16, 16, dtype=kind).to(memory_format=layout)
        with torch.inference_mode():
            took.append(min(repeat(partial(layer, batch), number=1, repeat=8)))
    return took[0] / took[1]


def refuse_tf32(precision: str, device: torch.device | str) -> None:
    """Refuse tf32 for a device that has none: ParameterError."""
    if precision == TF32 and not str(device).startswith("cuda"):
        raise ParameterError(f"precision tf32: {device} has none: use --precision fp32, or --device cuda")


@contextmanager
def full_float32(*, tf32: bool = False) -> Iterator[None]:
    """Have float32 be float32 on every device, whatever the process allows: no TF32, no bf16 within products.

    Products in half precision add up in float32.  With `tf32` CUDA devices may round the factors to TF32, for
    votes that were asked for in it.
    """
    import torch

    backends: Any = torch.backends
    matmul, cudnn, mkldnn = backends.cuda.matmul, backends.cudnn, backends.mkldnn
    wanted: list[tuple[Any, str, Any]] = [(matmul, "allow_fp16_accumulation", False)]
    if hasattr(cudnn, "conv"):
        nvidia = "tf32" if tf32 else "ieee"
        wanted += [(kind, "fp32_precision", nvidia) for kind in (matmul, cudnn.conv, cudnn.rnn)]
        wanted += [(kind, "fp32_precision", "ieee") for kind in (mkldnn.matmul, mkldnn.conv)]
    else:  # torch 2.8
        wanted += [(kind, "allow_tf32", tf32) for kind in (matmul, cudnn)]
    for half in ("fp16", "bf16"):
        sums = f"allow_{half}_reduced_precision_reduction"
        split = getattr(matmul, f"{sums}_split_k", None)  # is set with it, and stays
        wanted.append((matmul, sums, False if split is None else (False, split)))
    before = [getattr(kind, name) for kind, name, _ in wanted]
    try:
        for kind, name, value in wanted:
            setattr(kind, name, value)
        yield
    finally:
        for (kind, name, value), was in zip(wanted, before, strict=True):
            setattr(kind, name, (was, value[1]) if isinstance(value, tuple) else was)


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Compute in what `SAMPLED` names."""
    import torch

    name = SAMPLED[precision]
    dtype = torch.bfloat16 if name is None else getattr(torch, name)
    with full_float32(tf32=precision == TF32), torch.autocast(device.type, dtype, enabled=name is not None):
        yield


def send(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of the host on a device, at once: to CUDA it goes through pinned memory."""
    import torch

    if device.type != "cuda":
        return values.to(device)
    pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return pinned.copy_(values).to(device, non_blocking=True)


def fetch(values: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Begin to copy a tensor to the host; what is returned waits for it, and gives it."""
    import torch

    if values.device.type != "cuda":
        host = values.cpu()
        return lambda: host
    host, done = torch.empty(values.shape, dtype=values.dtype, pin_memory=True), torch.cuda.Event()
    host.copy_(values, non_blocking=True)
    done.record(torch.cuda.current_stream(values.device))  # by default it would be another device's

    def wait() -> torch.Tensor:
        done.synchronize()
        return host

    return wait


def automatic_batch_size(shape: Sequence[int], device: torch.device) -> int:
    """Return a batch size for inputs of this shape: a multiple of 100 where memory allows."""
    values = max(1, math.prod(shape))
    budget, most = (300_000, 1000) if device.type == "cpu" else (6_000_000, 2000)
    size = min(budget // values, most)
    return max(100, size // 100 * 100) if size >= 25 else max(1, size)
