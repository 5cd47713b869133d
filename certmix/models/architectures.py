"""The small networks that certmix trains and ships.

All take images in [0, 1], shape (N, 3, H, W), and normalise inside; `BandNet` and a masked `ResidualNet`
take one channel more, of what is shown.  `Denoiser` returns images, the others logits, shape (N, classes).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from certmix.calling import logits_of
from certmix.errors import ModelError, ParameterError

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)


class Normalize(nn.Module):
    """Subtract a mean and divide by a standard deviation, channel by channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        shape = (-1, 1, 1)
        self.register_buffer("mean", torch.tensor(mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(shape), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean.to(images.dtype)) / self.std.to(images.dtype)


Stride = int | tuple[int, int]


def _convolution(inputs: int, outputs: int, stride: Stride = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)


class _Residual(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)); the shortcut is 1x1 where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: Stride) -> None:
        super().__init__()
        self.conv1, self.norm1 = _convolution(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = _convolution(outputs, outputs), nn.BatchNorm2d(outputs)
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResidualNet(nn.Module):
    """A residual net whose stem already halves the resolution: built for sampling throughput.

    `stages` gives the channels of each block; each stage after the first halves the resolution again.  A
    `masked` net takes a last channel that is 1 where a pixel is shown and 0 where it is hidden: hidden pixels
    are the mean, and the stem sees the channel as well.
    """

    def __init__(
        self,
        stages: tuple[tuple[int, ...], ...] = ((32,), (96, 96), (192, 192)),
        classes: int = 10,
        stem_stride: int = 2,
        masked: bool = False,
    ) -> None:
        super().__init__()
        channels, self.masked = stages[0][0], masked
        self.normalize = Normalize(CIFAR10_MEAN, CIFAR10_STD)
        self.stem, self.norm = _convolution(3 + masked, channels, stem_stride), nn.BatchNorm2d(channels)
        blocks = []
        for number, stage in enumerate(stages):
            for position, width in enumerate(stage):
                blocks.append(_Residual(channels, width, 2 if number > 0 and position == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        if self.masked:
            shown = images[:, 3:]
            x = torch.cat([self.normalize(images[:, :3]) * shown, shown], 1)
        else:
            x = self.normalize(images)
        x = F.relu(self.norm(self.stem(x)))
        return self.head(self.blocks(x).mean((2, 3)))


class ConvNet(nn.Module):
    """A plain convolutional net with a whitening first layer: accurate after few epochs.

    The first layer projects 2x2 patches on their principal axes, scaled to unit variance, and is not trained.
    """

    def __init__(self, widths: tuple[int, ...] = (64, 256, 256), classes: int = 10) -> None:
        super().__init__()
        self.normalize = Normalize(CIFAR10_MEAN, CIFAR10_STD)
        self.whitening = nn.Conv2d(3, 24, 2, bias=False)
        self.whitening.weight.requires_grad_(False)
        layers: list[nn.Module] = []
        channels = 24
        for width in widths:
            layers += [_convolution(channels, width), nn.MaxPool2d(2), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [_convolution(width, width), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.whitening(self.normalize(images)))
        return self.head(self.layers(x).amax((2, 3)) / 3)

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Set the first layer from training images (N, 3, H, W) in [0, 1]."""
        patches = self.normalize(images.float()).unfold(2, 2, 1).unfold(3, 2, 1)
        rows = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 12).double()
        values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
        filters = (vectors / (values + 5e-4).sqrt()).T.reshape(12, 3, 2, 2).flip(0)
        self.whitening.weight.copy_(torch.cat([filters, -filters]).float())


class IntervalNet(nn.Module):
    """A plain net of strided convolutions: what interval bounds propagate through with least loss.

    No pooling and no residual additions; batch normalisation balances widths and activations in training (Z.
    Shi et al., Fast Certified Robust Training with Short Warmup, NeurIPS 2021).  `widths` are (channels,
    stride) of each 3x3 convolution, `hidden` is the linear layer's.
    """

    def __init__(
        self,
        widths: tuple[tuple[int, int], ...] = ((32, 2), (64, 2), (64, 1), (128, 2)),
        hidden: int = 256,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(CIFAR10_MEAN, CIFAR10_STD)
        layers: list[nn.Module] = []
        channels, size = 3, 32
        for width, stride in widths:
            layers += [_convolution(channels, width, stride), nn.BatchNorm2d(width), nn.ReLU()]
            channels, size = width, -(-size // stride)
        layers += [nn.Flatten(), nn.Linear(channels * size**2, hidden, bias=False)]
        self.layers = nn.Sequential(*layers, nn.BatchNorm1d(hidden), nn.ReLU())
        self.head = nn.Linear(hidden, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.layers(self.normalize(images)))


class Denoiser(nn.Module):
    """A linear filter of a noisy image plus what a U-net adds, at half and a quarter of its resolution.

    The estimate is not clipped.  `widths` are the channels at each level.  The U-net's first layers are those
    of a `ResidualNet`, from which it can start; the last one is zero at first.
    """

    def __init__(self, widths: tuple[int, int] = (32, 96), channels: int = 3, window: int = 7) -> None:
        super().__init__()
        fine, coarse = widths
        self.normalize = Normalize(CIFAR10_MEAN, CIFAR10_STD)
        self.linear = nn.Conv2d(channels, channels, window, 1, window // 2, bias=False)
        self.stem, self.norm = _convolution(channels, fine, 2), nn.BatchNorm2d(fine)
        self.blocks = nn.Sequential(
            _Residual(fine, fine, 1), _Residual(fine, coarse, 2), _Residual(coarse, coarse, 1)
        )
        self.inner = _Residual(coarse, coarse, 1)
        self.up = nn.ConvTranspose2d(coarse, fine, 2, 2, bias=False)
        self.details = _convolution(4 * channels, fine)
        self.after = _Residual(fine, fine, 1)
        self.head = nn.Conv2d(fine, 4 * channels, 3, 1, 1)
        for value in (self.inner.norm2.weight, *self.head.parameters()):
            nn.init.zeros_(value)

    def forward(self, images: Tensor) -> Tensor:
        noisy = self.normalize(images)
        x = self.blocks[0](F.relu(self.norm(self.stem(noisy))))
        deep = self.inner(self.blocks[2](self.blocks[1](x)))
        x = self.after(x + self.details(F.pixel_unshuffle(noisy, 2)) + self.up(deep))
        estimate = self.linear(noisy) + F.pixel_shuffle(self.head(x), 2)
        return estimate * self.normalize.std.to(x.dtype) + self.normalize.mean.to(x.dtype)

    @torch.no_grad()
    def fit_filter(self, images: Tensor, sigma: float, generator: torch.Generator) -> None:
        """Set the filter to the best linear estimate, by least squares, for images (N, C, H, W) in [0, 1]."""
        noisy = images + torch.empty_like(images).normal_(0, sigma, generator=generator)
        side, stride = self.linear.kernel_size[0], 5  # neighbouring windows tell little more
        windows = F.unfold(self.normalize(noisy), side, padding=side // 2, stride=stride)
        pixels = self.normalize(images)[:, :, ::stride, ::stride].flatten(2)
        rows, wanted = (each.transpose(1, 2).flatten(0, 1).double() for each in (windows, pixels))
        found = torch.linalg.lstsq(rows, wanted).solution
        self.linear.weight.copy_(found.T.reshape(self.linear.weight.shape))


class BandNet(nn.Module):
    """A residual net of the shown columns alone: a forward pass costs no more than these columns do.

    It takes images whose last channel is 1 where a pixel is shown, in whole neighbouring columns, and 0
    elsewhere, as `certmix.sampling.bands` makes them, and looks at `width` columns from the first on, which
    its weights tell.  `stages` are (channels, stride) of its blocks; what it learns of each column's place is
    added to its stem.
    """

    width: Tensor

    def __init__(
        self,
        stages: tuple[tuple[int, Stride], ...] = ((64, (2, 1)), (128, 2), (128, 1)),
        classes: int = 10,
        columns: int = 32,
        width: int = 4,
    ) -> None:
        super().__init__()
        channels = stages[0][0]
        self.register_buffer("width", torch.tensor(width))
        self.normalize = Normalize(CIFAR10_MEAN, CIFAR10_STD)
        self.stem, self.norm = _convolution(3, channels, (2, 1)), nn.BatchNorm2d(channels)
        self.place = nn.Embedding(columns, channels)
        nn.init.normal_(self.place.weight, 0.0, 0.1)
        blocks = []
        for outputs, stride in stages:
            blocks.append(_Residual(channels, outputs, stride))
            channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        shown = images[:, -1, 0, :] > 0.5
        first = (shown & ~shown.roll(1, 1)).to(torch.uint8).argmax(1)  # 0 where every column is shown
        columns = (first[:, None] + torch.arange(int(self.width), device=images.device)) % images.shape[-1]
        taken = columns[:, None, None, :].expand(-1, images.shape[1] - 1, images.shape[2], -1)
        cut = self.normalize(images[:, :-1].gather(3, taken))
        x = self.norm(self.stem(cut)) + self.place(columns).transpose(1, 2)[:, :, None, :]
        return self.head(self.blocks(F.relu(x)).mean((2, 3)))


DENOISER = "denoiser"
"""Name of the architecture that returns images."""

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "residual": ResidualNet,
    "masked": partial(ResidualNet, masked=True),
    "conv": ConvNet,
    "interval": IntervalNet,
    "band": BandNet,
    DENOISER: Denoiser,
}


def build(architecture: str, classes: int | None = 10) -> nn.Module:
    """Build a shipped architecture by name, with fresh weights; a denoiser has no classes."""
    settings = {} if classes is None or architecture == DENOISER else {"classes": classes}
    return ARCHITECTURES[architecture](**settings)


@torch.no_grad()
def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Fold the batch normalisations of a residual net or `Denoiser` in place: the same up to rounding.

    It passes over memory less often.  Other models are returned as they are.
    """
    folding = (ResidualNet, BandNet, Denoiser)
    if not isinstance(model, folding) or isinstance(model.norm, nn.Identity):
        return model
    model.eval()
    for part in model.modules():
        for convolution, norm in (("stem", "norm"), ("conv1", "norm1"), ("conv2", "norm2")):
            if isinstance(part, (*folding, _Residual)) and hasattr(part, convolution):
                folded = fuse_conv_bn_eval(getattr(part, convolution), getattr(part, norm))
                setattr(part, convolution, folded)
                setattr(part, norm, nn.Identity())
    return model


Normalization = tuple[tuple[float, ...], tuple[float, ...]]


class Normalized(nn.Module):
    """A model behind (x - mean) / std, of each channel of inputs (N, C, ...) or of all."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def forward(self, inputs: Tensor) -> Any:
        channels = max(len(self.mean), len(self.std))
        if channels > 1 and (inputs.ndim < 2 or inputs.shape[1] != channels):
            found = tuple(inputs.shape)
            raise ModelError(
                f"inputs have shape {found} and the normalisation names {channels} channels: "
                "give one mean and one std, or one a channel"
            )
        mean, std = (
            value.to(inputs.dtype).view(-1, *[1] * max(0, inputs.ndim - 2)) for value in (self.mean, self.std)
        )
        return self.model((inputs - mean) / std)


class LogProbabilities(nn.Module):
    """Logarithms of what a model gives that was declared to give probabilities; ModelError if it does not."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Any:
        given = logits_of(self.model(inputs))[0]
        if not isinstance(given, Tensor) or given.ndim != 2 or not given.is_floating_point():
            return given  # whoever called says what is wrong
        rows = given.double()
        if not torch.compiler.is_compiling() and len(rows):
            least, off = float(rows.detach().min()), float((rows.detach().sum(1) - 1).abs().max())
            if least < -_ROUNDED or off > _ROUNDED:  # NaN is left to whoever called
                raise ModelError(
                    f"probabilities were declared, and it returns rows that sum to 1 within {off:.3g} alone, "
                    f"the least entry {least:.3g}: declare logits (--standard-outputs, --robust-outputs)"
                )
        kind = given.dtype if given.dtype == torch.float64 else torch.float32
        return given.to(kind).clamp_min(torch.finfo(kind).tiny).log()


_ROUNDED = 0.02
"""By which probabilities in half precision may miss a sum of 1."""


def parse_normalize(text: str) -> Normalization:
    """Return mean and std from ``MEAN/STD``, each one number or a comma-separated list.

    ParameterError if the text is of another form, the lists differ in length or a std is not > 0.
    """
    remedy = "write MEAN/STD, such as 0.5/0.25 or 0.49,0.48,0.45/0.25,0.24,0.26"
    try:
        mean, std = (tuple(float(value) for value in part.split(",")) for part in text.split("/"))
    except ValueError:
        raise ParameterError(f"normalize = {text!r} is not MEAN/STD: {remedy}") from None
    if not all(map(math.isfinite, mean + std)) or not all(value > 0 for value in std):
        raise ParameterError(f"normalize = {text!r}: finite numbers and std > 0 are needed: {remedy}")
    if 1 not in (len(mean), len(std)) and len(mean) != len(std):
        raise ParameterError(f"normalize = {text!r} has {len(mean)} means and {len(std)} stds: {remedy}")
    return mean, std
