"""The arithmetic of passes: which one ``auto`` is, what stays float32, weights cast once."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from small_nets import normalised_net
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from certmix.errors import ParameterError
from certmix.models.smoothed import SmoothedClassifier
from certmix.models.zoo import load_zoo
from certmix.sampling import Draw, Sampler, compiling, devices
from certmix.sampling.compiling import operations, pays
from certmix.sampling.devices import automatic_precision, full_float32, refuse_tf32
from certmix.sampling.layout import LaidOut

X86, ARM = "x86_64", "aarch64"


@pytest.mark.parametrize(
    "device, machine, true, expected",
    [
        ("cpu", X86, {"amx"}, "bf16"),
        ("cpu", X86, {"avx512", "faster"}, "bf16"),
        ("cpu", X86, {"avx512"}, "fp32"),  # some take as long as for fp32
        ("cpu", X86, {"onednn"}, "fp32"),  # imitates it on AVX-512
        ("cpu", ARM, {"onednn"}, "bf16"),
        ("cpu", ARM, set(), "fp32"),
        ("cuda:0", X86, {"cuda"}, "bf16"),
        ("cuda:0", X86, {"amx", "emulated"}, "fp32"),
        ("mps", ARM, {"onednn", "cuda"}, "fp32"),
    ],
)
def test_auto_is_what_the_device_computes_natively(monkeypatch, device, machine, true, expected):
    monkeypatch.setattr(devices.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: "amx" in true)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: "avx512" in true)
    monkeypatch.setattr(
        torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: "onednn" in true, raising=False
    )
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported",
        lambda including_emulation=True: "cuda" in true or (including_emulation and "emulated" in true),
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.inference_mode())
    monkeypatch.setattr(devices, "gain_of_bf16", lambda: 1.9 if "faster" in true else 1.0)
    assert automatic_precision(device) == expected


def test_the_gain_is_a_ratio_of_times():
    assert 0.01 < devices.gain_of_bf16() < 100


ROUNDED = ("tf32", "tf32", "ieee"), False, False
EXACT = ("ieee", "ieee", "ieee"), False, False


def allowed() -> tuple[tuple[str, ...], bool, bool]:
    """What the process allows: of float32's factors, and of sums of products in half precision."""
    matmul = torch.backends.cuda.matmul
    kinds = matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul
    sums = matmul.allow_bf16_reduced_precision_reduction, matmul.allow_fp16_reduced_precision_reduction
    return tuple(kind.fp32_precision for kind in kinds), *sums


def test_float32_is_full_within_and_as_it_was_after():
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        outside = allowed()
        assert outside[0][:2] == ("tf32", "tf32")
        assert outside[1:] == (True, True)
        assert full_float32()(allowed)() == EXACT
        with pytest.raises(ZeroDivisionError), full_float32():
            1 / 0  # noqa: B018
        assert allowed() == outside
        assert matmul.allow_bf16_reduced_precision_reduction_split_k
    finally:
        matmul.fp32_precision = before


@pytest.mark.parametrize("precision, expected", [("fp32", EXACT), ("bf16", EXACT), ("tf32", ROUNDED)])
@pytest.mark.parametrize("kept", ["votes", "scores"])
def test_noisy_copies_are_computed_in_what_was_asked_alone(precision, expected, kept):
    class Telling(nn.Linear):
        told: ClassVar = set()

        def forward(self, x):
            self.told.add((allowed(), torch.is_autocast_enabled("cpu")))
            return super().forward(x)

    sampler = Sampler(Telling(3, 2), 2, 0.5, precision=precision, batch_size=50)
    draws = [Draw(torch.zeros(3), 1, (100,))]
    if kept == "votes":
        sampler.submit(draws).result()
    else:
        assert sum(len(scores) for _, scores in sampler.scores(draws)) == 100
    assert Telling.told == {(expected, precision == "bf16")}


def test_tf32_is_for_gpus():
    with pytest.raises(ParameterError, match="precision tf32: cpu has none: use --precision fp32"):
        SmoothedClassifier(nn.Linear(2, 2), 0.5, precision="tf32")
    assert refuse_tf32("tf32", "cuda:1") is None


class Scaled(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight / self.weight.norm(), self.bias)


class Tied(nn.Module):
    """Reads a layer's weights by itself."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return self.inner(x) + (self.inner.weight * x[:, None]).sum(2)


def hooked():
    net = nn.Linear(4, 3)
    net.register_forward_hook(lambda module, given, found: found * module.weight.dtype.itemsize)
    return net


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "make, shape, copied",
    [
        (normalised_net, (3, 8, 8), True),
        (lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), (4,), True),
        (lambda: Scaled(4, 3), (4,), False),
        (lambda: weight_norm(nn.Linear(4, 3)), (4,), False),
        (Tied, (4,), False),
        (hooked, (4,), False),
    ],
)
def test_weights_laid_out_once_give_the_model_s_own_bits(precision, make, shape, copied):
    torch.manual_seed(0)
    model = make().eval().requires_grad_(False)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    laid, batch = LaidOut(model, precision), torch.randn(5, *shape)
    batch = batch.to(memory_format=torch.channels_last) if batch.ndim == 4 else batch  # as samples are
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        for one in (batch, batch.roll(1, 0)):
            assert torch.equal(laid(one), model(one))
    assert (laid.twin is not None) == copied
    if copied and precision == "bf16":
        assert any(one.dtype == torch.bfloat16 for one in laid.twin.parameters())
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_a_shipped_model_s_weights_are_cast_and_channels_last():
    model = load_zoo("cifar10-gaussian-0.50").requires_grad_(False)
    laid, batch = LaidOut(model, "fp32"), torch.rand(4, 3, 32, 32).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert torch.equal(laid(batch), model(batch))
        assert torch.equal(laid(batch), model(batch))
    assert laid.twin is not None
    weights = [one for one in laid.twin.parameters() if one.ndim == 4]
    assert weights and all(one.is_contiguous(memory_format=torch.channels_last) for one in weights)


def test_operations_of_layers_are_counted():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 5)
    ).eval()
    assert operations(net, torch.zeros(3, 8, 8)) == 2 * (27 * 4 * 36 + 144 * 5)


@pytest.mark.parametrize(
    "samples, precision, device, compiler, norms, expected",
    [
        (1, "fp32", "cpu", True, True, False),
        (1e12, "fp32", "cpu", True, True, True),
        (1e12, "fp32", "cpu", False, True, False),
        (1e12, "fp16", "cpu", True, True, False),
        (1e12, "fp32", "cuda", True, True, False),
        (8e9, "fp32", "cpu", True, True, True),
        (8e9, "fp32", "cpu", True, False, False),
    ],
)
def test_compilation_must_repay_its_warm_up(
    monkeypatch, samples, precision, device, compiler, norms, expected
):
    """56 s of work at 1.4x, 176 s at 1.1x; 4e10 operations a second of each of two threads."""
    monkeypatch.setattr(compiling.shutil, "which", lambda name: "g++" if compiler else None)
    net = nn.Sequential(nn.Linear(8, 100), *[nn.BatchNorm1d(100)] * norms).eval()
    assert pays(net, torch.zeros(8), samples, 2, precision, device) == expected
