"""State dicts: read from safetensors or torch files of tensors alone, put into a module, and hashed."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from certmix.errors import ModelError, describe, one_line
from certmix.files import refuse_bomb, what_it_is
from certmix.models.zoo import read_bytes

LARGEST = 50_000_000
"""Parameters up to which a factory is called again to see whether it draws them."""
PICKLED = (".pt", ".pth", ".ckpt", ".bin", ".tar")
NESTED = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "net")
"""Under which keys training scripts put a state dict: averaged weights first, as those that they evaluate."""
_LEVELS = 4
_ZIP = b"PK\x03\x04"
"""What torch knows its archives by: anything else it reads as pickles, whatever follows them."""


def hash_state(module: nn.Module) -> str:
    """Return SHA-256 (hex) over a module's state and buffers: names, dtypes, shapes and bytes, by name."""
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
    return digest.hexdigest()


def draws_weights(module: nn.Module, again: Callable[[], nn.Module]) -> bool:
    """Whether the factory of a module, `again`, gives other weights with torch's generator in another state.

    False also where `again` fails, and above `LARGEST` parameters, where it is not called.
    """
    tensors = [value for value in module.state_dict().values() if isinstance(value, Tensor)]
    if any(nn.parameter.is_lazy(value) for value in tensors) or sum(v.numel() for v in tensors) > LARGEST:
        return False
    state = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(torch.initial_seed() ^ 0x5DEECE66D)
        return hash_state(module) != hash_state(again())
    except ModelError:
        return False
    finally:
        torch.set_rng_state(state)


def read_weights(path: Path, say: Callable[[str], None] | None = None) -> dict[str, Tensor]:
    """Read a state dict from a ``.safetensors`` file or a torch file of tensors alone; no code in it runs.

    A dictionary nested under one of `NESTED` is taken out, and `say` is told where there were several.
    ModelError if the file is missing, of another kind, damaged, or holds more than tensors.
    """
    if path.suffix not in (".safetensors", *PICKLED):
        raise ModelError(f"weights {path} are of an unknown kind: give a .safetensors, .pt or .pth file")
    data = read_bytes(path, "give a .safetensors, .pt or .pth file")
    if wrong := what_it_is(data):
        raise ModelError(f"weights {path} cannot be read: {wrong}")
    remedy = "load it where it was made and write the state dict with safetensors.torch.save_file"
    whole = "or load it in a factory, file.py:factory, which runs its code"
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            return load(data)
        state = load_tensors(data)
    except pickle.UnpicklingError as error:
        found = "not plain tensors"
        if refused := re.search(r"GLOBAL (\S{1,80})", str(error)):
            found = f"it holds {one_line(refused[1])}, which only code can restore"
        raise ModelError(f"weights {path} are refused ({found}): {remedy}, {whole}") from None
    except Exception as error:
        if "TorchScript" in str(error):
            told = "it is a TorchScript program: load it by torch.jit.load in a factory, file.py:factory"
            raise ModelError(f"weights {path} are refused: {told}") from None
        raise ModelError(f"weights {path} cannot be read ({describe(error)}): {remedy}") from error
    for _ in range(_LEVELS):
        if isinstance(state, Mapping) and not _is_state(state):
            held = [key for key in NESTED if isinstance(state.get(key), Mapping)]
            if len(held) > 1 and say is not None:
                say(f"Note: weights {path}: {held[0]!r} is taken, and {', '.join(held[1:])} left")
            state = state[held[0]] if held else None
    if not isinstance(state, Mapping) or not state or not _is_state(state):
        raise ModelError(f"weights {path} hold no state dict of tensors, bare or as 'state_dict': {remedy}")
    return dict(state)


def load_tensors(data: bytes, device: str = "cpu") -> Any:
    """Return what a torch file holds; no code in it runs, and an archive may not expand without measure."""
    file = io.BytesIO(data)
    if data.startswith(_ZIP):
        refuse_bomb(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(file, map_location=device, weights_only=True)


def _is_state(state: Mapping[Any, Any]) -> bool:
    """Whether all keys are names and all values dense tensors."""
    return all(
        isinstance(key, str)
        and isinstance(value, Tensor)
        and not value.is_nested
        and value.layout is torch.strided
        for key, value in state.items()
    )


def apply_weights(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load a state dict whose names and shapes must be the module's, but for a prefix of all its names."""
    own = module.state_dict()
    # Wrappers leave prefixes (module., _orig_mod., 1.module.): names are kept that most are the module's.
    bare = state
    while len(first := {key.partition(".")[0] for key in bare}) == 1 and all("." in key for key in bare):
        prefix = f"{first.pop()}."
        bare = {key.removeprefix(prefix): value for key, value in bare.items()}
        if len(own.keys() & bare.keys()) > len(own.keys() & state.keys()):
            state = bare
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = sorted(key for key in state if key not in own)
    common = [(key, state[key], own[key]) for key in sorted(state) if isinstance(own.get(key), Tensor)]
    shapes = [f"{k} {tuple(v.shape)} for {tuple(o.shape)}" for k, v, o in common if v.shape != o.shape]
    values = [k for k, v, o in common if v.is_complex() > o.is_complex()]
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": shapes, "complex": values}
    parts = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in wrong.items()
        if keys
    ]
    if parts:
        told = " ".join("; ".join(parts).split())
        raise ModelError(
            f"weights {path} do not fit the model: {told}: give the weights of this architecture"
        )
    try:
        module.load_state_dict(state, strict=False)
    except Exception as error:  # tensors without data, or of a type that cannot be converted
        remedy = "give plain tensors of this architecture"
        raise ModelError(f"weights {path} do not fit the model: {describe(error)}: {remedy}") from error
