"""State dicts from files: safetensors, or torch files of tensors alone."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from certmix.errors import ModelError
from certmix.models.adapters import describe
from certmix.models.zoo import read_bytes

__all__ = ["PICKLED", "apply_weights", "read_weights"]

PICKLED = (".pt", ".pth", ".ckpt", ".bin", ".tar")
NESTED = ("state_dict", "model", "model_state_dict", "net")
PREFIXES = ("module.", "_orig_mod.")


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
    remedy = "load it where it was made and write the state dict with safetensors.torch.save_file"
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            return load(data)
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        found = f"it holds {refused[1]}, which only code can restore" if refused else "not plain tensors"
        raise ModelError(f"weights {path} are refused ({found}): {remedy}") from None
    except Exception as error:
        raise ModelError(f"weights {path} cannot be read ({describe(error)}): {remedy}") from error
    while isinstance(state, Mapping) and not all(isinstance(v, Tensor) for v in state.values()):
        state = next((state[key] for key in NESTED if isinstance(state.get(key), Mapping)), None)
    if not state or not isinstance(state, Mapping):
        raise ModelError(f"weights {path} hold no state dict of tensors, bare or as 'state_dict': {remedy}")
    return dict(state)


def apply_weights(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load a state dict whose names and shapes must be the module's."""
    own = module.state_dict()
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in state) and not any(key.startswith(prefix) for key in own):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = sorted(key for key in state if key not in own)
    shapes = [
        f"{key} {tuple(value.shape)} for {tuple(own[key].shape)}"
        for key, value in sorted(state.items())
        if key in own and isinstance(own[key], Tensor) and value.shape != own[key].shape
    ]
    wrong = ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"))
    if missing or unexpected or shapes:
        parts = [
            f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for keys, what in wrong
            if keys
        ]
        raise ModelError(
            f"weights {path} do not fit the model: {'; '.join(parts)}: give the weights of this architecture"
        )
    module.load_state_dict(state, strict=False)
