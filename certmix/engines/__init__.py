"""How studies spread work: over this process, processes of this machine, or a Ray cluster.

An engine knows nothing of images or models: it opens a `Work` in each of its
workers, hands out items in small tasks, and asks again where a worker died.
Importing this package imports neither torch nor ray.
"""

from certmix.engines.choice import ENGINES, EngineChoice, make_engine
from certmix.engines.interface import Engine, Handler, Work
from certmix.engines.serial import SerialEngine

__all__ = ["ENGINES", "Engine", "EngineChoice", "Handler", "SerialEngine", "Work", "make_engine"]
