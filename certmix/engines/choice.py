"""Which engine: by name, with what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from certmix.engines.interface import Engine
from certmix.engines.places import places
from certmix.engines.serial import SerialEngine
from certmix.errors import ParameterError

if TYPE_CHECKING:
    import torch

__all__ = ["ENGINES", "EngineChoice", "make_engine"]

ENGINES = {
    "local": "processes of this machine",
    "ray": "actors of a Ray cluster, or of a local Ray (pip install 'certmix[ray]')",
}


@dataclass(frozen=True)
class EngineChoice:
    """How many workers, and of which kind.

    Parameters
    ----------
    engine
        A name in `ENGINES`.
    workers
        How many; 1 of the engine ``local`` is this process itself.
    gpus_per_worker
        ``ray`` only: GPUs that one worker takes, 0.5 to share one among two;
        None for 1 where the device is ``cuda``, else 0.
    ray_address
        ``ray`` only: address of a cluster; None for ``RAY_ADDRESS`` if that is
        set, else a Ray of its own on this machine.

    Raises
    ------
    ParameterError
        For values out of range, or that the engine does not take.
    """

    engine: str = "local"
    workers: int = 1
    gpus_per_worker: float | None = None
    ray_address: str | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ParameterError(f"engine {self.engine!r} is unknown: use {' or '.join(ENGINES)}")
        if self.workers < 1:
            raise ParameterError(f"workers = {self.workers}: at least 1 is needed")
        if self.engine != "ray":
            for option in ("gpus_per_worker", "ray_address"):
                if getattr(self, option) is not None:
                    raise ParameterError(f"--{option.replace('_', '-')} is for --engine ray: leave it out")
        if self.gpus_per_worker is not None and not 0 <= self.gpus_per_worker < 1000:
            raise ParameterError(f"GPUs per worker = {self.gpus_per_worker}: give 0 or more, for example 0.5")


def make_engine(choice: EngineChoice, device: torch.device) -> Engine:
    """Return the engine that was chosen, for a driver whose device is `device`.

    Raises
    ------
    ParameterError
        If Ray is asked for and not installed.
    """
    if choice.engine == "ray":
        from certmix.engines.ray_engine import RayEngine

        return RayEngine(choice.workers, str(device), choice.gpus_per_worker, choice.ray_address)
    if choice.workers == 1:
        return SerialEngine()
    from certmix.engines.local import LocalEngine

    return LocalEngine(choice.workers, places(str(device), _gpus(device)))


def _gpus(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    import torch

    return torch.cuda.device_count()
