"""Of what type each value of a card is."""

from __future__ import annotations

from typing import Any

_NOTHING = type(None)
_KINDS: dict[type | tuple[type, ...], tuple[str, ...]] = {
    str: ("name", "architecture", "data", "data_checksum", "precision", "sha256", "notes"),
    int: ("classes", "seed", "epochs"),
    (int, float, _NOTHING): ("noise_sigma",),
    dict: ("recipe", "accuracy"),
    (list, tuple): ("input_shape",),
    (list, tuple, _NOTHING): ("class_names", "input_range"),
}
_MEMBERS: dict[str, type | tuple[type, ...]] = {
    "class_names": str, "input_shape": int, "input_range": (int, float),
}  # fmt: skip


def check_kinds(values: dict[str, Any]) -> None:
    """Refuse a card's values if one is of another type; TypeError."""
    for kinds, names in _KINDS.items():
        for name in names:
            _check(name, values[name], kinds)
    for name, kinds in _MEMBERS.items():
        for member in values[name] or ():
            _check(name, member, kinds)
    for name, value in values["accuracy"].items():
        _check(f"accuracy {name!r:.40}", value, (int, float))
    if values["input_range"] is not None and len(values["input_range"]) != 2:
        raise TypeError("input_range is no pair")


def _check(name: str, value: Any, kinds: type | tuple[type, ...]) -> None:
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise TypeError(f"{name} is of type {type(value).__name__}")
