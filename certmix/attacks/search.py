"""What an attack demands of its arguments; every point it evaluates is seen here, and the best is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn

from certmix.attacks.geometry import make_ball, shaped, start_seeds
from certmix.attacks.losses import LOSSES
from certmix.calling import backward, call_model
from certmix.errors import ModelError, ParameterError, check_choice

Model = Callable[[Tensor], Tensor]
Track = Callable[[Tensor, Tensor, Tensor, int], None]

SIZES, PADDED = 8, ("cuda",)
"""Sizes of the batches that an attack gives a model as inputs leave it, and the devices where it matters."""

_ROUNDING = 1e-6
"""How far inputs may stick out of the box: conversions between scales round."""


class Common(TypedDict, total=False):
    """What every attack takes besides its own settings.

    Parameters
    ----------
    box
        Range of the input, (0, 1) by default.
    early_stop
        Drop an input at its first misclassified point, clean ones included: the default.  Otherwise every
        step is taken and the misclassified point of highest loss is returned.
    generator
        Source of all random numbers; without one they are the same at each call; each input has its own.
    track
        Called with (indices into the batch, points, logits, step) for every evaluated batch of points; step 0
        is the clean batch, and the count goes on over restarts.
    """

    box: tuple[float, float]
    early_stop: bool
    generator: torch.Generator | None
    track: Track | None


def check_count(name: str, value: int, least: int = 1) -> None:
    """Refuse a setting that is no whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ParameterError(f"{name} = {value!r}: give a whole number of at least {least}")


def check_positive(name: str, value: float) -> None:
    """Refuse a setting that is no positive finite number."""
    if not (math.isfinite(value) and value > 0):
        raise ParameterError(f"{name} = {value}: give a positive number")


def check_ball(inputs: Tensor, eps: float, box: tuple[float, float]) -> None:
    """Refuse a radius below 0, an empty box, and inputs that are no finite floating-point batch inside it."""
    if not (math.isfinite(eps) and eps >= 0):
        raise ParameterError(f"eps = {eps}: the radius of the ball must be a finite number of at least 0")
    if not inputs.is_floating_point() or inputs.ndim < 2:
        found = f"inputs are {inputs.dtype} of shape {tuple(inputs.shape)}"
        raise ParameterError(f"{found}: give a floating-point batch (N, ...)")
    if not inputs.isfinite().all():
        raise ParameterError("inputs hold NaN or infinite values: remove these inputs")
    if not (math.isfinite(box[0]) and math.isfinite(box[1]) and box[0] < box[1]):
        raise ParameterError(f"box = ({box[0]}, {box[1]}): give finite bounds, the lower one first")
    if inputs.numel() == 0:
        return
    least, most = (value.item() for value in inputs.aminmax())
    low, high = torch.tensor(box, dtype=inputs.dtype).tolist()
    if least < low - _ROUNDING or most > high + _ROUNDING:
        found = f"inputs range over [{least:.6g}, {most:.6g}], outside the box [{box[0]:g}, {box[1]:g}]"
        raise ParameterError(f"{found}: scale them, or give their range as box")


def check_model(model: object) -> None:
    """Refuse a module in training mode: its statistics would move and its answers depend on the batch."""
    if isinstance(model, nn.Module) and any(part.training for part in model.modules()):
        raise ModelError(f"{type(model).__name__} is in training mode: call model.eval() before the attack")


def check_attack(
    attack: str,
    model: object,
    inputs: Tensor,
    labels: Tensor,
    norm: str,
    eps: float,
    box: tuple[float, float],
) -> None:
    """Refuse what `check_ball` and `check_model` refuse, a norm that the attack does not serve, and labels
    that are not one whole number an input on the inputs' device."""
    from certmix.attacks import ATTACKS

    norms = ATTACKS[attack].norms
    if norm not in norms:
        serving = [name for name, other in ATTACKS.items() if norm in other.norms]
        instead = f", or attack by {', '.join(serving)}" if serving else ""
        raise ParameterError(f"norm {norm!r} is not served by {attack}: use {' or '.join(norms)}{instead}")
    check_ball(inputs, eps, box)
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if labels.shape != (len(inputs),) or not whole:
        found = f"labels are {labels.dtype} of shape {tuple(labels.shape)}"
        raise ParameterError(f"{found}: give integers of shape ({len(inputs)},), one an input")
    if labels.device != inputs.device:
        raise ParameterError(f"labels are on {labels.device}, inputs on {inputs.device}: move them together")
    check_model(model)


def check_clean_logits(logits: Tensor, labels: Tensor) -> None:
    """Refuse logits (N, classes) of the clean inputs that are not finite, and labels beyond the classes."""
    classes = logits.shape[1]
    if classes < 2:
        raise ModelError("the model returns a single logit an input: return one a class, at least two")
    if not logits.isfinite().all():
        bad = int((~logits.isfinite()).any(1).sum())
        raise ModelError(
            f"the model returns NaN or infinite logits for {bad} of {len(logits)} clean inputs: "
            "check its weights and its normalisation"
        )
    least, most = (value.item() for value in labels.aminmax())
    if least < 0 or most >= classes:
        wrong = least if least < 0 else most
        raise ParameterError(f"label {wrong} is none of the model's classes 0 .. {classes - 1}: mend it")


@dataclass(frozen=True)
class Visit:
    """What one evaluation of n points gives: float64 losses, which are misclassified, gradients (or none)."""

    points: Tensor
    loss: Tensor
    wrong: Tensor
    gradient: Tensor

    def __getitem__(self, rows: Tensor) -> Visit:
        return Visit(self.points[rows], self.loss[rows], self.wrong[rows], self.gradient[rows])

    def beats(self, other: Visit) -> Tensor:
        """Return where a misclassified point stands against a right one, or else the loss is higher."""
        return (self.wrong & ~other.wrong) | ((self.wrong == other.wrong) & (self.loss > other.loss))

    def where(self, mask: Tensor, other: Visit) -> Visit:
        """Return this visit's rows where the mask (n,) holds, and the other's elsewhere."""

        def chosen(mine: Tensor, its: Tensor) -> Tensor:
            return torch.where(shaped(mask, mine), mine, its)

        return Visit(
            chosen(self.points, other.points), chosen(self.loss, other.loss),
            chosen(self.wrong, other.wrong), chosen(self.gradient, other.gradient),
        )  # fmt: skip


class Search:
    """A batch under attack and the best point of each input so far; arguments are checked here.

    A misclassified point beats a correctly classified one; among equals the higher loss wins, and the earlier
    point where losses tie.  `gradient` says whether that at the clean inputs is of use.
    """

    def __init__(
        self,
        attack: str,
        model: Model,
        inputs: Tensor,
        labels: Tensor,
        norm: str,
        eps: float,
        loss: str,
        *,
        gradient: bool = False,
        **common: Unpack[Common],
    ) -> None:
        check_choice("loss", loss, LOSSES)
        box = common.get("box", (0.0, 1.0))
        check_attack(attack, model, inputs, labels, norm, eps, box)
        self._model, self._loss = model, LOSSES[loss]
        self._track, self._early_stop = common.get("track"), common.get("early_stop", True)
        with torch.inference_mode(False):
            self.labels = labels.to(torch.int64, copy=True)
            self.ball = make_ball(inputs.detach().clone(), norm, eps, box)
        self.seeds = start_seeds(len(inputs), common.get("generator"))
        self._everything = torch.arange(len(inputs), device=inputs.device)
        self._idle = bool(eps == 0) or len(inputs) == 0
        nothing = torch.full((len(inputs),), -torch.inf, dtype=torch.float64, device=inputs.device)
        self._best = Visit(self.ball.centre.clone(), nothing, nothing > 0, nothing[:, None])
        self._faults = torch.zeros(2, dtype=torch.bool, device=inputs.device)
        self._steps = 0
        self.clean_logits = inputs.new_zeros(0, 2)
        if len(inputs):
            self.clean = self.visit(self._everything, self.ball.centre, gradient=gradient and not self._idle)

    def runs(self, count: int) -> Iterator[tuple[int, Tensor]]:
        """Yield the number of each run and the indices that it attacks, while there are any."""
        for run in range(count):
            self._check_faults()
            at = (~self._best.wrong).nonzero().squeeze(1) if self._early_stop else self._everything
            if self._idle or len(at) == 0:
                return
            yield run, at

    def start(self, at: Tensor, run: int, targets: Tensor | None = None) -> Visit:
        """Visit a random point of the ball of each input in `at`; the run's number keys the draw."""
        return self.visit(at, self.ball[at].sample(self.seeds[at.cpu()], run), targets=targets)

    def left(self, visit: Visit, *parts: Any) -> Any:
        """Return the rows of each part, one a visited point, that are attacked further."""
        rows = (~visit.wrong).nonzero().squeeze(1)
        if not self._early_stop or len(rows) == len(visit.wrong):
            return parts
        return tuple(part[rows.to(part.device) if isinstance(part, Tensor) else rows] for part in parts)

    def visit(
        self, at: Tensor, points: Tensor, *, gradient: bool = True, targets: Tensor | None = None
    ) -> Visit:
        """Evaluate one point of each input in `at`, by a forward and at most a backward pass."""
        gradient = bool(gradient)  # numpy's counts compare to its own
        with torch.inference_mode(False), torch.set_grad_enabled(gradient):
            labels, wanted = self.labels[at], None if targets is None else targets[at]
            leaf = padded(points.detach(), len(self.labels)).clone().requires_grad_(gradient)
            logits = call_model(self._model, leaf)[: len(at)]
            if self._steps == 0:
                check_clean_logits(logits, self.labels)
                self.clean_logits = logits.detach()
            scores = logits.detach().double().requires_grad_(gradient)
            loss, climb = self._loss(scores, labels, wanted), scores.new_zeros(len(at), 0)
            if gradient:
                slope, _ = direction(loss, scores)
                climb = pull_back(logits, leaf, slope, "attack without gradients by square")[: len(at)]
        logits = logits.detach()
        found = Visit(points, loss.detach(), logits.argmax(1) != labels, climb)
        self._faults |= torch.stack([~logits.isfinite().all(), ~climb.isfinite().all()])
        best, before = self._best, self._best[at]
        better = found.beats(before)
        best.points[at] = torch.where(shaped(better, points), points, before.points)
        best.loss[at] = torch.where(better, found.loss, before.loss)
        best.wrong[at] = before.wrong | found.wrong
        if self._track is not None:
            self._track(at, points, logits, self._steps)
        self._steps += 1
        return found

    def result(self) -> Tensor:
        """Return the best point of each input, (N, ...)."""
        self._check_faults()
        return self._best.points

    def _check_faults(self) -> None:
        logits, gradients = self._faults.tolist()
        if logits or gradients:
            what = "logits" if logits else "gradients"
            raise ModelError(
                f"the model gives NaN or infinite {what} at attacked inputs, which would disarm the attack: "
                "compute in float64, or attack without gradients by square"
            )


def padded(points: Tensor, whole: int) -> Tensor:
    """Return a batch (n, ...) that was `whole` once, on a GPU with copies of a row up to one of `SIZES`.

    Each size that a GPU has not seen costs it a choice of kernels, and memory of another size.
    """
    unit = -(-whole // SIZES)
    lacking = min(max(whole, len(points)), -(-len(points) // unit) * unit) - len(points) if len(points) else 0
    if points.device.type not in PADDED or not lacking:
        return points
    return torch.cat([points, points[:1].detach().expand(lacking, *points.shape[1:])])


def direction(value: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient (N, k) of values (N,) in the scores, divided by its largest entry, and that (N, 1).

    With the scale go the under- and overflows that would stop attacks on confident models.
    """
    (slope,) = torch.autograd.grad(value.sum(), scores)
    largest = slope.abs().amax(1, keepdim=True).clamp_min(torch.finfo(slope.dtype).tiny)
    return slope / largest, largest


def pull_back(logits: Tensor, leaf: Tensor, slope: Tensor, remedy: str) -> Tensor:
    """Return the gradient in the inputs of a value with gradient `slope` in the logits."""
    found = None
    if logits.requires_grad:
        (found,) = backward(logits, leaf, slope.to(logits.dtype), allow_unused=True)
    if found is None:
        raise ModelError(f"the model's logits carry no gradient to its input: {remedy}")
    return found
