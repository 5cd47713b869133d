"""From the text a user gives to a model that is ready to run."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from certmix import guard
from certmix.calling import call_it
from certmix.errors import ModelError, describe
from certmix.files import DESCRIPTION, digest_of, parse_json, read_file, unquoted
from certmix.models.architectures import LogProbabilities, Normalized, parse_normalize
from certmix.models.arrays import ArrayFunction, Estimator, as_module, content_of
from certmix.models.checks import fewer_classes
from certmix.models.composed import denoised_parts, denoised_spec, is_code
from certmix.models.denoised import Denoised, from_diffusers
from certmix.models.foreign import (
    Foreign,
    class_sources,
    evaluating,
    from_export,
    from_onnx,
    from_pickle,
    from_robustbench,
    from_timm,
    from_torchvision,
    located,
    product_of,
)
from certmix.models.hub import from_hf
from certmix.models.kinds import (
    OBJECT,
    OUTPUTS,
    PICKLES,
    is_factory,
    is_program,
    library_of,
    split_spec,
)
from certmix.models.weights import PICKLED, apply_weights, draws_weights, hash_state, read_weights
from certmix.models.zoo import ZOO_FOLDER, Card, load_zoo, read_bytes, zoo_card, zoo_names
from certmix.radii import Smoothing

FORMS = (
    "a card or folder written by 'certmix train', package.module:factory, file.py:factory, file.pt2, "
    "file.onnx, file.joblib, hf:FOLDER, timm:NAME, torchvision:NAME, robustbench:NAME, "
    "nuts:FOLDER[#robust|#bypass|#auxiliary|#standard|#base] or denoised:DENOISER,CLASSIFIER"
)
_FROM_LIBRARY = {
    "timm": from_timm, "torchvision": from_torchvision, "robustbench": from_robustbench, "hf": from_hf,
    "diffusers": lambda text, *_: from_diffusers(f"diffusers:{text}"),
}  # fmt: skip


def _find_mix(spec: str, zoo: Path) -> tuple[Path, str] | None:
    """Return the folder of a nonlinear mix that a spec names, and which part of it; None for other specs."""
    given, rest, part = spec.startswith("nuts:"), os.path.expanduser(spec.removeprefix("nuts:")), ""
    if given and not os.path.isdir(rest):
        rest, _, part = rest.partition("#")
    held = os.path.basename(rest) == "nuts.json" or os.path.isfile(os.path.join(rest, "nuts.json"))
    if not given and (not spec or spec in zoo_names(zoo) or not held):
        return None
    path = Path(rest)
    if not given and path.is_dir() and _models_in(path):
        raise ModelError(f"folder {spec} holds a mix and a model: write nuts:{spec}, or name the card")
    return (path.parent if path.name == "nuts.json" else path), part


def _find_card(spec: str, zoo: Path) -> Path | None:
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


def _load_foreign(spec: str, device: str, pretrained: bool, classes: int | None, zoo: Path) -> Foreign:
    """Load what certmix did not make, from a library, an exported file, or a factory."""
    if library := library_of(spec):
        with guard.foreign(spec), guard.unwatched():  # a download takes its time
            return _FROM_LIBRARY[library](spec.partition(":")[2], pretrained, classes)
    with guard.foreign(spec):
        return _from_user(spec, device, zoo)


def _from_user(spec: str, device: str, zoo: Path) -> Foreign:
    """Load what lies in a file or module of the user's."""
    path = Path(os.path.expanduser(spec))
    if is_program(spec):
        if path.suffix in PICKLES:
            return from_pickle(path)
        return from_onnx(path) if path.suffix == ".onnx" else from_export(path, device)
    if is_factory(spec):
        return product_of(spec).foreign(spec)
    if spec.endswith((".py", ".py:")):
        raise ModelError(f"{spec} does not name a factory: write file.py:factory")
    if spec.endswith((".safetensors", *PICKLED)):
        read_weights(path)  # says what is wrong, if it is more than the missing model
        raise ModelError(
            f"{spec} holds weights without a model: "
            f"name a model, such as file.py:factory, and give {spec} as its weights"
        )
    near = difflib.get_close_matches(spec, zoo_names(zoo), 1)
    hint = f"did you mean {near[0]}? Else " if near else ""
    names = "".join(f"{name}, " for name in zoo_names(zoo))
    raise ModelError(f"model {spec!r} is unknown: {hint}use one of {names}{FORMS}")


Naming = str | Path | Sequence[Path] | None
"""The file that names a model, or the files that led there; None where its user does."""


def files_of(named_by: Naming) -> list[Path]:
    """Return the files that led to a model, in order."""
    if isinstance(named_by, str | Path):
        return [Path(named_by)]
    return list(named_by or ())


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, by its description: others write files of that name as well."""
    with suppress(OSError, ValueError):
        found = parse_json(read_file(folder / DESCRIPTION))
        return isinstance(found, dict) and {"format_version", "identity"} <= found.keys()
    return False


def refuse_code(spec: str, named_by: Naming, run_code: bool) -> None:
    """Refuse code that a file names: in the folder of a run or a mix always, elsewhere unless it was allowed.

    The files of `named_by` led there, the last of which names it: a run's, then that of a mix in it, so that
    the folder of each counts, and those of runs around it.  A guarantee, which is no JSON, lies beside the
    code that it is about.
    """
    naming = files_of(named_by)
    if not naming or not is_code(spec):
        return
    _, path, _ = split_spec(spec)
    if path is not None and (is_program(path) or path.endswith(".py")):
        files = [os.path.expanduser(path)]
    else:
        module = {"hf": "transformers"}.get(head := spec.partition(":")[0], head)  # or a library
        files = [str(file) for place in sys.path for file in located(module, [Path(place or ".")])]
    places = [Path(way(file)) for file in files for way in (os.path.abspath, os.path.realpath)]
    for file in (one for one in naming if one.suffix == ".json"):
        folders = {Path(way(file.parent)): file.parent for way in (os.path.abspath, os.path.realpath)}
        above = {one for folder in folders for one in folder.parents}
        folders |= {one: one for one in above if is_run(one)}  # a mix that lies in a run came with it
        for inside in (folders[one] for place in places for one in place.parents if one in folders):
            raise ModelError(
                f"{spec} is code inside {inside}, from where none is run: read it, move it elsewhere, "
                f"and name that place in {naming[-1].name}"
            )
    if not run_code:
        raise ModelError(
            f"{spec} is code that {naming[-1]} names, and was not run: read it, then add --run-code (from "
            "Python, run_code=True)"
        )


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, without gradients of its parameters, and what is known of it.

    `module` is the torch module, normalisation included, `spec` the text it was loaded by.  `checksum`,
    SHA-256 (hex), changes when the weights, the code or the normalisation change; `parts` are the digests of
    what it covers, and `doubt` says why it cannot vouch for what the model computes, "" where nothing is
    known against it.  `trained_for`, `input_range` and `card` are None where unknown.
    """

    module: nn.Module
    name: str
    spec: str
    checksum: str
    trained_for: Smoothing | None
    input_range: tuple[float, float] | None
    card: Card | None
    parts: Mapping[str, str] = field(default_factory=dict)
    doubt: str = ""


def load_model(
    spec: str,
    *,
    weights: Path | None = None,
    normalize: str | None = None,
    outputs: str | None = None,
    files: Sequence[str | Path] = (),
    device: str | torch.device = "cpu",
    classes: int | None = None,
    no_label_zero: bool = False,
    say: Callable[[str], None] | None = None,
    zoo: Path = ZOO_FOLDER,
    named_by: Naming = None,
    run_code: bool = False,
) -> LoadedModel:
    """Load a model by its spec; ModelError if it cannot be, or the weights do not fit it.

    Parameters
    ----------
    spec
        A shipped model's name; the path of a card (``.json``) or of a folder that holds one;
        ``package.module:factory`` or ``file.py:factory``, where the factory is a model or returns one when
        called without arguments: a torch module, a scikit-learn classifier, or a function that takes a batch
        of arrays or tensors; a ``.pt2`` file of `torch.export.save`; an ``.onnx`` file; a ``.joblib`` or
        ``.pkl`` pickle; ``hf:FOLDER-OR-ID`` of transformers; ``timm:NAME``; ``torchvision:NAME[@WEIGHTS]``;
        ``robustbench:MODEL[@dataset/threat]`` (default cifar10/Linf); ``nuts:FOLDER[#PART]``, a nonlinear
        mix or one of `certmix.nuts.folder.PARTS` of it; the folder's path alone will do; or
        ``denoised:DENOISER,CLASSIFIER``, specs of a denoiser, also ``diffusers:FOLDER@SIGMA``, and of the
        classifier behind it, to which `weights`, `normalize`, `outputs` and `classes` belong.
    weights, files
        A state dict to load: ``.safetensors``, or a torch file (``.pt``, ``.pth``) of tensors alone.  Further
        files that the model reads, which the checksum is to cover.
    normalize, outputs
        ``MEAN/STD``, one number or one a channel, applied inside the model, else ParameterError.  Whether it
        gives ``"logits"`` or ``"probabilities"``, of which logarithms are taken; None what its kind gives:
        probabilities of a scikit-learn classifier with ``predict_proba``, logits of all others.
    device
        Where it goes; what is no torch stays on the CPU.
    classes, no_label_zero
        Number of classes of the data, where known: the model may have more.  Whether no input has label 0:
        labels may count from 1.
    say, zoo
        Receives what a model's own files settled, such as its normalisation, and a warning where a factory,
        called twice then, draws its weights at random and none are given.  Folder of the shipped models.
    named_by, run_code
        The file that names the model, such as a run's ``run.json``, or the files that led there, None where
        its user does; whether code that such a file or a nonlinear mix names may run: shipped models and
        those with a card hold none.  Code in the folder of one of these files, that of a run or a mix, is
        refused in any case.
    """
    if spec.startswith(OBJECT):
        return _object(
            spec, weights, named_by, run_code, device, normalize=normalize, outputs=outputs, files=files
        )
    digests = _digests(files)
    try:
        sound = b"\0" not in os.fsencode(spec) and len(f"{spec}.".splitlines()) == 1
    except UnicodeEncodeError:
        sound = False
    if not sound:  # no path can be that, or it would not fit on a line
        raise ModelError(f"model {ascii(spec)[:80]} is neither a name nor a path: use {FORMS}")
    if (both := denoised_parts(spec)) is not None:
        how: dict[str, Any] = {
            "device": device, "say": say, "zoo": zoo, "named_by": named_by, "run_code": run_code
        }  # fmt: skip
        base = load_model(
            both[1], weights=weights, normalize=normalize, outputs=outputs, classes=classes,
            no_label_zero=no_label_zero, **how,
        )  # fmt: skip
        return _declared(behind(both[0], base, **how), digests)
    mix, naming = _find_mix(spec, zoo), files_of(named_by)
    quoting = partial(unquoted, spec, naming, "a model", "name it yourself, with --robust, to see why")
    with quoting():
        path = None if mix is not None else _find_card(spec, zoo)
    whole = mix is not None or path is not None
    own_weights = whole or is_program(spec) or library_of(spec) not in ("", "timm", "torchvision")
    if weights is not None and own_weights:
        raise ModelError(f"{spec} brings its own weights: give no others")
    if normalize is not None and whole:
        raise ModelError(f"{spec} normalises inside: give no other normalisation")
    if normalize is not None:
        parse_normalize(normalize)  # before anything is loaded or fetched
    if outputs is not None and (whole or outputs not in OUTPUTS):
        told = f"{spec} gives logits: declare no outputs" if whole else f"outputs {outputs!r}: use {OUTPUTS}"
        raise ModelError(told)
    if mix is not None:
        # A later station, which imports this one: asked for only where a mix is named.
        load_part: Callable[..., LoadedModel] = importlib.import_module("certmix.nuts.folder").load_part
        loaded = load_part(*mix, spec, device=device, classes=classes, named_by=named_by, run_code=run_code)
    elif path is not None:
        stem = path.name.removesuffix(".json")
        if naming and not path.exists():  # of what lies beside it nothing is told
            raise ModelError(f"{path}, which {naming[-1]} names, is missing: restore it, or name another")
        with quoting():
            card = zoo_card(stem, path.parent)
        if classes is not None and card.classes is None:
            raise ModelError(f"{spec} is a denoiser, which gives no classes: name it with --denoiser")
        if classes is not None and card.classes is not None and card.classes < classes:
            raise ModelError(fewer_classes(spec, card.classes, classes, no_label_zero))
        with quoting():
            module = load_zoo(stem, path.parent)
        loaded = LoadedModel(
            _ready(module, spec, device), card.name, spec,
            digest_of(f"zoo\0{card.name}\0{card.sha256}".encode()),
            card.trained_for, card.input_range, card, {"weights": card.sha256},
        )  # fmt: skip
    else:
        refuse_code(spec, named_by, run_code)
        state = None if weights is None else read_weights(Path(weights), say)
        make = partial(_load_foreign, spec, str(device), state is None, _rows(state, classes), zoo)
        foreign = make()
        if state is not None and weights is not None:
            apply_weights(foreign.module, state, Path(weights))
        elif (
            say is not None and ":" in spec and not library_of(spec) and not is_program(spec)
            and draws_weights(foreign.module, lambda: make().module)
        ):  # fmt: skip
            say(
                f"{spec} draws its weights at random and no weights were given, so that every run is of "
                "another network: give --robust-weights (or --standard-weights), or seed the factory"
            )
        for note in foreign.notes if say is not None else ():
            say(f"Note: {foreign.name}: {note}")  # type: ignore[misc]
        loaded = _finish(foreign, spec, normalize, outputs, device)
    return _declared(loaded, digests)


def _object(
    spec: str, weights: Path | None, named_by: Naming, run_code: bool, device: Any, **how: Any
) -> LoadedModel:
    """Return what a factory makes, known by its content as the same object handed over by a program is."""
    factory = spec.removeprefix(OBJECT)
    if not is_factory(factory):
        raise ModelError(f"{spec}: name a factory, object:file.py:factory or object:module:factory")
    if weights is not None:
        raise ModelError(f"{spec} brings its own weights: give no others")
    refuse_code(factory, named_by, run_code)
    with guard.foreign(factory):
        made = product_of(factory)
        made.foreign(factory)  # what is no model is refused by its factory's name
    return replace(wrap_model(made.value, device=device, **how), spec=spec, doubt=made.doubt)


def _rows(state: Mapping[str, torch.Tensor] | None, classes: int | None) -> int | None:
    """Return the number of classes of a network for these weights: that of the data, or of the last layer."""
    sizes = [len(value) for value in (state or {}).values() if value.ndim]
    return classes if not sizes or classes is None or classes in sizes else sizes[-1]


def behind(
    denoiser: str | nn.Module, base: LoadedModel, *, device: str | torch.device = "cpu", **how: Any
) -> LoadedModel:
    """Return a classifier behind a denoiser, a spec or a module: one function, with what is known of both."""
    front = (
        load_model(denoiser, device=device, **how)
        if isinstance(denoiser, str)
        else wrap_model(denoiser, device=device)
    )
    for one, has_classes in ((front, False), (base, True)):
        if one.card is not None and (one.card.classes is not None) != has_classes:
            kind, other = ("denoiser", "classifier")[:: 1 if has_classes else -1]
            raise ModelError(f"{one.name} is a {kind}: name a {other} there")
    if front.input_range and base.input_range and front.input_range != base.input_range:
        raise ModelError(
            f"{front.name} takes inputs in {front.input_range}, the classifier {base.name} in "
            f"{base.input_range}: take two of one range"
        )
    parts = {f"denoiser's {what}": value for what, value in front.parts.items()} | dict(base.parts)
    return LoadedModel(
        Denoised(front.module, base.module).eval(), f"{front.name}+{base.name}",
        denoised_spec(front.spec, base.spec),
        digest_of(["denoised", front.checksum, base.checksum]),
        front.trained_for, front.input_range or base.input_range, None, parts,
        "; ".join(filter(None, (front.doubt, base.doubt))),
    )  # fmt: skip


def _digests(files: Sequence[str | Path]) -> dict[str, str]:
    """Return the digests of declared files by their names; ModelError for one that is missing."""
    found: dict[str, str] = {}
    for file in files:
        data = read_bytes(Path(file).expanduser(), "restore the file that the model reads, or leave it out")
        name, digest = f"file {Path(file).name}", digest_of(data)
        found[name] = f"{found[name]}, {digest}" if name in found else digest
    return found


def _declared(loaded: LoadedModel, digests: dict[str, str]) -> LoadedModel:
    """Return a model whose checksum covers declared files as well, and that messages call by its name."""
    call_it(loaded.module, loaded.name)
    if not digests:
        return loaded
    checksum = digest_of([loaded.checksum, digests])
    return replace(loaded, checksum=checksum, parts={**loaded.parts, **digests})


def wrap_model(
    model: object,
    *,
    name: str | None = None,
    device: str | torch.device = "cpu",
    normalize: str | None = None,
    outputs: str | None = None,
    files: Sequence[str | Path] = (),
) -> LoadedModel:
    """Take a model as it is: a torch module is moved and put in evaluation mode in place.

    A `LoadedModel` is returned, a text or path is loaded as by `load_model`; else it is a torch module, a
    scikit-learn classifier or its ``predict_proba``, or a function that takes a batch (N, ...) as an array
    or, where it refuses that, as a tensor.  It gives logits or probabilities (N, classes), and has its own or
    its class's name by default; the rest is as for `load_model`.  The checksum holds weights, structure and
    its classes' source, or a function's code and what it takes from around it, but not what these take from
    elsewhere.  ModelError for anything else.
    """
    if isinstance(model, LoadedModel):
        return model
    if isinstance(model, str | os.PathLike):
        return load_model(os.fspath(model), normalize=normalize, outputs=outputs, files=files, device=device)
    module, kind = as_module(model, "the model")
    name = name or str(getattr(model, "__name__", type(model).__name__))
    content = repr(module) if module is model else content_of(model)
    identity = f"object\0{content}\0".encode() + class_sources(module)
    foreign = Foreign(module, name, identity, doubt="it is an object in memory", outputs=kind)
    return _declared(_finish(foreign, name, normalize, outputs, device), _digests(files))


def _finish(
    foreign: Foreign, spec: str, normalize: str | None, outputs: str | None, device: str | torch.device
) -> LoadedModel:
    normalize, outputs = foreign.normalize if normalize is None else normalize, outputs or foreign.outputs
    values = None if normalize is None else parse_normalize(normalize)
    parts = {
        "weights": _weights(foreign.module),
        "code": digest_of(foreign.identity),
        "normalisation": str(values),
        **({} if outputs == OUTPUTS[0] else {"outputs": outputs}),
        **{name: digest_of(source) for name, source in foreign.sources.items()},
    }
    module = foreign.module if values is None else Normalized(foreign.module, *values)
    module = module if outputs == OUTPUTS[0] else LogProbabilities(module)
    return LoadedModel(
        _ready(module, spec, device), foreign.name, spec, digest_of(parts),
        None if foreign.noise_sigma is None else Smoothing.of(foreign.noise_sigma),
        foreign.input_range, None, parts, foreign.doubt,
    )  # fmt: skip


def _weights(module: nn.Module) -> str:
    """Return a digest of a model's weights, or of the estimator that it asks."""
    asked = isinstance(module, ArrayFunction) and isinstance(module.function, Estimator)
    return content_of(module) if asked else hash_state(module)


def _ready(module: nn.Module, spec: str, device: str | torch.device) -> nn.Module:
    try:
        with guard.foreign(spec):
            return evaluating(module.to(device)).requires_grad_(False)
    except BaseException as error:
        guard.keep_interrupt(error)
        raise ModelError(f"{spec} on device {device}: {describe(error)}: use --device cpu") from error
