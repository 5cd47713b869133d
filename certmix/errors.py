"""The errors that certmix raises on purpose: value, constraint and remedy in one line; exit code 2."""

from __future__ import annotations

import re
import shlex
import sys
import warnings
from collections.abc import Iterable
from importlib.metadata import requires

__all__ = [
    "CertmixError", "CertmixWarning", "DataError", "Interrupted", "ModelError", "ParameterError", "RunError",
    "check_choice", "check_number", "describe", "install", "one_line", "warn",
]  # fmt: skip


class CertmixWarning(UserWarning):
    """Something the user should know, though the result stands."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class CertmixError(Exception):
    """Base class: something the user can mend, in one line; what cannot be printed is spelt out."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class ParameterError(CertmixError, ValueError):
    """A parameter is outside its range, or two contradict each other."""


class DataError(CertmixError):
    """A data set is missing, truncated, corrupt or of the wrong shape."""


class ModelError(CertmixError):
    """A model cannot be loaded, or does not give finite logits of the right shape."""


class RunError(CertmixError):
    """A run folder is locked, of another identity, or unreadable."""


class Interrupted(KeyboardInterrupt):
    """The user stopped a command before it had a result; what it made so far is kept."""

    def __str__(self) -> str:
        return one_line(super().__str__())


def warn(message: str) -> None:
    """Warn whoever called certmix: of the frames on the stack, the innermost that is not of certmix."""
    frame, level, own = sys._getframe(), 1, ("certmix", "contextlib", "functools", "numba")
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in own:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, CertmixWarning, stacklevel=level)


def check_number(name: str, value: object) -> None:
    """Refuse what is no number, such as a text, None or a list: ParameterError."""
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        raise ParameterError(
            f"{name} = {value!a:.60} is of type {type(value).__name__}: give a number"
        ) from None


def one_line(text: str) -> str:
    r"""Return text with every unprintable character (line ends, escapes, lone surrogates) spelt out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def brief(value: object, most: int = 200) -> str:
    """Return what a value says in one line, of at most so many characters."""
    return " ".join(str(value).split())[:most]


def check_choice(name: str, value: str, known: Iterable[str]) -> None:
    """Refuse a value that is none of those known."""
    if value not in known:
        raise ParameterError(f"{name} {value!r} is unknown: use one of {', '.join(known)}")


def describe(error: BaseException) -> str:
    """Return an exception's type and message in one line of at most 300 characters."""
    message = brief(error, 300)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def install(extra: str) -> str:
    """Return the pip command for what an extra of certmix brings; it works however certmix was installed."""
    try:
        lines = [line.split(";") for line in requires("certmix") or ()]
    except ImportError:  # certmix lies on the path, and is not installed
        lines = []
    brings = [
        name.strip()
        for name, *markers in lines
        if re.search(rf"""extra == ['"]{extra}['"]""", "".join(markers))
    ]
    return f"pip install {' '.join(map(shlex.quote, brings or [f'certmix[{extra}]']))}"
