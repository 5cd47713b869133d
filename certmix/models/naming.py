"""What the text names that a user gives for a model: a card, a nonlinear mix, or what others made."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from certmix.errors import ModelError
from certmix.models.adapters import Foreign, from_export, from_file, from_module, from_robustbench, from_timm
from certmix.models.weights import PICKLED
from certmix.models.zoo import zoo_names

__all__ = [
    "FORMS", "MODULE_FACTORY", "SCHEMES", "check_text", "find_card", "find_scheme", "is_factory",
    "load_foreign",
]  # fmt: skip

SCHEMES = {"nuts": "certmix.nuts.folder"}
"""Folders that later stations read: scheme -> module, imported on first use, whose ``load_part`` loads them.

A model is named ``SCHEME:FOLDER[#PART]``, or by a folder that holds ``SCHEME.json``.
"""

FORMS = (
    "a card or folder written by 'certmix train', package.module:factory, file.py:factory, file.pt2, "
    "timm:NAME, robustbench:NAME or nuts:FOLDER[#robust|#bypass|#auxiliary|#standard|#base]"
)
MODULE_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def check_text(spec: str) -> None:
    """Refuse what no path can be, and what would not fit on a line."""
    try:
        sound = b"\0" not in os.fsencode(spec) and len(f"{spec}.".splitlines()) == 1
    except UnicodeEncodeError:
        sound = False
    if not sound:
        raise ModelError(f"model {ascii(spec)[:80]} is neither a name nor a path: use {FORMS}")


def find_scheme(spec: str, zoo: Path) -> tuple[str, Path, str] | None:
    """Return the module of `SCHEMES` that loads a spec, and its folder and part; None for other specs."""
    for scheme, module in SCHEMES.items():
        file, given = f"{scheme}.json", spec.startswith(f"{scheme}:")
        rest, part = os.path.expanduser(spec.removeprefix(f"{scheme}:")), ""
        held = os.path.basename(rest) == file or os.path.isfile(os.path.join(rest, file))
        if given and not os.path.isdir(rest):
            rest, _, part = rest.partition("#")
        if not given and (not spec or spec in zoo_names(zoo) or not held):
            continue
        if not given and os.path.isdir(rest) and _models_in(Path(rest)):
            raise ModelError(
                f"folder {spec} holds a mix and a model: write {scheme}:{spec}, or name the card"
            )
        path = Path(rest)
        return module, (path.parent if path.name == file else path), part
    return None


def find_card(spec: str, zoo: Path) -> Path | None:
    """Return the path of the card a spec names, if it names one."""
    if spec in zoo_names(zoo):
        return Path(zoo) / f"{spec}.json"
    path = Path(os.path.expanduser(spec))
    if path.name.endswith(".json"):
        return path
    if not spec or not os.path.isdir(path):
        return None
    names = _models_in(path)
    if len(names) != 1:
        found = f"{len(names)} models ({', '.join(names[:3])})" if names else "no model"
        raise ModelError(f"folder {spec} holds {found}: name one card, such as {path / 'NAME.json'}")
    return path / f"{names[0]}.json"


def _models_in(folder: Path) -> list[str]:
    return [name for name in zoo_names(folder) if (folder / f"{name}.safetensors").is_file()]


def load_foreign(spec: str, device: str, pretrained: bool, classes: int | None, zoo: Path) -> Foreign:
    """Load what certmix did not make: from a library, an exported file, or a factory.

    Raises
    ------
    ModelError
        If the spec names nothing, or it cannot be loaded.
    """
    library, _, rest = spec.partition(":")
    if library == "timm" and rest:
        return from_timm(rest, pretrained=pretrained, classes=classes)
    if library == "robustbench" and rest:
        return from_robustbench(rest)
    if spec.endswith(".pt2"):
        return from_export(Path(os.path.expanduser(spec)), device)
    file, _, factory = spec.rpartition(":")
    if file.endswith(".py") and factory:
        return from_file(Path(os.path.expanduser(file)), factory)
    if spec.endswith((".py", ".py:")):
        raise ModelError(f"{spec} does not name a factory: write file.py:factory")
    if MODULE_FACTORY.fullmatch(spec):
        return from_module(*spec.split(":"))
    if spec.endswith((".safetensors", *PICKLED)):
        raise ModelError(
            f"{spec} holds weights without a model: "
            f"name a model, such as file.py:factory, and give {spec} as its weights"
        )
    near = difflib.get_close_matches(spec, zoo_names(zoo), 1)
    hint = f"did you mean {near[0]}? Else " if near else ""
    names = "".join(f"{name}, " for name in zoo_names(zoo))
    raise ModelError(f"model {spec!r} is unknown: {hint}use one of {names}{FORMS}")


def is_factory(spec: str) -> bool:
    """Whether the spec, which a model was loaded by, is file.py:factory or package.module:factory."""
    return ":" in spec and not spec.startswith(("timm:", "robustbench:")) and not spec.endswith(".pt2")
