"""Settings declared once: readers, options, help and repeated commands follow from the fields.  No torch."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, TypeVar, overload

import msgspec
from msgspec import Meta

from certmix.errors import ParameterError
from certmix.text import as_given

DERIVED: Any = None
"""Default of a field that follows from other fields: `Settings.usual` gives it."""


@dataclass(frozen=True)
class Option:
    """What the command line and error messages say of a field, in its `Annotated`.

    `choices` is a table whose names are the values allowed, or a function that returns it; `example` a good
    value for error messages; `flag` the option's name where it is not the field's; `shown` the default in
    words, `metavar` what stands for the value in the help.  `parse` takes the command line's text to the
    value, where its type does not say how, `read` any usual spelling to the value, and `check` a value of the
    right type to the value to keep, or raises ParameterError.
    """

    help: str = ""
    choices: Iterable[str] | Callable[[], Iterable[str]] = ()
    example: str = ""
    flag: str | None = None
    shown: str | None = None
    metavar: str | None = None
    parse: Callable[[str], Any] | None = None
    read: Callable[[Any], Any] | None = None
    check: Callable[[Any], Any] | None = None


Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(gt=0, lt=1)]
Count = Annotated[int, Meta(ge=1)]
Inputs = Annotated[int, Meta(ge=1)] | Literal["all"]


@dataclass(frozen=True)
class Field:
    """A field of settings, as `fields` reads it off the class."""

    name: str
    hint: Any
    default: Any
    required: bool
    option: Option
    kinds: tuple[Any, ...]
    """The types that a value may have, without None."""

    @property
    def flag(self) -> str:
        """Its option."""
        return f"--{(self.option.flag or self.name).replace('_', '-')}"

    @property
    def words(self) -> str:
        """Its name in a sentence."""
        return (self.option.flag or self.name).replace("_", " ").replace("-", " ")

    @property
    def plain(self) -> Any:
        """Its type without ranges."""
        return _bare(self.kinds[0])

    @property
    def several(self) -> bool:
        """Whether any number of values may be given."""
        return self.plain is not None and typing.get_args(self.plain)[1:] == (...,)

    @property
    def each(self) -> bool:
        """Whether its option is repeated, once for each value."""
        return bool(self.plain == tuple[str, ...])

    @property
    def names(self) -> tuple[str, ...]:
        """The values allowed, where they are names."""
        table = self.option.choices() if callable(self.option.choices) else self.option.choices
        literal = [v for kind in self.kinds for v in typing.get_args(kind) if isinstance(v, str)]
        return (*table, *literal)

    def checked(self, value: Any) -> Any:
        """Return a value in the field's own type; ParameterError, in one line, for any other."""
        foreign = any(isinstance(kind, type) and kind.__module__ != "builtins" for kind in self.kinds)
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        if foreign and not isinstance(value, str | int | float | dict | None):
            return value  # an object, such as a torch module: whoever takes it says whether it will do
        value = _plain(value)
        if self.option.read is not None:
            value = self.option.read(value)
        if self.several and isinstance(value, str | int | float) and not isinstance(value, bool):
            value = (value,)
        hint = self.hint if not foreign else (str | None if self.takes_none else str)
        parts = value if isinstance(value, tuple) else (value,)
        choices = self.names if self.option.choices else ()
        unknown = [part for part in parts if choices and part is not None and part not in choices]
        if unknown or (choices and not parts):
            wrong = (
                f"{self.words} {_shown(unknown[0])} is unknown" if unknown else f"no {self.words} was given"
            )
            raise ParameterError(f"{wrong}: use one of {', '.join(choices)}")
        try:
            value = msgspec.convert(value, hint)
        except (msgspec.ValidationError, UnicodeEncodeError):
            raise ParameterError(self._refusal(value)) from None
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, float) and not math.isfinite(part):
                raise ParameterError(self._refusal(part))
            if isinstance(part, str) and len(f"{part}.".splitlines()) > 1:
                raise ParameterError(f"{self.words} = {_shown(part)}: a text of one line is needed")
        return value if self.option.check is None or value is None else self.option.check(value)

    @property
    def derived(self) -> bool:
        """Whether its default follows from other fields."""
        return self.default is None and not (self.required or self.takes_none)

    @property
    def takes_none(self) -> bool:
        """Whether None is a value of its own."""
        return types.NoneType in typing.get_args(self.hint)

    @property
    def taken(self) -> Any:
        """The type of what is taken for it from Python."""
        found = None if self.derived or self.takes_none else ()
        for bare in map(_bare, self.kinds):
            if self.several and bare == self.plain:
                one: Any = typing.get_args(bare)[0]
                bare = one | Sequence[one]
            elif self.option.read is not None:
                bare = str | float
            elif bare is str and not self.option.choices:
                bare = str | os.PathLike[str]
            found = bare if found == () else bare | found
        return found

    def _refusal(self, value: Any) -> str:
        """Return what is wrong with a value: its type or its range, and what would do."""
        words = " = ".join((self.words, _shown(value)))
        example = f", such as {self.option.example}" if self.option.example else ""
        names = "".join(f", or {name!r}" for name in self.names)
        if self.plain not in (int, float):
            inner = {float: "numbers", str: "texts"}.get((*typing.get_args(self.plain), None)[0], "values")
            kind = {str: "a text", bool: "true or false"}.get(self.plain, f"a list of {inner}")
            wanted = f"use one of {', '.join(self.names)}" if names else f"give {kind}"
            return f"{words}: {wanted}{example}"
        odd = isinstance(value, bool) or not isinstance(value, int | float)
        kind = "number" if self.plain is float else "whole number"
        if not odd and isinstance(value, float) and not math.isfinite(value):
            kind = f"finite {kind}"
        metas = [meta for meta in getattr(self.kinds[0], "__metadata__", ()) if isinstance(meta, Meta)]
        span = "".join(map(_span, metas))
        told = f" is of type {type(value).__name__}" if odd else ""
        return f"{words}{told}: give a {kind}{span}{names}{example or (', such as 0.5' if odd else '')}"


def _bare(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def _span(meta: Meta) -> str:
    """Return a range in words."""
    if meta.gt is not None and meta.lt is not None:
        return f" strictly between {meta.gt:g} and {meta.lt:g}"
    if meta.ge is not None and meta.le is not None:
        return f" from {meta.ge:g} to {meta.le:g}"
    return f" above {meta.gt:g}" if meta.gt is not None else f" of at least {meta.ge:g}"


@functools.cache
def fields(kind: type[Settings]) -> tuple[Field, ...]:
    """Return the fields of settings in their order."""
    hints, found = typing.get_type_hints(kind, include_extras=True), []
    for one in msgspec.structs.fields(kind):
        hint, option = hints[one.name], Option()
        if typing.get_origin(hint) is Annotated:
            option = next((m for m in hint.__metadata__ if isinstance(m, Option)), option)
            ranges = [m for m in hint.__metadata__ if isinstance(m, Meta)]
            hint = typing.get_args(hint)[0]
            hint = Annotated[(hint, *ranges)] if ranges else hint
        union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        kinds = tuple(k for k in (typing.get_args(hint) if union else (hint,)) if k is not types.NoneType)
        default = None if one.required else one.default
        found.append(Field(one.name, hint, default, one.required, option, kinds))
    return tuple(found)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every request: typed, checked when it is made, readable from JSON, TOML and the command line.

    Values of other libraries, single values for tuples and lists are taken; everything else of another type,
    or out of range, is refused in one line.
    """

    def __post_init__(self) -> None:
        for field in fields(type(self)):
            value = getattr(self, field.name)
            if value is None and field.derived:
                value = self.usual(field.name)
            msgspec.structs.force_setattr(self, field.name, field.checked(value))
        self.check()

    def usual(self, name: str) -> Any:
        """Return the default of a field that is `DERIVED`, from fields before it."""
        raise NotImplementedError(name)

    def check(self) -> None:
        """Refuse values that contradict each other: ParameterError."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return msgspec.structs.asdict(self)

    def replace(self, **changes: Any) -> typing.Self:
        """Return the same settings but for some values."""
        return msgspec.structs.replace(self, **changes)


def too_many_inputs(asked: Any, there: int, usual: int | None = None) -> str:
    """Return a warning where more inputs were asked for, not by default, than there are; "" elsewhere."""
    kind: type[Settings] = type(asked)
    usual = usual or next(field.default for field in fields(kind) if field.name == "inputs")
    if asked.inputs in ("all", usual) or asked.inputs <= there:
        return ""
    return f"{asked.inputs} inputs asked for, there are {there}: all are used"


S = TypeVar("S", bound=Settings)
F = TypeVar("F", bound=Callable[..., Any])


@overload
def settings(kind: type[S], given: Any) -> S: ...
@overload
def settings(kind: types.UnionType, given: Any) -> Any: ...
def settings(kind: Any, given: Any) -> Any:
    """Return settings from plain data, such as a JSON object, a TOML table or keywords.

    Of a union, those whose fields of one value are as given.  ParameterError, in one line, for unknown names,
    missing and wrong values.
    """
    if not isinstance(given, Mapping):
        raise ParameterError(f"{_shown(given)} stands where settings by name are expected")
    if isinstance(kind, types.UnionType):
        marks = {one: next(f for f in fields(one) if len(f.names) == 1) for one in typing.get_args(kind)}
        name = next(iter(marks.values())).name
        known = {mark.default: one for one, mark in marks.items()}
        if given.get(name) not in known:
            raise ParameterError(f"{name} {_shown(given.get(name))}: use {' or '.join(known)}")
        kind = known[given[name]]
    check_known(given, [field.name for field in fields(kind)])
    for field in fields(kind):
        if field.required and field.name not in given:
            such = f", such as {field.option.example}" if field.option.example else ""
            raise ParameterError(f"no {field.words} is given: add {field.name}{such}")
    return kind(**given)


def from_json(kind: Any, stored: Any) -> Any:
    """Return settings that a file holds, as `settings` does; TypeError, in one line, if it holds none."""
    try:
        return settings(kind, stored)
    except ParameterError as error:
        raise TypeError(f"good settings ({error})") from None


def check_known(names: Iterable[Any], known: Iterable[str], where: str = "") -> None:
    """Refuse names that are not known, with the one that was probably meant: ParameterError."""
    known = list(known)
    unknown = [str(name) for name in names if name not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0].replace("images", "inputs"), known, 1)
        hint = f"did you mean {near[0]}?" if near else "leave it out"
        see = f" (see {where})" if where else ""
        raise ParameterError(f"unknown options: {', '.join(map(_cut, unknown))}: {hint}{see}")


def arguments(made: Settings) -> list[str]:
    """Return the options that ask for these settings again, without values that are as by default."""
    words: list[str] = []
    for field in fields(type(made)):
        value = getattr(made, field.name)
        usual = field.default
        if field.derived:
            with suppress(ParameterError):  # it has no usual value
                usual = made.usual(field.name)
        if value is None and (usual is None or field.required):
            continue
        marks = len(field.names) == 1 and not field.option.choices  # which of several settings they are
        if value == usual and not field.required and not marks:
            continue
        if value is True:
            words.append(field.flag)
        elif field.each:
            words += [word for one in value for word in (field.flag, one)]
        else:
            words += [field.flag, written(value)]
    return words


def refuse(given: Mapping[str, Any], names: Iterable[str], why: str) -> None:
    """Refuse settings that were given, though they would have no effect; `why` says what they are for.

    A remedy that comes first ends in "or": "is of the mix: add --alpha, or".
    """
    for name in names:
        if name in given:
            colon = "" if why.endswith(" or") else ":"
            raise ParameterError(f"{name} = {_shown(given[name])} {why}{colon} leave it out")


def divide(given: dict[str, Any], *kinds: type[Settings]) -> list[dict[str, Any]]:
    """Take from `given` what belongs to each of the settings."""
    return [{name: given.pop(name) for name in kind.__struct_fields__ if name in given} for kind in kinds]


def written(value: Any) -> str:
    """Return a value as the command line takes it."""
    parts = value if isinstance(value, tuple) else ("none" if value is None else value,)
    return ",".join(as_given(part) if isinstance(part, float) else str(part) for part in parts)


def takes(
    *sources: Any, leave: Iterable[str] = (), usual: Mapping[str, Any] = types.MappingProxyType({})
) -> Callable[[F], F]:
    """Give a function that takes settings as ``**options`` their fields, but those to `leave`, as keywords.

    `sources` are settings, and functions whose keywords it takes as well; what comes first stands.  A default
    that is not the same in all settings is None: it follows from other values.  `usual` are other defaults.
    """

    def decorate(function: F) -> F:
        parameters = inspect.signature(function).parameters.values()
        own = [one for one in parameters if one.kind is not inspect.Parameter.VAR_KEYWORD]
        taken, found = {*leave, *(one.name for one in own)}, dict[str, inspect.Parameter]()
        for source in sources:
            if not isinstance(source, type):
                more = inspect.signature(source).parameters.values()
                found |= {p.name: p for p in more if p.kind is inspect.Parameter.KEYWORD_ONLY}
                taken |= found.keys()
        for field in (field for source in sources if isinstance(source, type) for field in fields(source)):
            if field.name in taken:
                continue
            if field.name not in found:
                hint = field.taken | None if field.required else field.taken
                found[field.name] = inspect.Parameter(
                    field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hint
                )
            elif found[field.name].default != field.default:
                annotation = found[field.name].annotation | None
                found[field.name] = found[field.name].replace(default=None, annotation=annotation)
        for name, value in usual.items():
            hint = found[name].annotation
            found[name] = found[name].replace(
                default=value, annotation=hint | None if value is None else hint
            )
        signature = inspect.signature(function).replace(parameters=[*own, *found.values()])
        function.__signature__ = signature  # type: ignore[attr-defined]
        return function

    return decorate


_NORMS = {"inf": "linf", "infinity": "linf", "\u221e": "linf", "2": "l2", "1": "l1"}


def norm_name(norm: Any) -> Any:
    """Return a norm's name as certmix spells it, of L2, 2, l_1, inf ...; what is none stays as it is."""
    if not isinstance(norm, str | Real):
        return norm
    bare = str(norm).lower().replace("_", "").replace("-", "").removeprefix("l")
    return _NORMS.get(bare.removesuffix(".0"), norm)


def _plain(value: Any) -> Any:
    """Return Python's own number for one of another library, a text for a path, a tuple for any sequence."""
    if isinstance(value, bool | str):
        return value
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple) or type(value).__name__ == "ndarray":
        return tuple(map(_plain, value))
    return value


def _shown(value: Any) -> str:
    return _cut(ascii(list(value) if isinstance(value, tuple) else value))


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
