"""Dataclasses from plain data that a file holds: values of the right types, or none at all.  No torch."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

from certmix.errors import ParameterError
from certmix.runs.settings import Settings, settings

_LARGEST = 2**63


def from_json(kind: Any, stored: Any) -> Any:
    """Return a dataclass with the values of a JSON object; lists become tuples.

    Parameters
    ----------
    kind
        A dataclass whose fields are numbers, texts, tuples of these, objects, or None.
    stored
        What `json.loads` gave: keys are names of fields.

    Raises
    ------
    KeyError
        For a field without a default that is missing.
    TypeError
        In one line, for other keys and values of another type, and for texts of several lines.
    """
    if not isinstance(stored, dict):
        raise TypeError(f"an object, holding {_shown(stored)} instead")
    if isinstance(kind, types.UnionType) or issubclass(kind, Settings):
        try:
            return settings(kind, stored)
        except ParameterError as error:
            raise TypeError(f"good settings ({error})") from None
    known = {one.name: one for one in dataclasses.fields(typing.cast(Any, kind)) if one.init}
    hints = typing.get_type_hints(kind)
    for name in stored:
        if name not in known:
            raise TypeError(f"a known key, holding {_shown(name)}")
    for name, one in known.items():
        optional = (one.default, one.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
        if name not in stored and not optional:
            raise KeyError(name)
    return kind(**{name: _converted(hints[name], value, name) for name, value in stored.items()})


def _converted(hint: Any, value: Any, name: str) -> Any:
    """Return a value as its field's type wants it; TypeError."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for choice in typing.get_args(hint):
            if _fits(choice, value):
                return _converted(choice, value, name)
    elif _fits(hint, value):
        if typing.get_origin(hint) is not tuple:
            return value
        inner = [one for one in typing.get_args(hint) if one is not ...]
        if len(inner) in (1, len(value)):
            return tuple(_converted(inner[i % len(inner)], one, name) for i, one in enumerate(value))
    raise TypeError(f"a good {name!r}, holding {_shown(value)}")


def _fits(hint: Any, value: Any) -> bool:
    origin = typing.get_origin(hint) or hint
    if origin in (int, float):
        number = isinstance(value, int if origin is int else (int, float)) and not isinstance(value, bool)
        return number and abs(value) < _LARGEST  # also refuses NaN
    if origin is str:
        return isinstance(value, str) and len(f"{value}.".splitlines()) == 1
    if origin is tuple:
        return isinstance(value, list | tuple)
    return isinstance(value, origin) if isinstance(origin, type) else False


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
