"""Options that several commands share, and the parsers of their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from certmix.data import parse_input_range
from certmix.errors import CertmixError, ParameterError
from certmix.runs.keywords import field_names, norm_name
from certmix.runs.source_names import Sources
from certmix.sampling.devices import PRECISIONS

from .unused import parameters, refuse_unused

F = TypeVar("F", bound=Callable[..., Any])


class _Parsed(click.ParamType):
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


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(_number(part) for part in text.split(","))
    except (ValueError, ZeroDivisionError):
        raise ParameterError(
            f"{text!r} is not a list of numbers: write for example 0,0.25,0.5 or 1/255,2/255"
        ) from None


def _number(text: str) -> float:
    """Return a decimal, or a quotient of two."""
    above, stroke, below = text.partition("/")
    return float(above) / float(below) if stroke else float(above)


def _one(text: str) -> float:
    try:
        return _number(text)
    except (ValueError, ZeroDivisionError):
        raise ParameterError(f"{text!r} is not a number: write for example 0.5 or 8/255") from None


def _images(text: str) -> int | str:
    if text == "all":
        return text
    try:
        return int(text)
    except ValueError:
        raise ParameterError(f"{text!r} is neither a number nor 'all'") from None


RADII = _Parsed("R,R,...", _numbers)
RADIUS = _Parsed("R", _one)
IMAGES = _Parsed("N|all", _images)
INPUT_RANGE = _Parsed("LO,HI|none", parse_input_range)
AUTO_BATCH = "automatic"


class _Norm(click.Choice[str]):
    """One of some norms, in any usual spelling: linf, Linf, inf, L2, 2."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(norm_name(value), param, ctx)


def norm_type(*names: str) -> click.Choice[str]:
    """Return the type of an option that names a norm."""
    return _Norm(names)


def named_sources(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that name data and models, as fields of `Sources`; 'none' stands for no g.

    Raises
    ------
    ParameterError
        If something is said of a g that is left out.
    """
    named = {key: options[key] for key in options if key in field_names(Sources)}
    if named.get("standard") == "none":
        refuse_unused(parameters("standard_"), "is of the accurate classifier, and --standard is none")
        named["standard"] = None
    return named


def data_options(function: F) -> F:
    """Add --data, --split, --input-range, --resize and --crop."""
    for option in reversed(
        [
            click.option(
                "--data", default="cifar10-sample", show_default=True, metavar="NAME|PATH",
                help="cifar10-sample (500 test images, embedded), a CIFAR-10/100 folder, "
                "a folder of images (a sub-folder a class) or an .npz file.",
            ),
            click.option(
                "--split", default=None, show_default="test",
                help="Which part of the data, where they have parts: train, test, a sub-folder.",
            ),
            click.option(
                "--input-range", type=INPUT_RANGE, default="0,1", show_default=True,
                help="Range of float inputs; radii are in its units.",
            ),
            click.option("--resize", type=int, help="Image folders: shorter side, in pixels."),
            click.option("--crop", type=int, help="Image folders: side of the centre square, then."),
        ]
    ):  # fmt: skip
        function = option(function)
    return function


def model_options(function: F) -> F:
    """Add --standard and --robust with their weights and normalisation, for smoothing."""
    return _pair("The base of the robust classifier h; by default the shipped model of --sigma.")(function)


def empirical_model_options(function: F) -> F:
    """Add the same for empirical studies, where h is taken as it is."""
    return _pair("The robust classifier h.  [default: cifar10-adversarial-linf]")(function)


def robust_options(function: F) -> F:
    """Add --robust with its weights and normalisation, for studies of h alone."""
    function = empirical_model_options(function)
    params: list[click.Parameter] = function.__click_params__  # type: ignore[attr-defined]
    params[:] = [param for param in params if not str(param.name).startswith("standard")]
    return function


def _pair(robust_help: str) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(_model_list(robust_help)):
            function = option(function)
        return function

    return decorate


def _model_list(robust_help: str) -> list[Callable[[Any], Any]]:
    forms = (
        "A shipped name, a card or folder of 'certmix train', module:factory, "
        "file.py:factory, .pt2, timm:NAME or robustbench:NAME"
    )
    return [
            click.option(
                "--standard", default="cifar10-standard", show_default=True, metavar="MODEL",
                help=f"The accurate classifier g, or 'none'. {forms}.",
            ),
            click.option("--standard-weights", metavar="FILE", help="Its weights: .safetensors or .pt."),
            click.option("--standard-normalize", metavar="MEAN/STD", help="Its normalisation: 0.5/0.25."),
            click.option(
                "--standard-file", "standard_files", multiple=True, metavar="FILE",
                help="A further file that it reads, so that a change is noticed; repeatable.",
            ),
            click.option(
                "--robust", default=None, metavar="MODEL", help=robust_help,
            ),
            click.option("--robust-weights", metavar="FILE", help="Its weights: .safetensors or .pt."),
            click.option("--robust-normalize", metavar="MEAN/STD", help="Its normalisation."),
            click.option(
                "--robust-file", "robust_files", multiple=True, metavar="FILE",
                help="A further file that it reads; repeatable.",
            ),
        ]  # fmt: skip


def device_options(function: F) -> F:
    """Add --device, --precision, --batch-size and --compile."""
    for option in reversed(
        [
            click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps."),
            click.option(
                "--precision", type=click.Choice(list(PRECISIONS)), default="fp32", show_default=True,
                help="Arithmetic of forward passes (autocast).",
            ),
            click.option(
                "--batch-size", type=int, default=None, show_default=AUTO_BATCH,
                help="Inputs in one forward pass.",
            ),
            click.option(
                "--compile", is_flag=True,
                help="Compile the robust model first (torch.compile): for runs of many minutes.",
            ),
        ]
    ):  # fmt: skip
        function = option(function)
    return function
