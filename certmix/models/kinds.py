"""What a model's spec names, read off its text: a path, a library, code.  No torch."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

OUTPUTS = ("logits", "probabilities")
"""What a model of others' gives, as it is declared."""
METHODS = ("predict_proba", "decision_function")
"""What an estimator is asked for, the first that it has: probabilities, or else scores."""
LIBRARIES = ("timm", "torchvision", "robustbench", "hf", "diffusers")
"""Libraries that make a model by its name, as they are written before the colon."""
PICKLES = (".joblib", ".pkl", ".pickle")
PROGRAMS = (".pt2", ".onnx", *PICKLES)
"""Files that are a model, code and weights."""
MODULE_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_model(given: Any) -> bool:
    """Whether an object may be a model: a text or path, an estimator, or what can be called."""
    return isinstance(given, str | os.PathLike) or callable(given) or any(hasattr(given, m) for m in METHODS)


def library_of(spec: str) -> str:
    """Return the library that a spec names, "" for none."""
    head, colon, rest = spec.partition(":")
    return head if colon and rest and head in LIBRARIES else ""


OBJECT = "object:"
"""Before a factory: what it makes is known by its content, as an object that a program hands over."""


def is_factory(spec: str) -> bool:
    """Whether a spec names a function of a file or a module."""
    file, _, factory = spec.rpartition(":")
    of_file = bool(file.endswith(".py") and factory)
    return of_file or (MODULE_FACTORY.fullmatch(spec) is not None and not library_of(spec))


def split_spec(spec: str, folder: str | Path = ".") -> tuple[str, str | None, str]:
    """Return what stands before the path that a spec names, the path, and what follows.

    The path is None for the names of modules and libraries; ``hf:`` names one where a folder lies there, as
    seen from `folder`.
    """
    if spec.startswith(OBJECT):
        first, file_of, rest = split_spec(spec.removeprefix(OBJECT), folder)
        return OBJECT + first, file_of, rest
    if spec.startswith("nuts:"):
        path, mark, part = spec.removeprefix("nuts:").partition("#")
        return "nuts:", path, mark + part
    if library_of(spec):
        path = spec.partition(":")[2]
        held = path.startswith(("./", "../", "~", "/")) or os.path.isdir(os.path.join(folder, path))
        return ("hf:", path, "") if spec.startswith("hf:") and held else (spec, None, "")
    file, colon, factory = spec.rpartition(":")
    if file.endswith(".py") and factory:
        return "", file, colon + factory
    return (spec, None, "") if MODULE_FACTORY.fullmatch(spec) else ("", spec, "")


def is_program(spec: str) -> bool:
    """Whether a spec is the path of a file that brings code and weights."""
    return spec.lower().endswith(PROGRAMS)
