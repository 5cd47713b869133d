"""Keyword arguments of the Python interface, checked before they meet arithmetic.  No torch."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from numbers import Integral, Real
from types import NoneType
from typing import Any

from certmix.errors import ParameterError


def check_number(name: str, value: Any) -> None:
    """Refuse what is no number, such as a text that holds one.

    Raises
    ------
    ParameterError
        If it is none.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        text = ascii(value)
        shown = text if len(text) <= 60 else f"{text[:57]}..."
        kind = type(value).__name__
        raise ParameterError(f"{name} = {shown} is of type {kind}: give a number, such as 0.5")


def field_names(kind: Any) -> tuple[str, ...]:
    """Return the names of a request's fields."""
    return tuple(getattr(kind, "__struct_fields__", ()) or kind.__dataclass_fields__)


def check_numbers(kind: type, options: Mapping[str, Any]) -> None:
    """Check every option that is a number in the dataclass `kind`; None passes where the field takes it."""
    hints = typing.get_type_hints(kind)
    for name, value in options.items():
        if name not in hints:
            continue
        choices = set(typing.get_args(hints[name]) or (hints[name],))
        optional = NoneType in choices and value is None
        if choices - {NoneType} <= {int, float} and not optional:
            check_number(name, value)


def plain_numbers(request: Any) -> None:
    """Make Python's numbers of a frozen dataclass's, whatever library they come from."""
    for name, value in vars(request).items():
        object.__setattr__(request, name, plain_number(value))


def plain_number(value: Any) -> Any:
    """Return Python's own number for one of another library, also within a tuple; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(map(plain_number, value))
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def several(value: Any) -> tuple[Any, ...]:
    """Return one name, or one number, as a tuple of one; anything else as a tuple.

    Examples
    --------
    >>> several("exact"), several(0.5), several(["exact", "smoothing"])
    (('exact',), (0.5,), ('exact', 'smoothing'))
    """
    return (value,) if isinstance(value, str | Real) else tuple(value)
