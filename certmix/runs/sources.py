"""Data and models as the user names them, loaded and checked together.  Torch is imported with models."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from certmix import guard
from certmix.data import DATASETS, dataset_of, is_fetched, parse_input_range, scaled, stack
from certmix.data.scales import SPREAD, parse_feature_scale
from certmix.errors import DataError, ModelError, ParameterError, RunError, brief
from certmix.files import unquoted
from certmix.models.composed import at_sigma, denoised_spec
from certmix.models.kinds import OBJECT, OUTPUTS, is_factory, is_model
from certmix.radii.smoothings import Smoothing
from certmix.runs.folder import with_paths
from certmix.runs.settings import Option, Settings, divide, fields, from_json, refuse
from certmix.types import Dataset

__all__ = ["Loaded", "Sources", "join", "load_data", "load_models", "load_sources", "sources_of"]

if TYPE_CHECKING:
    import torch
    from torch.nn import Module

    from certmix.models.spec import LoadedModel
    from certmix.sampling.enumerated import Views
else:

    class Module:
        """Stands for `torch.nn.Module`, so that torch is not imported; no value in a file is one."""

        __module__ = "torch.nn"


Model = str | os.PathLike[str] | Callable[..., Any]
"""A name, a path, or what takes a batch to logits, such as a torch module."""
Models = Model | tuple[Model | None, Model] | None
Data = Any
"""See `certmix.data.load`."""

RUN_CODE = "Also run code that a run, a guarantee or a mix names: read it first. Shipped models need none."
NONE: Mapping[str, Any] = MappingProxyType({})
DEFAULT_SPLIT = "test"
"""What files say where no split was named."""


def named_split(stored: Any) -> Any:
    """Return the split that a file names, None for the default, which data without splits have as well."""
    return None if stored == DEFAULT_SPLIT else stored


_FORMS = (
    "A shipped name, a card or folder of 'certmix train', file.py:factory, module:factory, .pt2, .onnx, "
    ".joblib, hf:FOLDER, timm:NAME, torchvision:NAME or robustbench:NAME"
)
_OUTPUTS = Option(
    "What it gives; by default logits, of a scikit-learn classifier probabilities.", choices=OUTPUTS
)


def model_or_none(text: str) -> str | None:
    """Read a model's spec, or "none"."""
    return None if text == "none" else text


class Sources(Settings, frozen=True):
    """Names of data and models, as `certmix.data.load` and `certmix.models.spec.load_model` take them.

    `data`, `standard` and `robust` may also be what `certmix.data.dataset_of` takes, and torch modules; such
    a run can be resumed but not be reproduced from its description.  ``standard`` None leaves the standard
    classifier out: certificates do not depend on it.  ``robust`` None takes the shipped model of the noise
    level, ``split`` None "test", or all of data without splits.  A `denoiser` becomes a part of `robust`.
    """

    data: Annotated[
        str | Dataset,
        Option(
            "cifar10-sample (500 test images, embedded), a CIFAR-10/100 folder, a folder of images "
            "(a sub-folder a class), an .npz file, a .npy file with its labels beside it, a table (.csv, "
            ".tsv, .parquet), IDX files, hf:NAME, or what makes them, file.py:factory.",
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
    resize: Annotated[int | None, Option("Input folders: shorter side, in pixels.")] = None
    crop: Annotated[int | None, Option("Input folders: side of the centre square, then.")] = None
    label_column: Annotated[
        str | None, Option("Tables: the column of labels.", metavar="NAME", shown="label, target, y or class")
    ] = None
    feature_scale: Annotated[
        str | tuple[float, ...] | None,
        Option(
            "Unit of each feature: noise is sigma times it, and radii count it. Numbers, their file, or std, "
            "the data's own standard deviations.",
            metavar="FILE|a,b,c|std",
            parse=parse_feature_scale,
        ),
    ] = None
    standard: Annotated[
        str | Module | None,
        Option(f"The accurate classifier g, or 'none'. {_FORMS}.", metavar="MODEL", parse=model_or_none),
    ] = "cifar10-standard"
    standard_weights: Annotated[str | None, Option("Its weights: .safetensors or .pt.", metavar="FILE")] = (
        None
    )
    standard_normalize: Annotated[str | None, Option("Its normalisation: 0.5/0.25.", metavar="MEAN/STD")] = (
        None
    )
    standard_outputs: Annotated[str | None, _OUTPUTS] = None
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
    robust_outputs: Annotated[str | None, _OUTPUTS] = None
    robust_files: Annotated[
        tuple[str, ...],
        Option("A further file that it reads; repeatable.", flag="robust-file", metavar="FILE"),
    ] = ()
    denoiser: Annotated[
        str | Module | None,
        Option(
            "Put in front of the base of h; without --robust that is the standard model. A shipped denoiser, "
            "a card, file.py:factory, module:factory, .pt2 or diffusers:FOLDER.",
            metavar="MODEL",
        ),
    ] = None
    run_code: Annotated[bool, Option(RUN_CODE)] = False

    def check(self) -> None:
        """Put the denoiser in front of the base of h, the standard model where none is named.

        Two specs become one, a part of `robust` from here on; objects are put together as they are loaded.
        """
        if self.denoiser is None:
            return
        changes: dict[str, Any] = {}
        if self.robust is None:
            if self.standard is None:
                raise ParameterError(
                    f"denoiser = {self.denoiser}: there is no classifier to put it in front of: name it "
                    "with --robust"
                )
            changes["robust"] = self.standard
            for what in ("weights", "normalize", "outputs", "files"):
                own, standard = getattr(self, f"robust_{what}"), getattr(self, f"standard_{what}")
                changes[f"robust_{what}"] = own or standard
        base = changes.get("robust", self.robust)
        if isinstance(self.denoiser, str) and isinstance(base, str):
            changes |= {"robust": denoised_spec(self.denoiser, base), "denoiser": None}
        for what, value in changes.items():
            msgspec.structs.force_setattr(self, what, value)

    def at(self, sigma: float) -> Sources:
        """Return the sources with the noise level told to a diffusion model that has none of its own."""
        told = {
            what: at_sigma(spec, sigma)
            for what, spec in (("robust", self.robust), ("denoiser", self.denoiser))
            if isinstance(spec, str)
        }
        return self.replace(**told)

    @property
    def origin(self) -> str | None:
        """The file that names them, None where whoever runs certmix does; see `SourcesOf`."""
        return None

    @property
    def origins(self) -> list[str]:
        """That file, if there is one."""
        return [] if self.origin is None else [self.origin]

    def how(self, role: str) -> dict[str, Any]:
        """Return with what beside its spec a model is loaded, for `certmix.models.spec.load_model`."""
        named = ("weights", "normalize", "outputs", "files")
        found = {what: getattr(self, f"{role}_{what}") for what in named}
        return found | {"weights": None if found["weights"] is None else Path(found["weights"])}

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``run.json``: paths as given, and whether code may run is not kept."""
        from certmix.models.zoo import zoo_names

        shown, shipped = super().as_dict(), {*zoo_names(), *DATASETS, SPREAD}
        for key in ("run_code", "named_by"):
            shown.pop(key, None)
        if self.denoiser is None:
            shown.pop("denoiser")
        shown["split"], shown["objects"] = self.split or DEFAULT_SPLIT, []
        for key in ("data", "standard", "robust", "denoiser"):
            if not isinstance(shown.get(key), str | None):
                shown[key] = None
                shown["objects"].append(key)
        return with_paths(shown, lambda path: path if path in shipped else _relative(path))  # type: ignore[no-any-return]

    def as_user(self) -> Sources:
        """Return the same, as whoever runs certmix names them."""
        return Sources(**{name: getattr(self, name) for name in Sources.__struct_fields__})

    def handed(self) -> dict[str, Any]:
        """Return the data and models that are not as by default, by name."""
        usual = {one.name: one.default for one in fields(Sources)}
        found = {name: getattr(self, name) for name in ("data", "standard", "robust")}
        return {name: one for name, one in found.items() if one is not None and one is not usual[name]}

    @staticmethod
    def from_dict(
        stored: dict[str, Any], named_by: Path, run_code: bool = False, given: Mapping[str, Any] = NONE
    ) -> SourcesOf:
        """Return the sources in a run's description, the file `named_by`, whose code runs with `run_code`.

        `given` stand for what was an object, or is no longer where it was.  RunError if others were objects,
        TypeError if no good.
        """
        known = dict(stored) if isinstance(stored, dict) else {"sources": stored}
        if odd := {"run_code", "named_by"} & known.keys():
            raise TypeError(f"good sources ({min(odd)} is not for a file to say)")
        objects = known.pop("objects", None)
        if isinstance(objects, list):
            objects = [name for name in objects if name not in given]
        if "split" in known:
            known["split"] = named_split(known["split"])
        if objects:
            named = brief(objects, 80).strip("[]")
            raise RunError(
                f"the run was made from Python objects ({named}): hand these over again in Python, as to "
                "certmix.verify(run, models, data), or make a run of named ones, such as m.py:net and d.npz"
            )
        for key in ("data", "standard", "robust", "denoiser"):
            if not isinstance(known.get(key, ""), str | None):
                raise TypeError(f"a good {key}")
        told = {**known, **given, "named_by": str(named_by), "run_code": run_code}
        return from_json(SourcesOf, told)  # type: ignore[no-any-return]


OF_STANDARD = tuple(name for name in Sources.__struct_fields__ if name.startswith("standard"))
OF_ROBUST = tuple(name for name in Sources.__struct_fields__ if name.startswith("robust"))

MODELS = (
    "give one model (a name, a torch module, a classifier with predict_proba or another callable), or a pair "
    "(standard, robust) of these"
)


def sources_of(models: Any, data: Any, options: dict[str, Any]) -> Sources:
    """Take from options what names data and models, beside what was given by place; ParameterError.

    One model is h's base, with no g; a pair is g and h.  None of either leaves it to the options.
    """
    (named,) = divide(options, Sources)
    if models is not None:
        for role in ("standard", "robust"):
            if role in named:
                raise ParameterError(f"models and {role} are both given: leave one of them out")
        pair = models if isinstance(models, tuple | list) else (None, models)
        if len(pair) != 2 or pair[1] is None:
            raise ParameterError(f"models = {len(pair)} of them, the last one {pair[-1:]!r}: {MODELS}")
        named["standard"], named["robust"] = pair
    for role in ("standard", "robust", "denoiser"):
        given = named.get(role)
        if given is not None and not is_model(given):
            remedy = "give a name or a torch module" if role == "denoiser" else MODELS
            raise ParameterError(f"{role} of type {type(given).__name__} is no model: {remedy}")
    if named.get("standard", "") is None:
        unused = (name for name in named if name.startswith("standard_"))
        refuse(named, unused, "is of the accurate classifier, and there is none")
    if data is not None:
        if "data" in named:
            raise ParameterError("data are given twice: leave one of them out")
        named["data"] = data
    if isinstance(named.get("data"), dict):  # an object, where a file's would be a fault
        named["data"] = MappingProxyType(named["data"])
    return Sources(**named)


class SourcesOf(Sources, frozen=True):
    """Sources that a file names, such as a run's ``run.json``: their code runs with `run_code` alone."""

    named_by: str = ""

    @property
    def origin(self) -> str | None:
        """The file."""
        return self.named_by


def _relative(path: str) -> str:
    """Return a path, marked by ``./`` where it is relative and something lies there."""
    given = os.path.isabs(path) or path.startswith(("~", "./", "../")) or not os.path.exists(path)
    return path if given else f"./{path}"


def absolute(sources: dict[str, Any]) -> dict[str, Any]:
    """Return sources as plain data with paths made absolute, where something lies there."""

    def found(path: str) -> str:
        there = os.path.expanduser(path)
        marked = path.startswith(("./", "../", "~")) or os.path.isabs(path)
        return os.path.realpath(there) if marked and os.path.exists(there) else path

    return with_paths(sources, found)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Loaded:
    """A data set and its two models, checked to fit together; `standard` may be absent."""

    dataset: Dataset
    standard: LoadedModel | None
    robust: LoadedModel

    @property
    def models(self) -> dict[str, LoadedModel | None]:
        """Both by role."""
        return {"robust": self.robust, "standard": self.standard}


def _no_label_zero(dataset: Dataset) -> bool:
    return bool(dataset.labels.min() > 0) and dataset.settings.get("source") != "images"


def _tell(dataset: Dataset, say: Callable[[str], None], quoting: bool = True) -> None:
    """Say how data were understood, with or without names of classes and columns."""
    for key in ("clipped", *(("labels", "texts") if quoting else ())):
        if key in dataset.settings:
            say(f"{dataset.name}: {dataset.settings[key]}")


def _check(
    role: str, model: LoadedModel, dataset: Dataset, device: torch.device, say: Callable[[str], None]
) -> int:
    """Run a model on some inputs, and return how many classes it tells apart."""
    import torch

    from certmix.calling import ModelWarning
    from certmix.models.checks import check_logits, looks_like_probabilities

    positions = range(min(4, len(dataset)))
    inputs = torch.from_numpy(stack(dataset, list(positions))).to(device)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", ModelWarning)
        logits = check_logits(
            model.module, inputs, dataset.classes, model.name, no_label_zero=_no_label_zero(dataset)
        )
    for one in heard:
        if issubclass(one.category, ModelWarning):
            say(str(one.message))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if looks_like_probabilities(logits):
        say(
            f"{model.name} seems to return probabilities, and logits were declared: declare --{role}-outputs "
            "probabilities, or leave its softmax out; else clean accuracy of the mix is wrong"
        )
    expected = model.input_range
    if expected is not None and dataset.input_range is not None and expected != dataset.input_range:
        say(f"{model.name} expects inputs in {expected}, the data lie in {dataset.input_range}")
    return logits.shape[1]


def _fit(
    dataset: Dataset, models: Mapping[str, LoadedModel], device: torch.device, say: Callable[[str], None]
) -> Dataset:
    """Check models on some inputs; return the data set with the classes that they tell apart."""
    counts = {role: _check(role, model, dataset, device, say) for role, model in models.items()}
    if len(set(counts.values())) > 1:
        told = " and ".join(f"{models[role].name} {count}" for role, count in counts.items())
        raise ModelError(
            f"the two models tell different numbers of classes apart ({told}): mix models of one"
        )
    count = max(counts.values())
    if count > dataset.classes:
        say(
            f"{dataset.name} shows {dataset.classes} classes, the model tells {count} apart: those from "
            f"{dataset.classes} on have no input here"
        )
    return with_classes(dataset, count)


def with_classes(dataset: Dataset, count: int) -> Dataset:
    """Return a data set of at least `count` classes; those without a name are called by their number."""
    names = (*dataset.class_names, *map(str, range(dataset.classes, count)))
    return dataset if count <= dataset.classes else replace(dataset, class_names=names)


def load_sources(
    sources: Sources, sigma: float | Smoothing, device: torch.device, say: Callable[[str], None]
) -> Loaded:
    """Load data and models as `load_models` does; without a name, the noise picks the robust one."""
    from certmix.models.checks import noise_warnings, resolve_robust

    dataset = load_data(sources)  # before models: what is wrong with it is not hidden behind theirs
    robust_spec = sources.robust
    if robust_spec is None or isinstance(robust_spec, str):
        robust_spec = resolve_robust(robust_spec, sigma)
    from certmix.sampling.enumerated import Views

    smoothing = Smoothing.of(sigma)
    loaded = load_models(sources, robust_spec, device, say, dataset, views=Views.of_noise(smoothing))
    robust = loaded.robust
    for warning in noise_warnings(robust.name, robust.trained_for, smoothing, dataset.input_range):
        say(warning)
    return loaded


def load_models(
    sources: Sources,
    robust_spec: str | Module,
    device: torch.device,
    say: Callable[[str], None],
    dataset: Dataset | None = None,
    *,
    views: Views | None = None,
) -> Loaded:
    """Load data, the robust model `robust_spec` and the standard model, and check that they fit together.

    `dataset` is given where it is loaded already; `say` receives warnings, and `views` are what the robust
    model is shown.  DataError, ModelError or ParameterError if something cannot be loaded or does not fit.
    """
    from certmix.models.spec import behind, load_model, wrap_model

    found: dict[str, LoadedModel] = {}
    dataset = load_data(sources) if dataset is None else dataset
    _tell(dataset, say, sources.origin is None)
    for role, given in (("robust", robust_spec), ("standard", sources.standard)):
        how = sources.how(role)
        if isinstance(given, str):
            found[role] = load_model(
                given, device=device, classes=dataset.classes, no_label_zero=_no_label_zero(dataset), say=say,
                named_by=sources.origin, run_code=sources.run_code, **how,
            )  # fmt: skip
        elif given is not None:
            if how.pop("weights") is not None:
                raise ModelError(f"{role} weights: the model is an object, which has its own: leave them out")
            found[role] = wrap_model(given, device=device, **how)
        if role == "robust" and sources.denoiser is not None:
            how = {"named_by": sources.origin, "run_code": sources.run_code}
            found[role] = behind(sources.denoiser, found[role], device=device, say=say, **how)
        if role == "robust" and views is not None:
            found[role] = shown_by(found[role], views, dataset)
    return Loaded(_fit(dataset, found, device, say), found.get("standard"), found["robust"])


def shown_by(model: LoadedModel, views: Views, dataset: Dataset) -> LoadedModel:
    """Return a base model behind the views of a kind of smoothing."""
    return replace(model, module=views.shown(model.module, dataset.read(0).shape))


def load_data(sources: Sources) -> Dataset:
    """Load the data set that the sources name; DataError or ModelError if it cannot be, or holds nothing."""
    dataset = sources.data
    if isinstance(dataset, Dataset):
        if sources.split not in (None, dataset.split):
            raise DataError(
                f"split = {sources.split!r}: the data are a Dataset already, of split {dataset.split!r}: "
                "leave it out, or give their name or path"
            )
    else:
        if isinstance(dataset, str) and is_factory(dataset):
            dataset = _made(dataset, sources)
        elif is_fetched(dataset) and sources.origin is not None and not sources.run_code:
            raise DataError(
                f"{brief(dataset)} is data on a network that {sources.origin} names, and was not fetched: "
                "add --run-code (from Python, run_code=True), or name the data yourself"
            )
        with _unquoted_data(sources):
            dataset = dataset_of(
                dataset, sources.split, input_range=sources.input_range, resize=sources.resize,
                crop=sources.crop, label_column=sources.label_column,
            )  # fmt: skip
    if sources.feature_scale is not None and len(dataset):
        remedy = "name it yourself, with --feature-scale, to see why"
        with (
            _unquoted_data(sources),
            unquoted(sources.feature_scale, sources.origins, "feature scales", remedy),
        ):
            dataset = scaled(dataset, sources.feature_scale)
    if len(dataset) == 0:
        raise ModelError(f"{dataset.name} holds no inputs: choose other data or another --split")
    return dataset


def _unquoted_data(sources: Sources) -> AbstractContextManager[None]:
    """Say nothing of what lies in data that a file names."""
    return unquoted(sources.data, sources.origins, "data", "name it yourself, with --data, to see why")


def _made(spec: str, sources: Sources) -> Any:
    """Return the data that a factory makes, if it may run."""
    from certmix.models.foreign import product_of
    from certmix.models.spec import refuse_code

    refuse_code(spec, sources.origin, sources.run_code)
    with guard.foreign(spec):
        return product_of(spec).value


def handed_over(stored: Any, handed: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands for the objects of a run's sources: of names of factories, what these make."""
    objects = stored.get("objects") if isinstance(stored, dict) else None
    return {
        role: f"{OBJECT}{one}"
        if role != "data" and role in (objects or ()) and isinstance(one, str) and is_factory(one)
        else one
        for role, one in handed.items()
    }


def join(
    dataset: Dataset,
    standard: LoadedModel,
    robust: LoadedModel,
    device: torch.device,
    say: Callable[[str], None],
) -> Loaded:
    """Check that loaded models fit a data set, ModelError if one does not, and return all three."""
    _tell(dataset, say)
    fitting = _fit(dataset, {"robust": robust, "standard": standard}, device, say)
    return Loaded(fitting, standard, robust)
