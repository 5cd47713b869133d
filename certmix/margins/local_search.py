"""Local Lipschitz constants by search: estimates from below, never certificates."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from certmix.attacks.geometry import Ball, distance, make_ball
from certmix.attacks.search import (
    Model,
    check_ball,
    check_clean_logits,
    check_count,
    check_model,
    check_positive,
    direction,
    pull_back,
)
from certmix.calling import call_model
from certmix.errors import ModelError, ParameterError, check_choice
from certmix.margins.estimates import LipschitzEstimate
from certmix.models.trust import FORMS

Rise = Callable[[Tensor, Tensor, Tensor], Tensor]

OUTPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "probabilities": lambda logits: logits.softmax(1),
    "logits": lambda logits: logits,
}
"""Whose constants are searched: name -> function of float64 logits."""


def towards_rivals(before: Tensor, after: Tensor, selected: Tensor) -> Tensor:
    """Return how far the selected class falls and the others rise, (n, c)."""
    own = torch.zeros_like(after, dtype=torch.bool).scatter(1, selected[:, None], True)
    return torch.where(own, before - after, after - before)


@dataclass(frozen=True)
class Ratio:
    """What counts as a slope: ``rise(before, after, y) -> (n, k)`` of (n, c), over ||d|| or eps.

    There is one a class (k = c) if `wide`, or one in all (k = 1); `sides` is 2 where an output may rise or
    fall, so that an ascent is made each way.
    """

    summary: str
    rise: Rise
    by_distance: bool
    wide: bool
    sides: int = 1


RATIOS = {
    "relaxed": Ratio(
        "the paper's relaxed constants: fall of y, rise of any other class, over eps",
        towards_rivals, by_distance=False, wide=True,
    ),
    "each": Ratio(
        "|f_i(x+d) - f_i(x)| / ||d|| of each class",
        lambda x, z, y: (z - x).abs(), by_distance=True, wide=True, sides=2,
    ),
    "together": Ratio(
        "||f(x+d) - f(x)||_2 / ||d||",
        lambda x, z, y: (z - x).norm(dim=1, keepdim=True), by_distance=True, wide=False,
    ),
    "yang": Ratio(
        "||f(x+d) - f(x)||_1 / ||d|| (Yang et al., 2020)",
        lambda x, z, y: (z - x).abs().sum(1, keepdim=True), by_distance=True, wide=False,
    ),
}  # fmt: skip
"""Slopes by name."""

_TINY = torch.finfo(torch.float64).tiny
_HUGE = 1e30
_HALVINGS = 5
_CLOSEST = 1e-3
"""Slopes are measured between points at least this share of eps apart: rounding blurs closer ones."""
_ROUNDING = 512
"""Rounding errors that are taken off a rise, in units of the largest output."""


@dataclass(frozen=True)
class Ascent:
    """One search: N inputs with an ascent for each class and side, whose points are (N, ascents, ...)."""

    model: Model
    judge: Model | None
    ball: Ball
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
        balls = self.ball[rows.repeat_interleave(k * self.ratio.sides)]
        best = self.logits.new_zeros(restarts, n, k)
        halfway, overall, witness = best.clone(), best[0].clone(), _spread(self.ball.centre, k)
        for run in range(restarts):
            points = self._start(run, balls, seeds)
            for step in range(steps + 1):
                ahead = points
                if self.ratio.by_distance and not self._tilts and step % 2:
                    # The steepest slopes may be short ones: every other point is looked at nearer the input,
                    # and the ascent goes on from where it was.  In l2 the gradient itself leads there.
                    scale = 0.5 ** (1 + step // 2 % _HALVINGS)
                    nearer = balls.centre + scale * (points.flatten(0, 1) - balls.centre)
                    points = balls.project(nearer).view_as(points)
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

    @property
    def _tilts(self) -> bool:
        """Whether the gradient of ||d|| is of use: in the other norms few coordinates share it."""
        return self.ratio.by_distance and self.ball.norm == "l2"

    def _start(self, run: int, balls: Ball, seeds: Tensor) -> Tensor:
        """Return where the linear approximation is largest, or random points; on the second side mirrored."""
        k, centres = self._slopes, _spread(self.ball.centre, self._slopes * self.ratio.sides)
        if run > 0 or not self.ratio.wide:
            points = _spread(self.ball.sample(seeds, run), k * self.ratio.sides)
            points[:, k:] = 2 * centres[:, k:] - points[:, k:]
            return balls.project(points.flatten(0, 1)).view_as(points)
        climb = self._visit(centres, towards_rivals, True)[1]
        climb[:, k:] *= -1
        return balls.summit(climb.flatten(0, 1)).view_as(centres)

    def _visit(self, points: Tensor, rise: Rise, gradient: bool) -> tuple[Tensor, Tensor]:
        """Return all slopes at all points, (N, ascents, k), and the gradient of each point's own slope."""
        n, ascents = points.shape[:2]
        values, climbs = [], []
        for rows in torch.arange(n * ascents, device=points.device).split(self.batch_size):
            part, input, column = points.flatten(0, 1)[rows], rows // ascents, rows % ascents % self._slopes
            with torch.inference_mode(False), torch.set_grad_enabled(gradient):
                leaf = part.detach().clone().requires_grad_(gradient)
                logits = call_model(self.model, leaf)
            exact = call_model(self.judge, part.double()) if self.judge else logits.detach()
            if not (exact.isfinite().all() and logits.isfinite().all()):
                raise ModelError(
                    "the model gives NaN or infinite logits near the inputs: compute in float64, or lower eps"
                )
            rises, largest = self._rises(exact.double(), input, self.ratio.rise), exact.double().abs()
            blur = _ROUNDING * torch.finfo(exact.dtype).eps * (1 + largest.amax(1, keepdim=True))
            slopes = (rises - blur).clamp_min(0.0)
            if self.ratio.by_distance:
                size = distance(part, self.ball.centre[input], self.ball.norm)[:, None]
                slopes = torch.where(size >= _CLOSEST * self.eps, slopes / size.clamp_min(_TINY), 0.0)
            else:
                slopes = slopes / self.eps
            values.append(slopes)
            climbs.append(self._gradient(logits, leaf, input, column, rise) if gradient else part)
        return torch.cat(values).view(n, ascents, -1), torch.cat(climbs).view_as(points)

    def _rises(self, logits: Tensor, input: Tensor, rise: Rise) -> Tensor:
        outputs = OUTPUTS[self.of]
        return rise(outputs(self.logits[input]), outputs(logits), self.selected[input])

    def _gradient(self, logits: Tensor, leaf: Tensor, input: Tensor, column: Tensor, rise: Rise) -> Tensor:
        """Return the direction in which each point's own slope grows.

        It is taken in float64 at the logits and pulled back with largest slope 1; a single probability is
        followed through its log-odds: a saturated softmax does not blind the ascent.
        """
        at = column[:, None]
        with torch.inference_mode(False), torch.enable_grad():
            scores = logits.detach().double().requires_grad_()
            if self.ratio.wide:
                form, log_scale = FORMS[self.of](scores)
                before = FORMS[self.of](self.logits[input])[0]
                rises = rise(before, form, self.selected[input])
                scale = log_scale.detach().exp().gather(1, at)
            else:
                rises, scale = self._rises(scores, input, rise), torch.ones_like(at, dtype=torch.float64)
            slope, largest = direction(rises.gather(1, at), scores)
        climb = pull_back(logits, leaf, slope, "constants cannot be searched")
        if not climb.isfinite().all():
            raise ModelError("the model gives NaN or infinite gradients near the inputs: compute in float64")
        if not self._tilts:
            return climb
        risen = self._rises(logits.detach().double(), input, rise).gather(1, at)
        share = (risen.clamp_min(0.0) / (largest * scale).clamp_min(_TINY))[:, 0]
        # the gradient of log(rise / ||d||_2), from that of the rise over `share`
        d = (leaf.detach().double() - self.ball.centre[input].double()).flatten(1)
        pull = d * (share.clamp_max(_HUGE) / d.square().sum(1).clamp_min(_TINY))[:, None]
        tilted = climb.double().flatten(1) - pull
        return (tilted / tilted.abs().amax(1, keepdim=True).clamp_min(_TINY)).view_as(climb).to(climb.dtype)


def _spread(points: Tensor, ascents: int) -> Tensor:
    return points[:, None].expand(-1, ascents, *points.shape[1:]).contiguous()


@torch.no_grad()
def local_search(
    model: Model,
    inputs: Tensor,
    norm: str = "linf",
    eps: float = 8 / 255,
    *,
    of: str = "probabilities",
    ratio: str = "relaxed",
    steps: int = 20,
    restarts: int = 2,
    box: tuple[float, float] | None = (0.0, 1.0),
    selected: Tensor | None = None,
    seeds: Tensor | None = None,
    judge: Model | None = None,
    batch_size: int = 1000,
) -> LipschitzEstimate:
    """Estimate local Lipschitz constants around inputs, from below, by ascents for each class.

    Step t goes 2 eps / (t + 2) up the norm's steepest direction and is projected onto ball and box; neither
    steps nor restarts depend on how many there are.  The best value of every class over all points evaluated
    is kept, so that more of them never lower it.  The first restart begins where the linear approximation is
    largest: for linear models it is exact.

    Parameters
    ----------
    model, inputs, norm, eps
        As for `certmix.attacks.pgd`, with the same errors.
    of, ratio
        Names in `OUTPUTS` and `RATIOS` of `certmix.margins.local_search`.
    steps, restarts, batch_size
        Steps of each restart, number of restarts, and points in one pass of the model.
    box
        Range of the input, to which perturbed points are kept; None for no range.
    selected, seeds
        int64 (N,): the classes y, by default the largest outputs'; keys of random starts, else 0, 1, ...
    judge
        The same model for float64 inputs, from which values are taken; by default a float64 copy.

    References
    ----------
    Section 3.1 of Bai, Anderson, Sojoudi, "Mixing classifiers to alleviate the accuracy-robustness
    trade-off".  Y.-Y. Yang et al., A Closer Look at Accuracy vs. Robustness, NeurIPS 2020.
    """
    check_choice("norm", norm, ("linf", "l2", "l1"))
    check_choice("of", of, OUTPUTS)
    check_choice("ratio", ratio, RATIOS)
    check_positive("eps", eps)
    check_count("steps", steps)
    check_count("restarts", restarts)
    check_model(model)
    if len(inputs) == 0:
        raise ParameterError("there are no inputs: give at least one")
    if box is None:  # one that cuts no ball
        low, high = inputs.min().item(), inputs.max().item()
        box = low - 2 * eps - 1e-3 * abs(low), high + 2 * eps + 1e-3 * abs(high)
    check_ball(inputs, eps, box)
    ball = make_ball(inputs.detach().clone(), norm, eps, box)
    judge = judge or float64_twin(model, inputs)
    logits = call_model(judge or model, ball.centre.double() if judge else ball.centre).double()
    check_clean_logits(logits, torch.zeros(len(inputs), dtype=torch.int64))
    outputs = OUTPUTS[of](logits)
    y = outputs.argmax(1) if selected is None else selected.to(outputs.device)
    task = Ascent(model, judge, ball, eps, of, RATIOS[ratio], logits, y, batch_size)
    keys = torch.arange(len(inputs)) if seeds is None else seeds
    best, halfway, points = task.search(steps, restarts, keys)
    return LipschitzEstimate(
        of, ratio, norm, eps, steps, y.cpu().numpy(), outputs.cpu().numpy(), best.cpu().numpy(),
        halfway.cpu().numpy(), points.cpu().numpy(),
    )  # fmt: skip


def float64_twin(model: Model, inputs: Tensor) -> nn.Module | None:
    """Return a float64 copy of a module in lower precision, None if there is none or no need of one."""
    if inputs.dtype == torch.float64 or not isinstance(model, nn.Module):
        return None
    try:
        twin = copy.deepcopy(model).double()
        fits = twin(inputs[:1].double()).dtype == torch.float64
    except (RuntimeError, TypeError, ValueError):
        return None
    return twin if fits else None


_LAYERS = 1e4
"""Rounding errors of an output, in units of its own: far more than sums of deep networks accumulate."""


@torch.no_grad()
def slopes_beyond_rounding(
    model: Model, judge: Model | None, inputs: Tensor, points: Tensor, *, of: str, ratio: str, norm: str
) -> Tensor:
    """Return slopes, float64 (N, k), between inputs and points (N, ...), less what rounding may have added.

    Outputs are computed in float64 by `judge`, or by `model` where it is None, whose rounding is allowed for
    generously: 1e4 units of the largest logit, and a millionth of what the lower precision of `model` changes
    (float64 is 5e8 times finer).  Distances are rounded up.  A claim below such a slope is contradicted.
    Pairs of equal points have slope 0; the relaxed ratio is no slope and refused.
    """
    if not RATIOS[ratio].by_distance:
        raise ParameterError(
            f"ratio {ratio!r} divides by eps, not by a distance: check each, together or yang"
        )
    logits, errors = [], []
    for batch in (inputs, points):
        coarse = call_model(model, batch)
        fine = coarse if judge is None else call_model(judge, batch.double())
        unit = torch.finfo(fine.dtype).eps
        fine, coarse = fine.double(), coarse.double()
        largest, change = fine.abs().amax(1), (fine - coarse).abs().amax(1)
        errors.append(_LAYERS * unit * (1 + largest) + 1e-6 * change)
        logits.append(fine)
    before, after = (OUTPUTS[of](each) for each in logits)
    rise = RATIOS[ratio].rise(before, after, before.argmax(1))
    blur = before.shape[1] * (errors[0] + errors[1])
    sure = (rise - blur[:, None]).clamp_min(0.0)
    size = distance(points, inputs, norm)[:, None] * (1 + 1e-12)
    return torch.where(size > 0, sure / size.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
