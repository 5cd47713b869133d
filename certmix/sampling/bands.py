"""Bands of columns, every position of them: what the base model sees of an image (Levine and Feizi, 2020).

The model sees `width` neighbouring columns, which go on at the left edge after the right one, and gets one
channel more than the image: 1 where a pixel is shown, 0 where it is hidden, and hidden pixels are 0.
"""

from __future__ import annotations

import torch
from torch import Tensor


def bands(images: Tensor, first: Tensor, width: float) -> Tensor:
    """Return images (m, c, rows, columns) as seen: (m, c + 1, ...), bands from columns (m,)."""
    columns = images.shape[-1]
    place = torch.arange(columns, device=images.device)
    shown = (place - first.to(images.device)[:, None]) % columns < width
    mask = shown[:, None, None, :].to(images.dtype).expand(-1, 1, images.shape[-2], -1)
    return torch.cat([images * mask, mask], 1)


def random_bands(images: Tensor, width: float, generator: torch.Generator) -> Tensor:
    """Return images as a model sees them, each with a band at a place of its own."""
    first = torch.randint(images.shape[-1], (len(images),), generator=generator, device=images.device)
    return bands(images, first, width)
