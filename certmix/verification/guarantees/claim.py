"""What a guarantee claims: of which inputs, in which units, and with which probability it may be wrong.

The proofs are in docs/proofs-guarantees.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Annotated, Any

from certmix.certification.request.population import POPULATIONS, Population
from certmix.data.scales import about_scale, scaled_norm
from certmix.errors import ParameterError
from certmix.runs.settings import Count, Option, Settings, Share
from certmix.tables.words import PATCH
from certmix.text import plain_decimal
from certmix.types import Dataset
from certmix.verification.guarantees.requirements import SIDES, Requirement

JOINT = {
    "split": "all lower bounds hold together",
    "verdict": "a file with a false requirement passes at most so often, requirements being fixed beforehand",
}
"""What the confidence of a file is of, by name: of its bounds, which share it, or of its verdict alone."""
UNIT = "the values of an input"


def _printable(text: str) -> str:
    if not text.isprintable() or len(text) > 2000:
        raise ParameterError(f"{text[:40]!r}: give a text of one line, of at most 2,000 characters")
    return text


class Terms(Settings, frozen=True):
    """At which confidence a guarantee claims what it does, and of what, in its author's words.

    `bounds` is the least number of lower bounds that share the confidence: those that were looked at when the
    requirements were chosen.  `unit` is what radii count, `domain` where inputs come from.
    """

    confidence: Annotated[Share, Option("Of all lower bounds of the file together.", example="0.95")] = 0.95
    joint: Annotated[str, Option(choices=JOINT)] = "split"
    bounds: Count = 1
    unit: Annotated[
        str | None, Option("What radii count, in words: grey levels of 1, kelvin.", check=_printable)
    ] = None
    domain: Annotated[
        str | None, Option("Where inputs come from, in words, for every report.", check=_printable)
    ] = None

    def sharing(self, requirements: Iterable[Requirement]) -> int:
        """Return how many lower bounds share the confidence; two thresholds of one figure have one bound."""
        held = {one.name for one in requirements if one.side == SIDES[0]}
        return max(len(held), self.bounds) if self.joint == "split" and held else min(1, len(held))

    def missed(self, bounds: int) -> float:
        """Return the failure probability of each of so many bounds."""
        return float((1 - Fraction(repr(self.confidence))) / max(bounds, 1))


@dataclass(frozen=True)
class Claim:
    """The terms of a verdict: numbers, and sentences that say what certificates are about.

    `bounds` lower bounds fail with probability `missed` each; `failure_probability` is that of one input's
    certificate, 0 without samples, and `together` that of all of a table, None where it was not asked for.
    """

    confidence: float
    joint: str
    bounds: int
    missed: float
    failure_probability: float
    together: float | None
    population: str
    inputs: str
    preprocessing: str
    norm: str
    unit: str
    domain: str | None = None
    share_of: str | None = None
    """Whose share is claimed, where nothing is claimed of any one input."""

    @classmethod
    def of(cls, terms: Terms, bounds: int, request: Any, dataset: Dataset, norms: dict[str, str]) -> Claim:
        """Return what is claimed of a data set; `norms` say how each model scales its inputs, by role."""
        delta, share_of = getattr(request, "failure_probability", 0.0), None
        if isinstance(request, Population):
            terms, share_of = terms.replace(confidence=1 - delta), POPULATIONS[request.population]
        together, inputs = getattr(request, "all_at_once", False), request.inputs
        taken = len(dataset) if inputs == "all" else min(int(inputs), len(dataset))
        shape, limits = "x".join(map(str, dataset.read(0).shape)), dataset.input_range
        own = getattr(dataset.read, "dtype", None)
        values = "of any size" if limits is None else f"in [{limits[0]:g}, {limits[1]:g}]"
        done = [
            f"{name} {dataset.settings[name]}" for name in ("resize", "crop") if dataset.settings.get(name)
        ]
        if str(own) == "uint8":
            done.append("8-bit values divided by 255")
        done += [f"{role}, inside: {text}" for role, text in norms.items()]
        at = [r for r in getattr(request, "radii", ()) if r > 0]
        scales = about_scale(dataset.settings, at, norm=getattr(request, "norm", "l2"))
        request_norm = getattr(request, "norm", "l2")
        norm = scales.get("norm", request_norm)
        counted = "pixels" if len(dataset.read(0).shape) == 3 else "values"
        unit = terms.unit or {"l0": counted, PATCH: "pixels a side"}.get(norm, UNIT)
        if norm == scaled_norm(request_norm):
            unit = f"feature scales. {scales['notes'][0]}"
        return cls(
            terms.confidence, terms.joint, bounds, terms.missed(bounds),
            getattr(request, "of_one_input", delta), delta if together else None,
            f"{taken:,} of {len(dataset):,} inputs of {dataset.name}, {dataset.split}",
            f"{shape} numbers {values}", "; ".join(done) or "none", norm, unit, terms.domain, share_of,
        )  # fmt: skip

    def sentences(self) -> list[str]:
        """Return what every output says, one line each."""
        each = f"{plain_decimal(100 * self.confidence)} %"
        if not self.bounds:
            told = "none: no lower bound is held against a threshold"
        elif self.joint == "verdict":
            told = (
                f"{each}: a false requirement lets the file pass with probability {1 - self.confidence:.3g}"
            )
        else:
            told = f"{each} that all lower bounds hold together"
            told += (
                f": {self.bounds}, each wrong with probability {self.missed:.3g}" if self.bounds > 1 else ""
            )
        if self.share_of is not None:
            certificates = f"none of any one input: the claim is of a share, of {self.share_of}"
        elif self.failure_probability == 0:
            certificates = "proved without samples"
        elif self.together is None:
            certificates = f"each false with probability at most {plain_decimal(self.failure_probability)}"
        else:
            certificates = (
                f"all inputs' at once, but for probability {plain_decimal(self.together)} "
                f"({self.failure_probability:.3g} each)"
            )
        given_up = "" if self.share_of else "; lower bounds of certified figures give that up"
        domain = "" if self.domain is None else f"; the population, as stated: {self.domain}"
        return [
            f"confidence: {told}",
            f"certificates: {certificates}{given_up}",
            f"of: {self.population}{domain}",
            f"inputs: {self.inputs}; preprocessing: {self.preprocessing}",
            f"radii: {self.norm}, in units of {self.unit}",
        ]

    def worded(self, change: Callable[[str], str]) -> Claim:
        """Return the claim with its texts changed."""
        texts = {name: change(told) for name, told in asdict(self).items() if isinstance(told, str)}
        return replace(self, **texts)  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)
