"""State dicts: read from safetensors or torch files of tensors alone, put into a module, and hashed."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

import torch
from torch import Tensor, nn

from certmix.errors import ModelError, describe
from certmix.files import refuse_bomb, what_it_is
from certmix.models.zoo import read_bytes

if TYPE_CHECKING:
    from hashlib import _Hash

_INSTRUCTIONS = (
    "GLOBAL NEWOBJ REDUCE BUILD APPEND APPENDS SETITEM SETITEMS MARK TUPLE TUPLE1 TUPLE2 TUPLE3 NONE "
    "NEWFALSE NEWTRUE EMPTY_TUPLE EMPTY_LIST EMPTY_DICT EMPTY_SET BININT BININT1 BININT2 BINFLOAT "
    "BINUNICODE SHORT_BINSTRING BINPERSID BINGET LONG_BINGET BINPUT LONG_BINPUT LONG1 PROTO STOP"
)
"""Those that `torch.load` follows with ``weights_only``."""
_DEEPEST = _SLACK = 1000
_ZIP = b"PK\x03\x04"
"""What torch knows its archives by: anything else it reads as pickles, whatever follows them."""
_PICKLES = 5
"""In a torch file of the format before zip archives."""


class _Tuple(tuple[Any, ...]):
    """A tuple with its extent: the values in it, each as often as it is met, and how deep they lie."""

    extent: tuple[int, int]

    def __new__(cls, items: Iterable[Any]) -> _Tuple:
        made = super().__new__(cls, items)
        within = [getattr(item, "extent", (1, 1)) for item in made]
        made.extent = (
            1 + sum(count for count, _ in within),
            1 + max((depth for _, depth in within), default=0),
        )
        return made


class _Restored(dict[Any, Any]):
    """Stands for all that a pickle restores by a class or function; nothing is restored."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __init__(self, *arguments: Any) -> None:
        self.extent = _Tuple(arguments).extent

    def __setstate__(self, state: Any) -> None:
        pass


_InPython: Any = pickle._Unpickler


class _Look(_InPython):  # type: ignore[misc]
    """A look at a pickle before torch follows it.

    Torch refuses to run code from it, but not to build: tuples that nest a hundred thousand times, or that
    repeat one another, end the process or occupy it for years once one serves as a key and is hashed.
    """

    dispatch: ClassVar[dict[int, Any]] = {
        code: _InPython.dispatch[code]
        for code in (getattr(pickle, name)[0] for name in _INSTRUCTIONS.split())
    }

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream, encoding="bytes")
        self.stream = stream

    def find_class(self, module: str, name: str) -> Any:
        return _Restored

    def persistent_load(self, pid: Any) -> Any:
        return _Restored(pid)

    def load_tuple(self) -> None:
        self._join(self.pop_mark())

    def load_tuple1(self) -> None:
        self._join([self.stack.pop()])

    def load_tuple2(self) -> None:
        self._join([self.stack.pop(-2), self.stack.pop()])

    def load_tuple3(self) -> None:
        self._join([self.stack.pop(-3), self.stack.pop(-2), self.stack.pop()])

    def _join(self, items: list[Any]) -> None:
        made = _Tuple(items)
        if made.extent[0] > self.stream.tell() + _SLACK or made.extent[1] > _DEEPEST:
            raise ValueError("tuples that nest or repeat without measure")
        self.append(made)

    dispatch |= {
        pickle.TUPLE[0]: load_tuple,
        pickle.TUPLE1[0]: load_tuple1,
        pickle.TUPLE2[0]: load_tuple2,
        pickle.TUPLE3[0]: load_tuple3,
    }


LARGEST = 50_000_000
"""Parameters up to which a factory is called again to see whether it draws them."""


def hash_state(module: nn.Module) -> _Hash:
    """Return SHA-256 over a module's state and buffers: names, dtypes, shapes and bytes, sorted by name.

    Raises
    ------
    ModelError
        If a parameter has no shape yet, as those of lazy layers.
    """
    digest = hashlib.sha256()
    for key, value in sorted({**dict(module.named_buffers()), **module.state_dict()}.items()):
        if nn.parameter.is_lazy(value):
            raise ModelError(
                f"parameter {key} is of a lazy layer, without a shape: run the model once, then return it"
            )
        if isinstance(value, Tensor):
            raw = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            digest.update(f"{key}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
            digest.update(raw.data)
        else:
            digest.update(f"{key}\0{value!r}\0".encode())
    return digest


def draws_weights(module: nn.Module, again: Callable[[], nn.Module]) -> bool:
    """Whether a factory that is called again, with torch's generator in another state, gives other weights.

    Parameters
    ----------
    module
        What the factory gave.  Above `LARGEST` parameters it is not called again.
    again
        Calls it; torch's generator is left as it was found.

    Returns
    -------
    bool
        False also where the second call fails.

    Examples
    --------
    >>> draws_weights(nn.Linear(2, 2), lambda: nn.Linear(2, 2)), draws_weights(nn.ReLU(), nn.ReLU)
    (True, False)
    """
    tensors = [value for value in module.state_dict().values() if isinstance(value, Tensor)]
    if any(nn.parameter.is_lazy(value) for value in tensors) or sum(v.numel() for v in tensors) > LARGEST:
        return False
    state = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(torch.initial_seed() ^ 0x5DEECE66D)
        return hash_state(module).digest() != hash_state(again()).digest()
    except ModelError:
        return False
    finally:
        torch.set_rng_state(state)


PICKLED = (".pt", ".pth", ".ckpt", ".bin", ".tar")
NESTED = ("state_dict", "model", "model_state_dict", "net")
_LEVELS = 4


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a ``.safetensors`` file or a torch file of tensors alone.

    A dictionary nested under ``state_dict`` or ``model`` is taken out.  Torch
    files are read with ``weights_only=True``, so that no code in them runs.

    Raises
    ------
    ModelError
        If the file is missing, of another kind, damaged, or holds more than tensors.
    """
    if path.suffix not in (".safetensors", *PICKLED):
        raise ModelError(f"weights {path} are of an unknown kind: give a .safetensors, .pt or .pth file")
    data = read_bytes(path, "give a .safetensors, .pt or .pth file")
    if wrong := what_it_is(data):
        raise ModelError(f"weights {path} cannot be read: {wrong}")
    remedy = "load it where it was made and write the state dict with safetensors.torch.save_file"
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            return load(data)
        state = load_tensors(data)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        found = f"it holds {refused[1]}, which only code can restore" if refused else "not plain tensors"
        raise ModelError(f"weights {path} are refused ({found}): {remedy}") from None
    except Exception as error:
        raise ModelError(f"weights {path} cannot be read ({describe(error)}): {remedy}") from error
    for _ in range(_LEVELS):
        if isinstance(state, Mapping) and not _is_state(state):
            state = next((state[key] for key in NESTED if isinstance(state.get(key), Mapping)), None)
    if not isinstance(state, Mapping) or not state or not _is_state(state):
        raise ModelError(f"weights {path} hold no state dict of tensors, bare or as 'state_dict': {remedy}")
    return dict(state)


def load_tensors(data: bytes, device: str = "cpu") -> Any:
    """Return what a torch file holds; no code in it runs, and the library's own warnings are not shown.

    Raises
    ------
    Exception
        Of almost any kind, for a damaged file or one that holds more than plain data.
    """
    file, streams = io.BytesIO(data), [io.BytesIO(data)] * _PICKLES
    if data.startswith(_ZIP):
        refuse_bomb(file)
        with zipfile.ZipFile(file) as archive:
            streams = [io.BytesIO(archive.read(name)) for name in archive.namelist() if name.endswith(".pkl")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for stream in streams:
            try:
                _Look(stream).load()
            except KeyError as error:
                raise pickle.UnpicklingError("an instruction that torch does not know") from error
        return torch.load(io.BytesIO(data), map_location=device, weights_only=True)


def _is_state(state: Mapping[Any, Any]) -> bool:
    return all(isinstance(key, str) and _is_dense(value) for key, value in state.items())


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.is_nested and value.layout is torch.strided


def _without_prefix(state: dict[str, Tensor], own: set[str]) -> dict[str, Tensor]:
    """Return the state under the names that most are the module's, after taking off what all begin with.

    Wrappers leave such prefixes: ``module.``, ``_orig_mod.``, ``1.module.``.
    """
    best = state
    while len(first := {key.partition(".")[0] for key in state}) == 1 and all("." in key for key in state):
        prefix = f"{first.pop()}."
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        if len(own & state.keys()) > len(own & best.keys()):
            best = state
    return best


def apply_weights(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load a state dict whose names and shapes must be the module's, but for a prefix of all its names."""
    own = module.state_dict()
    state = _without_prefix(state, set(own))
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = sorted(key for key in state if key not in own)
    common = [(key, state[key], own[key]) for key in sorted(state) if isinstance(own.get(key), Tensor)]
    wrong = (
        (missing, "missing"),
        (unexpected, "unexpected"),
        ([f"{k} {tuple(v.shape)} for {tuple(o.shape)}" for k, v, o in common if v.shape != o.shape],
         "of another shape"),
        ([k for k, v, o in common if v.is_complex() > o.is_complex()], "complex"),
    )  # fmt: skip
    if any(keys for keys, _ in wrong):
        parts = [
            f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for keys, what in wrong
            if keys
        ]
        told = " ".join("; ".join(parts).split())
        raise ModelError(
            f"weights {path} do not fit the model: {told}: give the weights of this architecture"
        )
    try:
        module.load_state_dict(state, strict=False)
    except Exception as error:  # tensors without data, or of a type that cannot be converted
        remedy = "give plain tensors of this architecture"
        raise ModelError(f"weights {path} do not fit the model: {describe(error)}: {remedy}") from error
