"""Data and models as the user names them.  No torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from certmix.data import parse_input_range
from certmix.errors import RunError
from certmix.runs.from_json import from_json
from certmix.runs.settings import Option, Settings
from certmix.types import Dataset

if TYPE_CHECKING:
    from torch.nn import Module
else:

    class Module:
        """Stands for `torch.nn.Module`, so that torch is not imported; no value in a file is one."""


DEFAULT_SPLIT = "test"
"""What files say where no split was named."""


def named_split(stored: Any) -> Any:
    """Return the split that a file names, None for the default, which data without splits have as well."""
    return None if stored == DEFAULT_SPLIT else stored


_FORMS = (
    "A shipped name, a card or folder of 'certmix train', module:factory, file.py:factory, .pt2, "
    "timm:NAME or robustbench:NAME"
)


def _model_or_none(text: str) -> str | None:
    return None if text == "none" else text


class Sources(Settings, frozen=True):
    """Names of data and models, as `certmix.data.load` and `certmix.models.spec.load_model` take them.

    `data`, `standard` and `robust` may also be a `Dataset` or torch modules;
    such a run can be resumed but not be reproduced from its description.
    ``standard`` None leaves the standard classifier out: certificates do not
    depend on it.  ``robust`` None takes the shipped model of the noise level.
    ``standard_files`` and ``robust_files`` are further files that a model reads: they belong to its checksum.
    ``split`` None is "test", or all of data without splits, which refuse a name.
    """

    data: Annotated[
        str | Dataset,
        Option(
            "cifar10-sample (500 test images, embedded), a CIFAR-10/100 folder, a folder of images "
            "(a sub-folder a class) or an .npz file.",
            metavar="NAME|PATH",
        ),
    ] = "cifar10-sample"
    split: Annotated[
        str | None,
        Option("Which part of the data, where they have parts: train, test, a sub-folder.", shown="test"),
    ] = None
    input_range: Annotated[
        tuple[float, float] | None,
        Option(
            "Range of float inputs; radii are in its units.", metavar="LO,HI|none", parse=parse_input_range
        ),
    ] = (0.0, 1.0)
    resize: Annotated[int | None, Option("Image folders: shorter side, in pixels.")] = None
    crop: Annotated[int | None, Option("Image folders: side of the centre square, then.")] = None
    standard: Annotated[
        str | Module | None,
        Option(f"The accurate classifier g, or 'none'. {_FORMS}.", metavar="MODEL", parse=_model_or_none),
    ] = "cifar10-standard"
    standard_weights: Annotated[str | None, Option("Its weights: .safetensors or .pt.", metavar="FILE")] = (
        None
    )
    standard_normalize: Annotated[str | None, Option("Its normalisation: 0.5/0.25.", metavar="MEAN/STD")] = (
        None
    )
    standard_files: Annotated[
        tuple[str, ...],
        Option(
            "A further file that it reads, so that a change is noticed; repeatable.",
            flag="standard-file",
            metavar="FILE",
        ),
    ] = ()
    robust: Annotated[
        str | Module | None,
        Option(
            "The base of the robust classifier h; by default the shipped model of --sigma.", metavar="MODEL"
        ),
    ] = None
    robust_weights: Annotated[str | None, Option("Its weights: .safetensors or .pt.", metavar="FILE")] = None
    robust_normalize: Annotated[str | None, Option("Its normalisation.", metavar="MEAN/STD")] = None
    robust_files: Annotated[
        tuple[str, ...],
        Option("A further file that it reads; repeatable.", flag="robust-file", metavar="FILE"),
    ] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``run.json``, paths made absolute."""
        from certmix.data import DATASETS
        from certmix.models.zoo import zoo_names

        shown, shipped = super().as_dict(), {*zoo_names(), *DATASETS}
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
        for key in ("data", "standard", "robust"):
            if not isinstance(known.get(key, ""), str | None):
                raise TypeError(f"a good {key}")
        return from_json(cls, known)  # type: ignore[no-any-return]


def _absolute(text: str) -> str:
    """Return a path, or the path in ``file:factory`` and ``nuts:folder#part``, made absolute if it exists."""
    if text.startswith("nuts:"):
        folder, mark, part = text.removeprefix("nuts:").partition("#")
        return f"nuts:{_absolute(folder)}{mark}{part}"
    file, colon, factory = text.rpartition(":")
    path = Path(file if colon else text).expanduser()
    return f"{path.resolve()}{colon}{factory if colon else ''}" if path.exists() else text
