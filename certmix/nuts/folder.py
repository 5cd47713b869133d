"""A fitted nonlinear mix in a folder: saved, loaded, and offered part by part as ``nuts:FOLDER#PART``.

The folder holds ``nuts.json`` and, where asked, copies of the weights.  Code, such as a Python file or an
exported program, is never copied, and never run from the folder: it is named by its path.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from certmix.errors import ModelError, ParameterError, describe
from certmix.files import COPY_IT, LINK_OUT, TEXT, digest_of, leads_out, parse_json, write_atomically
from certmix.models.architectures import Normalized
from certmix.models.composed import denoised_parts, paths_changed
from certmix.models.foreign import FixedMode
from certmix.models.kinds import is_program, library_of, split_spec
from certmix.models.spec import LoadedModel, Naming, files_of, load_model
from certmix.models.zoo import read_bytes, zoo_names
from certmix.nuts.adaptive import AuxiliaryMixture, DirectBypass, direct_bypass
from certmix.nuts.description import FitFacts, MixSettings, ModelReference, NutsDescription, TuningInputs
from certmix.nuts.grid import TransformSettings
from certmix.nuts.margins import LAYER_NORM
from certmix.nuts.mixture import NutsMixture, TransformedRobust
from certmix.nuts.transform import NonlinearTransform

__all__ = ["FILE", "PARTS", "BaseModel", "LoadedNuts", "load_nuts", "load_part", "read_nuts", "save_nuts"]

FILE = "nuts.json"
FORMAT_VERSION = 3
"""1 had the population's variance in LN: its numbers mean another transform; 2 had ``temperature``."""

PARTS = ("robust", "bypass", "auxiliary", "standard", "base")
"""What may follow ``#``: M(h), the mix with the auxiliary's gradient, the auxiliary, g and h."""


@dataclass(frozen=True)
class BaseModel:
    """A loaded model, and what it was loaded with beside its spec."""

    loaded: LoadedModel
    weights: Path | None = None
    normalize: str | None = None
    files: tuple[str, ...] = ()
    outputs: str | None = None


@dataclass(frozen=True)
class LoadedNuts:
    """A mix that was loaded: its folder, ``nuts.json``, and its base models.

    The modules are made anew at each access, in evaluation mode.
    """

    folder: Path
    description: NutsDescription
    standard: LoadedModel
    robust: LoadedModel

    @property
    def settings(self) -> MixSettings:
        """s, p, c, alpha and the rest."""
        return self.description.settings

    @property
    def tuning(self) -> TuningInputs | None:
        """Inputs to stay away from in an evaluation, None where unknown."""
        return self.description.tuning

    @property
    def mixture(self) -> NutsMixture:
        """The mix itself."""
        return NutsMixture.of(self.settings, self.standard.module, self.robust.module)

    @property
    def auxiliary(self) -> AuxiliaryMixture:
        """What attacks differentiate; needs alpha_d."""
        return self.bypass.auxiliary

    @property
    def bypass(self) -> DirectBypass:
        """The mix with the auxiliary's gradient; needs alpha_d."""
        own = self.settings
        if own.alpha_d is None:
            raise ModelError(
                f"{self.folder / FILE} has no alpha_d, which the gradient of an adaptive attack needs: "
                "compute it with certmix.nuts.auxiliary_alpha and save the mix again"
            )
        return direct_bypass(self.mixture, own.alpha_d, own.r_d)


def save_nuts(
    folder: Path,
    settings: MixSettings,
    standard: BaseModel,
    robust: BaseModel,
    *,
    fit: FitFacts | None = None,
    tuning: TuningInputs | None = None,
    copy_weights: bool = False,
) -> NutsDescription:
    """Write a fitted mix to a folder, made if missing, and see that it loads again: ModelError if not.

    ``nuts.json`` is written last and in one step: a folder that is left behind half done holds the earlier
    mix, or none.  `fit` and `tuning` say how the numbers were found, and on which inputs.  `copy_weights`
    copies weights and cards into the folder, under names made of their checksums.  Shipped models, and those
    that libraries fetch, stay names; Python code and other programs stay where they are, outside the folder.
    """
    place = Path(folder)
    g, h = (_refer(base, place, copy_weights) for base in (standard, robust))
    description = NutsDescription(settings, g, h, fit, tuning)
    _load(place, description, "cpu", None, run_code=True)
    write_nuts(place, description)
    return description


def load_nuts(
    folder: Path,
    *,
    device: str | torch.device = "cpu",
    classes: int | None = None,
    run_code: bool = False,
) -> LoadedNuts:
    """Load a mix and its base models; `device` and `classes` as for `certmix.models.spec.load_model`.

    Code that ``nuts.json`` names, such as ``file.py:factory``, runs only with `run_code`, and from the folder
    itself never.  What cannot be read or may not run, and a base model that is not the one that was tuned, is
    a ModelError.
    """
    place = Path(folder)
    return _load(place, read_nuts(place), device, classes, run_code=run_code)


def write_nuts(folder: Path, description: NutsDescription) -> None:
    """Write ``nuts.json`` whole or not at all, a line a key; RunError if it cannot be written."""
    plain = msgspec.to_builtins(description, enc_hook=lambda number: number.item())  # numpy's numbers
    settings = plain.pop("settings")
    flat = {"format_version": FORMAT_VERSION, **settings.pop("transform"), **settings, **plain}
    lines = (f"  {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in flat.items())
    write_atomically(Path(folder) / FILE, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def read_nuts(folder: Path) -> NutsDescription:
    """Read ``nuts.json``; no model is loaded and no code runs.

    What `write_nuts` did not write, or is out of range, is a ModelError.
    """
    path = Path(folder) / FILE
    if leads_out(folder, FILE):
        raise ModelError(f"{path} {LINK_OUT}: {COPY_IT}")
    text = read_bytes(path, f"name a folder that holds {FILE}", TEXT)
    try:
        plain = parse_json(text)
    except ValueError:
        raise ModelError(f"{path} is not JSON: restore it, or save the mix again") from None
    if not isinstance(plain, dict) or "format_version" not in plain:
        raise ModelError(f"{path}: no format version: name a file that certmix wrote")
    version = plain.pop("format_version")
    if isinstance(version, bool) or version != FORMAT_VERSION:
        earlier = {0: "fit again, its LN was another", 1: "fit again, its LN was another", 2: "fit again"}
        remedy = earlier.get(version, "update certmix") if type(version) is int else "save the mix again"
        found = f"format version {json.dumps(version)[:20]}"
        raise ModelError(f"{path}: {found}, this certmix reads {FORMAT_VERSION}: {remedy}")
    transform = TransformSettings.__struct_fields__
    numbers = (*transform, *MixSettings.__struct_fields__[1:])
    lacking = {*numbers, *NutsDescription.__struct_fields__[1:]} - plain.keys()
    if lacking:
        raise ModelError(f"{path} lacks {', '.join(sorted(lacking)[:3])}: save the mix again")
    settings: dict[str, Any] = {name: plain.pop(name) for name in numbers}
    settings["transform"] = {name: settings.pop(name) for name in transform}
    try:
        return msgspec.convert({**plain, "settings": settings}, NutsDescription)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ParameterError):
            raise ModelError(f"{path}: {error.__cause__}") from None
        said, _, where = str(error).partition(" - at `$")
        place = where.strip(".`").removeprefix("settings.").removeprefix("transform.")
        raise ModelError(f"{path}: {place or 'the file'}: {said}: save the mix again") from None
    except UnicodeEncodeError:
        raise ModelError(f"{path} holds a text that is not Unicode: save the mix again") from None


def _load(
    place: Path,
    description: NutsDescription,
    device: str | torch.device,
    classes: int | None,
    *,
    named_by: Naming = None,
    run_code: bool,
) -> LoadedNuts:
    """Load both base models, which must take inputs of one range."""
    how = (device, classes, named_by, run_code)
    pair = [_base(place, description, role, *how) for role in ("standard", "robust")]
    standard, robust = (one.input_range for one in pair)
    if standard and robust and standard != robust:
        raise ModelError(
            f"{place}: the standard model takes inputs in {standard}, the robust one in {robust}: "
            "mix models of one range"
        )
    return LoadedNuts(place, description, *pair)


def _base(
    place: Path,
    description: NutsDescription,
    role: str,
    device: str | torch.device,
    classes: int | None,
    named_by: Naming,
    run_code: bool,
) -> LoadedModel:
    """Load one base model, and refuse another than the one that was tuned."""
    reference = getattr(description, role)
    known = absolute(reference, place, role)
    weights = None if known.weights is None else Path(known.weights)
    try:
        loaded = load_model(
            known.spec, weights=weights, normalize=known.normalize, outputs=known.outputs, files=known.files,
            device=device, classes=classes, named_by=[*files_of(named_by), place / FILE], run_code=run_code,
        )  # fmt: skip
    except (ModelError, ParameterError) as error:
        raise ModelError(f"{place / FILE}: the {role} model: {error}") from error
    if loaded.checksum != reference.checksum:
        raise ModelError(
            f"{place / FILE}: the {role} model {reference.spec} has checksum {loaded.checksum[:12]}..., "
            f"the one that was tuned {reference.checksum[:12]}...: restore its weights, code and "
            "normalisation, or tune again and save with copy_weights"
        )
    return loaded


def load_part(
    folder: Path,
    part: str,
    spec: str,
    *,
    device: str | torch.device = "cpu",
    classes: int | None = None,
    named_by: Naming = None,
    run_code: bool = False,
) -> LoadedModel:
    """Load the mix (part ``""``) or one of `PARTS`, as `load_model` returns it.

    ``robust``, ``standard`` and ``base`` load one base model alone.  The
    checksum covers the numbers that the part depends on, and its base models.  `named_by` is the file that
    names the mix, if one does: code in its folder is not run either.
    """
    if part and part not in PARTS:
        ways = ", ".join(f"#{name}" for name in PARTS)
        raise ModelError(f"{spec}: part #{part} is unknown: use one of {ways}, or none for the mix")
    place = Path(folder)
    description = read_nuts(place)
    own = description.settings
    if part in ("standard", "base", "robust"):
        role = "standard" if part == "standard" else "robust"
        one = _base(place, description, role, device, classes, named_by, run_code)
        if part != "robust":
            return replace(one, spec=spec)
        made, pair = replace(one, card=None), [one]
        module: nn.Module = TransformedRobust(one.module, NonlinearTransform.of(own.transform)).eval()
    else:
        loaded = _load(place, description, device, classes, named_by=named_by, run_code=run_code)
        module, pair = getattr(loaded, part or "mixture"), [loaded.standard, loaded.robust]
        input_range = loaded.standard.input_range or loaded.robust.input_range
        made = LoadedModel(module, "", spec, "", None, input_range, None)
    depends = {"": ("alpha", "standard_temperature"), "auxiliary": ("alpha_d", "r_d"), "robust": ()}
    depends["bypass"] = (*depends[""], *depends["auxiliary"])
    numbers = msgspec.structs.asdict(own.transform) | {name: getattr(own, name) for name in depends[part]}
    checksum = digest_of(["nuts", LAYER_NORM, part, numbers, [one.checksum for one in pair]])
    name = f"nuts:{place.resolve().name}" + (f"#{part}" if part else "")
    return replace(made, module=module, name=name, spec=spec, checksum=checksum)


def _refer(base: BaseModel, folder: Path, copy: bool) -> ModelReference:
    """Return how a mix in `folder` names a base model; with `copy`, its weights are put there first."""
    spec, weights = base.loaded.spec, None if base.weights is None else str(base.weights)
    if _is_nuts(spec):
        raise ModelError(f"{spec} is itself a nonlinear mix: give two plain models as base models")
    if copy and denoised_parts(spec) is not None:
        raise ModelError(f"{spec}: weights behind a denoiser are not copied: leave --copy-weights out")
    if copy and spec not in zoo_names() and not (library_of(spec) and weights is None):
        target, source = folder / "models" / base.loaded.checksum[:16], Path(os.path.expanduser(spec))
        if base.loaded.card is not None:
            if source.is_dir():  # it stands for its only card
                source = next(
                    source / f"{name}.json"
                    for name in zoo_names(source)
                    if (source / f"{name}.safetensors").is_file()
                )
            _copied(source.with_suffix(".safetensors"), target)  # before the card that names them
            spec = _copied(source, target)
        elif not is_program(spec) and (state := _state(base)) is not None:
            weights = str(target / "weights.safetensors")
            write_atomically(Path(weights), state)
    return ModelReference(
        _changed(spec, lambda path: _told(path, folder)),
        weights and _told(weights, folder),
        base.normalize,
        base.loaded.checksum,
        tuple(_told(file, folder) for file in base.files),
        base.outputs,
    )


def absolute(reference: ModelReference, folder: Path, role: str) -> ModelReference:
    """Return a reference with absolute paths, as `load_model` takes it.

    A relative path that leads out of the folder, and a model that is itself a nonlinear mix, are ModelErrors.
    """
    where = f"{folder / FILE}: the {role} model"
    plain = not _is_nuts(reference.spec)
    spec = _changed(reference.spec, lambda path: _found(path, folder, where)) if plain else ""
    if not plain or _is_nuts(spec):
        raise ModelError(f"{where} {reference.spec} is itself a nonlinear mix: name a plain model")
    weights = None if reference.weights is None else _found(reference.weights, folder, where)
    files = tuple(_found(file, folder, where) for file in reference.files)
    return msgspec.structs.replace(reference, spec=spec, weights=weights, files=files)


def _changed(spec: str, change: Callable[[str], str]) -> str:
    """Return a spec with the paths in it changed."""
    return paths_changed(spec, lambda path: path if path in zoo_names() else change(path))


def _told(path: str, folder: Path) -> str:
    """A path as it is written: relative to the folder for what lies inside, else absolute, or from ``~``."""
    resolved = Path(os.path.expanduser(path)).resolve()
    for start, place in ((".", folder.resolve()), ("~", Path(os.path.expanduser("~")).resolve())):
        if place in resolved.parents:
            return f"{start}/{resolved.relative_to(place).as_posix()}"
    return str(resolved)


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


def _is_nuts(spec: str) -> bool:
    if (both := denoised_parts(spec)) is not None:
        return any(map(_is_nuts, both))
    path = Path(os.path.expanduser("" if spec in zoo_names() else split_spec(spec)[1] or ""))
    return spec.startswith("nuts:") or path.name == FILE or (path != Path() and os.path.isfile(path / FILE))


def _copied(source: Path, target: Path) -> str:
    write_atomically(target / source.name, read_bytes(source, "restore it"))
    return str(target / source.name)


def _state(base: BaseModel) -> bytes | None:
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
