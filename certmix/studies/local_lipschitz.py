"""Local Lipschitz constants by search: an estimate, and a trial of claimed constants."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from certmix.errors import ParameterError
from certmix.margins.estimates import EstimatedRadius, LipschitzEstimate, estimated_radius
from certmix.margins.local_search import OUTPUTS, RATIOS, float64_twin, local_search, slopes_beyond_rounding
from certmix.radii import alpha_remedy
from certmix.runs.attacking import Batch, Bench, Cell, fill_some, reduced
from certmix.runs.sources import Sources
from certmix.studies.attack_request import AttackRequest
from certmix.studies.empirical import Study, StudyResult, Surroundings, open_study
from certmix.studies.local_lipschitz_table import check_table, constants_table
from certmix.studies.local_lipschitz_trial import ClaimTrial, try_claim, witness_file
from certmix.tables.study_plots import lipschitz_image
from certmix.types import FloatArray, IntArray

__all__ = ["CLAIMED", "ClaimTrial", "EstimatedLipschitz", "local_lipschitz"]

CLAIMED = {"logits": "together", "probabilities": "each"}
"""The ratio of a claimed constant, as the certificate lipschitz-constant takes it."""

_CELL = "search"
_VERSION = 1
"""Raised when the same settings would search other points."""


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
    if study.run is not None:
        (study.run.path / "witness.npz").unlink(missing_ok=True)
    return {}
