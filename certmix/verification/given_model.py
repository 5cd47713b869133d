"""A model as a test holds it: taken apart for certification, and left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from certmix.errors import ParameterError
from certmix.models.mixture import MixedClassifier
from certmix.models.smoothed import SmoothedClassifier

__all__ = ["Given", "as_it_was", "taken_apart"]

Model = str | nn.Module | SmoothedClassifier


@dataclass(frozen=True)
class Given:
    """What is certified: g (or None), h before noise, noise level and mixing weight."""

    standard: str | nn.Module | None
    robust: str | nn.Module
    sigma: float | None
    alpha: float

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The models that are torch modules."""
        return tuple(one for one in (self.standard, self.robust) if isinstance(one, nn.Module))


def taken_apart(
    model: Model, standard: str | nn.Module | None, sigma: float | None, alpha: float | None
) -> Given:
    """Return the parts of a model; a mix and a smoothed classifier bring their own alpha and sigma.

    Raises
    ------
    ParameterError
        If what they bring contradicts what is given, or a mix has no certificates.
    """
    if isinstance(model, SmoothedClassifier):
        return Given(standard, model.base, _agreed("sigma", model.sigma, sigma), _weight(alpha))
    if not isinstance(model, MixedClassifier):
        return Given(standard, model, sigma, _weight(alpha))
    if (model.trust, model.form) != ("constant", "probabilities"):
        raise ParameterError(
            f"a mix with trust {model.trust!r} of {model.form} has no certificates: only trust 'constant' of "
            "probabilities has; make the MixedClassifier with these"
        )
    if standard is not None:
        raise ParameterError("the mix has a standard classifier of its own: leave standard out")
    return Given(model.standard, model.robust, sigma, _agreed("alpha", model.alpha, alpha))


def _weight(alpha: float | None) -> float:
    """The model alone, where no mixing weight is given."""
    return 1.0 if alpha is None else alpha


def _agreed(name: str, own: float, given: float | None) -> float:
    if given is not None and given != own:
        raise ParameterError(f"{name} = {given:g}: the model has {own:g}; leave {name} out")
    return own


@contextmanager
def as_it_was(modules: tuple[nn.Module, ...]) -> Iterator[None]:
    """Put evaluation or training mode and gradients of parameters back as they were."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    wanted = [(weight, weight.requires_grad) for module in modules for weight in module.parameters()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        for weight, requires_grad in wanted:
            weight.requires_grad_(requires_grad)
