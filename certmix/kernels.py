"""Kernels of numba, which is imported when the first of them is called: that alone takes half a second."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any


class Kernel:
    """A function that numba compiles when it is first called; `plain` is that function."""

    def __init__(self, plain: Callable[..., Any], **options: Any) -> None:
        self.plain, self._options = plain, options
        self.__doc__ = plain.__doc__

    @cached_property
    def compiled(self) -> Any:
        """The compiled function, whose module then holds the compiled ones that it calls."""
        import numba

        names = self.plain.__globals__
        for name in self.plain.__code__.co_names:
            if isinstance(value := names.get(name), Kernel | Linked):
                names[name] = value.compiled
        return numba.njit(cache=True, nogil=True, **self._options)(self.plain)

    def __call__(self, *given: Any) -> Any:
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


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Kernel]:
    """Compile a function when it is first called; the machine code is kept from process to process."""
    return lambda function: Kernel(function, **options)
