"""A guarantee as the text of its file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from certmix.certification.request import CertifyRequest
from certmix.verification.guarantee.guarantees import Guarantee, ModelClaim
from certmix.verification.guarantee.reading import VERSION
from certmix.verification.guarantee.requirements import Requirement, written

__all__ = ["guarantee_text"]

_RADII = ("radii", "max_radius")


def guarantee_text(
    guarantee: Guarantee, *, remarks: Mapping[Requirement, str] | None = None, heading: str = ""
) -> str:
    """Return the TOML text of a guarantee, which reads back as an equal one.

    Parameters
    ----------
    guarantee
        What to write.
    remarks
        Requirement -> comment on its line.
    heading
        A comment at the top, one line or more.
    """
    remarks = remarks or {}
    demands = [
        f"    {_quoted(str(one))}," + (f"  # {remarks[one]}" if one in remarks else "")
        for one in guarantee.requirements
    ]
    blocks = [
        "\n".join([*(f"# {line}".rstrip() for line in heading.splitlines()), f"version = {VERSION}"]),
        "\n".join(["requirements = [", *demands, "]"]),
        _table("data", _data(guarantee)),
        *([] if guarantee.standard is None else [_table("standard", _model(guarantee.standard))]),
        _table("robust", _model(guarantee.robust)),
        _table("certificate", _certificate(guarantee)),
        *_sampling(guarantee),
    ]
    return "\n\n".join(blocks) + "\n"


def _data(guarantee: Guarantee) -> dict[str, Any]:
    known = dataclasses.asdict(guarantee.data)
    limits = known.pop("input_range")
    return {
        "name": known.pop("name"),
        "images": guarantee.request.images,
        "input_range": "none" if limits is None else list(limits),
        **known,
    }


def _model(claim: ModelClaim) -> dict[str, Any]:
    return dataclasses.asdict(claim)


def _certificate(guarantee: Guarantee) -> dict[str, Any]:
    request = guarantee.request
    if isinstance(request, CertifyRequest):
        name, keys = request.certificates[0], "alpha sigma failure_probability bound radii"
    else:
        name = request.certificate
        keys = "alpha norm radii bound_method max_radius lipschitz_constant constant_of"
    return {"name": name, **{key: getattr(request, key, None) for key in keys.split()}}


def _sampling(guarantee: Guarantee) -> list[str]:
    if not isinstance(guarantee.request, CertifyRequest):
        return []
    keys = "samples selection_samples goal relative_precision scores temperature seed precision"
    return [_table("sampling", {key: getattr(guarantee.request, key) for key in keys.split()})]


def _table(name: str, values: dict[str, Any]) -> str:
    lines = [f"{key} = {_value(key, value)}" for key, value in values.items() if value not in (None, ())]
    return "\n".join([f"[{name}]", *lines])


def _value(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(key, one) for one in value)}]"
    if key in _RADII and "/" in written(value):
        return _quoted(written(value))
    return repr(value)


def _quoted(text: str) -> str:
    """Return a basic string of TOML; JSON's escapes are among its own."""
    return json.dumps(text, ensure_ascii=False)
