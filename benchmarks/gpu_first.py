# mypy: disable-error-code="misc, func-returns-value"
"""What a GPU does, in at most 5 minutes: the first thing to run where there is one.

python benchmarks/gpu_first.py
python benchmarks/gpu_first.py --device cpu --quick   # the same steps with tiny nets, to try the script

Each step prints a table or a line as soon as it is done; a step that fails is told, and the next one begins.
Exit code 1 if one failed, 2 if there is no GPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measuring
import nets
import numpy as np
import torch
from sampler import SIGMA, bare, usual
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import certmix
from certmix.errors import CertmixError
from certmix.radii.smoothings import Smoothing
from certmix.sampling import Draw, Sampler, automatic_batch_size, resolve_device
from certmix.sampling.devices import arithmetic
from certmix.sampling.layout import LaidOut
from certmix.sampling.noise import noise_fingerprint

SHIPPED = "cifar10-gaussian-0.50"
WAITING = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "is_nonzero")
"""Operations whose result the host needs, so that it waits for a GPU."""
GPUS = ("cuda", "meta")  # tensors without values stand for a GPU's in tests
SLOWEST, FASTER = 1.10, 1.5
"""Goals: time against the bare passes, at most; speed against the usual loop, at least."""


@dataclass(frozen=True)
class Setup:
    """A device, whether all is tiny, and when the script is to be done, on the clock of `time.monotonic`."""

    device: str
    quick: bool
    end: float

    @property
    def names(self) -> Sequence[str]:
        """The nets, the most telling ones first."""
        return ("tiny",) if self.quick else (SHIPPED, "resnet110", "wrn-28-10", "resnet50")

    def net(self, name: str, device: str = "") -> tuple[nn.Module, tuple[int, ...], int]:
        """Return a net in evaluation mode, its input's shape and its number of classes."""
        if name != "tiny":
            return nets.make(name, device or self.device)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = nn.Sequential(nn.Conv2d(3, 4, 3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
        return net.eval().to(device or self.device), (3, 32, 32), 10

    def batch(self, shape: Sequence[int]) -> int:
        """Inputs in a batch."""
        return 50 if self.quick else automatic_batch_size(shape, torch.device(self.device))

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()


class Waits(TorchDispatchMode):
    """Counts, by line of certmix, operations for which the host waits for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        given = [one for one in args if isinstance(one, Tensor)]
        waits = name in WAITING and any(one.device.type in GPUS for one in given)
        if waits:
            self.lines[f"{name} {_line()}"] += 1
        found = func(*args, **kwargs)
        moved = name in ("copy_", "_to_copy") and bool(given) and isinstance(found, Tensor)
        if moved:
            source = given[-1]
            blocking = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
            moved = blocking and (source.device.type in GPUS) != (found.device.type in GPUS)
        if moved:
            self.lines[f"{name} {_line()}"] += 1
        return found


def _line() -> str:
    """Return the innermost line of certmix that runs."""
    own = [one for one in traceback.extract_stack() if "/certmix/" in one.filename.replace("\\", "/")]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "elsewhere"


def tests(setup: Setup) -> Iterator[str]:
    """The tests of the device."""
    file = Path(__file__).parents[1] / "tests" / "sampling" / "test_cuda.py"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=file.parents[2])
    yield ran.stdout.strip().splitlines()[-1] if ran.stdout.strip() else ran.stderr[-300:]
    assert ran.returncode == 0, "tests fail"


def noise(setup: Setup) -> Iterator[str]:
    """The device's noise beside the CPU's."""
    for sigma in (0.12, 0.25, 0.5, 1.0):
        both = [noise_fingerprint(Smoothing.of(sigma), device) for device in ("cpu", setup.device)]
        yield f"sigma {sigma}: {' and '.join(both)}"
        assert both[0] == both[1], "the device makes other noise than the CPU"


def rounding(setup: Setup) -> Iterator[str]:
    """Probabilities of the shipped net in each precision, against float32 without TF32 on the CPU."""
    model, shape, _ = setup.net(setup.names[0], "cpu")
    batch = torch.rand((16, *shape), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model(batch).double().softmax(1)
        here, device = model.to(setup.device), torch.device(setup.device)
        for precision in ("fp32", "tf32", "bf16"):
            with arithmetic(precision, device):
                found = here(batch.to(device)).cpu().double().softmax(1)
            off = float((found - expected).abs().max())
            yield f"{precision}: probabilities differ by at most {off:.2g}"
            assert precision != "fp32" or off < 1e-4, "fp32 is not float32"


def throughput(setup: Setup) -> Iterator[str]:
    """Samples a second, and the host's share of the time."""
    yield "| net | arithmetic | samples a second | host | memory |"
    yield "| --- | --- | --- | --- | --- |"
    for name in setup.names:
        for precision, compiled in (("fp32", False), ("bf16", False), ("bf16", True)):
            if time.monotonic() > setup.end or (setup.quick and compiled):
                yield f"| {name} | {precision}{' compiled' * compiled} | no time left | | |"
                continue
            model, shape, classes = setup.net(name)
            size = setup.batch(shape)
            net = model if compiled else LaidOut(model, precision)
            drawn = Sampler(
                net, classes, SIGMA, device=setup.device, precision=precision, batch_size=size,
                compiled=compiled,
            )  # fmt: skip
            draws = [Draw(torch.rand(shape), 0, (4 * size,))]
            drawn.submit(draws).result()  # compiles, checks rows
            setup.wait()
            begun, busy, count = time.perf_counter(), time.process_time(), 0
            while time.perf_counter() - begun < (0.05 if setup.quick else 3.0):
                pending = [drawn.submit(draws), drawn.submit(draws)]
                count += 8 * size
                busy_after = time.process_time()
                for one in pending:
                    one.result()
            wall = time.perf_counter() - begun
            used = torch.cuda.max_memory_allocated() / 2**30 if setup.device.startswith("cuda") else 0.0
            share = (busy_after - busy) / wall
            yield (
                f"| {name} | {precision}{' compiled' * compiled} | {count / wall:,.0f} | {share:.0%} "
                f"| {used:.1f} GiB |"
            )


def goals(setup: Setup) -> Iterator[str]:
    """certmix beside the bare passes of the same batches, and the usual loop."""
    for name in setup.names[:2]:
        if time.monotonic() > setup.end:
            yield f"{name}: no time left"
            continue
        model, shape, classes = setup.net(name)
        size, input = setup.batch(shape), torch.rand(shape, device=setup.device)
        samples = (2 if setup.quick else 20) * size
        drawn = Sampler(
            LaidOut(model, "fp32"), classes, SIGMA, device=setup.device, precision="fp32", batch_size=size
        )

        def call(batch: Tensor, model: nn.Module = model) -> Tensor:
            with arithmetic("fp32", batch.device):
                found: Tensor = model(batch)
            return found

        contenders = {
            "bare forward passes": bare(model, shape, samples, size, call),
            "certmix": lambda drawn=drawn, input=input, n=samples: drawn.votes(input.cpu(), 0, [n]),
            "the usual loop": usual(model, input, samples, size, classes, call),
        }
        timed = measuring.compare(contenders, rounds=3, work=samples, clock=time.perf_counter)
        yield f"\n{name}, fp32, batches of {size}\n"
        yield measuring.table(timed, "samples")
        slower, faster = timed[0].rate / timed[1].rate, timed[1].rate / timed[2].rate
        for told, met in (
            (f"{slower:.2f} of the bare passes (goal: at most {SLOWEST})", slower <= SLOWEST),
            (f"{faster:.2f} times the usual loop (goal: at least {FASTER})", faster >= FASTER),
        ):
            yield f"{told}: {'met' if met else 'missed'}"


def waits(setup: Setup) -> Iterator[str]:
    """For which lines the host waits while a round is handed to the device."""
    model, shape, classes = setup.net(setup.names[0])
    drawn = Sampler(
        LaidOut(model, "fp32"), classes, SIGMA, device=setup.device, batch_size=setup.batch(shape)
    )
    inputs = [torch.rand(shape) for _ in range(8)]
    drawn.submit([Draw(input, k, (100,)) for k, input in enumerate(inputs)]).result()
    with Waits() as found:
        pending = drawn.submit([Draw(input, k, (200,)) for k, input in enumerate(inputs)])
    pending.result()
    yield f"{sum(found.lines.values())} within a round of 8 inputs"
    yield from (f"{count} x {line}" for line, count in found.lines.most_common(10))


def whole_run(setup: Setup) -> Iterator[str]:
    """A run as it is by default, of a shipped model."""
    begun = time.perf_counter()
    tiny = {"inputs": 2, "samples": 100, "standard": None, "robust": setup.net("tiny")[0]}
    result = certmix.certify(
        sigma=0.5, alpha=0.76, device=setup.device,
        **(tiny if setup.quick else {"inputs": 100, "samples": 10_000}),
    )  # fmt: skip
    assert isinstance(result, certmix.CertifyResult)
    drawn = sum(int(record.selection.sum()) + record.drawn for record in result.records)
    wall = time.perf_counter() - begun
    yield f"{len(result.records)} inputs, {drawn:,} samples in {wall:.1f} s: {drawn / wall:,.0f} a second"


def shortage(setup: Setup) -> Iterator[str]:
    """A batch that does not fit is halved until it does, and the votes are those of the smaller one."""

    class Hungry(nn.Module):
        def __init__(self, inner: nn.Module, most: int) -> None:
            super().__init__()
            self.inner, self.most = inner, most

        def forward(self, x: Tensor) -> Tensor:
            if len(x) > self.most:
                if x.device.type == "cuda":
                    torch.empty(1 << 50, dtype=torch.uint8, device=x.device)
                raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
            found: Tensor = self.inner(x)
            return found

    model, shape, classes = setup.net(setup.names[0])
    input, size = torch.rand(shape), setup.batch(shape)
    hungry = Sampler(Hungry(model, size // 3), classes, SIGMA, device=setup.device, batch_size=size)
    found = hungry.votes(input, 0, [size])
    expected = Sampler(model, classes, SIGMA, device=setup.device, batch_size=hungry.batch_size)
    same = np.array_equal(found, expected.votes(input, 0, [size]))
    yield f"batches of {size} became {hungry.batch_size}, votes are {'the same' if same else 'others'}"
    assert same, "votes changed with the batch"
    if setup.device.startswith("cuda"):  # and real ones, of whatever library runs short
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(0.02)
        try:
            real = Sampler(model, classes, SIGMA, device=setup.device, batch_size=1 << 17)
            real.votes(input, 0, [1 << 17])
            yield f"within 2 % of the memory batches of {1 << 17:,} became {real.batch_size:,}"
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)


STEPS: dict[str, Callable[[Setup], Iterator[str]]] = {
    "tests": tests, "noise": noise, "rounding": rounding, "throughput": throughput, "goals": goals,
    "waits": waits, "whole run": whole_run, "shortage": shortage,
}  # fmt: skip


def main(given: Sequence[str] | None = None) -> int:
    """Run all steps; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny nets and few samples")
    parser.add_argument("--seconds", type=float, default=270.0, help="after which no measurement begins")
    parser.add_argument("--steps", default=",".join(STEPS), help="some of them, by comma")
    args = parser.parse_args(given)
    try:
        resolve_device(args.device)
    except CertmixError as error:
        print(f"gpu_first.py: {error}", file=sys.stderr)
        return 2
    setup, failed = Setup(args.device, args.quick, time.monotonic() + args.seconds), []
    on_gpu = args.device.startswith("cuda")
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if on_gpu else 'CPU'}", flush=True)
    for name in args.steps.split(","):
        print(f"\n## {name}\n", flush=True)
        try:
            for line in STEPS[name](setup):
                print(line, flush=True)
        except Exception as error:
            failed.append(name)
            print(f"FAILED: {type(error).__name__}: {error}", flush=True)
    print(f"\n{f'failed: {chr(44).join(failed)}' if failed else 'all steps done'}", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
