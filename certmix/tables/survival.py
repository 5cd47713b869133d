"""Curves of certified accuracy: the exact empirical survival function of the radii."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from certmix.types import Curve, FloatArray

__all__ = ["coinciding", "survival_steps"]


def survival_steps(radii: FloatArray, images: int, end: float) -> tuple[FloatArray, FloatArray]:
    """Return the corners (x, y in %) of the share of images with radius >= r.

    To be drawn with ``drawstyle="steps-pre"``: y[i] holds on (x[i-1], x[i]],
    so that an image still counts at its own radius.  The curve stops where it
    reaches 0, or at `end` (beyond every finite radius) where it never does or
    nothing is certified.

    Examples
    --------
    >>> survival_steps(np.array([0.0, 0.5, 1.0]), 4, 2.0)
    (array([0. , 0.5, 1. , 1. ]), array([50., 50., 25.,  0.]))
    """
    values, counts = np.unique(radii[radii > 0], return_counts=True)
    finite = values[np.isfinite(values)]
    unbounded = int(counts[len(finite) :].sum())
    surviving = unbounded + counts[: len(finite)][::-1].cumsum()[::-1]
    stop = finite[-1] if len(finite) and not unbounded else end
    y = np.array([*surviving[:1], *surviving, unbounded] if len(finite) else [unbounded, unbounded])
    return np.array([0.0, *finite, stop]), 100.0 * y / max(images, 1)


def coinciding(curves: Sequence[Curve]) -> list[list[Curve]]:
    """Gather the curves of one classifier that would lie on top of one another."""
    groups: list[list[Curve]] = []
    for curve in curves:
        for group in groups:
            if _same(group[0], curve):
                group.append(curve)
                break
        else:
            groups.append([curve])
    return groups


def _same(a: Curve, b: Curve) -> bool:
    if (a.classifier, a.images) != (b.classifier, b.images):
        return False
    first, second = np.sort(a.radii[a.radii > 0]), np.sort(b.radii[b.radii > 0])
    return len(first) == len(second) and np.allclose(first, second, rtol=1e-9, atol=1e-12)
