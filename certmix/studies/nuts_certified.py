"""Certified MixedNUTS: choose a transform inside the expectation on some images, certify it on the others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from msgspec.structs import asdict

from certmix.atomic import write_atomically
from certmix.certification.certify import CertifyResult, run_certify
from certmix.certification.drawing import Progress as DrawingProgress
from certmix.certification.evaluate import evaluate
from certmix.data import restrict, spread, stack
from certmix.errors import DataError, Interrupted
from certmix.nuts._certified_kernel import right_over_alphas
from certmix.nuts.certified import ALPHAS, NoisyLogits, softmax_numpy
from certmix.nuts.description import MixSettings, TuningImages
from certmix.nuts.folder import FILE, save_nuts
from certmix.nuts.mixture import TransformedRobust
from certmix.nuts.transform import NonlinearTransform
from certmix.runs.attacking import outputs
from certmix.runs.sources import Sources
from certmix.studies.empirical import StudyResult, Surroundings
from certmix.studies.nuts_certified_bench import STUDY, Bench, draw, open_bench
from certmix.studies.nuts_certified_choice import Plan, plan_mix
from certmix.studies.nuts_certified_request import CertifiedRequest
from certmix.studies.nuts_certified_table import Comparison, certified_row, comparison_table, matching_alpha
from certmix.studies.nuts_fit import base_models
from certmix.tables.formats import write_files
from certmix.tables.table import Table
from certmix.types import Dataset

__all__ = ["CertifiedFit", "nuts_certified"]

FLATTERED = "the transform was changed after another had been certified"


@dataclass(frozen=True, eq=False)
class CertifiedFit:
    """The plan, the logits behind it, and the certifications of the transform and of hard votes."""

    plan: Plan
    logits: NoisyLogits
    settings: MixSettings
    soft: CertifyResult
    hard: CertifyResult
    comparison: Comparison


def nuts_certified(
    request: CertifiedRequest, sources: Sources | None = None, where: Surroundings | None = None
) -> StudyResult:
    """Choose s, p, c and alpha for certified accuracy at a radius, and certify the mix on other images.

    The transform acts on each noisy copy's logits, before the average: h(x) =
    E softmax(M(base(x + noise))), so that all certificates of a smoothed h
    stand.  It is chosen on noise and images of its own; the other images are
    then certified, with the transform and with hard votes, by
    `certmix.certification.certify` and its confidence bounds.

    Parameters
    ----------
    request
        Radius, noise level, and how to choose and certify.
    sources, where
        Data and models (the robust one is h's base; None takes the shipped one
        of the noise level); where and how to run.

    Returns
    -------
    StudyResult
        ``.data`` is the `CertifiedFit`; ``.folder`` loads as ``nuts:FOLDER``.

    Raises
    ------
    CertmixError
        For anything the user can mend.
    """
    named, where = sources or Sources(), where or Surroundings()
    with open_bench(request, named, where) as bench:
        dataset = bench.loaded.dataset
        positions = spread(len(dataset), request.images)
        rest = np.setdiff1d(np.arange(len(dataset)), positions)
        if len(rest) == 0:
            raise DataError(
                f"{request.images} tuning images of {len(dataset)} leave none to certify: lower --images"
            )
        logits = draw(bench, positions)
        plan = plan_mix(logits, request)
        own = plan.transform
        assert own.transform is not None
        settings = MixSettings(own.transform, own.alpha, temperature=1.0)
        with _restored(bench):
            spec = _save(bench, settings, logits)
            notes = _notes(bench, settings)
            soft, hard = _certify(bench, restrict(dataset, rest), plan, settings, spec)
        _remember(bench, settings)
        comparison = _compare(bench, restrict(dataset, rest), plan, soft, hard)
        table = comparison_table(plan, comparison, request, (*notes, _about(bench)))
        found = CertifiedFit(plan, logits, settings, soft, hard, comparison)
        return _publish(bench, table, found)


@contextmanager
def _restored(bench: Bench) -> Iterator[None]:
    """Put the mix back that lay in the run folder, if another is not certified to the end."""
    path = None if bench.run is None else bench.run.path / FILE
    before = None if path is None or not path.is_file() else path.read_bytes()
    try:
        yield
    except BaseException:
        if path is not None and before is not None:
            write_atomically(path, before)
        raise


def _save(bench: Bench, settings: MixSettings, logits: NoisyLogits) -> str | None:
    """Save the mix into the run folder; return the transformed base's name for certify, None without one."""
    if bench.run is None:
        return None
    named, loaded, asked = bench.sources, bench.loaded, bench.asked
    objects = [
        role for role in ("standard", "robust") if not isinstance(getattr(named, role), str | type(None))
    ]
    if objects:
        bench.say(f"the mix is not saved: its {objects[0]} model is a Python object, which has no name")
        return None
    keys = ("at_radius", "sigma", "noisy_samples", "samples", "clean_accuracy_floor", "seed")
    how = {"study": STUDY, **{key: getattr(asked, key) for key in keys}}
    data = loaded.dataset
    tuning = TuningImages(data.name, data.split, data.checksum, tuple(logits.indices.tolist()), how)
    bases = base_models(named, loaded)
    save_nuts(bench.run.path, settings, *bases, tuning=tuning, copy_weights=asked.copy_weights)
    return f"nuts:{bench.run.path.resolve()}#robust"


def _notes(bench: Bench, settings: MixSettings) -> tuple[str, ...]:
    """Point out a transform that replaces one whose certified rows may have been seen."""
    transform, known = _shown_before(bench, settings)
    if [one for one in known if one != transform]:
        note = (
            f"{FLATTERED} with the same noise: certificates stand only if it was not changed because of "
            "what that certification showed; otherwise take another --seed"
        )
        bench.say(note)
        return (f"{note[0].upper()}{note[1:]}.",)
    return ()


def _shown_before(bench: Bench, settings: MixSettings) -> tuple[str, list[str]]:
    """Return this transform, and those whose certified rows were shown."""
    known: list[str] = json.loads(bench.store.get("certified") or "[]")
    return json.dumps(asdict(settings.transform), sort_keys=True), known


def _remember(bench: Bench, settings: MixSettings) -> None:
    """Keep that this transform's certified rows are about to be shown."""
    transform, known = _shown_before(bench, settings)
    if transform not in known:
        bench.store.put("certified", json.dumps([*known, transform]))


def _certify(
    bench: Bench, rest: Dataset, plan: Plan, settings: MixSettings, spec: str | None
) -> tuple[CertifyResult, CertifyResult]:
    """Certify the transform and hard votes on the same images, which were not tuned on."""
    plain = bench.sources.replace(data=rest)
    bent = TransformedRobust(bench.loaded.robust.module, NonlinearTransform.of(settings.transform))
    robust = bent.eval() if spec is None else spec
    soft = plain.replace(robust=robust, robust_weights=None, robust_normalize=None, robust_files=())
    results = []
    for planned, named in ((plan.transform, soft), (plan.hard, plain)):
        request = bench.asked.certify(planned.scores, planned.bound, planned.alpha)
        transform = asdict(settings.transform) if planned.scores == "soft" else None
        text = json.dumps([rest.checksum, planned.scores, transform, request.seed])
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        folder = None if bench.run is None else bench.run.path / "certified" / f"{planned.scores}-{digest}"
        result = run_certify(
            request, named, output=folder, in_memory=folder is None, device=str(bench.device),
            batch_size=bench.asked.batch_size, say=bench.say, progress=partial(_tell, bench, planned.name),
        )  # fmt: skip
        if not result.summary.complete:
            raise Interrupted("interrupted before all images were certified")
        results.append(result)
    return results[0], results[1]


def _tell(bench: Bench, cell: str, progress: DrawingProgress) -> None:
    bench.report(progress.done, progress.total, cell, progress.seconds)


def _compare(bench: Bench, rest: Dataset, plan: Plan, soft: CertifyResult, hard: CertifyResult) -> Comparison:
    """Return the rows; votes once more, at the alpha that makes their mix as accurate as the transform's."""
    asked, model = bench.asked, bench.loaded.standard
    assert model is not None
    first = certified_row(plan.transform.name, soft.evaluation, asked.at_radius)
    second = certified_row(plan.hard.name, hard.evaluation, asked.at_radius)
    records = hard.records
    places = spread(len(rest), asked.certify_images)
    images = torch.from_numpy(stack(rest, places)).to(bench.device)
    standard = softmax_numpy(outputs([model.module], images))
    frequencies = np.stack([record.selection / record.selection.sum() for record in records])
    clean = np.empty((1, len(ALPHAS)), np.int64)
    labels = np.array([record.label for record in records])
    right_over_alphas(standard, frequencies[None], labels, np.array(ALPHAS), clean)
    alpha = matching_alpha(clean[0], first.clean.correct)
    if alpha is None:
        return Comparison(first, second, None)
    probabilities = dict(zip((record.index for record in records), standard, strict=True))
    request = asked.certify(plan.hard.scores, plan.hard.bound, alpha)
    matched = evaluate(records, probabilities, request, len(records))
    third = certified_row("hard votes, as accurate", matched, asked.at_radius)
    return Comparison(first, second, third)


def _about(bench: Bench) -> str:
    loaded = bench.loaded
    assert loaded.standard is not None
    return (
        f"Run: data {loaded.dataset.name}; standard {loaded.standard.name}; base of h {loaded.robust.name}."
    )


def _publish(bench: Bench, table: Table, found: CertifiedFit) -> StudyResult:
    if bench.run is None:
        return StudyResult(table, None, found)
    text = json.dumps(bench.asked.as_dict(), sort_keys=True)
    folder = bench.run.results(
        f"radius{bench.asked.at_radius:g}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    )
    write_files(folder, table)
    bench.run.publish(folder)
    return StudyResult(table, bench.run.path, found)
