"""Kernels of numba, which is imported when the first of them is called: that alone takes half a second."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np


class Kernel:
    """A function that numba compiles when it is first called.

    Of an array of at most `few`, `plain` answers instead, to the same bits, unless numba is there already.
    """

    def __init__(
        self, function: Callable[..., Any], few: int, plain: Callable[..., Any] | None, **options: Any
    ) -> None:
        self._function, self._few, self._options = function, few, options
        self._plain = plain or function
        self.__doc__ = function.__doc__

    @cached_property
    def compiled(self) -> Any:
        """The compiled function, whose module then holds the compiled ones that it calls."""
        import numba

        names = self._function.__globals__
        for name in self._function.__code__.co_names:
            if isinstance(value := names.get(name), Kernel | Linked):
                names[name] = value.compiled
        return numba.njit(cache=True, nogil=True, **self._options)(self._function)

    def __call__(self, *given: Any) -> Any:
        if self._few and len(given[0]) <= self._few and "numba" not in sys.modules:
            with np.errstate(all="ignore"):
                return self._plain(*given)
        return self.compiled(*given)


class Linked:
    """A compiled function of scipy's of a real number, for kernels: bit for bit the same."""

    def __init__(self, name: str, found_as: str) -> None:
        self._name, self._found_as = name, found_as

    @cached_property
    def compiled(self) -> Any:
        """The function as kernels call it."""
        import llvmlite.binding
        from numba import types
        from numba.extending import get_cython_function_address

        address = get_cython_function_address("scipy.special.cython_special", self._found_as)
        llvmlite.binding.add_symbol(f"certmix_{self._name}", address)
        return types.ExternalFunction(f"certmix_{self._name}", types.float64(types.float64))


def kernel(
    *, few: int = 0, plain: Callable[..., Any] | None = None, **options: Any
) -> Callable[[Callable[..., Any]], Kernel]:
    """Compile a function when it is first called; the machine code is kept from process to process."""
    return lambda function: Kernel(function, few, plain, **options)
