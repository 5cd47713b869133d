"""The bookkeeping of an attack: every evaluated point goes through here, and the best is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from certmix.attacks import checks
from certmix.attacks._geometry import make_ball, start_seeds
from certmix.attacks.losses import LOSSES
from certmix.calling import call_model
from certmix.errors import ModelError

__all__ = ["Model", "Search", "Track", "Visit"]

Model = Callable[[Tensor], Tensor]
Track = Callable[[Tensor, Tensor, Tensor, int], None]
"""Called with indices (n,) into the batch, points, their logits and the number of the step."""


@dataclass(frozen=True)
class Visit:
    """What one evaluation of n points gives: float64 losses, which are misclassified, gradients (or none)."""

    loss: Tensor
    wrong: Tensor
    gradient: Tensor

    def take(self, rows: Tensor) -> Visit:
        """Return the visit of some of the points."""
        return Visit(self.loss[rows], self.wrong[rows], self.gradient[rows])


class Search:
    """A batch under attack and the best point of each image so far.

    A misclassified point beats a correctly classified one; among equals the
    higher loss wins, and the earlier point where losses tie.

    Parameters
    ----------
    model, images, labels, norm, eps, box, early_stop, generator, track
        As given to the attack; checked here.
    attack, norms, loss
        The attack's name, the norms it serves, and a name in `LOSSES`.
    gradient
        Whether the gradient at the clean images is of use.
    """

    def __init__(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        norm: str,
        eps: float,
        *,
        attack: str,
        norms: tuple[str, ...],
        loss: str,
        box: tuple[float, float],
        early_stop: bool,
        generator: torch.Generator | None,
        track: Track | None,
        gradient: bool,
    ) -> None:
        checks.check_norm(norm, attack, norms)
        checks.check_eps(eps, box)
        checks.check_loss(loss)
        checks.check_images(images, box)
        checks.check_labels(labels, images)
        checks.check_model(model)
        self._model, self._loss, self._track, self._early_stop = model, LOSSES[loss], track, early_stop
        with torch.inference_mode(False):
            self.labels = labels.to(torch.int64, copy=True)
            self.ball = make_ball(images.detach().clone(), norm, eps, box)
        self.seeds = start_seeds(len(images), generator)
        self._everything = torch.arange(len(images), device=images.device)
        self._idle = bool(eps == 0) or len(images) == 0
        self._best = self.ball.centre.clone()
        self._best_loss = torch.full((len(images),), -torch.inf, dtype=torch.float64, device=images.device)
        self._broken = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self._faults = torch.zeros(2, dtype=torch.bool, device=images.device)
        self._steps = 0
        if len(images):
            self.clean = self.visit(self._everything, self._best, gradient=gradient and not self._idle)

    def survivors(self) -> Tensor:
        """Return the indices still to be attacked: the unbroken images, or all without early stop.

        Raises
        ------
        ModelError
            If a point so far gave logits or gradients that are not finite.
        """
        self._check_faults()
        if self._idle:
            return self._everything[:0]
        return (~self._broken).nonzero().squeeze(1) if self._early_stop else self._everything

    def ranked_rivals(self) -> Tensor:
        """Return the classes besides each label by falling clean logit, (N, classes - 1)."""
        if len(self.labels) == 0:
            return self.labels.new_zeros(0, 1)
        others = self.clean_logits.double().scatter(1, self.labels[:, None], -torch.inf)
        return others.argsort(stable=True, dim=1, descending=True)[:, :-1]

    def going_on(self, visit: Visit) -> Tensor | None:
        """Return the rows of a visit that are attacked further, None for all of them."""
        if not self._early_stop:
            return None
        rows = (~visit.wrong).nonzero().squeeze(1)
        return None if len(rows) == len(visit.wrong) else rows

    def visit(
        self, at: Tensor, points: Tensor, *, gradient: bool = True, targets: Tensor | None = None
    ) -> Visit:
        """Evaluate one point of each image in `at`, by one forward and at most one backward pass.

        `targets` (N,) are the target classes of the whole batch, if the loss has any.
        """
        gradient = bool(gradient)  # numpy's counts compare to its own
        with torch.inference_mode(False), torch.set_grad_enabled(gradient):
            leaf = points.detach().clone().requires_grad_(gradient)
            logits = call_model(self._model, leaf)
        if self._steps == 0:
            checks.check_clean_logits(logits, self.labels)
            self.clean_logits = logits.detach()
        loss, slope = self._score(logits, at, targets, gradient)
        climb = _pull_back(logits, leaf, slope) if gradient else slope
        logits, labels = logits.detach(), self.labels[at]
        wrong = logits.argmax(1) != labels
        self._faults |= torch.stack([~logits.isfinite().all(), ~climb.isfinite().all()])
        self._keep_best(at, points, loss, wrong)
        if self._track is not None:
            self._track(at, points, logits, self._steps)
        self._steps += 1
        return Visit(loss, wrong, climb)

    def result(self) -> Tensor:
        """Return the best point of each image, (N, ...)."""
        self._check_faults()
        return self._best

    def _score(
        self, logits: Tensor, at: Tensor, targets: Tensor | None, gradient: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the losses and, of each, the gradient in the logits scaled to largest size 1.

        Only directions matter to the attacks: with the scale go the under- and
        overflows that would stop them on confident models.
        """
        with torch.inference_mode(False), torch.set_grad_enabled(gradient):
            scores = logits.detach().double().requires_grad_(gradient)
            loss = self._loss(scores, self.labels[at], None if targets is None else targets[at])
            if not gradient:
                return loss, scores.new_zeros(len(at), 0)
            (slope,) = torch.autograd.grad(loss.sum(), scores)
        largest = slope.abs().amax(1, keepdim=True)
        return loss.detach(), slope / largest.clamp_min(torch.finfo(torch.float64).tiny)

    def _keep_best(self, at: Tensor, points: Tensor, loss: Tensor, wrong: Tensor) -> None:
        before, highest = self._broken[at], self._best_loss[at]
        better = (wrong & ~before) | ((wrong == before) & (loss > highest))
        mask = better.view(-1, *[1] * (points.ndim - 1))
        self._best[at] = torch.where(mask, points, self._best[at])
        self._best_loss[at] = torch.where(better, loss, highest)
        self._broken[at] = before | wrong

    def _check_faults(self) -> None:
        logits, gradients = self._faults.tolist()
        if logits or gradients:
            what = "logits" if logits else "gradients"
            raise ModelError(
                f"the model gives NaN or infinite {what} at attacked images, which would disarm the attack: "
                "compute in float64, or attack without gradients by square"
            )


def _pull_back(logits: Tensor, leaf: Tensor, slope: Tensor) -> Tensor:
    """Return the gradient in the images of the loss with gradient `slope` in the logits."""
    found = None
    if logits.requires_grad:
        (found,) = torch.autograd.grad(logits, leaf, slope.to(logits.dtype), allow_unused=True)
    if found is None:
        raise ModelError(
            "the model's logits carry no gradient to its input: attack without gradients by square"
        )
    return found
