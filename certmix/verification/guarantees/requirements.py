"""What a guarantee demands, as text: ``certified_accuracy@0.5 >= 0.4``.  Read by a pattern, never evaluated.

[CLASSIFIER.]QUANTITY[@RADIUS] [of GROUP MEMBER | of each GROUP] >= THRESHOLD [on lower bound | on value]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from certmix.errors import ParameterError
from certmix.runs.settings import Option, Settings
from certmix.text import as_given

CLASSIFIERS = ("mixed", "robust", "standard", "gated")
"""The mix, h alone, g alone, the tuned mix of gated votes; the mix where none is named."""
QUANTITIES = {
    "certified_accuracy": "share of inputs that are right and certified at the radius",
    "clean_accuracy": "share of inputs that are right without perturbation",
    "population_certified_accuracy": "share of the population that is right and certified at the radius",
    "mean_certified_radius": "mean radius over all inputs, 0 where nothing right is certified",
}
POPULATION = "population_certified_accuracy"
"""Of the mix, shown by ``certmix certify --goal population``."""
SIDES = ("lower bound", "value")
"""What is held against the threshold: the lower bound for the population, or the figure of these inputs."""
CLASS = "class"
"""The group that every data set has: the label's name."""
FORM = "write for example 'certified_accuracy@0.5 >= 0.4' or 'robust.clean_accuracy >= 0.7 on value'"

_NUMBER = r"\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3})?(?:/\d+)?"
_PATTERN = re.compile(
    rf"(?:(?P<classifier>[a-z]+)\.)?(?P<quantity>[a-z_]+)(?:@(?P<radius>{_NUMBER}))?"
    r"(?:\s+of\s+(?:each\s+(?P<each>[\w-]+)|(?P<group>[\w-]+)\s+(?P<member>'[^']+'|[^\s'<>=]+)))?"
    rf"\s*>=\s*(?P<threshold>{_NUMBER})(?:\s+on\s+(?P<side>[a-z ]+))?",
    re.ASCII,
)


class Requirement(Settings, frozen=True):
    """One demand, in shares of 1 or units of the input; a radius of 0 stands for any radius > 0.

    It is of the inputs whose `group` is `member`, with ``""`` of those of each member by themselves; of all
    inputs where both are None.
    """

    classifier: Annotated[str, Option(choices=CLASSIFIERS)]
    quantity: Annotated[str, Option(choices=QUANTITIES)]
    radius: Annotated[float, Meta(ge=0)] | None
    threshold: Annotated[float, Meta(ge=0)]
    side: Annotated[str, Option(choices=SIDES)] = SIDES[0]
    group: str | None = None
    member: str | None = None

    def check(self) -> None:
        """Refuse what does not fit the quantity."""
        if self.quantity != "clean_accuracy" and self.classifier == "standard":
            told = "nothing is certified of g; use robust or leave it out"
            raise ParameterError(f"standard.{self.quantity}: {told}")
        if (self.radius is None) == (self.quantity in ("certified_accuracy", POPULATION)):
            remedy = "add @RADIUS" if self.radius is None else "leave @RADIUS out"
            raise ParameterError(f"{self.quantity}: only certified accuracies are at a radius; {remedy}")
        if self.quantity == POPULATION:
            if self.classifier != CLASSIFIERS[0] or self.side != SIDES[0]:
                raise ParameterError(f"{POPULATION} is of the mix, on its lower bound: leave the rest out")
            if self.group is not None:
                raise ParameterError(f"{POPULATION} is of all inputs: leave the group out")
            if self.radius == 0 or not 0 < self.threshold < 1:
                raise ParameterError(f"{POPULATION}: give a radius above 0 and a share between 0 and 1")
        if self.is_share and self.threshold > 1:
            told = f"{self.quantity} is a share of 1; write 0.4 for 40 %"
            raise ParameterError(f"threshold {self.threshold:g}: {told}")

    @property
    def is_share(self) -> bool:
        """Whether the figure is a share of inputs, not a radius."""
        return self.quantity != "mean_certified_radius"

    @property
    def name(self) -> str:
        """The figure that is judged: ``robust.certified_accuracy@0.5``."""
        prefix = "" if self.classifier == CLASSIFIERS[0] else f"{self.classifier}."
        at = "" if self.radius is None else f"@{written(self.radius)}"
        return f"{prefix}{self.quantity}{at}{self._part}"

    @property
    def _part(self) -> str:
        """Of which inputs, as it is spelt after the figure."""
        if self.group is None or self.member is None:
            return ""
        if not self.member:
            return f" of each {self.group}"
        bare = re.fullmatch(r"[^\s'<>=]+", self.member)
        return f" of {self.group} {self.member}" if bare else f" of {self.group} '{self.member}'"

    def of_each(self, members: Sequence[str]) -> list[Requirement]:
        """Return the requirement itself, or the one of each member of its group where it asks for each."""
        return [self.replace(member=one) for one in members] if self.member == "" else [self]

    def __str__(self) -> str:
        side = "" if self.side == SIDES[0] else f" on {self.side}"
        return f"{self.name} >= {written(self.threshold)}{side}"


def parse_requirement(text: str) -> Requirement:
    """Return the requirement that a text states; ParameterError if it states none.

    >>> str(parse_requirement(" robust.clean_accuracy>=0.70  on value "))
    'robust.clean_accuracy >= 0.7 on value'
    """
    found = _PATTERN.fullmatch(text.strip())
    if found is None:
        hint = FORM
        if re.search(r"\sof\s", text):
            hint = "write for example 'clean_accuracy of class ship >= 0.4', or 'of each class'"
        elif "%" in text:
            hint = "write 0.4 for 40 %"
        elif "," in text:
            hint = "one string states one requirement, with a point in decimals"
        elif ">=" not in text and re.search(r"[<>=]", text):
            hint = "only '>=' can be demanded"
        raise ParameterError(f"requirement {text[:80]!r} is not understood: {hint}")
    part = (found["group"], found["member"] and found["member"].strip("'"))
    radius, side = found["radius"], " ".join((found["side"] or SIDES[0]).split())
    try:
        return Requirement(
            found["classifier"] or CLASSIFIERS[0], found["quantity"],
            None if radius is None else _number(radius), _number(found["threshold"]), side,
            *((found["each"], "") if found["each"] else part),
        )  # fmt: skip
    except ParameterError as error:
        raise ParameterError(f"requirement {text[:80]!r}: {error}") from None


def _number(text: str) -> float:
    """Return a decimal, or a quotient of two."""
    above, stroke, below = text.partition("/")
    try:
        return float(above) / float(below) if stroke else float(above)
    except (ZeroDivisionError, OverflowError):
        raise ParameterError(f"{text}: it must be finite; write for example 8/255") from None


def written(x: float) -> str:
    """Return a number as guarantees spell it: k/255 where it is that, or its shortest decimal."""
    text = as_given(x)
    return text if len(text) <= 24 else repr(x)
