"""State dicts from files: safetensors, or torch files of tensors alone."""

from __future__ import annotations

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from certmix.errors import ModelError, describe
from certmix.files import refuse_bomb, what_it_is
from certmix.models._instructions import check_pickles
from certmix.models.zoo import read_bytes

__all__ = ["PICKLED", "apply_weights", "load_tensors", "read_weights"]

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
    file = io.BytesIO(data)
    if zipfile.is_zipfile(file):
        refuse_bomb(file)
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_pickles(data)
        return torch.load(file, map_location=device, weights_only=True)


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
