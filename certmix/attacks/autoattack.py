"""AutoAttack (Croce and Hein, 2020) as the package pyautoattack runs it, for comparison with the field."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from certmix.attacks.diagnose import diagnose_gradients
from certmix.attacks.geometry import distance, make_ball, start_seeds
from certmix.attacks.search import Model, check_attack, check_clean_logits, check_count, padded
from certmix.attacks.square import picture_shape
from certmix.calling import call_model
from certmix.errors import ModelError, ParameterError, install

ENSEMBLE = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")
"""The attacks that a custom list may name."""

VERSIONS = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}

_CLASSES = {"apgd-dlr": 3, "apgd-t": 4}
"""Classes that the difference of logits ratio needs, untargeted and targeted."""

_DIAGNOSED = 16


def autoattack(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    norm: str = "linf",
    eps: float = 8 / 255,
    *,
    version: str | Sequence[str] = "standard",
    restarts: int = 1,
    seed: int | None = None,
    batch_size: int = 250,
    box: tuple[float, float] = (0.0, 1.0),
    early_stop: bool = True,
    generator: torch.Generator | None = None,
    say: Callable[[str], None] = warnings.warn,
) -> Tensor:
    """Return the points of AutoAttack; the accuracy on them bounds robust accuracy from above.

    Each attack of the ensemble takes the inputs that those before it left; budgets are the package's.  For
    each input a misclassified point, or else the input; within ball and box when measured in float64.

    Parameters
    ----------
    model, inputs, labels, norm, eps, generator
        As for `certmix.attacks.pgd`.  AutoAttack computes in float32.
    version
        ``"standard"``, ``"plus"``, ``"rand"`` (for models that draw at random), or a list of names in
        `ENSEMBLE`, run with the standard budgets.
    restarts, seed
        Runs of the whole ensemble, and the seed of the first, drawn from the generator without one; each has
        another.  Global random states stay as they were.
    batch_size
        Inputs attacked together.
    box, early_stop
        Only (0, 1) and True: AutoAttack can do nothing else.
    say
        Receives what AutoAttack warns of, and which attacks were left out, a line each.

    Raises
    ------
    ModelError, ParameterError
        As for `certmix.attacks.pgd`; if pyautoattack is not installed, or no attack is left.

    References
    ----------
    F. Croce, M. Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks, ICML 2020.
    """
    if tuple(box) != (0.0, 1.0):
        raise ParameterError(
            f"box = {tuple(box)}: AutoAttack works in (0, 1) alone; let the model scale its inputs, "
            "or attack by apgd-targeted and square"
        )
    if not early_stop:
        raise ParameterError(
            "early_stop = False: AutoAttack leaves an input at its first misclassified point; use apgd-ce"
        )
    check_count("restarts", restarts)
    check_count("batch_size", batch_size)
    if isinstance(version, str) and version not in VERSIONS:
        known = ", ".join(VERSIONS)
        raise ParameterError(f"version {version!r} is unknown: use {known} or a list of attacks")
    names = VERSIONS[version] if isinstance(version, str) else tuple(version)
    if not names or not set(names) <= set(ENSEMBLE):
        raise ParameterError(f"attacks {list(names)}: name one or more of {', '.join(ENSEMBLE)}")
    check_attack("autoattack", model, inputs, labels, norm, eps, box)
    try:
        import pyautoattack
    except ImportError as error:
        raise ModelError(f"pyautoattack cannot be imported: {install('attacks')}") from error
    labels, found, shape = labels.long(), inputs.detach().clone(), picture_shape(inputs.shape[1:])
    if len(found) == 0:
        return found

    def logits(pictures: Tensor) -> Tensor:
        batch = pictures.reshape(len(pictures), *inputs.shape[1:]).to(inputs.dtype)
        found = call_model(model, padded(batch, min(batch_size, len(inputs))))
        return found[: len(batch)].float().clone()  # pyautoattack writes into what it gets

    right, classes = _right(model, found, labels, batch_size)
    height, width = shape[1:]
    side = height // 5  # of the tiles that the package's l2 and l1 Square Attack starts from
    tiled = height == width and side > 0 and (side == 1 or height // side == 5)
    for name in names:
        why = ""
        if classes < _CLASSES.get(name, 2):
            why = f"its loss needs {_CLASSES[name]} classes, not {classes}"
        elif name == "square" and norm != "linf" and not tiled:
            why = f"pyautoattack's cannot tile inputs of {height} x {width} for {norm}"
        if why:
            names = tuple(other for other in names if other != name)
            say(f"autoattack: {name} is left out: {why}")
    if not names:
        raise ParameterError(f"AutoAttack {version} has no attack left for {classes} classes: use apgd-ce")
    first = int(start_seeds(1, generator)[0]) if seed is None else seed
    with undisturbed(model, inputs.device, say):
        for run in range(restarts):
            at = right.nonzero().squeeze(1)
            if len(at) == 0 or eps == 0:
                break
            if run == 0 and names != ("square",):
                few, plain = at[:_DIAGNOSED], "apgd-ce" in names
                health = diagnose_gradients(model, inputs[few], labels[few], loss="targeted-dlr", plain=plain)
                for message in health.messages:
                    say(f"autoattack: {message}")
            ensemble = pyautoattack.AutoAttack(
                logits, norm=norm.capitalize(), eps=eps, seed=first + run, device=inputs.device,
                version=version if isinstance(version, str) else "standard",
            )  # fmt: skip
            ensemble.attacks_to_run = list(names)
            for attack in (ensemble.apgd_targeted, ensemble.fab):
                attack.n_target_classes = min(attack.n_target_classes, classes - 1)
            pictures = inputs[at].reshape(len(at), *shape).float()
            points, _ = ensemble.run_standard_evaluation(pictures, labels[at], batch_size=batch_size)
            points = points.reshape(inputs[at].shape).to(inputs.dtype)
            outside = distance(points, inputs[at], norm) > eps  # by rounding
            outside |= ((points < box[0]) | (points > box[1])).flatten(1).any(1)
            rows = outside.nonzero().squeeze(1)
            points[rows] = make_ball(inputs[at][rows], norm, eps, box).project(points[rows])
            found[at] = points
            right, _ = _right(model, found, labels, batch_size)
    return found


def _right(model: Model, points: Tensor, labels: Tensor, batch_size: int) -> tuple[Tensor, int]:
    """Return which points are classified right, and the number of classes."""
    right, classes = [], 0
    with torch.no_grad():
        for part, truth in zip(points.split(batch_size), labels.split(batch_size), strict=True):
            logits = call_model(model, part)
            check_clean_logits(logits, truth)
            classes = logits.shape[1]
            right.append(logits.argmax(1) == truth)
    return torch.cat(right), classes


@contextmanager
def undisturbed(model: object, device: torch.device, say: Callable[[str], None]) -> Iterator[None]:
    """Keep pyautoattack from logging, seeding, tracing, and adding to gradients of parameters."""
    from pyautoattack import checks as package_checks

    heard = _Heard()
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

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage().replace(" See flags_doc.md for details.", "")
        self.messages.setdefault(re.sub(r"[\d.]+", "", message), message)
