"""Which requests of a run began to store images, but have no whole table yet.  No torch."""

from __future__ import annotations

import json

from certmix.files import parse_json
from certmix.runs.store import Store

__all__ = ["BEGUN", "begun_images", "forget_begun", "remember_begun"]

BEGUN = "begun"
"""Key of a run's database: how many images such requests are about, a JSON list of numbers or ``"all"``."""


def remember_begun(store: Store, images: int | str) -> None:
    """Keep, before its first image is stored, how many images a request is about."""
    known = begun_images(store.get(BEGUN))
    if images not in known:
        store.put(BEGUN, json.dumps([*known, images]))


def forget_begun(store: Store, images: int | str) -> None:
    """Drop that, once a whole table tells of them."""
    known = begun_images(store.get(BEGUN))
    if images in known:
        store.put(BEGUN, json.dumps([one for one in known if one != images]))


def begun_images(text: str | None) -> list[int | str]:
    """Return the numbers that are kept; what is damaged counts as none."""
    try:
        found = parse_json((text or "[]").encode())
    except ValueError:
        return []
    listed = found if isinstance(found, list) else []
    return [one for one in listed if one == "all" or (type(one) is int and 0 < one < 2**63)]
