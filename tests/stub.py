"""Types of the public names, for editors and mypy: ``python tests/stub.py`` writes ``certmix/__init__.pyi``."""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path

import certmix
from certmix import api
from certmix.certification.request.population import Population
from certmix.certification.request.proved import Enumerated, GivenConstant, Margin
from certmix.certification.request.sampled import GOALS, CertifyRequest
from certmix.runs.sources import OF_STANDARD

WIDTH = 105
PATH = Path(certmix.__file__).with_suffix(".pyi")
TYPED = ("assert_certified", "certify", *api.__all__)
"""Functions that take settings as keywords: their signatures come from the fields."""
IMPORTS = """\
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from os import PathLike
from pathlib import Path
from typing import Literal, overload

from torch import nn

from certmix.api import Run
from certmix.assurance.pack import Evidence as Evidence
from certmix.certification.evaluate import CertifyResult as CertifyResult
from certmix.certification.population import PopulationResult
from certmix.certification.reproduce import Reproduction
from certmix.errors import CertmixWarning as CertmixWarning
from certmix.models.mixture import MixedClassifier as MixedClassifier
from certmix.models.smoothed import SmoothedClassifier as SmoothedClassifier
from certmix.models.smoothed import SmoothedMixture as SmoothedMixture
from certmix.radii import certify_radii as certify_radii
from certmix.radii import exact_radius as exact_radius
from certmix.radii import lipschitz_radius as lipschitz_radius
from certmix.radii import smoothing_radius as smoothing_radius
from certmix.runs.cells import Progress
from certmix.runs.sources import Data, Models
from certmix.studies.study import StudyResult as StudyResult
from certmix.tables.trade_off import TradeOff as TradeOff
from certmix.verification.falsify.falsify import Falsification as Falsification
from certmix.verification.guarantees.guarantee import Guarantee
from certmix.verification.verify import Verification as Verification
"""


def written(value: object) -> str:
    """Return a default, or ``...`` where it is no plain value."""
    if isinstance(value, tuple):
        return f"({', '.join(map(written, value))}{',' * (len(value) == 1)})"
    return json.dumps(value) if isinstance(value, str) else repr(value) if type(value) in PLAIN else "..."


PLAIN = (int, float, bool, type(None))


def annotation(hint: object) -> str:
    """Return a type by its bare names."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " | ".join(map(annotation, typing.get_args(hint)))
    if typing.get_origin(hint) is typing.Literal:
        return f"Literal[{', '.join(map(written, typing.get_args(hint)))}]"
    text = (
        "None"
        if hint is types.NoneType
        else hint
        if isinstance(hint, str)
        else inspect.formatannotation(hint)
    )
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", str(text).replace("torch.nn.", "nn!")).replace(
        "nn!", "nn."
    )


def signature(name: str, leave: Iterable[str] = (), returned: str = "", **own: str) -> str:
    """Return a function's stub, without the parameters to leave; `own` are other types and defaults."""
    function: Callable[..., typing.Any] = getattr(certmix, name)
    lines, star = [], False
    for one in inspect.signature(function).parameters.values():
        if one.name in leave:
            continue
        if one.kind is one.KEYWORD_ONLY and not star:
            star = bool(lines.append("*,")) or True
        if one.name in own:
            lines.append(f"{one.name}: {own[one.name]},")
            continue
        default = "" if one.default is one.empty else f" = {written(one.default)}"
        lines.append(f"{one.name}: {annotation(one.annotation)}{default},")
    returned = returned or annotation(inspect.signature(function).return_annotation)
    return f"def {name}(\n{filled(lines)}\n) -> {returned}: ..."


def filled(parts: Iterable[str]) -> str:
    """Return indented lines that hold as many of the parts each as there is room for."""
    lines = [""]
    for part in parts:
        if len(lines[-1]) + len(part) > WIDTH:
            lines.append("")
        lines[-1] += f" {part}" if lines[-1] else f"    {part}"
    return "\n".join(lines)


def certify() -> str:
    """Return the stub of `certmix.certify`: what it returns follows from the goal."""
    kinds = (CertifyRequest, Margin, GivenConstant, Enumerated)
    others = {name for kind in kinds for name in kind.__struct_fields__} - {*Population.__struct_fields__}
    goals = ", ".join(f'"{goal}"' for goal in GOALS if goal != "population")
    claim = signature(
        "certify", {*others, *OF_STANDARD, "compiled", "shard", "certificates", "patch"},
        "PopulationResult", goal='Literal["population"]',
    )  # fmt: skip
    table = signature("certify", Population.only(), "CertifyResult", goal=f"Literal[{goals}] | None = None")
    return f"@overload\n{claim}\n@overload\n{table}"


def text() -> str:
    """Return the stub."""
    names = filled(f'"{name}",' for name in sorted(certmix.__all__))
    head = '# fmt: off\n"""Written by tests/stub.py from the fields of settings."""'
    return "\n".join(
        [
            head,
            "",
            IMPORTS,
            f"__all__ = [\n{names}\n]\n",
            *(certify() if name == "certify" else signature(name) for name in TYPED),
            "",
        ]
    )


if __name__ == "__main__":
    PATH.write_text(text())
