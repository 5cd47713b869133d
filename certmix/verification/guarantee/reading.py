"""Guarantee files: TOML that is parsed and never evaluated; errors name the line."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from certmix.certification.deterministic_request import DeterministicRequest, draws_no_samples
from certmix.certification.request import CertifyRequest
from certmix.errors import CertmixError, ParameterError
from certmix.runs.settings import settings
from certmix.sampling.precision import PRECISIONS
from certmix.verification.guarantee.guarantees import DataClaim, Guarantee, ModelClaim
from certmix.verification.guarantee.requirements import Requirement, parse_requirement
from certmix.verification.guarantee.schema import SCHEMA, Lines, read_table

__all__ = ["VERSION", "parse_guarantee", "read_guarantee"]

VERSION = 1
LARGEST_FILE = 1 << 20
SAMPLED_ONLY = ("failure_probability", "bound")
PLAIN_ONLY = ("bound_method", "max_radius", "lipschitz_constant", "constant_of")


def read_guarantee(path: str | Path) -> Guarantee:
    """Return what a guarantee file says.

    Raises
    ------
    ParameterError
        If it cannot be read or a line in it is wrong: the message names the line and the remedy.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
        if len(raw) > LARGEST_FILE:
            raise ParameterError(f"{path}: larger than 1 MiB, which no guarantee is: name a guarantee file")
        return parse_guarantee(raw.decode("utf-8-sig"), path)
    except UnicodeDecodeError:
        raise ParameterError(f"{path} is not UTF-8 text: name a guarantee file (TOML)") from None
    except OSError as error:
        raise ParameterError(
            f"{path} cannot be read ({error.strerror}): name a guarantee file or the folder of a run"
        ) from None


def parse_guarantee(text: str, path: str | Path = "guarantee.toml") -> Guarantee:
    """Return what the text of a guarantee file says; see `read_guarantee`."""
    lines = Lines(Path(path).name, text)
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise lines.wrong(None, f"not TOML ({reason}): mend this place") from None
    tables = _tables(lines, content)
    top = tables[""]
    if top.get("version") != VERSION:
        raise lines.wrong(
            lines.of_key("", "version"),
            f"version = {top.get('version')}, this certmix reads {VERSION}: write version = {VERSION}, "
            "or update certmix",
        )
    if "requirements" not in top:
        raise lines.wrong(None, "no requirements: write for example requirements = ['clean_accuracy >= 0.8']")
    requirements, places = _requirements(lines, top["requirements"])
    data = dict(tables["data"])
    images = data.pop("images", 100)
    standard, robust = (_model(lines, name, tables.get(name)) for name in ("standard", "robust"))
    if robust is None:
        raise lines.wrong(None, "no table [robust]: name the robust classifier h there")
    request = _request(lines, tables, images)
    if standard is None and (needs := [r for r in requirements if _needs_standard(r)]):
        raise lines.wrong(
            places.get(needs[0]),
            f"{needs[0].name} needs the standard classifier: add a table [standard], or write "
            "robust.clean_accuracy",
        )
    return Guarantee(requirements, DataClaim(**data), standard, robust, request, Path(path), places)


def _needs_standard(requirement: Requirement) -> bool:
    return requirement.quantity == "clean_accuracy" and requirement.classifier != "robust"


def _tables(lines: Lines, content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the values of all tables, each as its key takes it."""
    top = {key: value for key, value in content.items() if key not in SCHEMA or not key}
    loose = [key for key, value in top.items() if isinstance(value, dict)]
    if loose:
        known = ", ".join(f"[{name}]" for name in SCHEMA if name)
        raise lines.wrong(lines.of_key(loose[0], ""), f"table [{loose[0][:40]}] is unknown: use {known}")
    found = {"": read_table(lines, "", top), "data": {}, "sampling": {}, "certificate": {}}
    for name in SCHEMA:
        if not name or name not in content:
            continue
        if not isinstance(content[name], dict):
            raise lines.wrong(lines.of_key("", name), f"{name} is a table: write [{name}] and its keys below")
        found[name] = read_table(lines, name, content[name])
    return found


def _requirements(
    lines: Lines, texts: tuple[str, ...]
) -> tuple[tuple[Requirement, ...], dict[Requirement, int]]:
    found, places = [], {}
    for text in texts:
        line = lines.of_text(text)
        try:
            requirement = parse_requirement(text)
        except ParameterError as error:
            raise lines.wrong(line or lines.of_key("", "requirements"), str(error)) from None
        if requirement in found:
            raise lines.wrong(line, f"requirement {text!r} stands there twice: remove one")
        found.append(requirement)
        if line is not None:
            places[requirement] = line
    return tuple(found), places


def _model(lines: Lines, name: str, values: dict[str, Any] | None) -> ModelClaim | None:
    if values is None:
        return None
    if "model" not in values or values["model"] == "none":
        remedy = "name one, or leave the table out" if name == "standard" else "name one"
        raise lines.wrong(lines.of_key(name, "model"), f"no model in [{name}]: {remedy}")
    claim = ModelClaim(**values)
    if claim.pin and claim.checksum is None:
        raise lines.wrong(
            lines.of_key(name, "pin"), f"[{name}] is pinned without a checksum: add it, or write pin = false"
        )
    return claim


def _request(
    lines: Lines, tables: dict[str, dict[str, Any]], images: Any
) -> CertifyRequest | DeterministicRequest:
    """Return what the tables ask for, with one certificate."""
    given = dict(tables["certificate"])
    name, norm = given.pop("name", "exact"), given.pop("norm", None)
    if "alpha" not in given:
        raise lines.wrong(lines.of_key("certificate", "alpha"), "no alpha in [certificate]: add alpha = 0.76")
    try:
        plain = draws_no_samples([name], norm, given.get("sigma"))
        for key in SAMPLED_ONLY if plain else PLAIN_ONLY:
            if key in given:
                raise ParameterError(f"{key} is not for certificate {name}: leave it out")
        if not plain:
            _check_precision(tables["sampling"].get("precision", "fp32"))
            return CertifyRequest(certificates=(name,), images=images, **given, **tables["sampling"])
        if tables["sampling"]:
            raise ParameterError(f"[sampling]: certificate {name} draws no samples; leave the table out")
        if norm is not None:
            given["norm"] = norm
        return settings(DeterministicRequest, {"certificate": name, "images": images, **given})
    except CertmixError as error:
        raise _located(lines, str(error)) from None


def _check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise ParameterError(f"precision {precision!r} is unknown: use one of {', '.join(PRECISIONS)}")


def _located(lines: Lines, message: str) -> ParameterError:
    """Put the line of the key that a message is about before it, and spell options as keys."""
    said = message.lower().replace(" ", "_")
    places = [(table, key) for table, keys in SCHEMA.items() for key in keys if said.startswith(key)]
    table, key = max(places, key=lambda place: len(place[1]), default=("certificate", "name"))
    if said.startswith("["):
        table, key = message[1 : message.index("]")], ""
    spelt = re.sub(r"--([a-z][a-z-]*)", lambda option: option[1].replace("-", "_"), message)
    return lines.wrong(lines.of_key(table, key), spelt)
