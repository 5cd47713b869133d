"""Data and models as the user names them.  No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certmix.errors import RunError
from certmix.runs.from_json import from_json
from certmix.types import Dataset

if TYPE_CHECKING:
    from torch.nn import Module
else:

    class Module:
        """Stands for `torch.nn.Module`, so that torch is not imported; no value in a file is one."""


__all__ = ["DEFAULT_SPLIT", "Sources", "named_split"]

DEFAULT_SPLIT = "test"
"""What files say where no split was named."""


def named_split(stored: Any) -> Any:
    """Return the split that a file names, None for the default, which data without splits have as well."""
    return None if stored == DEFAULT_SPLIT else stored


@dataclass(frozen=True)
class Sources:
    """Names of data and models, as `certmix.data.load` and `certmix.models.spec.load_model` take them.

    `data`, `standard` and `robust` may also be a `Dataset` or torch modules;
    such a run can be resumed but not be reproduced from its description.
    ``standard`` None leaves the standard classifier out: certificates do not
    depend on it.  ``robust`` None takes the shipped model of the noise level.
    ``standard_files`` and ``robust_files`` are further files that a model reads: they belong to its checksum.
    ``split`` None is "test", or all of data without splits, which refuse a name.
    """

    data: str | Dataset = "cifar10-sample"
    split: str | None = None
    input_range: tuple[float, float] | None = (0.0, 1.0)
    resize: int | None = None
    crop: int | None = None
    standard: str | Module | None = "cifar10-standard"
    standard_weights: str | None = None
    standard_normalize: str | None = None
    standard_files: tuple[str, ...] = ()
    robust: str | Module | None = None
    robust_weights: str | None = None
    robust_normalize: str | None = None
    robust_files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key in ("standard_files", "robust_files"):
            given = getattr(self, key)
            several = (given,) if isinstance(given, str | Path) else given
            object.__setattr__(self, key, tuple(map(str, several)))

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``run.json``, paths made absolute."""
        from certmix.data import DATASETS
        from certmix.models.zoo import zoo_names

        shown, shipped = dict(vars(self)), {*zoo_names(), *DATASETS}
        for key in ("data", "standard", "robust", "standard_weights", "robust_weights"):
            value = getattr(self, key)
            shown[key] = value if value is None or isinstance(value, str) else None
            if isinstance(value, str) and value not in shipped:
                shown[key] = _absolute(value)
        for key in ("standard_files", "robust_files"):
            shown[key] = [_absolute(value) for value in getattr(self, key)]
        shown["split"] = self.split or DEFAULT_SPLIT
        shown["objects"] = [
            key
            for key in ("data", "standard", "robust")
            if getattr(self, key) is not None and not isinstance(getattr(self, key), str)
        ]
        return shown

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Sources:
        """Return the sources of a run from its description.

        Raises
        ------
        RunError
            If the run was made from objects that only its program holds.
        TypeError
            If the description holds something else.
        """
        known = dict(stored) if isinstance(stored, dict) else {"sources": stored}
        objects = known.pop("objects", None)
        if "split" in known:
            known["split"] = named_split(known["split"])
        if objects:
            named = " ".join(str(objects).split())[:80].strip("[]")
            raise RunError(
                f"the run was made from Python objects ({named}): "
                "only the program that made them can run it again"
            )
        return from_json(cls, known)


def _absolute(text: str) -> str:
    """Return a path, or the path in ``file:factory`` and ``nuts:folder#part``, made absolute if it exists."""
    if text.startswith("nuts:"):
        folder, mark, part = text.removeprefix("nuts:").partition("#")
        return f"nuts:{_absolute(folder)}{mark}{part}"
    file, colon, factory = text.rpartition(":")
    path = Path(file if colon else text).expanduser()
    return f"{path.resolve()}{colon}{factory if colon else ''}" if path.exists() else text
