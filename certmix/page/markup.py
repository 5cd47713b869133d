"""HTML as a type of text: whatever is not `Markup` is escaped where it is written."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any

from certmix.errors import one_line
from certmix.tables.formats import plain

__all__ = ["Markup", "json_block", "tag", "text"]

_VOID = frozenset({"meta", "link", "input", "img", "br", "line", "rect", "circle", "path"})

Child = str | None


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: str) -> Markup:
    """Return text as HTML: markup as it is, anything else escaped, unprintable characters spelt out.

    Examples
    --------
    >>> text('<b> & "c"')
    '&lt;b&gt; &amp; &quot;c&quot;'
    """
    return value if isinstance(value, Markup) else Markup(html.escape(one_line(value), quote=True))


def tag(name: str, *children: Child | Iterable[Child], **attributes: Any) -> Markup:
    """Return an element; None and False attributes are left out, True ones have no value.

    An underscore in an attribute's name stands for a dash, one at its end for nothing.

    Examples
    --------
    >>> tag("p", "a < b", class_="note", hidden=False)
    '<p class="note">a &lt; b</p>'
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        spelt = key.rstrip("_").replace("_", "-")
        words.append(spelt if value is True else f'{spelt}="{text(str(value))}"')
    opening = f"<{' '.join(words)}>"
    if name in _VOID:
        return Markup(opening if name in ("meta", "link", "input", "img", "br") else opening[:-1] + "/>")
    return Markup(f"{opening}{''.join(map(text, _flat(children)))}</{name}>")


def _flat(children: Iterable[Any]) -> Iterable[str]:
    for child in children:
        if isinstance(child, str):
            yield child
        elif child is not None:
            yield from _flat(child)


def json_block(value: Any, identifier: str) -> Markup:
    """Return data for the page's script; nothing in it can end the element.

    Examples
    --------
    >>> "</script>" in json_block({"name": "</script>"}, "x")[:-9]
    False
    """
    content = json.dumps(plain(value), allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        content = content.replace(character, f"\\u{ord(character):04x}")
    return Markup(f'<script type="application/json" id="{text(identifier)}">{content}</script>')
