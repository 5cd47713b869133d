# mypy: disable-error-code="misc, func-returns-value"
"""Counting votes, against the bare forward passes and against other ways to count them.

python benchmarks/sampler.py --nets residual8,resnet110 --samples 1000
python benchmarks/sampler.py --device cuda --precision bf16 --nets resnet110 --samples 20000 --short 100
python benchmarks/sampler.py --nets residual8,resnet110 --samples 1000 --threads 2 --compile
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import measuring
import nets
import numpy as np
import torch
from torch import Tensor, nn

from certmix.memory import keep_freed_memory
from certmix.sampling import Draw, Sampler, automatic_batch_size
from certmix.sampling.noise import Noise, NoiseKey

SIGMA = 0.5


def bare(
    model: nn.Module, shape: tuple[int, ...], samples: int, size: int, call: Callable
) -> Callable[[], None]:
    """Forward passes of the same batches and nothing else."""
    layout = torch.channels_last
    batch = torch.randn((size, *shape), device=next(model.parameters()).device).to(memory_format=layout)

    @torch.inference_mode()
    def run() -> None:
        for _ in range(-(-samples // size)):
            call(batch)
        _wait(batch)

    return run


def usual(
    model: nn.Module, input: Tensor, samples: int, size: int, classes: int, call: Callable
) -> Callable[[], None]:
    """The loop of this field: repeat, randn_like, argmax, counts on the host, batch by batch."""

    @torch.no_grad()
    def run() -> None:
        counts, left = np.zeros(classes, int), samples
        while left > 0:
            here = min(size, left)
            left -= here
            batch = input.repeat((here, 1, 1, 1))
            noise = torch.randn_like(batch) * SIGMA
            counts += np.bincount(call(batch + noise).argmax(1).cpu().numpy(), minlength=classes)

    return run


def art(model: nn.Module, input: Tensor, samples: int, size: int, classes: int) -> Callable[[], None] | None:
    """ART's PyTorch randomized smoothing; None where it is not installed."""
    try:
        from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
    except ImportError as error:
        print(f"ART is left out: {error}")
        return None
    device = "gpu" if input.device.type == "cuda" else "cpu"
    smooth = PyTorchRandomizedSmoothing(
        model=model, loss=nn.CrossEntropyLoss(), input_shape=tuple(input.shape), nb_classes=classes,
        sample_size=samples, scale=SIGMA, alpha=0.001, device_type=device,
    )  # fmt: skip
    host = input[None].cpu().numpy()
    return lambda: smooth.predict(host, batch_size=size, verbose=False)


def _wait(tensor: Tensor) -> None:
    if tensor.device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Print one table a net."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", default="residual8,resnet110")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=1, help="torch's; more than 1 are timed by wall time")
    parser.add_argument("--compile", action="store_true", help="also: the compiled net")
    parser.add_argument("--short", type=int, default=0, help="also: this many samples each of 64 inputs")
    args = parser.parse_args()
    keep_freed_memory()  # as the command line does
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.device == "cpu" and args.threads == 1 else time.perf_counter
    for name in args.nets.split(","):
        model, shape, classes = nets.make(name, args.device)
        size = automatic_batch_size(shape, torch.device(args.device))
        kind = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[args.precision]

        def call(batch: Tensor, model: nn.Module = model, kind: torch.dtype | None = kind) -> Tensor:
            with torch.autocast(args.device, kind or torch.bfloat16, enabled=kind is not None):
                return model(batch)

        input = torch.rand(shape, device=args.device)
        sampler = Sampler(model, classes, SIGMA, device=args.device, precision=args.precision)
        contenders = {
            "bare forward passes": bare(model, shape, args.samples, size, call),
            "certmix": lambda s=sampler, x=input: s.votes(x, 0, [args.samples]),
            "the usual loop": usual(model, input, args.samples, size, classes, call),
        }
        if args.compile:
            faster = Sampler(
                model, classes, SIGMA, device=args.device, precision=args.precision, compiled=True
            )
            begun = time.perf_counter()
            faster.votes(input, 0, [3 * size])
            print(f"\n{name}: first three batches, with compiling: {time.perf_counter() - begun:.0f} s")
            contenders["certmix --compile"] = lambda s=faster, x=input: s.votes(x, 0, [args.samples])
        other = None if kind else art(model, input, args.samples, size, classes)
        if other is not None:
            contenders["ART 1.20"] = other
        print(
            f"\n{name}, {args.samples} samples in batches of {size}, {args.device}, {args.precision}, "
            f"{args.threads} threads\n"
        )
        print(
            measuring.table(
                measuring.compare(contenders, rounds=args.rounds, work=args.samples, clock=clock), "samples"
            )
        )
        noise_alone(name, input, args, clock)
        if args.short:
            short(name, sampler, input, args, clock)


def noise_alone(name: str, input: Tensor, args: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Noisy copies without a network: certmix's whole numbers beside torch's floats."""
    noise, device = Noise(SIGMA, torch.device(args.device)), torch.device(args.device)
    rows, key, steps = torch.empty((100, input.numel()), device=device), NoiseKey(0, 0), noise.steps(input)
    flat, drawn = input.flatten(), torch.empty_like(rows)
    contenders = {
        "torch.randn": lambda: (drawn.normal_(), _wait(drawn)),
        "input + sigma randn": lambda: (torch.add(flat, drawn.normal_(), alpha=SIGMA, out=rows), _wait(rows)),
        "certmix": lambda: (noise.fill(rows, steps, key, 0), _wait(rows)),
    }
    print(f"\n{name}, 100 noisy copies of {input.numel():,} values\n")
    print(
        measuring.table(measuring.compare(contenders, rounds=args.rounds, work=100, clock=clock), "samples")
    )


def short(
    name: str, sampler: Sampler, input: Tensor, args: argparse.Namespace, clock: Callable[[], float]
) -> None:
    """Short requests of many inputs: packed, and one input after another."""
    draws = [Draw(input, k, (args.short,)) for k in range(64)]
    contenders = {
        "packed": lambda: sampler.submit(draws).result(),
        "input by input": lambda: [sampler.submit([draw]).result() for draw in draws],
    }
    print(f"\n{name}, {args.short} samples each of 64 inputs\n")
    work = 64 * args.short
    print(
        measuring.table(measuring.compare(contenders, rounds=args.rounds, work=work, clock=clock), "samples")
    )


if __name__ == "__main__":
    main()
