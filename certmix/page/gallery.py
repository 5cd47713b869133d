"""Images with the largest and smallest radii, and those that are not certified."""

from __future__ import annotations

from base64 import b64encode

from certmix.page.markup import Markup, tag
from certmix.page.values import Group, Shown

__all__ = ["gallery"]


def gallery(groups: tuple[Group, ...], note: str, level: int) -> list[Markup | None]:
    """Return a heading and cards for each group, after the note that concerns all."""
    blocks: list[Markup | None] = [tag("p", note, class_="note") if note else None]
    for group in groups:
        blocks.append(tag(f"h{level}", group.title))
        blocks.append(tag("p", group.note, class_="note") if group.note else None)
        blocks.append(tag("ul", [tag("li", _card(one)) for one in group.shown], class_="cards"))
    return blocks


def _card(one: Shown) -> Markup:
    picture = None
    if one.png is not None:
        data = b64encode(one.png).decode("ascii")
        picture = tag(
            "img", src=f"data:image/png;base64,{data}", alt=f"Picture of image {one.index}", width="96",
            height="96",
        )  # fmt: skip
    wrong = "" if one.label == one.predicted else " wrong"
    return tag(
        "figure",
        picture,
        tag(
            "figcaption",
            tag("strong", one.outcome),
            tag("span", f"{one.predicted}", class_=f"class{wrong}"),
            tag("span", f"label {one.label}", class_="under") if wrong else None,
            tag("span", one.votes, class_="under") if one.votes else None,
            tag("span", f"image {one.index}", class_="under"),
        ),
        class_="card",
    )
