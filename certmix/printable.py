"""Text from files as terminals may be shown it."""

from __future__ import annotations

__all__ = ["one_line"]


def one_line(text: str) -> str:
    r"""Return text with every unprintable character (line ends, escapes, lone surrogates) spelt out.

    Examples
    --------
    >>> one_line("a" + chr(10) + "b")
    'a\\nb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
