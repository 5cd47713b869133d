"""``nuts.json``: a nonlinear mix as a text, written whole and read with suspicion.  No torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from certmix.atomic import write_atomically
from certmix.errors import ModelError, ParameterError
from certmix.models.zoo import read_bytes
from certmix.nuts.description import FitFacts, MixSettings, ModelReference, NutsDescription, TuningImages
from certmix.nuts.grid import Grid, TransformSettings
from certmix.plain_json import parse_json

__all__ = ["FILE", "read_nuts", "write_nuts"]

FILE = "nuts.json"
FORMAT_VERSION = 2
"""1 had the population's variance in LN: its numbers mean another transform."""


def write_nuts(folder: Path, description: NutsDescription) -> None:
    """Write ``nuts.json`` whole or not at all, a line a key.

    Raises
    ------
    RunError
        If it cannot be written.
    """
    plain = {"format_version": FORMAT_VERSION, **description.settings.as_dict()}
    for name in ("standard", "robust", "fit", "tuning"):
        value = getattr(description, name)
        plain[name] = None if value is None else asdict(value)
    lines = (
        f"  {json.dumps(key)}: {json.dumps(value, allow_nan=False, default=_number_of)}"
        for key, value in plain.items()
    )
    write_atomically(Path(folder) / FILE, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def _number_of(value: Any) -> Any:
    """Return the plain number behind numpy's."""
    return value.item()


def read_nuts(folder: Path) -> NutsDescription:
    """Read ``nuts.json``; no model is loaded and no code runs.

    Raises
    ------
    ModelError
        If it is missing, not what `write_nuts` writes, of a newer format, or
        a value is out of range.
    """
    path = Path(folder) / FILE
    text = read_bytes(path, f"name a folder that holds {FILE}")
    try:
        plain = parse_json(text)
    except ValueError:
        raise ModelError(f"{path} is not JSON: restore it, or save the mix again") from None
    try:
        return _description(plain)
    except ParameterError as error:
        raise ModelError(f"{path}: {error}") from None
    except OverflowError:
        raise ModelError(f"{path} holds a number beyond float64: save the mix again") from None


def _description(plain: Any) -> NutsDescription:
    if not isinstance(plain, dict) or "format_version" not in plain:
        raise ParameterError("no format version: name a file that certmix wrote")
    version = plain["format_version"]
    if isinstance(version, bool) or version != FORMAT_VERSION:
        remedy = "fit again, its LN was another" if version in (0, 1) else "update certmix"
        found = f"format version {json.dumps(version)[:20]}"
        raise ParameterError(f"{found}, this certmix reads {FORMAT_VERSION}: {remedy}")
    parts = _take(plain, _FILE, "the file")
    numbers = {name: parts.pop(name) for name in _NUMBERS}
    transform = TransformSettings(**{one.name: numbers.pop(one.name) for one in fields(TransformSettings)})
    parts.pop("format_version")
    return NutsDescription(MixSettings(transform, **numbers), **parts)


def _take(plain: Any, kinds: Mapping[str, Callable[[str, Any], Any]], where: str) -> dict[str, Any]:
    """Return the converted values of a JSON object whose keys must be exactly these."""
    if not isinstance(plain, dict):
        raise ParameterError(f"{where} is {_shown(plain)}, not an object: save the mix again")
    for verb, names in (("lacks", kinds.keys() - plain.keys()), ("has unknown", plain.keys() - kinds.keys())):
        if names:
            named = ", ".join(
                name[:40] if name.isprintable() else ascii(name)[:40] for name in sorted(names)[:3]
            )
            raise ParameterError(f"{where} {verb} {named}: save the mix again")
    return {name: kind(name, plain[name]) for name, kind in kinds.items()}


def _typed(convert: Callable[[Any], Any], what: str, *types: type) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> Any:
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise ParameterError(f"{name} is {_shown(value)}: {what} is needed")
        return convert(value)

    return check


def _or_none(kind: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda name, value: None if value is None else kind(name, value)


def _list_of(kind: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    each = _typed(list, "a list", list)
    return lambda name, value: tuple(kind(name, one) for one in each(name, value))


def _made(cls: Any, **kinds: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda name, value: cls(**_take(value, kinds, name))


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _text(name: str, value: Any) -> str:
    text = str(_any_text(name, value))
    if len(f"{text}.".splitlines()) > 1:
        raise ParameterError(f"{name} is {_shown(text)}: a text of one line is needed")
    return text


_number = _typed(float, "a number", int, float)
_count = _typed(int, "a whole number", int)
_any_text = _typed(str, "a text", str)
_flag = _typed(bool, "true or false", bool)
_numbers = _list_of(_number)
_model = _made(
    ModelReference, spec=_text, weights=_or_none(_text), normalize=_or_none(_text), checksum=_text,
    files=_list_of(_text),
)  # fmt: skip

_NUMBERS = {
    "s": _number, "p": _number, "c": _number, "clamp": _text, "top_k": _or_none(_count),
    "alpha": _number, "temperature": _number, "alpha_d": _or_none(_number), "r_d": _number,
}  # fmt: skip

_FILE = {
    "format_version": _count,
    **_NUMBERS,
    "standard": _model,
    "robust": _model,
    "fit": _or_none(
        _made(
            FitFacts, beta=_number, quantile=_text, margin_threshold=_number, objective=_number,
            constraint_share=_number, ties=_count, on_edge=_list_of(_text), conditional=_flag,
            images=_count, clean_wrong=_count, attacked_right=_count,
            grid=_made(Grid, s=_numbers, p=_numbers, c=_numbers),
        )
    ),
    "tuning": _or_none(
        _made(
            TuningImages, data=_text, split=_text, checksum=_text, indices=_list_of(_count),
            attack=_typed(dict, "an object", dict),
        )
    ),
}  # fmt: skip
