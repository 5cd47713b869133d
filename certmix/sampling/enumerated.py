"""A base model that is shown every case of an input, and its answers: votes that nothing is left out of."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from certmix.calling import call_model
from certmix.errors import DataError
from certmix.radii._checks import Kind
from certmix.radii.smoothings import SMOOTHINGS, Smoothing
from certmix.radii.splitting import LEVELS
from certmix.sampling.ablation import Opened
from certmix.sampling.rows import ballots_of, is_independent_of_place, not_finite
from certmix.sampling.splitting import levels_of

TOGETHER = 256
"""Most cases in one forward pass, unless told otherwise."""


@dataclass(frozen=True)
class Views:
    """What a kind of smoothing shows of inputs, at a scale; picklable."""

    kind: str
    scale: float

    @classmethod
    def of_noise(cls, smoothing: Smoothing) -> Views | None:
        """Return what random views show of inputs, None where noise is added to them."""
        return None if smoothing.entry.law is not None else cls(smoothing.kind, smoothing.scale)

    @property
    def entry(self) -> Kind:
        """What is known of the kind."""
        found: Kind = SMOOTHINGS[self.kind]
        return found

    @property
    def norm(self) -> str:
        """The norm that perturbations are measured in."""
        return next(iter(self.entry.certificates))

    def count(self, shape: tuple[int, ...]) -> int:
        """Return how many cases there are of an input; DataError or ParameterError if it has none."""
        assert self.entry.cases is not None
        return self.entry.cases.count(self.scale, shape)

    def of(self, inputs: Tensor, cases: Tensor) -> Tensor:
        """Return what the base model sees of inputs (m, ...) in cases (m,)."""
        module, _, name = self.entry.sampler.partition(":")
        found: Tensor = getattr(importlib.import_module(module), name)(inputs, cases, self.scale)
        return found

    def shown(self, model: nn.Module, shape: Sequence[int]) -> nn.Module:
        """Return a base model that takes plain inputs of a shape too, and shows itself some case of them."""
        return Opened(model, shape) if self.entry.cases is None else Shown(model, self)

    def refuse(self, inputs: Tensor, name: str) -> None:
        """Refuse inputs that a certificate would say nothing of: DataError."""
        cases = self.entry.cases
        if cases is not None and cases.per_unit == LEVELS and levels_of(inputs) is None:
            raise DataError(
                f"{name} holds values other than k/255, k = 0 to 255: {self.kind} speaks of 8-bit images "
                "alone: give such images, or use --noise laplace or uniform"
            )


class Shown(nn.Module):
    """A base model behind the views of a kind; called by itself, it is shown one of them, the middle one."""

    shows = True

    def __init__(self, model: nn.Module, views: Views) -> None:
        super().__init__()
        self.model, self.views = model, views
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        count = self.views.count(tuple(inputs.shape[1:]))
        cases = torch.full((len(inputs),), count // 2, device=inputs.device)
        found: Tensor = self.model(self.views.of(inputs, cases))
        return found

    def batches(self, input: Tensor, together: int | None = None) -> list[Tensor]:
        """Return what the model is shown of an input, in batches of one size: the last is filled up.

        Which case stands where is the same for all inputs: the vote of a case is one function of what is seen
        of it, even where a row's logits depend on its place.
        """
        count = self.views.count(tuple(input.shape))
        size = min(count, together or TOGETHER)
        cases = torch.arange(-(-count // size) * size, device=input.device) % count
        return [self.views.of(input.expand(size, *input.shape), part) for part in cases.split(size)]

    @torch.inference_mode()
    def logits(self, input: Tensor, together: int | None = None, name: str = "the model") -> Tensor:
        """Return the logits of each case of an input, (n, c); ModelError if one is not finite."""
        found = torch.cat([call_model(self.model, batch, name) for batch in self.batches(input, together)])
        if not found.isfinite().all():
            raise not_finite()
        return found[: self.views.count(tuple(input.shape))]

    def ballots(self, input: Tensor, together: int | None = None, name: str = "the model") -> Tensor:
        """Return the answer to each case of an input, int64 (n,), as `ballots_of` has it."""
        return ballots_of(self.logits(input, together, name))

    @torch.inference_mode()
    def check(self, input: Tensor, together: int | None = None, name: str = "the model") -> None:
        """Refuse a model whose answer to a case depends on the other cases of its batch: ModelError."""
        batch = self.batches(input, together)[0]
        is_independent_of_place(lambda rows: call_model(self.model, rows, name), batch)
