"""scipy's normal distribution function and its inverse, callable from numba kernels.

The compiled functions behind `scipy.special.ndtr` and `ndtri` are linked by
address, so kernels and scipy agree bit for bit and compiled kernels can be cached.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
from numba import types
from numba.extending import get_cython_function_address

__all__ = ["ndtr", "ndtri"]

_SIGNATURE = types.float64(types.float64)


def _link(symbol: str, capi_name: str) -> Any:
    address = get_cython_function_address("scipy.special.cython_special", capi_name)
    llvmlite.binding.add_symbol(symbol, address)
    return types.ExternalFunction(symbol, _SIGNATURE)


ndtr = _link("certmix_ndtr", "__pyx_fuse_1ndtr")
ndtri = _link("certmix_ndtri", "ndtri")
