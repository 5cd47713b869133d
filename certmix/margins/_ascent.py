"""The ascents behind the local Lipschitz search: every evaluated point counts for every class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from certmix.attacks.geometry import Ball, distance
from certmix.calling import call_model
from certmix.errors import ModelError
from certmix.margins.ratios import OUTPUTS, Ratio, Rise, towards_rivals
from certmix.models.slopes import FORMS

__all__ = ["Ascent", "Model"]

Model = Callable[[Tensor], Tensor]
_TINY = torch.finfo(torch.float64).tiny
_HUGE = 1e30
_HALVINGS = 5
_CLOSEST = 1e-3
"""Slopes are measured between points at least this share of eps apart: rounding blurs closer ones."""
_ROUNDING = 512
"""Rounding errors that are taken off a rise, in units of the largest output."""


@dataclass(frozen=True)
class Ascent:
    """One search: N images with an ascent for each class and side, whose points are (N, ascents, ...)."""

    model: Model
    judge: Model | None
    ball: Ball
    norm: str
    eps: float
    of: str
    ratio: Ratio
    logits: Tensor
    selected: Tensor
    batch_size: int

    def search(self, steps: int, restarts: int, seeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return each restart's best values, the same after half the steps, and the points of the best."""
        n, k = len(self.logits), self._slopes
        rows = torch.arange(n, device=self.logits.device)
        balls = self.ball.take(rows.repeat_interleave(k * self.ratio.sides))
        best = self.logits.new_zeros(restarts, n, k)
        halfway, overall, witness = best.clone(), best[0].clone(), self._spread(self.ball.centre, k)
        for run in range(restarts):
            points = self._start(run, balls, seeds)
            for step in range(steps + 1):
                points, ahead = self._closer(points, balls, step), points
                values, climb = self._visit(points, self.ratio.rise, step < steps)
                top, row = values.max(1)
                best[run] = torch.maximum(best[run], top)
                better = (top > overall).view(n, k, *[1] * (points.ndim - 2))
                witness = torch.where(better, points[rows[:, None], row], witness)
                overall = torch.maximum(overall, top)
                if step == steps // 2:
                    halfway[run] = best[run]
                if step < steps:
                    length = balls.radius * (2 / (step + 2))
                    flat = balls.ascend(ahead.flatten(0, 1), climb.flatten(0, 1), length)
                    points = flat.view_as(points)
        return best, halfway, witness

    @property
    def _slopes(self) -> int:
        return self.logits.shape[1] if self.ratio.wide else 1

    def _closer(self, points: Tensor, balls: Ball, step: int) -> Tensor:
        """Return the points that a step evaluates: where distance divides, every other one nearer the image.

        The steepest slopes may be short ones; the ascent goes on from where it
        was.  In l2 the gradient itself leads there.
        """
        if not self.ratio.by_distance or self._tilts or step % 2 == 0:
            return points
        scale = 0.5 ** (1 + step // 2 % _HALVINGS)
        nearer = balls.centre + scale * (points.flatten(0, 1) - balls.centre)
        return balls.project(nearer).view_as(points)

    def _start(self, run: int, balls: Ball, seeds: Tensor) -> Tensor:
        """Return where the linear approximation is largest, or random points; on the second side mirrored."""
        k, centres = self._slopes, self._spread(self.ball.centre, self._slopes * self.ratio.sides)
        if run > 0 or not self.ratio.wide:
            points = self._spread(self.ball.sample(seeds, run), k * self.ratio.sides)
            points[:, k:] = 2 * centres[:, k:] - points[:, k:]
            return balls.project(points.flatten(0, 1)).view_as(points)
        climb = self._visit(centres, towards_rivals, True)[1]
        climb[:, k:] *= -1
        return balls.summit(climb.flatten(0, 1)).view_as(centres)

    @staticmethod
    def _spread(points: Tensor, ascents: int) -> Tensor:
        return points[:, None].expand(-1, ascents, *points.shape[1:]).contiguous()

    def _visit(self, points: Tensor, rise: Rise, gradient: bool) -> tuple[Tensor, Tensor]:
        """Return all slopes at all points, (N, ascents, k), and the gradient of each point's own slope."""
        n, ascents = points.shape[:2]
        flat, device = points.flatten(0, 1), points.device
        image = torch.arange(n, device=device).repeat_interleave(ascents)
        column = torch.arange(ascents, device=device).repeat(n) % self._slopes
        parts = [
            self._pass(flat[part], image[part], column[part], rise, gradient)
            for part in torch.arange(n * ascents, device=device).split(self.batch_size)
        ]
        values = torch.cat([part[0] for part in parts]).view(n, ascents, -1)
        climb = torch.cat([part[1] for part in parts]).view_as(points) if gradient else points
        return values, climb

    def _pass(
        self, points: Tensor, image: Tensor, column: Tensor, rise: Rise, gradient: bool
    ) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(False), torch.set_grad_enabled(gradient):
            leaf = points.detach().clone().requires_grad_(gradient)
            logits = call_model(self.model, leaf)
        exact = call_model(self.judge, points.double()) if self.judge else logits.detach()
        if not (exact.isfinite().all() and logits.isfinite().all()):
            raise ModelError(
                "the model gives NaN or infinite logits near the images: compute in float64, or lower eps"
            )
        rises = self._rises(exact.double(), image, self.ratio.rise)
        blur = _ROUNDING * torch.finfo(exact.dtype).eps * (1 + exact.double().abs().amax(1, keepdim=True))
        values = self._divide((rises - blur).clamp_min(0.0), points, image)
        return values, self._gradient(logits, leaf, image, column, rise) if gradient else points

    def _rises(self, logits: Tensor, image: Tensor, rise: Rise) -> Tensor:
        outputs = OUTPUTS[self.of]
        return rise(outputs(self.logits[image]), outputs(logits), self.selected[image])

    def _divide(self, rise: Tensor, points: Tensor, image: Tensor) -> Tensor:
        if not self.ratio.by_distance:
            return rise / self.eps
        size = distance(points, self.ball.centre[image], self.norm)[:, None]
        return torch.where(size >= _CLOSEST * self.eps, rise / size.clamp_min(_TINY), 0.0)

    def _gradient(self, logits: Tensor, leaf: Tensor, image: Tensor, column: Tensor, rise: Rise) -> Tensor:
        """Return the direction in which each point's own slope grows.

        It is taken in float64 at the logits and pulled back with largest slope
        1; a single probability is followed through its log-odds, of the same
        direction: a saturated softmax does not blind the ascent.
        """
        at = column[:, None]
        with torch.inference_mode(False), torch.enable_grad():
            scores = logits.detach().double().requires_grad_()
            if self.ratio.wide:
                form, log_scale = FORMS[self.of](scores)
                before = FORMS[self.of](self.logits[image])[0]
                rises, scale = (
                    rise(before, form, self.selected[image]),
                    log_scale.detach().exp().gather(1, at),
                )
            else:
                rises, scale = self._rises(scores, image, rise), torch.ones_like(at, dtype=torch.float64)
            (slope,) = torch.autograd.grad(rises.gather(1, at).sum(), scores)
        largest = slope.abs().amax(1, keepdim=True).clamp_min(_TINY)
        climb = _pull_back(logits, leaf, slope / largest)
        if not climb.isfinite().all():
            raise ModelError("the model gives NaN or infinite gradients near the images: compute in float64")
        if not self._tilts:
            return climb
        risen = self._rises(logits.detach().double(), image, rise).gather(1, at)
        share = risen.clamp_min(0.0) / (largest * scale).clamp_min(_TINY)
        return self._tilt(climb, share[:, 0], leaf.detach(), image)

    @property
    def _tilts(self) -> bool:
        """Whether the gradient of ||d|| is of use: in the other norms few coordinates share it."""
        return self.ratio.by_distance and self.norm == "l2"

    def _tilt(self, climb: Tensor, share: Tensor, points: Tensor, image: Tensor) -> Tensor:
        """Return the direction of the gradient of log(rise / ||d||_2), from that of the rise over `share`."""
        d = (points.double() - self.ball.centre[image].double()).flatten(1)
        pull = d * (share.clamp_max(_HUGE) / d.square().sum(1).clamp_min(_TINY))[:, None]
        tilted = climb.double().flatten(1) - pull
        return (tilted / tilted.abs().amax(1, keepdim=True).clamp_min(_TINY)).view_as(climb).to(climb.dtype)


def _pull_back(logits: Tensor, leaf: Tensor, slope: Tensor) -> Tensor:
    """Return the gradient in the images of the value with gradient `slope` in the logits."""
    found = None
    if logits.requires_grad:
        (found,) = torch.autograd.grad(logits, leaf, slope.to(logits.dtype), allow_unused=True)
    if found is None:
        raise ModelError("the model's logits carry no gradient to its input: constants cannot be searched")
    return found
