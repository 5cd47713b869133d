"""Where a self-test ran: versions, the machine, and how its libraries do float arithmetic."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["machine_facts"]

PACKAGES = ("certmix", "torch", "numpy", "scipy", "numba", "llvmlite")


def machine_facts() -> dict[str, str]:
    """Return names and words: versions, processor, rounding and subnormals of each library.

    Examples
    --------
    >>> sorted(machine_facts())[0]
    'Python'
    """
    import torch

    from certmix.verification.selftests.arithmetic import behaviour

    found = {name: _version(name) for name in PACKAGES}
    found["Python"] = f"{platform.python_implementation()} {platform.python_version()}"
    found["machine"] = f"{platform.system()} {platform.machine()}"
    found["torch on CPU"] = f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    return {**found, **behaviour()}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"
