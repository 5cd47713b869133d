"""Which stored images are sampled again, or why none can be."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from certmix.verification.resampling.draws import Again

__all__ = ["choose_images"]


def choose_images(again: Again, stored: Iterable[int]) -> tuple[dict[int, int], str]:
    """Return index -> position of the images that the new seed chooses from those stored.

    Where there is none the second value says what is lacking; else it is empty.
    """
    dataset, problems = again.reloaded.dataset, again.reloaded.problems
    lacking = [text for name, text in problems.items() if name in ("data", "robust")]
    if lacking or dataset is None or again.reloaded.models["robust"] is None:
        return {}, " ".join(lacking) or "no robust model is named"
    places = {int(index): k for k, index in enumerate(dataset.indices)}
    known = sorted(index for index in stored if index in places)
    count = min(again.images, len(known))
    picked = np.random.default_rng(again.new_seed).choice(len(known), count, replace=False)
    chosen = {known[k]: places[known[k]] for k in sorted(picked.tolist())}
    return chosen, "" if chosen else "no stored image is in the data set"
