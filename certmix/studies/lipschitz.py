"""Local Lipschitz constants by search: an estimate, and a trial of claimed constants."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from certmix.errors import ParameterError
from certmix.margins.estimates import EstimatedRadius, LipschitzEstimate, estimated_radius
from certmix.margins.local_search import OUTPUTS, RATIOS, float64_twin, local_search, slopes_beyond_rounding
from certmix.radii import alpha_remedy
from certmix.runs.attack_request import AttackRequest
from certmix.runs.attacking import Batch, Bench, Cell, fill_some, reduced
from certmix.runs.sources import Sources
from certmix.studies.study import Study, StudyResult, Surroundings, open_study
from certmix.tables.study_plots import lipschitz_image
from certmix.tables.table import Cell as TableCell
from certmix.tables.table import Quantity, Table
from certmix.text import ceil_digits, floor_digits, plain_decimal
from certmix.types import FloatArray, IntArray

__all__ = ["CLAIMED", "ClaimTrial", "EstimatedLipschitz", "local_lipschitz"]

CLAIMED = {"logits": "together", "probabilities": "each"}
"""The ratio of a claimed constant, as the certificate lipschitz-constant takes it."""

_CELL = "search"
_VERSION = 1
"""Raised when the same settings would search other points."""
_ESTIMATE = (
    "Estimated, not certified: a search finds slopes, so that true constants may be larger, "
    "and radii that rest on them smaller."
)
_EVIDENCE = ("restarts differ (%)", "second half added (%)")


@dataclass(frozen=True, eq=False)
class EstimatedLipschitz:
    """What the study found: estimated constants, and what they suggest or contradict."""

    indices: IntArray
    labels: IntArray
    constants: LipschitzEstimate
    radius: EstimatedRadius | None
    trial: ClaimTrial | None


def local_lipschitz(
    request: AttackRequest | None = None,
    sources: Sources | None = None,
    where: Surroundings | None = None,
    *,
    of: str = "probabilities",
    ratio: str | None = None,
    alpha: float = 0.76,
    check: float | None = None,
) -> StudyResult:
    """Estimate local Lipschitz constants of the robust model, or try a claimed constant.

    Parameters
    ----------
    request
        Ball, steps, restarts and images; ``batch_size`` counts points, of which
        an image has one a class.
    sources, where
        Data and models (the standard one is not used); where and how to run.
    of, ratio
        Names in `certmix.margins.local_search.OUTPUTS` and `RATIOS`; the ratio is
        ``"relaxed"`` by default, with a claim what `CLAIMED` says.
    alpha
        Mixing weight of the estimated radius, which relaxed constants of probabilities give.
    check
        A claimed global constant, to be contradicted.

    Returns
    -------
    StudyResult
        ``.table`` is the table, ``.data`` an `EstimatedLipschitz`; a contradicted
        claim's points are ``witness.npz`` in the run folder.

    Raises
    ------
    CertmixError
        For anything the user can mend.
    """
    request = request or AttackRequest(steps=20, restarts=2, images=20)
    ratio = ratio or ("relaxed" if check is None else CLAIMED[of])
    _check_choices(request, of, ratio, alpha, check)
    alpha, check = float(alpha), None if check is None else float(check)
    request = request.replace(attack="pgd", steps=request.steps or 20)
    identity = {"of": of, "ratio": ratio, "search": _VERSION}
    with open_study(
        "lipschitz", request, sources or Sources(), where or Surroundings(),
        asked={"of": of, "ratio": ratio, "alpha": alpha, "check": check}, identity=identity, mixes=False,
    ) as study:  # fmt: skip
        bench = _bench(study)
        held, complete = fill_some(bench, [Cell(_CELL, _searcher(bench, study, of, ratio))])
        found = _evaluate(study, held, of, ratio, alpha, check)
        name = study.loaded.robust.name
        if found.trial is None:
            table = constants_table(found, name, study.bench, complete)
        else:
            table = check_table(found, found.trial, name, study.bench, complete)
        return study.publish(table, {"lipschitz": _plot(study, found)}, found, files=_files(study, found))


def _check_choices(request: AttackRequest, of: str, ratio: str, alpha: float, check: float | None) -> None:
    for what, value, known in (("of", of, OUTPUTS), ("ratio", ratio, RATIOS)):
        if value not in known:
            raise ParameterError(f"{what} {value!r} is unknown: use one of {', '.join(known)}")
    if not request.eps > 0:
        raise ParameterError("eps = 0: slopes need two points: give a radius > 0")
    if not 0.5 <= alpha <= 1:
        remedy = alpha_remedy(alpha)
        raise ParameterError(f"alpha = {alpha:g}: Theorem 3.5 needs 1/2 <= alpha <= 1: {remedy}")
    if check is None:
        return
    if not (math.isfinite(check) and check >= 0):
        raise ParameterError(f"check = {check}: a claimed constant is a finite number >= 0")
    if not RATIOS[ratio].by_distance:
        raise ParameterError(
            f"ratio {ratio!r} divides by eps, not by ||d||: check a claim by each, together or yang"
        )


def _bench(study: Study) -> Bench:
    """Return the bench with so many images in a batch that their points fill one."""
    request = study.bench.request
    images = max(1, request.batch_size // study.bench.dataset.classes)
    return replace(study.bench, request=request.replace(batch_size=images))


def _searcher(bench: Bench, study: Study, of: str, ratio: str) -> Callable[[Batch], FloatArray]:
    model = study.loaded.robust.module
    twins: list[nn.Module | None] = []  # the twin is made when there is something to search

    def search(batch: Batch) -> FloatArray:
        if not twins:
            twins.append(float64_twin(model, batch.images))
            if twins[0] is None:
                bench.say("the model does not run in float64: slopes are measured in its own precision")
        return _search(bench, model, twins[0], study.bench.request, of, ratio, batch)

    return search


def _search(
    bench: Bench, model: nn.Module, twin: nn.Module | None, request: AttackRequest, of: str, ratio: str,
    batch: Batch,
) -> FloatArray:  # fmt: skip
    """Return outputs, best values of each restart, the same halfway; of slopes also what holds of them."""
    found = local_search(
        reduced(bench, model) if twin is not None else model, batch.images, request.norm, request.eps,
        of=of, ratio=ratio, steps=request.steps or 20, restarts=request.restarts,
        box=bench.dataset.input_range, seeds=_seeds(request.seed, batch.indices), judge=twin,
        batch_size=request.batch_size,
    )  # fmt: skip
    n = len(batch.indices)
    parts = [found.outputs, found.by_restart.swapaxes(0, 1), found.halfway.swapaxes(0, 1)]
    if RATIOS[ratio].by_distance:
        assert found.points is not None
        k = found.points.shape[1]
        points = torch.from_numpy(found.points).to(batch.images.device)
        sure = [
            slopes_beyond_rounding(
                model, twin, batch.images, points[:, i], of=of, ratio=ratio, norm=request.norm
            )
            for i in range(k)
        ]
        each = torch.stack([one[:, min(i, one.shape[1] - 1)] for i, one in enumerate(sure)], 1).cpu().numpy()
        best = np.where(each.max(1) > 0, each.argmax(1), found.slopes.argmax(1))
        parts += [each.max(1), found.points[np.arange(n), best]]
    return np.concatenate([np.asarray(part, np.float64).reshape(n, -1) for part in parts], 1)


def _seeds(seed: int, indices: IntArray) -> torch.Tensor:
    """Return a key of random starts for each image, whatever batch it is in."""
    digests = [hashlib.sha256(f"{seed}\0{index}".encode()).digest() for index in indices.tolist()]
    return torch.tensor([int.from_bytes(digest[:4], "little") for digest in digests])


def _evaluate(
    study: Study, held: IntArray, of: str, ratio: str, alpha: float, check: float | None
) -> EstimatedLipschitz:
    dataset, request = study.bench.dataset, study.bench.request
    indices, c = dataset.indices[held], dataset.classes
    kept = study.bench.store.read(_CELL, indices.tolist())
    k, r = (c if RATIOS[ratio].wide else 1), request.restarts
    sizes = np.cumsum([c, r * k, r * k])
    outputs, best, halfway, rest = np.split(kept, sizes, axis=1)
    restarts = [part.reshape(-1, r, k).swapaxes(0, 1) for part in (best, halfway)]
    constants = LipschitzEstimate(
        of, ratio, request.norm, request.eps, request.steps or 20, outputs.argmax(1), outputs, *restarts
    )
    suggests = check is None and (of, ratio) == ("probabilities", "relaxed")
    radius = estimated_radius(constants, alpha) if suggests else None
    trial = None if check is None else try_claim(check, constants, indices, rest)
    return EstimatedLipschitz(indices, dataset.labels[held], constants, radius, trial)


def _plot(study: Study, found: EstimatedLipschitz) -> Callable[[str], bytes]:
    constants, wide = found.constants, found.constants.slopes.shape[1] > 1
    if found.trial is not None or not wide:
        curves = {"largest slope": constants.slopes.max(1)}
    else:
        curves = {"predicted class y": constants.own, "largest of another class": constants.rivals}
    return partial(
        lipschitz_image,
        curves,
        unit=f"{constants.of} a unit of {constants.norm}",
        title=f"{study.loaded.robust.name}: local Lipschitz search, {study.bench.request.words()}",
        eps=constants.eps,
        quotient=None if found.radius is None else found.radius.quotient,
        claimed=None if found.trial is None else found.trial.claimed,
    )


def _files(study: Study, found: EstimatedLipschitz) -> dict[str, bytes]:
    """Return the witness of a contradicted claim, and remove that of an earlier one."""
    if found.trial is not None and found.trial.contradicted:
        position = int(np.flatnonzero(study.bench.dataset.indices == found.trial.index)[0])
        return {"witness.npz": witness_file(found.trial, study.bench.dataset.read(position))}
    if study.run.path is not None:
        (study.run.path / "witness.npz").unlink(missing_ok=True)
    return {}


# ------------------------------------------------------------ a claim on trial


@dataclass(frozen=True, eq=False)
class ClaimTrial:
    """Whether a search contradicts a claim; that it does not proves nothing.

    Parameters
    ----------
    claimed
        The claimed global constant.
    of, ratio, norm
        Of which outputs, in which sense, and the norm of the input.
    slope
        The steepest slope found, rounding errors taken off.
    index
        The index of its image.
    point
        (D,): the other point of the pair, flat.
    """

    claimed: float
    of: str
    ratio: str
    norm: str
    slope: float
    index: int
    point: FloatArray

    @property
    def contradicted(self) -> bool:
        """Whether a pair of points is steeper than the claim allows, beyond rounding."""
        return self.slope > self.claimed


def try_claim(
    claimed: float, constants: LipschitzEstimate, indices: IntArray, kept: FloatArray
) -> ClaimTrial:
    """Return the trial of a claim by the slopes and points (m, 1 + D) that a search kept."""
    steepest = int(kept[:, 0].argmax())
    return ClaimTrial(
        claimed, constants.of, constants.ratio, constants.norm, float(kept[steepest, 0]),
        int(indices[steepest]), kept[steepest, 1:],
    )  # fmt: skip


def witness_file(trial: ClaimTrial, image: NDArray[np.float32]) -> bytes:
    """Return an ``.npz`` file of the pair of points and of what it contradicts."""
    buffer = io.BytesIO()
    perturbed = trial.point.reshape(image.shape).astype(image.dtype)
    np.savez_compressed(
        buffer, image=image, perturbed=perturbed, index=trial.index,
        slope=trial.slope, claimed=trial.claimed, of=trial.of, ratio=trial.ratio, norm=trial.norm,
    )  # fmt: skip
    return buffer.getvalue()


# ------------------------------------------------------------ tables


def constants_table(found: EstimatedLipschitz, model: str, bench: Bench, complete: bool) -> Table:
    """Return estimated constants image by image, and the radius they suggest."""
    constants, radius = found.constants, found.radius
    wide = constants.slopes.shape[1] > 1
    names = ("estimated L_y", "estimated largest L_i") if wide else ("estimated L",)
    columns = [constants.own, constants.rivals] if wide else [constants.own]
    extra = ("margin", "estimated r", "status") if radius is not None else ()
    rows = [
        (*start, *(_down(column[k]) for column in columns), *_radius(found, k), *end)
        for k, (start, end) in enumerate(zip(_starts(found, bench), _evidence(found), strict=True))
    ]
    notes = [_ESTIMATE, _formula(found), *_verdict(found), _convergence(found), *bench.blind]
    notes.append(_run(model, bench))
    return Table(
        name="lipschitz",
        title=f"Estimated local Lipschitz constants of {constants.of}",
        settings=_settings(found, bench),
        headings=("image", "predicted", "right", *names, *extra, *_EVIDENCE),
        rows=tuple(rows),
        notes=tuple(notes),
        complete=complete,
        extra={"kind": "estimated, not certified", **_summary(found)},
    )


def check_table(
    found: EstimatedLipschitz, trial: ClaimTrial, model: str, bench: Bench, complete: bool
) -> Table:
    """Return the steepest slopes image by image, and whether they contradict the claim."""
    rows = [
        (*start, _down(found.constants.slopes[k].max()), *end)
        for k, (start, end) in enumerate(zip(_starts(found, bench), _evidence(found), strict=True))
    ]
    verdict = _trial_words(trial)
    return Table(
        name="lipschitz",
        title=f"A claimed Lipschitz constant {plain_decimal(trial.claimed)} of {trial.of} on trial",
        settings=_settings(found, bench),
        headings=("image", "predicted", "right", "estimated L", *_EVIDENCE),
        rows=tuple(rows),
        notes=(verdict, _formula(found), _convergence(found), *bench.blind, _run(model, bench)),
        complete=complete,
        extra={
            "verdict": "contradicted" if trial.contradicted else "not contradicted",
            "claimed": trial.claimed,
            "slope_beyond_rounding": trial.slope,
            "index": trial.index,
            **_summary(found),
        },
    )


def _trial_words(trial: ClaimTrial) -> str:
    slope, claimed = floor_digits(trial.slope, 6), plain_decimal(trial.claimed)
    if trial.contradicted:
        return (
            f"Contradicted: image {trial.index} and a point near it (witness.npz) have slope {slope}, "
            f"rounding taken off, above the claimed {claimed}: no certificate may rest on this constant."
        )
    return (
        f"Not contradicted by this search, which is no proof: the steepest slope found is {slope}, "
        f"the claim {claimed}. A constant is established by the layers' construction alone."
    )


def _starts(found: EstimatedLipschitz, bench: Bench) -> list[tuple[TableCell, ...]]:
    names, y = bench.dataset.class_names, found.constants.selected
    return [
        (int(index), str(names[own]), bool(own == label))
        for index, own, label in zip(found.indices, y, found.labels, strict=True)
    ]


def _radius(found: EstimatedLipschitz, k: int) -> tuple[Any, ...]:
    if found.radius is None:
        return ()
    outputs, own = found.constants.outputs[k], int(found.constants.selected[k])
    margin = float(outputs[own] - np.delete(outputs, own).max())
    return Quantity(margin, 3, rounding="down"), _down(found.radius.quotient[k]), found.radius.status[k]


def _evidence(found: EstimatedLipschitz) -> list[tuple[TableCell, ...]]:
    spreads = found.constants.spread if len(found.constants.by_restart) > 1 else [None] * len(found.labels)
    return [(_percent_up(s), _percent_up(g)) for s, g in zip(spreads, found.constants.gain, strict=True)]


def _percent_up(share: float | None) -> Quantity:
    return Quantity(None if share is None else 100 * float(share), 1, rounding="up")


def _down(value: float) -> Quantity:
    return Quantity(float(value) if np.isfinite(value) else None, 4, rounding="down")


def _settings(found: EstimatedLipschitz, bench: Bench) -> str:
    return f"search by {bench.request.words()}, {len(found.labels):,} images"


def _formula(found: EstimatedLipschitz) -> str:
    constants = found.constants
    box = "and d within the ball and the input range"
    return f"Ratio {constants.ratio}: {RATIOS[constants.ratio].summary}; {constants.norm} norm of d, {box}."


def _verdict(found: EstimatedLipschitz) -> Sequence[str]:
    radius = found.radius
    if radius is None:
        return ()
    right = found.constants.selected == found.labels
    held = int(radius.holds.sum())
    return (
        f"At alpha = {radius.alpha:g} the mix is estimated to keep h's class within eps for {held} of "
        f"{len(right)} images, {int((radius.holds & right).sum())} of them classified right. r below eps "
        "establishes nothing, r above it no more than eps; '-' for r: no slope was found.",
    )


def _convergence(found: EstimatedLipschitz) -> str:
    constants = found.constants
    gains, words = constants.gain, f"{constants.steps} steps x {len(constants.by_restart)} restarts"
    spread = (
        f"restarts differ by {_percent(constants.spread)} of an image's largest constant, "
        if len(constants.by_restart) > 1
        else "one restart shows no spread, "
    )
    return (
        f"Search evidence ({words}): {spread}the second half of the steps added {_percent(gains)}; "
        "where these are large, more --steps or --restarts will find more."
    )


def _percent(shares: FloatArray) -> str:
    median, most = (ceil_digits(100 * float(share), 1) for share in (np.median(shares), shares.max()))
    return f"{median} % (median), {most} % (most)"


def _run(model: str, bench: Bench) -> str:
    return f"Run: data {bench.dataset.name}; model {model}; seed {bench.request.seed}."


def _summary(found: EstimatedLipschitz) -> dict[str, Any]:
    constants = found.constants
    return {
        "of": constants.of,
        "ratio": constants.ratio,
        "norm": constants.norm,
        "eps": constants.eps,
        "steps": constants.steps,
        "restarts": len(constants.by_restart),
        "indices": found.indices.tolist(),
        "estimated_constants": constants.slopes.tolist(),
        "estimated_constants_by_restart": constants.by_restart.tolist(),
    }
