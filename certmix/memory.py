"""How this process keeps its memory.  No torch."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Names of the two settings in glibc's ``malloc.h``."""
_LARGEST_BLOCK, _LARGEST_REST = 2**30, 2**31 - 1


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Have the C library keep what is freed for the next allocation; return whether it does.

    By default glibc gives blocks of megabytes, such as each layer's output, back to the system, which maps
    and clears them again in the next forward pass: a tenth of the time of sampling in a worker
    (``benchmarks/allocation.py``).  For processes that certmix owns: nothing is given back before they end.
    Where the environment names settings of its own, nothing is changed.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in environment):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    settings = ((_MMAP_THRESHOLD, _LARGEST_BLOCK), (_TRIM_THRESHOLD, _LARGEST_REST))
    return {mallopt(ctypes.c_int(name), ctypes.c_int(value)) for name, value in settings} == {1}
