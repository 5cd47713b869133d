"""Options made from the fields of settings, and what was written of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from certmix import guard
from certmix.errors import CertmixError, ParameterError
from certmix.runs.settings import Field, Option, Settings, divide, fields, norm_name, written
from certmix.runs.sources import Sources

F = TypeVar("F", bound=Callable[..., Any])


class Parsed(click.ParamType):
    """A click type from a function; its errors become usage errors."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name, self._parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except (CertmixError, ValueError) as error:
            self.fail(str(error), param, ctx)


def _number(text: str) -> float:
    """Return a decimal, or a quotient of two."""
    above, stroke, below = text.partition("/")
    try:
        return float(above) / float(below) if stroke else float(above)
    except (ValueError, ZeroDivisionError):
        raise ParameterError(f"{text!r} is not a number: write for example 0.5 or 8/255") from None


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(_number(part) for part in text.split(","))
    except ParameterError:
        wanted = "write for example 0,0.25,0.5 or 1/255,2/255"
        raise ParameterError(f"{text!r} is not a list of numbers: {wanted}") from None


def _inputs(text: str) -> int | str:
    if text == "all":
        return text
    try:
        return int(text)
    except ValueError:
        raise ParameterError(f"{text!r} is neither a number nor 'all'") from None


NUMBER = Parsed("R", _number)
NUMBERS = Parsed("R,R,...", _numbers)
INPUTS = Parsed("N|all", _inputs)
_TYPES: dict[Any, Any] = {
    int: click.INT, float: NUMBER, tuple[float, ...]: NUMBERS,
    str: click.STRING, tuple[str, ...]: click.STRING,
}  # fmt: skip


class Names(click.Choice[str]):
    """Names, in any spelling that the field reads."""

    def __init__(self, names: Iterable[str], read: Callable[[Any], Any] | None = norm_name) -> None:
        super().__init__(tuple(names))
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(value if self._read is None else self._read(value), param, ctx)


def options(
    *kinds: type[Settings],
    only: Iterable[str] | None = None,
    leave: Iterable[str] = (),
    required: Iterable[str] = (),
    **changed: Any,
) -> Callable[[F], F]:
    """Give a command the options of settings; it receives those that were written, by the names of fields.

    Fields of one name share an option.  `changed` holds another `Option` of a field, or the command's own
    default in words.
    """
    found: dict[str, list[Field]] = {}
    for kind in kinds:
        for field in fields(kind):
            taken = field.name not in leave if only is None else field.name in only
            if taken and field.option.help:
                found.setdefault(field.name, []).append(field)

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def command(**values: Any) -> Any:
            source = click.get_current_context().get_parameter_source
            given = ParameterSource.COMMANDLINE
            return function(**{k: v for k, v in values.items() if k not in found or source(k) is given})

        made: Any = command
        for name, several in reversed(found.items()):
            made = _option(name, several, changed.get(name), name in required)(made)
        return made  # type: ignore[no-any-return]

    return decorate


def _option(name: str, several: list[Field], changed: Any, required: bool) -> Callable[[F], F]:
    first = several[0]
    says = changed if isinstance(changed, Option) else first.option
    shown = changed if isinstance(changed, str) else says.shown
    unsaid = any(first.default is one for one in (None, (), False))
    if shown is None and not (first.required or unsaid):
        shown = written(first.default)
    text = says.help if shown is None or required else f"{says.help}  [default: {shown}]"
    more: dict[str, Any] = {"help": text, "required": required}
    if first.plain is bool:
        return click.option(first.flag, name, is_flag=True, default=None, help=text)
    lazy = callable(first.option.choices)
    names: tuple[str, ...] = () if says is first.option or callable(says.choices) else tuple(says.choices)
    if not (lazy or names):
        names = tuple(dict.fromkeys(n for field in several for n in field.names))
    if first.option.parse is not None:
        kind: Any = Parsed(first.option.metavar or "TEXT", first.option.parse)
    elif not lazy and first.plain is int and "all" in names:
        kind = INPUTS
    elif names:
        kind = Names(names, first.option.read)
    else:
        kind, more["metavar"] = _TYPES[first.plain], first.option.metavar
    if first.each:
        more["multiple"] = True
    return click.option(first.flag, name, type=kind, default=None, **more)


def sources_of(given: dict[str, Any]) -> Sources:
    """Take data and models from what was written; nothing may be said of a g that is left out."""
    (named,) = divide(given, Sources)
    if named.get("standard", "") is None:
        refuse_unused(parameters("standard_"), "is of the accurate classifier, and --standard is none")
    return Sources(**named)


def parameters(prefix: str) -> list[str]:
    """Return the parameters of the command that runs whose names begin so."""
    found = click.get_current_context().command.params
    return [param.name for param in found if param.name is not None and param.name.startswith(prefix)]


def refuse_unused(names: Iterable[str], why: str) -> None:
    """Refuse parameters that were written on the command line; `why` says what they are for.

    A remedy that comes first ends in "or": "is of the mix: add --alpha, or".
    """
    context = click.get_current_context()
    flags = {param.name: param.opts[0] for param in context.command.params}
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise ParameterError(f"{flags[name]} {why}{'' if why.endswith(' or') else ':'} leave it out")


def format_option(*names: str) -> Callable[[F], F]:
    """Add --format; the first name is the default."""
    return click.option(
        "--format", "format_", type=_Format(names), default=names[0], help="What to print on stdout."
    )


class _Format(click.Choice[str]):
    """Names of formats; that of LaTeX may bear a label."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "latex" in self.choices and str(value).startswith("latex:"):
            from certmix.tables.formats import renderer

            renderer(value)
            return value
        return super().convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        found = super().get_metavar(param, ctx)
        return found and found.replace("latex", "latex[:LABEL]")


def named_objects(function: F) -> F:
    """Add options for what makes the objects of a run from Python; see `objects_of`."""
    made: dict[str, Any] = {
        role: Option(
            f"What makes {what} of a run of Python objects: file.py:factory.",
            metavar="FACTORY",
            shown="the run's",
        )
        for role, what in (("data", "the data"), ("standard", "g"), ("robust", "the base of h"))
    }
    return options(Sources, only=tuple(made), **made)(function)


def objects_of(given: dict[str, Any]) -> Sources | None:
    """Take what makes the objects of a run from what was written, None where nothing was."""
    named = {role: given.pop(role) for role in ("data", "standard", "robust") if role in given}
    return Sources(**{"standard": None, **named}) if named else None


PATH: click.Path = click.Path(path_type=Path, readable=False)  # what reads it says more
DEVICE = click.option("--device", default="auto", help="auto, cpu, cuda or mps.")
MODEL_TIMEOUT = click.option(
    "--model-timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", expose_value=False,
    callback=lambda context, option, seconds: None if seconds is None else guard.watch(seconds),
    help="End, with exit code 2, when a model takes longer: to be made, or in one forward pass.",
)  # fmt: skip
ISOLATED = click.option(
    "--isolated", "apart", is_flag=True,
    help="Run the models in a process of their own, whose crash or end is reported.",
)  # fmt: skip
FRESH = click.option("--fresh", is_flag=True, help="Start over: delete what the run folder holds.")
DETAILS = click.option("--details", is_flag=True, help="Print all that is known of the table below it.")
