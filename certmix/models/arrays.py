"""Models that are no torch modules: a function on arrays, a scikit-learn classifier, an ONNX graph."""

from __future__ import annotations

import functools
import inspect
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from certmix.errors import CertmixError, ModelError, describe
from certmix.files import digest_of
from certmix.models.kinds import METHODS, OUTPUTS
from certmix.models.weights import hash_state


class ArrayFunction(nn.Module):
    """A function on a batch (N, ...), of arrays, or of tensors where it refuses these.

    Which of the two is found out at the first call and kept.  Gradients flow through tensors alone.  Modules
    that the function holds or names are parts of it.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function
        self.on_arrays: bool | None = None
        held = held_by(function).values()
        self.parts = nn.ModuleList(one for one in held if isinstance(one, nn.Module))

    def forward(self, inputs: Tensor) -> Any:
        if self.on_arrays is not None:
            return self.function(_array(inputs) if self.on_arrays else inputs)
        try:
            found = self.function(_array(inputs))
            self.on_arrays = True
        except CertmixError:
            raise
        except Exception as error:
            try:
                found = self.function(inputs)
            except Exception as other:
                told = f"{describe(error)} of an array, {describe(other)} of a tensor"
                raise RuntimeError(told) from error
            self.on_arrays = False
        return found

    def __deepcopy__(self, memo: object) -> ArrayFunction:
        return self  # what the function holds may not be copied


class Estimator:
    """A scikit-learn classifier as a function on arrays: column k of what it gives is class k of the data."""

    def __init__(self, estimator: Any, method: str) -> None:
        self.estimator, self.method = estimator, method
        self.names = getattr(estimator, "feature_names_in_", None)

    def __call__(self, inputs: NDArray[Any]) -> Any:
        rows: Any = inputs.reshape(len(inputs), -1)
        if self.names is not None:
            import pandas

            rows = pandas.DataFrame(rows, columns=self.names)
        found = getattr(self.estimator, self.method)(rows)
        if self.method == METHODS[1] and np.ndim(found) == 1:  # of two classes: log(p / (1 - p)), or like it
            found = np.stack([-0.5 * found, 0.5 * found], 1)
        return found


def as_module(made: Any, spec: str) -> tuple[nn.Module, str]:
    """Return a model of any kind as a torch module, and whether it gives logits or probabilities.

    That is a module itself, a scikit-learn classifier or its method, or a function on a batch; ModelError
    for anything else.
    """
    if isinstance(made, nn.Module):
        return made, "logits"
    owner, name = getattr(made, "__self__", None), getattr(made, "__name__", "")
    estimator, methods = (owner, (name,)) if name in METHODS and owner is not None else (made, METHODS)
    method = next((one for one in methods if not inspect.isclass(made) and hasattr(estimator, one)), None)
    if method is not None:
        _check_classes(estimator, spec)
        return ArrayFunction(Estimator(estimator, method)), OUTPUTS[method == METHODS[0]]
    if callable(made) and not inspect.isclass(made):
        return ArrayFunction(made), "logits"
    raise ModelError(
        f"{spec} gives {'a class' if inspect.isclass(made) else f'a value of type {type(made).__name__}'}: "
        "give a torch module, a classifier with predict_proba, or a function of a batch of inputs to logits"
    )


def _check_classes(estimator: Any, spec: str) -> None:
    """Refuse an estimator of several labels an input, or of numbers with gaps: columns are classes."""
    classes = getattr(estimator, "classes_", ())
    if isinstance(classes, list):
        raise ModelError(f"{spec} gives several labels an input: fit it on one")
    numbers = np.asarray(classes)
    whole = numbers.dtype.kind not in "iuf" or np.array_equal(numbers, np.arange(len(numbers)) + numbers[:1])
    if not whole:
        shown = ", ".join(map(str, numbers[:8].tolist()))
        raise ModelError(
            f"{spec} was fitted on the classes {shown}: its column k is taken as class k, so fit it on "
            "labels without gaps"
        )


def _array(inputs: Tensor) -> NDArray[Any]:
    """Return a batch as an array, float32 or float64."""
    plain = inputs.detach().cpu()
    return (plain.float() if plain.dtype in (torch.float16, torch.bfloat16) else plain).numpy()


def held_by(made: Any) -> dict[str, Any]:
    """Return what a callable carries: its arguments and attributes, what a function closes over or names."""
    if isinstance(made, functools.partial):
        given = {str(k): one for k, one in enumerate(made.args)} | made.keywords
        return given | {f"{name} of function": one for name, one in held_by(made.func).items()}
    if inspect.ismethod(made):
        return {"self": made.__self__, **held_by(made.__func__)}
    if not inspect.isfunction(made):
        return dict(vars(made)) if hasattr(made, "__dict__") else {}
    found = dict(zip(("defaults", "keywords"), (made.__defaults__, made.__kwdefaults__), strict=True))
    found |= {name: made.__globals__[name] for name in _names(made.__code__) if name in made.__globals__}
    for name, cell in zip(made.__code__.co_freevars, made.__closure__ or (), strict=True):
        with suppress(ValueError):  # it is empty yet
            found[name] = cell.cell_contents
    return found


def _names(code: CodeType) -> list[str]:
    """Return the global names of a function and of the functions within it."""
    inner = [part for part in code.co_consts if inspect.iscode(part)]
    return [*code.co_names, *(name for part in inner for name in _names(part))]


def content_of(made: Any, seen: set[int] | None = None) -> str:
    """Return a SHA-256 (hex) of an object in memory, as far as its content can be had.

    Of a function that is its code and what it carries, of a library's its name; of a module its weights.
    """
    if isinstance(made, ArrayFunction | Estimator):
        return content_of(made.function if isinstance(made, ArrayFunction) else made.estimator, seen)
    if isinstance(made, nn.Module):
        return hash_state(made)
    if isinstance(made, Tensor):
        return hash_state(nn.ParameterDict({"value": nn.Parameter(made.detach(), requires_grad=False)}))
    name, seen = getattr(made, "__qualname__", type(made).__qualname__), set() if seen is None else seen
    seen.add(id(made))
    if not (inspect.isroutine(made) or isinstance(made, functools.partial)):
        call = getattr(type(made), "__call__", None)  # noqa: B004
        return digest_of([name, _pickled(made), content_of(call, seen) if inspect.isfunction(call) else ""])
    code, known = getattr(made, "__code__", None), list[list[str]]()
    if code is None or not {"site-packages", "dist-packages"} & set(Path(code.co_filename).parts):
        for held, one in sorted(held_by(made).items()):
            again = inspect.isroutine(one) and id(one) in seen
            if not (one is None or inspect.ismodule(one) or inspect.isclass(one) or again):
                known.append([held, content_of(one, seen)])
    return digest_of([name, *_codes(code), known])


def _pickled(made: Any) -> str:
    """Return a digest of an object's state; joblib gives equal estimators one, where pickle does not."""
    with suppress(Exception):  # whatever it is that refuses
        joblib = sys.modules.get("joblib") if hasattr(made, "get_params") else None
        return digest_of(joblib.hash(made, "sha1") if joblib else pickle.dumps(made, protocol=4))
    return ""


def _codes(code: CodeType | None) -> list[str]:
    """Return what a function does, and the functions within it, with their constants."""
    if code is None:
        return []
    plain = [
        repr(sorted(map(repr, one)) if isinstance(one, frozenset) else one)
        for one in code.co_consts
        if not inspect.iscode(one)
    ]
    inner = [_codes(one) for one in code.co_consts if inspect.iscode(one)]
    return [code.co_code.hex(), *plain, *(text for one in inner for text in one)]


class _Session:
    """An ONNX graph in onnxruntime, as a function on arrays; a fixed batch is filled up."""

    def __init__(self, session: Any, output: str) -> None:
        (given,) = session.get_inputs()
        self.session, self.name, self.output = session, given.name, output
        self.kind = {"tensor(double)": np.float64, "tensor(float16)": np.float16}.get(given.type, np.float32)
        first = given.shape[0] if given.shape else None
        self.rows = first if isinstance(first, int) else 0

    def __call__(self, inputs: NDArray[Any]) -> NDArray[Any]:
        rows, batch = inputs.astype(self.kind), self.rows or max(1, len(inputs))
        if len(rows) % batch:
            rows = np.concatenate([rows, np.repeat(rows[-1:], -len(rows) % batch, 0)])
        parts = [rows[begin : begin + batch] for begin in range(0, max(1, len(rows)), batch)]
        found = [self.session.run([self.output], {self.name: part})[0] for part in parts]
        return np.concatenate(found)[: len(inputs)]


def onnx_function(runtime: Any, data: bytes, path: str, held: dict[str, bytes]) -> tuple[_Session, str]:
    """Return an ONNX graph as a function on arrays, and a note on which of its outputs is taken.

    `held` are the files beside it by name that keep its weights: no other file is read.
    """
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, torch.get_num_threads()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", path)
    if held:
        sizes = [len(one) for one in held.values()]
        options.add_external_initializers_from_files_in_memory([*held], [*held.values()], sizes)
    session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    floats = ("tensor(float)", "tensor(double)", "tensor(float16)")
    given, outputs = session.get_inputs(), session.get_outputs()
    if len(given) != 1 or given[0].type not in floats:
        shown = ", ".join(f"{one.name} {one.type}" for one in given)
        raise ModelError(f"{path} takes {shown}: export a graph of one float input, a batch")
    scores = [one.name for one in outputs if one.type in floats]
    if not scores:
        shown = ", ".join(f"{one.name} {one.type}" for one in outputs)
        remedy = "export the scores as a tensor (in skl2onnx by the option zipmap=False)"
        raise ModelError(f"{path} gives {shown}, no tensor of floats: {remedy}")
    chosen = next((one for one in scores if "logits" in one.lower()), scores[0])
    note = f"of its {len(outputs)} outputs, {chosen!r} is taken" if len(outputs) > 1 else ""
    return _Session(session, chosen), note
