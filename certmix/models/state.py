"""What a module holds: its digest, and whether making it again gives the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from certmix.errors import ModelError

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["LARGEST", "draws_weights", "hash_state"]

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
