"""Models that others made: a file, an importable factory, an exported program, a library's by its name.

Each function returns a `Foreign`: the torch module and what, beside its weights, fixes the function it
computes, with the files that its code rests on, its own and what that imports.  What cannot be loaded raises
ModelError.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import logging
import os
import pickle
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, PathFinder, SourceFileLoader
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from certmix import guard
from certmix.errors import ModelError, describe, install
from certmix.files import BULK, TEXT, digest_of, read_file, what_it_is
from certmix.models.arrays import ArrayFunction, as_module, onnx_function
from certmix.models.zoo import read_bytes

_SUFFIXES = (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES, ".pyc")
_VAST = {"certmix", "torch"}
"""Packages of which a model's code is not thought to be a part."""
_OPEN = {"spec_from_file_location", "run_path", "run_module", "SourceFileLoader", "iter_modules"}
"""Calls that import what cannot be read off the source."""


def sources_of(file: Path, source: bytes, folder: Path) -> dict[str, bytes]:
    """Return what a module's file holds, and all files of the user's own that it imports, by their names.

    Imports are read off the source and followed through `folder`, where the module's top-level name lies, and
    folders of ``sys.path`` that hold no library.  A computed name brings all of a package, or of a folder.
    """
    given = (Path(entry or ".").resolve() for entry in sys.path)
    folders = [folder, *(one for one in given if one.is_dir() and not is_installed(one))]
    found: dict[Path, bytes] = {}
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found[path] = source if path == file else read_file(path)
        root = _root(path, folders)
        package = path.relative_to(root).parent.parts
        for name in _imports(found[path], package):
            if name:
                waiting += located(name, folders)
            else:
                waiting += sorted((root / package[0]).rglob("*.py") if package else root.glob("*.py"))
    return _labelled(found, folders)


def module_sources(name: str) -> dict[str, bytes]:
    """Return the same of an imported module; of an installed package all its files, of torch its own."""
    top, module = (sys.modules.get(one) for one in (name.partition(".")[0], name))
    file = Path(getattr(module, "__file__", None) or "")
    if not file.is_file():
        return {}
    file, source = file.resolve(), read_file(file, BULK)
    places = [Path(place).resolve() for place in getattr(top, "__path__", ())] or [file]
    if not is_installed(places[0]):
        return sources_of(file, source, places[0].parent)
    if name.partition(".")[0] in _VAST or places == [file]:
        return {file.name: source}
    files = [path for place in places for path in sorted(place.rglob("*.py"))]
    held = {path: read_file(path, BULK) for path in (file, *files)}
    return _labelled(held, [place.parent for place in places])


def is_installed(path: Path) -> bool:
    """Whether a path belongs to Python or to its packages."""
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts) or any(
        path.is_relative_to(place) for place in _of_python(sys.prefix, sys.base_prefix)
    )


@lru_cache(maxsize=1)
def _of_python(*prefixes: str) -> set[Path]:
    return {Path(place).resolve() for place in (*prefixes, *sysconfig.get_paths().values())}


def _root(path: Path, folders: Iterable[Path]) -> Path:
    """Return the innermost of the folders that hold a file, or else its own."""
    inside = [folder for folder in folders if path.is_relative_to(folder)]
    return max(inside, key=lambda folder: len(folder.parts), default=path.parent)


@lru_cache(maxsize=32)  # one command loads the same file several times
def _imports(source: bytes, package: tuple[str, ...]) -> tuple[str, ...]:
    """Return the dotted names that a source within a package may import, "" where one is computed."""
    return tuple(_imported(source, package))


def _imported(source: bytes, package: tuple[str, ...]) -> Iterator[str]:

    def absolute(level: int, name: str) -> str:
        around = package[: len(package) - level + 1] if level else ()
        return ".".join(part for part in (*around, name) if part)

    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError):  # an extension, or a file of another Python
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = absolute(node.level, node.module or "")
            yield from (f"{parent}.{one.name}".lstrip(".") for one in node.names)
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "__import__"):
                first = node.args[0] if node.args else None
                told = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
                yield absolute(len(told) - len(told.lstrip(".")), told.lstrip("."))
            elif called in _OPEN:
                yield ""


def located(name: str, folders: Iterable[Path]) -> list[Path]:
    """Return the files of a dotted name and of the packages around it in the first folder that has any."""
    parts = name.split(".")
    for folder in folders if parts[0] not in _VAST else ():
        found = []
        for k in range(1, len(parts) + 1):
            path = folder.joinpath(*parts[:k])
            starts = (f"{path / '__init__'}", f"{path}")
            files = (Path(start + suffix) for start in starts for suffix in _SUFFIXES)
            found += [file for file in files if file.is_file()][:1]
        if found:
            return found
    return []


def _labelled(found: dict[Path, bytes], folders: Iterable[Path]) -> dict[str, bytes]:
    """Return what files hold by their paths within the folder that they were found from."""
    labelled: dict[str, bytes] = {}
    for path, source in found.items():
        label = path.relative_to(_root(path, folders)).as_posix()
        while label in labelled:
            label += " (another)"
        labelled[label] = source
    return labelled


OWN = "its own file"
"""Name of a model's file among its sources: what it is called does not matter."""


@dataclass(frozen=True)
class Foreign:
    """A module, its name, its code's identity (files in `sources` belong to it), and the input it wants.

    `doubt` says why the identity cannot be vouched for; `normalize` (MEAN/STD) and `outputs` are defaults;
    `noise_sigma` is the noise level that it is for.  `notes` say what was chosen that a user wants to know.
    """

    module: nn.Module
    name: str
    identity: bytes
    normalize: str | None = None
    input_range: tuple[float, float] | None = None
    sources: Mapping[str, bytes] = field(default_factory=dict)
    doubt: str = ""
    outputs: str = "logits"
    noise_sigma: float | None = None
    notes: tuple[str, ...] = ()


class FixedMode(nn.Module):
    """A module that refuses `eval`, such as an exported program: its mode was fixed when it was made."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        for part in self.modules():
            part.training = False

    def train(self, mode: bool = True) -> FixedMode:
        return self

    def forward(self, inputs: Tensor) -> Any:
        return self.module(inputs)


def evaluating(module: nn.Module) -> nn.Module:
    """Put a module in evaluation mode; one that refuses is wrapped in `FixedMode`."""
    if not isinstance(module, nn.Module):
        raise ModelError(f"a model of type {type(module).__name__} is no torch module: give one")
    try:
        return module.eval()
    except NotImplementedError:
        return FixedMode(module)


class Made(NamedTuple):
    """What a factory made, and what its code is known by; see `Foreign`."""

    value: Any
    name: str
    identity: bytes
    sources: dict[str, bytes]
    doubt: str = ""

    def foreign(self, spec: str) -> Foreign:
        """Return it as a model; ModelError if it is none, see `as_module`."""
        module, outputs = as_module(self.value, spec)
        return Foreign(
            module, self.name, self.identity, outputs=outputs, sources=self.sources, doubt=self.doubt
        )


def product_of(spec: str) -> Made:
    """Call the factory that a spec names, of a file or of a module."""
    file, _, factory = spec.rpartition(":")
    if file.endswith(".py"):
        return from_file(Path(os.path.expanduser(file)), factory)
    return from_module(file, factory)


def from_file(path: Path, factory: str) -> Made:
    """Run a Python file and call its factory.

    Modules that it takes from its folder are run as their files are now, and forgotten afterwards, so that
    two files may each have their own `utils`.
    """
    spec = f"{path}:{factory}"
    source = read_bytes(path, "give the path of a Python file, as in file.py:factory", TEXT)
    path = path.resolve()
    unique = "_certmix_model_" + digest_of(str(path).encode() + source)[:16]
    module = ModuleType(unique)
    module.__file__ = str(path)
    sys.modules[unique] = module
    with _importable(path.parent):
        try:
            exec(compile(source, str(path), "exec"), module.__dict__)
        except BaseException as error:
            guard.keep_interrupt(error)
            del sys.modules[unique]
            raise ModelError(f"{spec}: {describe(error)}{_where(error, path)}: mend the file") from error
        made = _call(module, factory, spec, path)
        sources = sources_of(path, source, path.parent)
        sources = {OWN if label == path.name else label: code for label, code in sources.items()}
    return Made(made, f"{path.stem}:{factory}", f"file\0{factory}".encode(), sources)


def from_module(name: str, factory: str) -> Made:
    """Import a module and call its factory; the module that defines the factory counts as well."""
    spec = f"{name}:{factory}"
    try:
        module = importlib.import_module(name)
    except BaseException as error:
        guard.keep_interrupt(error)
        raise ModelError(
            f"{spec}: {describe(error)}: install the package, or give the path of a file as file.py:factory"
        ) from error
    made = _call(module, factory, spec)
    defining = getattr(attrgetter(factory)(module), "__module__", None) or name
    sources = [module_sources(one) for one in dict.fromkeys([name, defining])]
    doubt = "" if all(sources) else "the source of its factory cannot be had"
    merged = {label: code for one in sources for label, code in one.items()}
    return Made(made, spec, f"module\0{spec}".encode(), merged, doubt)


def _program(path: Path, remedy: str) -> bytes:
    """Return what a file holds that is a model, whole."""
    data = read_bytes(path, remedy)
    if wrong := what_it_is(data):
        raise ModelError(f"{path} cannot be read: {wrong}")
    return data


def from_export(path: Path, device: str) -> Foreign:
    """Read a file written by `torch.export.save` and move its program to a device."""
    data = _program(path, "give the path of a file written by torch.export.save")
    from torch.export.passes import move_to_device_pass

    log = logging.getLogger("torch.export")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        program = move_to_device_pass(torch.export.load(io.BytesIO(data)), device)
        module = program.module()
    except BaseException as error:
        guard.keep_interrupt(error)
        raise ModelError(f"{path}: {describe(error)}: export it again with this version of torch") from error
    finally:
        log.setLevel(level)
    return Foreign(module, path.stem, b"export\0" + data)


def from_onnx(path: Path) -> Foreign:
    """Read an ONNX graph, with the weights that lie in other files beside it, for onnxruntime on the CPU."""
    data = _program(path, "give the path of an ONNX file")
    runtime, beside = optional("onnxruntime", "onnx"), sorted(path.resolve().parent.iterdir())
    held = {
        one.name: read_bytes(one, "restore it")
        for one in beside
        if one.name.encode() in data and one.is_file() and one.name != path.name
    }
    remedy = "export it again in one file, or with its weights beside it, for this version of onnxruntime"
    with made_by(str(path), remedy):
        function, note = onnx_function(runtime, data, str(path), held)
    notes = (note,) if note else ()
    return Foreign(ArrayFunction(function), path.stem, b"onnx\0" + data, sources=held, notes=notes)


def from_pickle(path: Path) -> Foreign:
    """Run a pickle, of joblib or plain, and take what it gives as a model."""
    data = _program(path, "give the path of a pickle or joblib file")
    load = optional("joblib", "sklearn").load if path.suffix == ".joblib" else pickle.load
    with made_by(str(path), "use the versions of Python and packages that it was written with"):
        made = load(io.BytesIO(data))
    module, outputs = as_module(made, str(path))
    sources = module_sources(type(made).__module__)
    doubt = "" if sources else "the source of its class cannot be had"
    return Foreign(module, path.stem, b"pickle\0" + data, sources=sources, doubt=doubt, outputs=outputs)


def from_timm(name: str, pretrained: bool, classes: int | None) -> Foreign:
    """Make a timm model; with its own weights it is normalised as timm says."""
    timm = optional("timm", "timm")
    # A model with weights of the user's takes the number of classes that these or else the data have.
    settings = {} if pretrained or classes is None else {"num_classes": classes}
    with made_by(f"timm:{name}", "check the name with timm.list_models(), or give weights of your own"):
        model = timm.create_model(name, pretrained=pretrained, **settings)
    config = (getattr(model, "pretrained_cfg", None) or {}) if pretrained else {}
    identity = f"timm\0{getattr(timm, '__version__', '')}\0{name}"
    size, share = config.get("input_size"), config.get("crop_pct") or 1
    sizes = (round(size[-1] / share), size[-1]) if size else ()
    return _from_library(f"timm:{name}", model, identity, (config.get("mean"), config.get("std")), sizes)


def from_torchvision(text: str, pretrained: bool, classes: int | None) -> Foreign:
    """Make a torchvision model, ``NAME`` or ``NAME@WEIGHTS``, normalised as its weights' transforms say."""
    models, (name, _, wanted) = optional("torchvision.models", "torchvision"), text.partition("@")
    settings: dict[str, Any] = {} if pretrained or classes is None else {"num_classes": classes}
    with made_by(f"torchvision:{text}", "check the name with torchvision.models.list_models()"):
        weights = models.get_model_weights(name)[wanted or "DEFAULT"] if pretrained else None
        model = models.get_model(name, weights=weights, **settings)
        shown = None if weights is None else weights.transforms()
    mean, std, *sizes = (getattr(shown, key, None) for key in ("mean", "std", "resize_size", "crop_size"))
    known = [int(one[0]) for one in sizes if one]
    identity = f"torchvision\0{getattr(sys.modules['torchvision'], '__version__', '')}\0{text}"
    return _from_library(f"torchvision:{text}", model, identity, (mean, std), known)


def from_robustbench(text: str, pretrained: bool, classes: int | None) -> Foreign:
    """Load a RobustBench model, ``MODEL`` or ``MODEL@dataset/threat``; inputs are in [0, 1]."""
    name, at, place = text.partition("@")
    dataset, slash, threat = (place if at else "cifar10/Linf").partition("/")
    if not (name and dataset and slash and threat):
        raise ModelError(f"robustbench:{text}: write robustbench:MODEL or robustbench:MODEL@dataset/threat")
    utils = optional("robustbench.utils", "robustbench")
    folder = str(Path(torch.hub.get_dir()) / "robustbench")
    remedy = "check the name, the dataset and the threat model on robustbench.github.io"
    with made_by(f"robustbench:{text}", remedy):
        model = utils.load_model(model_name=name, model_dir=folder, dataset=dataset, threat_model=threat)
    identity = f"robustbench\0{name}\0{dataset}\0{threat}"
    return _from_library(f"robustbench:{text}", model, identity)


@contextmanager
def made_by(spec: str, remedy: str) -> Iterator[None]:
    """Raise ModelError with this remedy for whatever a library raises."""
    try:
        yield
    except ModelError:
        raise
    except BaseException as error:
        guard.keep_interrupt(error)
        raise ModelError(f"{spec}: {describe(error)}: {remedy}") from error


def _from_library(
    spec: str, model: Any, identity: str, scale: tuple[Any, Any] = (None, None), sizes: Sequence[int] = ()
) -> Foreign:
    """Return a model for inputs in [0, 1] of a library, whose sources count whole.

    `scale` is mean and std, each a number a channel, `sizes` the shorter side and the centre square in pixels
    that its weights were made for, where they are known.
    """
    library, _, named = spec.partition(":")
    sources, name = module_sources(library), named if library == "timm" else named.partition("@")[0]
    doubt = "" if sources else f"the source of {library} cannot be had"
    normalize = "/".join(",".join(map(str, one)) for one in scale) if all(scale) else None
    notes = [] if normalize is None else [f"(x - mean) / std, {normalize}, is applied inside the model"]
    if len(sizes) == 2:
        notes.append("its weights were made for images by --resize {} --crop {}".format(*sizes))
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec} gives a value of type {type(model).__name__}, which is no torch module")
    return Foreign(
        model, name, identity.encode(), normalize, (0.0, 1.0), sources, doubt, notes=tuple(notes)
    )  # fmt: skip


def optional(module: str, extra: str) -> Any:
    """Import a module that is not always there; ModelError names the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ModelError(f"{extra} cannot be imported ({describe(error)}): {install(extra)}") from error


def _call(module: ModuleType, factory: str, spec: str, path: Path | None = None) -> Any:
    """Return what the factory gives; what is no function without arguments is taken as it is."""
    try:
        made = attrgetter(factory)(module)
    except AttributeError:
        names = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise ModelError(
            f"{spec}: there is no {factory!r}: it has {', '.join(names[:8]) or 'nothing to call'}"
        ) from None
    if callable(made) and not (isinstance(made, nn.Module) or _takes_a_batch(made)):
        try:
            made = made()
        except BaseException as error:
            guard.keep_interrupt(error)
            where = _where(error, path)
            remedy = "a factory is called without arguments and returns a model, or data"
            raise ModelError(f"{spec}: {describe(error)}{where}: {remedy}") from error
    return made


def _takes_a_batch(made: Callable[..., Any]) -> bool:
    """Whether a function must be called with one argument: it is a model, not a factory of one."""
    if inspect.isclass(made):
        return False
    try:
        wanted = inspect.signature(made)
        wanted.bind(None)
    except (TypeError, ValueError):
        return False
    return any(
        one.default is one.empty and one.kind < one.VAR_POSITIONAL for one in wanted.parameters.values()
    )


def _where(error: BaseException, path: Path | None) -> str:
    """Return the last line of the user's file that the error passed through."""
    if isinstance(error, SyntaxError) and path is not None and error.filename == str(path):
        return ""  # its message names the line
    frames = [f for f in traceback.extract_tb(error.__traceback__) if path and f.filename == str(path)]
    return f" (line {frames[-1].lineno})" if frames else ""


def class_sources(module: nn.Module) -> bytes:
    """Return the source, where it can be had, of the class of each of a module's parts."""
    sources = set()
    for kind in {type(part) for part in module.modules()}:
        try:
            sources.add(f"{kind.__qualname__}\0{inspect.getsource(kind)}")
        except (TypeError, OSError):
            sources.add(kind.__qualname__)
    return "\0".join(sorted(sources)).encode()


class _FromSource(SourceFileLoader):
    """Runs what a file holds now: bytecode that was kept may be of an earlier text of the same length."""

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.get_data(self.path), self.path)


@dataclass(frozen=True)
class _Neighbours:
    """Finds the modules of one folder, and has them run from source."""

    folder: Path

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return how to import a module that lies in the folder, None for others."""
        spec = PathFinder.find_spec(name, [str(self.folder)] if path is None else path)
        if spec is None or spec.origin is None or not Path(spec.origin).is_relative_to(self.folder):
            return None
        if type(spec.loader) is SourceFileLoader:
            spec.loader = _FromSource(name, spec.origin)
        return spec


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let imports look into a folder first, and forget afterwards what they found there.

    What was imported from there before is set aside meanwhile: its files may be others now.
    """
    path, finder = sys.path.copy(), _Neighbours(folder)
    before = {name: sys.modules.pop(name) for name in _local(folder, {})}
    others = sys.modules.copy()
    sys.path.insert(0, str(folder))
    sys.meta_path.insert(sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else 0, finder)  # type: ignore[arg-type]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = path
        sys.meta_path.remove(finder)  # type: ignore[arg-type]
        for name in _local(folder, others):
            del sys.modules[name]
        sys.modules.update(before)


def _local(folder: Path, others: Mapping[str, Any]) -> list[str]:
    """Return the modules, by name, whose top-level one lies in the folder and is not one of `others`."""
    tops: set[str] = set()
    called = folder.name
    for name, module in sys.modules.copy().items() if not is_installed(folder) else ():  # others import
        if "." in name or others.get(name) is module:
            continue
        known = getattr(module, "__dict__", {})  # a lazy module makes up what it is asked for
        for place in known.get("__path__") or [known.get("__file__")]:
            # Most places do not even hold the folder's name: paths are slow to compare.
            if isinstance(place, str) and called in place and Path(place).parent == folder:
                kept = str(known.get("__name__")).startswith(("_certmix_model_", "__main__", "certmix"))
                tops.update(() if kept else (name,))
    return [name for name in sys.modules if name.partition(".")[0] in tops] if tops else []
