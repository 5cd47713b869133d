"""What requests share: columns, rows, options and their checks.  No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from numbers import Real
from typing import Annotated, NamedTuple

from certmix.errors import ParameterError, check_number
from certmix.models.temperature import check_temperature
from certmix.radii import check_alpha
from certmix.runs.settings import Inputs, Option
from certmix.sampling.ballots import LEVELS, level_of

DEFAULT_RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
PENDING = (0.0, 5e-324)
"""Columns that stand for the usual ones until the dimension of inputs is known."""


def meanings(told: Mapping[str, str]) -> str:
    """Return names with what they mean, for an option's help.

    >>> meanings({"a": "the first", "b": "the second"})
    'a: the first; b: the second'
    """
    return "; ".join(f"{name}: {meaning}" for name, meaning in told.items())


def usual_radii(largest: float) -> tuple[float, ...]:
    """Return about seven round numbers, from 0 to the largest radius there can be.

    Examples
    --------
    >>> usual_radii(1.53)
    (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    >>> usual_radii(0.77)
    (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    """
    power = 10.0 ** (math.floor(math.log10(largest)) - 1)
    steps = [k * power for k in (50, 25, 20, 10, 5, 2.5, 2)]
    step = min(steps, key=lambda step: abs(math.floor(largest / step) - 6))
    return tuple(float(f"{k * step:.9g}") for k in range(math.floor(largest / step) + 1))


def whole_radii(largest: float) -> tuple[float, ...]:
    """Return about seven whole numbers, from 1 to the largest radius there can be.

    Examples
    --------
    >>> whole_radii(9)
    (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
    """
    step = max(1, math.ceil(largest / 10))
    return tuple(float(k) for k in range(1, max(1, int(largest)) + 1) if step == 1 or k % step == 0 or k == 1)


def checked_radii(radii: Iterable[float]) -> tuple[float, ...]:
    """Return the radii of a table as floats, finite numbers of at least 0 that increase; ParameterError."""
    given = tuple(radii)
    if not given or any(not (isinstance(r, Real) and r >= 0 and math.isfinite(r)) for r in given):
        raise ParameterError(f"radii = {list(given)}: give at least one finite radius >= 0")
    if any(b <= a for a, b in pairwise(given)):
        raise ParameterError(f"radii = {list(given)}: they must increase")
    return tuple(map(float, given))


Alpha = Annotated[float, Option("Mixing weight of the robust classifier, 0.5 to 1.", check=check_alpha)]
Sampled = Annotated[Inputs, Option("How many inputs, spread over the data.", metavar="N|all")]
StandardTemperature = Annotated[
    float,
    Option(
        "Divides g's logits; 0 takes its most probable class alone.", example="0.5", check=check_temperature
    ),
]  # fmt: skip
Radii = Annotated[
    tuple[float, ...],
    Option(
        "Columns of the table.", check=checked_radii,
        shown="0 to the largest that --samples can certify; 0 to 8/255 in linf",
    ),
]  # fmt: skip


class Row(NamedTuple):
    """A row of the table: ``robust`` is h alone, ``mixed`` its mix at `alpha`, ``gated`` the tuned mix.

    h counts votes behind `gate`, and g is at `temperature`, the standard one.
    """

    classifier: str
    certificate: str
    alpha: float
    gate: float = 0.0
    temperature: float = 1.0


def checked_gate(gate: float) -> float:
    """Return a gate as a quotient of whole numbers, so that equal ones are equal."""
    return level_of(gate) / LEVELS


def check_seed(seed: int) -> None:
    """Refuse what is no key of noise."""
    if not 0 <= seed < 2**64:
        raise ParameterError(f"seed = {seed}: it must be a whole number from 0 to 2^64 - 1")


def check_batch_size(batch_size: int | None) -> int | None:
    """Return the number of inputs in a batch, which must hold some; None leaves it to the device."""
    if batch_size is not None:
        check_number("batch size", batch_size)
    if batch_size is not None and batch_size < 1:
        raise ParameterError(f"batch size = {batch_size}: at least 1 is needed, or leave it out")
    return None if batch_size is None else int(batch_size)
