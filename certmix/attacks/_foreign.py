"""Running pyautoattack so that it leaves nothing behind."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["undisturbed"]


@contextmanager
def undisturbed(model: object, device: torch.device, say: Callable[[str], None]) -> Iterator[None]:
    """Keep pyautoattack from logging, seeding, tracing, and adding to the gradients of parameters.

    ``say`` receives what it warned of, a line each, once it is done.
    """
    from pyautoattack import checks as package_checks

    heard = _Heard(logging.WARNING)
    logger = logging.getLogger("auto-attack")
    propagate, trace = logger.propagate, sys.gettrace()
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    training = [parameter for parameter in parameters if parameter.requires_grad]
    logger.addHandler(heard)
    logger.propagate, package_checks.funcs = False, dict.fromkeys(package_checks.funcs, 0)
    try:
        for parameter in training:
            parameter.requires_grad_(False)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        for parameter in training:
            parameter.requires_grad_(True)
        logger.removeHandler(heard)
        logger.propagate = propagate
        sys.settrace(trace)
    for message in heard.messages.values():
        say(f"autoattack: {message}")


class _Heard(logging.Handler):
    """Keep the first message of each kind; kinds differ in more than their numbers."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage().replace(" See flags_doc.md for details.", "")
        self.messages.setdefault(re.sub(r"[\d.]+", "", message), message)
