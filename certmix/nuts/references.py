"""How a saved mix refers to its base models: names, paths inside the folder, or absolute paths."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from certmix.atomic import write_atomically
from certmix.errors import ModelError, describe
from certmix.models.adapters import FixedMode
from certmix.models.naming import MODULE_FACTORY
from certmix.models.normalize import Normalized
from certmix.models.spec import LoadedModel
from certmix.models.zoo import ZOO_FOLDER, read_bytes, zoo_names
from certmix.nuts.description import ModelReference
from certmix.nuts.nuts_file import FILE

__all__ = ["BaseModel", "absolute", "refer"]

_LIBRARIES = ("timm:", "robustbench:")


@dataclass(frozen=True)
class BaseModel:
    """A loaded model, and what it was loaded with beside its spec."""

    loaded: LoadedModel
    weights: Path | None = None
    normalize: str | None = None
    files: tuple[str, ...] = ()

    @classmethod
    def of(cls, loaded: LoadedModel, sources: object, role: str) -> BaseModel:
        """Return a loaded model with what `certmix.runs.sources.Sources` say of its role."""
        weights, normalize, files = (
            getattr(sources, f"{role}_{what}") for what in ("weights", "normalize", "files")
        )
        return cls(loaded, None if weights is None else Path(weights), normalize, files)


def refer(base: BaseModel, folder: Path, zoo: Path = ZOO_FOLDER, *, copy: bool = False) -> ModelReference:
    """Return how a mix in `folder` names a base model; with `copy`, its weights are put there first."""
    loaded = base.loaded
    weights = None if base.weights is None else str(base.weights)
    files = tuple(_told(file, folder) for file in base.files)
    found = ModelReference(loaded.spec, weights, base.normalize, loaded.checksum, files)
    if _is_nuts(loaded.spec, zoo):
        raise ModelError(f"{loaded.spec} is itself a nonlinear mix: give two plain models as base models")
    if copy:
        found = _copied(base, found, folder / "models" / loaded.checksum[:16], zoo)
    path, rest = _parts(found.spec, zoo)
    spec = found.spec if path is None else _told(path, folder) + rest
    return replace(found, spec=spec, weights=found.weights and _told(found.weights, folder))


def absolute(reference: ModelReference, folder: Path, role: str, zoo: Path = ZOO_FOLDER) -> ModelReference:
    """Return a reference with absolute paths, as `load_model` takes it.

    Raises
    ------
    ModelError
        If a relative path leads out of the folder, or the model is itself a nonlinear mix.
    """
    where = f"{folder / FILE}: the {role} model"
    path, rest = _parts(reference.spec, zoo)
    spec = reference.spec if path is None else _found(path, folder, where) + rest
    if _is_nuts(reference.spec, zoo) or _is_nuts(spec, zoo):
        raise ModelError(f"{where} {reference.spec} is itself a nonlinear mix: name a plain model")
    weights = None if reference.weights is None else _found(reference.weights, folder, where)
    files = tuple(_found(file, folder, where) for file in reference.files)
    return replace(reference, spec=spec, weights=weights, files=files)


def _parts(spec: str, zoo: Path) -> tuple[str | None, str]:
    """Split a spec into the path it names, None for a name, and the rest."""
    file, colon, factory = spec.rpartition(":")
    if spec in zoo_names(zoo) or spec.startswith(_LIBRARIES):
        return None, ""
    if file.endswith(".py") and factory:
        return file, colon + factory
    return (None, "") if MODULE_FACTORY.fullmatch(spec) else (spec, "")


def _told(path: str, folder: Path) -> str:
    """A path as it is written: relative to the folder for what lies inside, else absolute."""
    resolved, inside = Path(os.path.expanduser(path)).resolve(), folder.resolve()
    return f"./{resolved.relative_to(inside).as_posix()}" if inside in resolved.parents else str(resolved)


def _found(path: str, folder: Path, where: str) -> str:
    """A written path as it is read; a relative one must not lead out of the folder, by links neither."""
    try:
        expanded = os.path.expanduser(path)
        if os.path.isabs(expanded):
            return expanded
        resolved, inside = (folder / expanded).resolve(), folder.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{where} has the path {path!r}: {describe(error)}: mend the path") from None
    if inside not in resolved.parents:
        raise ModelError(
            f"{where} has the relative path {path}, which leads out of the folder: "
            "give an absolute path, or put the file into the folder"
        )
    return str(resolved)


def _is_nuts(spec: str, zoo: Path) -> bool:
    path = Path(os.path.expanduser(_parts(spec, zoo)[0] or ""))
    return spec.startswith("nuts:") or path.name == FILE or (path != Path() and os.path.isfile(path / FILE))


def _copied(base: BaseModel, reference: ModelReference, target: Path, zoo: Path) -> ModelReference:
    """Copy what holds a model's weights to the folder `target`, and refer to the copy."""
    spec, loaded = base.loaded.spec, base.loaded
    if spec in zoo_names(zoo) or (spec.startswith(_LIBRARIES) and base.weights is None):
        return reference
    if loaded.card is not None:
        return replace(reference, spec=str(_copied_card(Path(os.path.expanduser(spec)), target)))
    if spec.endswith(".pt2"):
        return replace(reference, spec=str(_copied_file(Path(os.path.expanduser(spec)), target)))
    data = _weights(base)
    if data is None:
        return reference
    write_atomically(target / "weights.safetensors", data)
    return replace(reference, weights=str(target / "weights.safetensors"))


def _copied_card(source: Path, target: Path) -> Path:
    """Copy a card and its weights, the weights first; a folder stands for its only card."""
    if source.is_dir():
        names = [name for name in zoo_names(source) if (source / f"{name}.safetensors").is_file()]
        source = source / f"{names[0]}.json"
    _copied_file(source.with_suffix(".safetensors"), target)
    return _copied_file(source, target)


def _copied_file(source: Path, target: Path) -> Path:
    write_atomically(target / source.name, read_bytes(source, "restore it"))
    return target / source.name


def _weights(base: BaseModel) -> bytes | None:
    """Return a module's state as a safetensors file, None where it has none."""
    from safetensors.torch import save

    module: nn.Module = base.loaded.module
    if isinstance(module, FixedMode):
        module = module.module
    if base.normalize is not None and isinstance(module, Normalized):
        module = module.model
    state = module.state_dict()
    odd = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if odd:
        raise ModelError(
            f"{base.loaded.spec} keeps {odd[0]}, which is no tensor: save without copying weights"
        )
    if not state:
        return None
    try:
        return save({key: value.detach().cpu().contiguous().clone() for key, value in state.items()})
    except Exception as error:
        raise ModelError(f"{base.loaded.spec}: {describe(error)}: save without copying weights") from error
