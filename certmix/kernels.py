"""Kernels of numba, which is imported when the first of them is called: that alone takes half a second."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from typing import Any

from certmix.errors import brief, warn

COMMAND = "CERTMIX_COMMAND"
"""A variable of the environment of commands, whose current folder may be a stranger's."""
_SETTINGS = ".numba_config.yaml"


@cache
def numba() -> Any:
    """Return numba, which in a command reads no ``.numba_config.yaml`` of the current folder.

    It could name where compiled code is loaded from, which are pickles.
    """
    if "numba" in sys.modules or COMMAND not in os.environ:
        import numba

        return numba
    there, known = os.path.lexists(_SETTINGS), sys.modules.get("yaml")
    if there:
        warn(f"{_SETTINGS} in this folder is not read: set variables NUMBA_... of the environment instead")
        sys.modules["yaml"] = None  # type: ignore[assignment]  # without it numba reads no such file
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "A Numba config file is found")
            import numba
            from numba.core import config
    finally:
        if there:
            del sys.modules["yaml"]
            sys.modules |= {} if known is None else {"yaml": known}
    config._config_fname = ""  # it looks again whenever it compiles
    return numba


@cache
def _caches() -> Any:
    """Return the class of numba's caches of machine code, of which none ends a command."""
    from numba.core.caching import FunctionCache

    class Cache(FunctionCache):  # type: ignore[misc]
        @contextmanager
        def _guard_against_spurious_io_errors(self) -> Iterator[None]:
            try:
                yield
            except OSError as error:
                _compile_again(brief(error))
            except Exception:  # files that were cut off raise errors of many kinds
                with suppress(Exception):
                    self.flush()  # compiled again, and kept in their place

    return Cache


@cache
def _compile_again(reason: str) -> None:
    """Say, once of each reason, that every process will compile."""
    warn(
        f"compiled code cannot be kept ({reason}): every command will compile it again, for some seconds; "
        "set NUMBA_CACHE_DIR to a folder that can be written"
    )


def jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function as `numba.njit` does, without Python's lock; keep what is compiled if possible."""

    def compiled(plain: Callable[..., Any]) -> Any:
        made = numba().njit(nogil=True, **options)(plain)
        try:
            made._cache = _caches()(plain)
        except (OSError, RuntimeError):
            _compile_again("no folder for it can be written")
        return made

    return compiled


class Kernel:
    """A function that numba compiles when it is first called; `plain` is that function."""

    def __init__(self, plain: Callable[..., Any], **options: Any) -> None:
        self.plain, self._options = plain, options
        self.__doc__ = plain.__doc__

    @cached_property
    def compiled(self) -> Any:
        """The compiled function, whose module then holds the compiled ones that it calls."""
        names = self.plain.__globals__
        for name in self.plain.__code__.co_names:
            if isinstance(value := names.get(name), Kernel | Linked):
                names[name] = value.compiled
        return jit(**self._options)(self.plain)

    def __call__(self, *given: Any) -> Any:
        return self.compiled(*given)


class Linked:
    """A compiled function of scipy's of a real number, for kernels: bit for bit the same."""

    def __init__(self, name: str, found_as: str) -> None:
        self._name, self._found_as = name, found_as

    @cached_property
    def compiled(self) -> Any:
        """The function as kernels call it."""
        numba()
        import llvmlite.binding
        from numba import types
        from numba.extending import get_cython_function_address

        address = get_cython_function_address("scipy.special.cython_special", self._found_as)
        llvmlite.binding.add_symbol(f"certmix_{self._name}", address)
        return types.ExternalFunction(f"certmix_{self._name}", types.float64(types.float64))


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Kernel]:
    """Compile a function when it is first called; the machine code is kept from process to process."""
    return lambda function: Kernel(function, **options)
