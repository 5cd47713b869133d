"""Guarantee files: TOML that names data, two models, a certificate, and what must hold; never evaluated."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from certmix.certification.request.noisy import ENUMERATED
from certmix.certification.request.population import Population
from certmix.certification.request.proved import DeterministicRequest, draws_no_samples
from certmix.certification.request.reading import KINDS
from certmix.certification.request.sampled import CertifyRequest
from certmix.data import DATASETS
from certmix.data.scales import SPREAD
from certmix.errors import CertmixError, ParameterError, one_line
from certmix.files import named, read_file, remedy_of
from certmix.models.composed import paths_changed
from certmix.models.kinds import OUTPUTS
from certmix.models.zoo import zoo_names
from certmix.radii import norms_of
from certmix.radii.counted import EXACT
from certmix.runs.settings import Option, Settings, check_known, fields, settings
from certmix.runs.sources import named_split
from certmix.sampling.devices import AUTO, SAMPLED
from certmix.verification.guarantees.claim import Terms
from certmix.verification.guarantees.requirements import (
    CLASS,
    POPULATION,
    Requirement,
    parse_requirement,
    written,
)

VERSION = 1
LONGEST_TEXT, LONGEST_NAME, LARGEST_FILE, LARGEST_NUMBER = 2000, 200, 1 << 20, 10**12
CERTIFICATE = (
    "name", "alpha", "sigma", "noise", "scale", "norm", "dimension", "radii", "failure_probability",
    "all_at_once", "bound", "bound_method", "arithmetic", "max_radius", "lipschitz_constant", "constant_of",
    "standard_temperature",
)  # fmt: skip
SAMPLING = (
    "samples", "selection_samples", "goal", "settle", "relative_precision", "scores", "score_temperature",
    "gate", "tuned", "seed", "precision", "population",
)  # fmt: skip
"""Keys of the two tables that one request is made from."""


def check_text(value: object) -> str:
    """Return a text that is safe to print and to use as a path; ParameterError for any other."""
    text = str(value)
    if not text.isprintable():
        raise ParameterError(f"{one_line(text)[:80]!r} holds unprintable characters: remove them")
    parts = re.split(r"[/\\]", text)
    if len(text) > LONGEST_TEXT or any(len(part.encode()) > LONGEST_NAME for part in parts):
        raise ParameterError(f"{text[:40]!r}...: the text is too long; shorten the name or the path")
    return text


def _increasing(limits: tuple[float, float]) -> tuple[float, float]:
    if not limits[0] < limits[1]:
        raise ParameterError(f'{list(limits)}: give two increasing numbers such as [0, 1], or "none"')
    return limits


def _digest(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ParameterError("give 64 hexadecimal digits (SHA-256)")
    return value


def _texts(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(check_text, values))


_Text = Annotated[str, Option(check=check_text)]
_OptionalText = Annotated[str | None, Option(check=check_text)]
_Checksum = Annotated[str | None, Option(check=_digest)]


class DataClaim(Settings, frozen=True):
    """The data of a guarantee, as the file names them."""

    name: _Text = "cifar10-sample"
    split: _Text = "test"
    input_range: Annotated[tuple[float, float] | None, Option(check=_increasing)] = (0.0, 1.0)
    resize: int | None = None
    crop: int | None = None
    label_column: _OptionalText = None
    feature_scale: str | tuple[float, ...] | None = None
    checksum: _Checksum = None


class ModelClaim(Settings, frozen=True):
    """One model of a guarantee; a pinned one must have this checksum."""

    model: _Text
    weights: _OptionalText = None
    normalize: _OptionalText = None
    outputs: Annotated[str | None, Option(choices=OUTPUTS)] = None
    checksum: _Checksum = None
    pin: bool = False
    files: Annotated[tuple[str, ...], Option(check=_texts)] = ()


class GroupClaim(Settings, frozen=True):
    """Where a group's names lie: a text, a name a line, or a column of a table, by default the data's."""

    file: _OptionalText = None
    column: _OptionalText = None
    checksum: _Checksum = None

    def check(self) -> None:
        """Refuse a group without a place."""
        if self.file is None and self.column is None:
            raise ParameterError("file: name a file, or a column of the data's table")


@dataclass(frozen=True)
class Guarantee:
    """What a guarantee file says: what must hold, of which data and models, certified by which request.

    `terms` say at which confidence, and of what; `groups` name what requirements divide the inputs by, and
    `budget` is the most samples that a verification may draw.  Paths are relative to the folder of `path`;
    `lines` are those of the requirements in the file.
    """

    requirements: tuple[Requirement, ...]
    data: DataClaim
    standard: ModelClaim | None
    robust: ModelClaim
    request: CertifyRequest | DeterministicRequest
    path: Path = field(default=Path("guarantee.toml"), compare=False)
    terms: Terms = field(default_factory=Terms)
    groups: Mapping[str, GroupClaim] = field(default_factory=dict)
    budget: int | None = None
    lines: Mapping[Requirement, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def most_samples(self) -> int | None:
        """The most samples that all inputs take, None where this file alone does not say how many."""
        request = self.request
        if not isinstance(request, CertifyRequest) or request.inputs == "all":
            return None
        return int(request.inputs) * (request.selection_samples + request.samples)

    @property
    def asked(self) -> CertifyRequest | DeterministicRequest:
        """The request with the radii of all requirements among its columns, so that these are settled."""
        if isinstance(self.request, Population):
            return self.request
        wanted = {r.radius for r in self.requirements if r.radius is not None}
        return self.request.replace(radii=tuple(sorted({*self.request.radii, *wanted})))


# Reading.


def read_guarantee(path: str | Path) -> Guarantee:
    """Return what a guarantee file says; ParameterError, with the line and the remedy, if a line is wrong."""
    path = Path(path)
    try:
        return parse_guarantee(read_file(path, LARGEST_FILE).decode("utf-8-sig"), path)
    except UnicodeDecodeError:
        raise ParameterError(f"{path} is not UTF-8 text: name a guarantee file (TOML)") from None
    except OSError as error:
        told = f"{named(path, error)} cannot be read ({error.strerror})"
        remedy = remedy_of(error, "name a guarantee file or the folder of a run")
        raise ParameterError(f"{told}: {remedy}") from None


class Lines:
    """Where keys and texts stand in a file, as far as a look at its lines can tell."""

    def __init__(self, where: str, text: str) -> None:
        self._where, self.lines = where, text.splitlines()

    def wrong(self, place: int | tuple[str, str] | None, message: str) -> ParameterError:
        """Return the error of a line, of a key in a table, or of the table if it lacks the key."""
        line = place if isinstance(place, int) else None
        if isinstance(place, tuple):
            current, (table, key) = "", place
            for number, row in enumerate(self.lines, 1):
                if header := re.match(r"\s*\[+\s*\"?([^\]\"]*?)\"?\s*\]", row):
                    current = header[1]
                    line = number if current == table else line
                elif current == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", row):
                    line = number
                    break
        where = self._where if line is None else f"{self._where}, line {line}"
        return ParameterError(one_line(f"{where}: {message}"))


TABLES = {
    "data": ("inputs", *DataClaim.__struct_fields__),
    "standard": ModelClaim.__struct_fields__,
    "robust": ModelClaim.__struct_fields__,
    "certificate": CERTIFICATE,
    "sampling": ("budget", *SAMPLING),
    "claim": Terms.__struct_fields__,
}
"""Table -> its keys."""
GROUPS = "groups"
"""The table of tables, one a group."""


def parse_guarantee(content: str, path: str | Path = "guarantee.toml") -> Guarantee:
    """Return what the text of a guarantee file says; see `read_guarantee`."""
    lines = Lines(Path(path).name, content)
    try:
        read = tomllib.loads(content)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise lines.wrong(None, f"not TOML ({reason}): mend this place") from None
    tables = _tables(lines, read)
    version = read.get("version")
    if version != VERSION or version is True:
        told = f"version = {one_line(str(version))[:40]}, this certmix reads {VERSION}: "
        raise lines.wrong(("", "version"), f"{told}write version = {VERSION}, or update certmix")
    if "requirements" not in read:
        raise lines.wrong(None, "no requirements: write for example requirements = ['clean_accuracy >= 0.8']")
    texts, requirements, places = read["requirements"], [], {}
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        told = f"requirements = {one_line(repr(texts))[:40]}: give a list of texts in quotes"
        raise lines.wrong(("", "requirements"), told)
    for text in texts:
        forms = (f'"{text}"', f"'{text}'")
        line = next((n for n, row in enumerate(lines.lines, 1) if any(form in row for form in forms)), None)
        try:
            requirement = parse_requirement(check_text(text))
        except ParameterError as error:
            raise lines.wrong(line or ("", "requirements"), str(error)) from None
        if requirement in requirements:
            raise lines.wrong(line, f"requirement {text!r} stands there twice: remove one")
        requirements.append(requirement)
        if line is not None:
            places[requirement] = line
    named = tables["data"]
    if named.get("input_range") == "none":
        named["input_range"] = None
    inputs, budget = named.pop("inputs", 100), tables["sampling"].pop("budget", None)
    if budget is not None and (type(budget) is not int or not 0 < budget <= LARGEST_NUMBER):
        told = f"budget = {budget!r:.40}: give a whole number of samples, above 0"
        raise lines.wrong(("sampling", "budget"), told)
    data = _values(lines, "data", DataClaim, named)
    standard, robust = (_claim(lines, name, tables.get(name)) for name in ("standard", "robust"))
    if robust is None:
        raise lines.wrong(None, "no table [robust]: name the robust classifier h there")
    request = _request(lines, tables, inputs, requirements)
    if budget is not None and not isinstance(request, CertifyRequest):
        why = f"certificate {getattr(request, 'certificate', '')} draws no samples"
        why = f"{POPULATION} draws inputs times samples at most" if isinstance(request, Population) else why
        told = f"budget = {budget}: {why}; leave it out"
        raise lines.wrong(("sampling", "budget"), told)
    terms = _values(lines, "claim", Terms, tables.get("claim", {}))
    shares = {key: getattr(Terms(), key) for key in ("confidence", "joint", "bounds")}
    for key, usual in shares.items() if isinstance(request, Population) else ():
        if getattr(terms, key) != usual:
            told = f"{key}: the confidence of {POPULATION} is 1 - failure_probability; leave it out"
            raise lines.wrong(("claim", key), told)
    groups = _groups(lines, read.get(GROUPS, {}))
    for one in requirements:
        if one.group not in (None, CLASS, *groups):
            told = f"group {one.group} is unknown: use class, or add a table [{GROUPS}.{one.group}]"
            raise lines.wrong(places.get(one), told)
    for one in requirements if standard is None else ():
        if one.quantity == "clean_accuracy" and one.classifier != "robust":
            told = f"{one.name} needs the standard classifier: add a table [standard], or write "
            raise lines.wrong(places.get(one), f"{told}robust.clean_accuracy")
    return Guarantee(
        tuple(requirements), data, standard, robust, request, Path(path), terms, groups, budget, places
    )


def _groups(lines: Lines, given: Any) -> dict[str, GroupClaim]:
    """Return the groups that a file names."""
    found = {}
    for name, values in (given if isinstance(given, dict) else {"": given}).items():
        table = f"{GROUPS}.{name}"
        if not isinstance(values, dict):
            raise lines.wrong((GROUPS, name), f"a group is a table: write [{GROUPS}.NAME] and its keys below")
        if name in (CLASS, "each") or not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            told = f"group {name[:40]!r}: give it a name of letters and digits, other than class and each"
            raise lines.wrong((table, ""), told)
        for key in values:
            _known(lines, table, key, GroupClaim.__struct_fields__, f"in [{table}]")
        found[name] = _values(lines, table, GroupClaim, values)
    return found


def _known(lines: Lines, table: str, key: str, keys: tuple[str, ...], place: str) -> None:
    """Refuse a key that a table has not."""
    try:
        check_known([key], keys)
    except ParameterError as error:
        told = f"key {key[:40]!r} {place} is unknown: {str(error).rpartition(': ')[2]}"
        raise lines.wrong((table, key), told) from None


def _tables(lines: Lines, content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the tables of a file; those that may be missing are empty."""
    found: dict[str, dict[str, Any]] = {"data": {}, "sampling": {}, "certificate": {}}
    for name, value in content.items():
        if name == GROUPS:
            continue
        if name in TABLES:
            if not isinstance(value, dict):
                told = f"{name} is a table: write [{name}] and its keys below"
                raise lines.wrong(("", name), told)
            for key in value:
                _known(lines, name, key, TABLES[name], f"in [{name}]")
            found[name] = dict(value)
        elif isinstance(value, dict):
            known = ", ".join(f"[{table}]" for table in (*TABLES, GROUPS))
            told = f"table [{name[:40]}] is unknown: use {known}"
            raise lines.wrong((name, ""), told)
        else:
            _known(lines, "", name, ("version", "requirements"), "at the top")
    return found


def _values(lines: Lines, table: str, kind: Any, given: dict[str, Any]) -> Any:
    """Return settings from a table's values; what is wrong with one is said with its line."""
    for one in fields(kind):
        if one.name in given:
            try:
                value = given[one.name]
                if isinstance(value, int | float) and abs(value) > LARGEST_NUMBER:
                    raise ParameterError(f"{one.words} = {value!r:.20}: give a number of at most 10^12")
                one.checked(value)
            except ParameterError as error:
                place = {**dict.fromkeys(SAMPLING, "sampling"), "inputs": "data"}.get(one.name, table)
                told = str(error) if str(error).startswith(one.words) else f"{one.name}: {error}"
                raise lines.wrong((place, one.name), _spelt(told)) from None
    try:
        return settings(kind, given)
    except CertmixError as error:
        message = str(error)
        said = message.lower().replace(" ", "_")
        found = [(name, key) for name, keys in TABLES.items() for key in keys if said.startswith(key)]
        name, key = max(found, key=lambda place: len(place[1]), default=(table, "name"))
        raise lines.wrong((name, key), _spelt(message)) from None


def _spelt(message: str) -> str:
    """Spell options as keys."""
    return re.sub(r"--([a-z][a-z-]*)", lambda option: option[1].replace("-", "_"), message)


def _claim(lines: Lines, name: str, values: dict[str, Any] | None) -> ModelClaim | None:
    if values is None:
        return None
    if "model" not in values or values["model"] in ("none", ""):
        remedy = "name one, or leave the table out" if name == "standard" else "name one"
        raise lines.wrong((name, "model"), f"no model in [{name}]: {remedy}")
    claim: ModelClaim = _values(lines, name, ModelClaim, values)
    if claim.pin and claim.checksum is None:
        told = f"[{name}] is pinned without a checksum: add it, or write pin = false"
        raise lines.wrong((name, "pin"), told)
    return claim


def _request(
    lines: Lines, tables: dict[str, dict[str, Any]], inputs: Any, requirements: Sequence[Requirement]
) -> Any:
    """Return what the tables ask for, with one certificate."""
    given, sampling = dict(tables["certificate"]), dict(tables["sampling"])
    of_population = [one for one in requirements if one.quantity == POPULATION]
    if of_population and len(requirements) > 1:
        told = (
            f"{POPULATION} is one claim, with draws of its own: write a guarantee of this requirement alone"
        )
        raise lines.wrong(("", "requirements"), told)
    if (sampling.get("goal", "population") == "population") != bool(of_population):
        if of_population:
            told = f"{POPULATION} is shown by goal = 'population': leave goal out"
            raise lines.wrong(("sampling", "goal"), told)
        if "goal" in sampling:
            told = f"goal = 'population' shows {POPULATION}@RADIUS >= SHARE: write it in requirements"
            raise lines.wrong(("sampling", "goal"), told)
    name, norm = given.pop("name", "exact"), given.pop("norm", None)
    if "alpha" not in given:
        raise lines.wrong(("certificate", "alpha"), "no alpha in [certificate]: add alpha = 0.76")
    for key, value in (("name", name), ("norm", norm)):
        if value is not None and not isinstance(value, str):
            told = f"{key} = {one_line(repr(value))[:40]}: give a text in quotes"
            raise lines.wrong(("certificate", key), told)
    try:
        level = given.get("sigma", given.get("scale"))
        plain = name == EXACT or draws_no_samples([name], norm, level, given.get("noise"))
    except ParameterError as error:
        key = next((key for key in ("sigma", "norm", "noise") if str(error).startswith(key)), "name")
        raise lines.wrong(("certificate", key), _spelt(str(error))) from None
    kind: Any = KINDS[f"certify-{name}"] if plain else CertifyRequest
    if name == EXACT and (noise := given.get("noise")) in ENUMERATED and norm not in (None, *norms_of(noise)):
        told = f"norm {norm}: {noise} gives radii in {norms_of(noise)[0]}"
        raise lines.wrong(("certificate", "norm"), told)
    if of_population:
        if name != "exact":
            raise lines.wrong(("certificate", "name"), f"certificate {name}: {POPULATION} is of exact alone")
        kind, sampling["goal"] = Population, "population"
        for key in sampling:
            if key not in kind.__struct_fields__:
                raise lines.wrong(("sampling", key), f"{key} is not for {POPULATION}: leave it out")
    for key in given:
        if key not in kind.__struct_fields__:
            told = f"{key} is not for {POPULATION if of_population else f'certificate {name}'}: leave it out"
            raise lines.wrong(("certificate", key), told)
    if plain and sampling.keys() - set(kind.__struct_fields__):
        told = f"[sampling]: certificate {name} draws no samples; leave the table out"
        raise lines.wrong(("sampling", ""), told)
    for key in ("radii", "max_radius"):
        if key in given:
            given[key] = _quotients(given[key])
    if sampling.get("precision") == AUTO:
        told = "precision = 'auto' is another on other machines: name one of " + ", ".join(SAMPLED)
        raise lines.wrong(("sampling", "precision"), told)
    own: dict[str, Any] = (
        {"certificate": name} if plain else {"certificates": (name,), "precision": "fp32", "sigma": None}
    )
    if of_population:
        (asked,) = of_population
        own = {"at_radius": asked.radius, "at_least": asked.threshold, "precision": "fp32", "sigma": None}
    named = {} if norm is None or name == EXACT else {"norm": norm}
    return _values(lines, "certificate", kind, {**own, "inputs": inputs, **named, **given, **sampling})


def _quotients(value: Any) -> Any:
    """Return numbers for quotients in quotes such as "8/255"; anything else as it is."""
    if isinstance(value, list):
        return [_quotients(one) for one in value]
    if isinstance(value, str) and (found := re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)/([1-9]\d{0,8})", value)):
        return float(found[1]) / float(found[2])
    return value


# Writing.


def guarantee_text(
    guarantee: Guarantee, *, remarks: Mapping[Requirement, str] | None = None, heading: str = ""
) -> str:
    """Return the TOML text of a guarantee, which reads back as an equal one, with comments."""
    told = {one: f"  # {remark}" for one, remark in (remarks or {}).items()}
    demands = [f"    {_quoted(str(one))},{told.get(one, '')}" for one in guarantee.requirements]
    request, data = guarantee.request, guarantee.data.as_dict()
    limits = data.pop("input_range") or "none"
    certificate = request.as_dict()
    name = certificate.pop("certificate", None) or getattr(request, "certificates", ("exact",))[0]
    tables = {
        "data": {"name": data.pop("name"), "inputs": request.inputs, "input_range": limits, **data},
        "standard": None if guarantee.standard is None else guarantee.standard.as_dict(),
        "robust": guarantee.robust.as_dict(),
        "certificate": {"name": name} | {key: certificate[key] for key in CERTIFICATE if key in certificate},
        "sampling": {
            **{key: certificate[key] for key in SAMPLING if key in certificate},
            "budget": guarantee.budget,
        },
        "claim": guarantee.terms.as_dict(),
        **{f"{GROUPS}.{name}": one.as_dict() for name, one in guarantee.groups.items()},
    }
    blocks = [
        "\n".join([*(f"# {line}".rstrip() for line in heading.splitlines()), f"version = {VERSION}"]),
        "\n".join(["requirements = [", *demands, "]"]),
    ]
    for table, values in tables.items():
        rows = [f"{key} = {_value(key, v)}" for key, v in (values or {}).items() if v not in (None, ())]
        if rows:
            blocks.append("\n".join([f"[{table}]", *rows]))
    return "\n\n".join(blocks) + "\n"


def _value(key: str, value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(key, one) for one in value)}]"
    if isinstance(value, bool | str):
        return _quoted(value)
    quotient = key in ("radii", "max_radius") and "/" in written(value)
    return _quoted(written(value)) if quotient else repr(value)


_quoted = partial(json.dumps, ensure_ascii=False)  # TOML's basic strings have JSON's escapes


# Paths: relative to the file's folder, whatever the working directory is.


def source_options(guarantee: Guarantee) -> dict[str, Any]:
    """Return the fields of `certmix.runs.sources.Sources`, with paths as seen from the working folder."""
    folder, data = Path(guarantee.path).parent, guarantee.data
    source = DATASETS.get(data.name)
    named = source is not None and source.find is None
    options: dict[str, Any] = {
        "data": data.name if named else paths_changed(data.name, partial(_joined, folder=folder), folder),
        "split": named_split(data.split), "input_range": data.input_range,
        "resize": data.resize, "crop": data.crop, "label_column": data.label_column,
        "feature_scale": _scale(data.feature_scale, partial(_joined, folder=folder)), "standard": None,
    }  # fmt: skip
    for role, claim in (("standard", guarantee.standard), ("robust", guarantee.robust)):
        if claim is not None:
            weights = None if claim.weights is None else _joined(claim.weights, folder)
            files = tuple(_joined(file, folder) for file in claim.files)
            options |= {role: _model(claim.model, folder), f"{role}_weights": weights}
            options |= {f"{role}_normalize": claim.normalize, f"{role}_outputs": claim.outputs}
            options |= {f"{role}_files": files}
    return options


def _scale(given: Any, change: Callable[[str], str]) -> Any:
    """Return feature scales with their path changed, if they are a file's."""
    return change(given) if isinstance(given, str) and given != SPREAD else given


def named_group(text: str, folder: Path) -> tuple[str, GroupClaim]:
    """Return a group from ``NAME=FILE``, ``NAME=FILE#COLUMN`` or ``NAME=#COLUMN``, for a file in a folder."""
    name, equals, place = text.partition("=")
    file, mark, column = place.rpartition("#") if "#" in place else (place, "", "")
    if not (name and equals and (file or column)) or (mark and not column):
        raise ParameterError(f"group {text[:60]!r}: write NAME=FILE, NAME=FILE#COLUMN or NAME=#COLUMN")
    path = _relative(os.path.abspath(file), folder) if file else None
    return name, GroupClaim(path, column or None)


def beside(text: str, guarantee: Guarantee) -> str:
    """Return a path that a guarantee names, as seen from the working folder."""
    return _joined(text, Path(guarantee.path).parent)


def _joined(text: str, folder: Path) -> str:
    path = os.path.normpath(folder / text)
    return path if os.path.isabs(path) or path.startswith("..") else f"./{path}"  # no shipped name


def _model(text: str, folder: Path) -> str:
    """Return a model's spec with its paths, if any, seen from here."""
    shipped = zoo_names()
    return paths_changed(text, lambda path: path if path in shipped else _joined(path, folder), folder)


def relative_claims(
    sources: dict[str, Any], folder: Path
) -> tuple[DataClaim, ModelClaim | None, ModelClaim | None]:
    """Return data, g, and h (None: the shipped one), as a run's sources name them, seen from a folder."""
    limits = sources.get("input_range")
    data = DataClaim(
        paths_changed(sources["data"], partial(_relative, folder=folder)), sources["split"],
        None if limits is None else tuple(limits),
        sources["resize"], sources["crop"], sources.get("label_column"),
        _scale(sources.get("feature_scale"), partial(_relative, folder=folder)),
    )  # fmt: skip
    models: list[ModelClaim | None] = []
    for role in ("standard", "robust"):
        spec, weights, normalize = (sources[f"{role}{what}"] for what in ("", "_weights", "_normalize"))
        named = None if spec is None else paths_changed(spec, lambda path: _relative(path, folder))
        weights = None if weights is None else _relative(weights, folder)
        files = tuple(_relative(file, folder) for file in sources.get(f"{role}_files", ()))
        outputs = sources.get(f"{role}_outputs")
        models.append(ModelClaim(named, weights, normalize, outputs, files=files) if named else None)
    return data, models[0], models[1]


def _relative(text: str, folder: Path) -> str:
    """Return an absolute path as seen from a folder."""
    if not os.path.isabs(text):
        return text
    try:
        return Path(os.path.relpath(text, folder.resolve())).as_posix()
    except ValueError:  # another drive
        return text
