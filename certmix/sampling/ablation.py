"""Ablation: k pixels of an input are shown, all sets of k equally likely, the others are hidden.

Each pixel gets a random number of 63 bits, keyed as noise is (`certmix.sampling.noise`), and the k pixels of
the smallest numbers are shown.  Numbers are independent and alike, so that every set is equally likely, given
that the k-th number is not also the next one's: a sample of which it is (less than one in 10^11) shows no
number, and the run ends with an error.

The network sees images with one channel more: 1 where a pixel is shown, 0 where it is hidden, and hidden
pixels are 0.  Of inputs that are no images each value is a pixel, and as many of 1 or 0 follow the values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from certmix.errors import ParameterError
from certmix.radii.smoothings import Smoothing
from certmix.sampling.noise import NoiseKey, philox_words
from certmix.types import FloatArray

_MOST_PIXELS = 2**26


def shown_pixels(key: NoiseKey, samples: Tensor, pixels: int, kept: int) -> Tensor:
    """Return 1 where a pixel is shown, 0 elsewhere, of samples (n,) int64: float32 (n, pixels).

    `kept` are shown in each row; a row of which that cannot be decided is NaN.  A GPU is not waited for.
    """
    high, low = (
        philox_words(key, samples, (pixels + 3) // 4, level).flatten(1)[:, :pixels] for level in (0, 1)
    )
    numbers = high << 31 | low >> 1
    shown = numbers <= numbers.kthvalue(kept, dim=1, keepdim=True).values
    return shown.float().masked_fill(shown.sum(1, keepdim=True) != kept, torch.nan)


def random_ablation(images: Tensor, kept: float, generator: torch.Generator) -> Tensor:
    """Return images (m, c, rows, columns) as a model sees them, (m, c + 1, ...): `kept` pixels of each."""
    draws = torch.rand(images[:, :1].flatten(1).shape, generator=generator, device=images.device)
    mask = torch.zeros_like(draws, dtype=images.dtype).scatter_(1, draws.topk(int(kept)).indices, 1.0)
    mask = mask.view_as(images[:, :1])
    return torch.cat([images * mask, mask], 1)


class Ablation:
    """Copies of inputs on one device of which some pixels are shown, as the network sees them."""

    def __init__(self, smoothing: Smoothing, device: torch.device, scale: FloatArray | None = None) -> None:
        self.kept, self.device, self._images = int(smoothing.scale), device, True
        if scale is not None:
            raise ParameterError(
                "feature scales have no effect on ablation, which adds no noise: leave them out"
            )

    def seen(self, shape: Sequence[int]) -> torch.Size:
        """Return the shape of what the network sees of an input."""
        return torch.Size((shape[0] + 1, *shape[1:]) if len(shape) == 3 else (2 * shape[0], *shape[1:]))

    def steps(self, image: Tensor) -> Tensor:
        """Return an input as pixels, float32 (pixels, channels), in the order of memory."""
        self._images = image.ndim == 3
        ordered = image.movedim(0, -1).flatten(0, 1) if self._images else image.reshape(-1, 1)
        if len(ordered) <= self.kept or len(ordered) > _MOST_PIXELS:
            raise ParameterError(
                f"an input has {len(ordered):,} pixels, of which {self.kept:,} are to be kept: keep fewer, "
                f"of at most {_MOST_PIXELS:,}"
            )
        return ordered.to(self.device, torch.float32).contiguous()

    def fill(self, out: Tensor, steps: Tensor, key: NoiseKey, first: int) -> None:
        """Write samples first, first + 1, ... (below 2^32) of an input into `out`, float32 (n, d)."""
        if not 0 <= first <= 2**32 - len(out):
            raise ParameterError(f"sample {first + len(out):,}: an input has at most 2^32 samples a stream")
        samples = torch.arange(first, first + len(out), device=self.device)
        shown = shown_pixels(key, samples, len(steps), self.kept)
        if not self._images:
            out.copy_(torch.cat([steps[:, 0] * shown, shown], 1))
            return
        mask = shown[:, :, None]
        out.view(len(out), len(steps), -1).copy_(torch.cat([steps * mask, mask], 2))


class Opened(nn.Module):
    """A network that sees inputs with what is shown of them; a plain input, of `shape`, is all shown."""

    shows = True

    def __init__(self, model: nn.Module, shape: Sequence[int]) -> None:
        super().__init__()
        self.model, self.shape = model, tuple(shape)
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.shape[1:] == self.shape:
            inputs = torch.cat([inputs, torch.ones_like(inputs[:, :1] if inputs.ndim == 4 else inputs)], 1)
        found: Tensor = self.model(inputs)
        return found
