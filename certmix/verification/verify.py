"""Verification of a guarantee or of a run: what was promised, checked from data, models and counts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from certmix.certification.unfinished import is_finished, unfinished
from certmix.data import spread
from certmix.errors import ModelError
from certmix.runs.sources import Loaded
from certmix.sampling import resolve_device
from certmix.verification.checks import CheckResult, Outcome, worst
from certmix.verification.guarantee.changes import what_changed
from certmix.verification.guarantee.guarantees import Guarantee
from certmix.verification.guarantee.incremental import Sampling, draw, untouched
from certmix.verification.guarantee.judging import Judgement, figures_of, judge
from certmix.verification.guarantee.planning import Plan, load_guaranteed, plan
from certmix.verification.guarantee.reading import read_guarantee
from certmix.verification.rederive import MODEL_CHECKS, behaviour, recheck, rederive
from certmix.verification.resample import resample
from certmix.verification.result import Settings, Verification
from certmix.verification.stored import load

__all__ = ["unchecked", "verify", "verify_guarantee", "verify_run"]

CONTRADICTS = "the stored run contradicts itself; restore it, or start over with --fresh"
CHANGED = "a model is not the one that the stored run was made with; restore it, or start over with --fresh"


def verify(target: str | Path, settings: Settings) -> Verification:
    """Verify a guarantee file, or the folder of a run.

    Raises
    ------
    CertmixError
        If something that is needed is missing, unreadable or malformed.
    """
    try:
        if Path(target).is_dir():
            return verify_run(Path(target), settings)
        return verify_guarantee(read_guarantee(target), settings)
    except SystemExit as error:
        raise ModelError(
            f"code of a model ended the program (SystemExit: {error.code}): remove its call of sys.exit"
        ) from error


def unchecked(target: str | Path, reason: str) -> Verification:
    """Return what is reported where verification could not begin or go on."""
    kind = "run" if Path(target).is_dir() else "guarantee"
    return Verification(
        str(target), kind, None, None, (CheckResult("verification", Outcome.UNCHECKED, reason),)
    )


def verify_run(run: Path, settings: Settings) -> Verification:
    """Derive a run again from its counts, and sample some of its images again.  It is only read."""
    return Verification(str(run), "run", run, None, _checked_alone(run, settings))


def _checked_alone(run: Path, settings: Settings) -> tuple[CheckResult, ...]:
    """Return the checks of a run; one alone of a run that contradicts nothing but is unfinished."""
    checks = rederive(run, device=settings.device)
    if worst(checks) is not Outcome.FAILS and not is_finished(run) and (told := unfinished(run)) is not None:
        return (CheckResult("complete run", Outcome.UNCHECKED, told),)
    return (*checks, *_sampled_again(run, settings, checks))


def _checked(run: Path, settings: Settings) -> tuple[CheckResult, ...]:
    checks = rederive(run, device=settings.device)
    return (*checks, *_sampled_again(run, settings, checks))


def _changed(checks: Iterable[CheckResult]) -> bool:
    """Whether a model is not the one that a run was made with."""
    return any(one.check in MODEL_CHECKS and one.outcome is Outcome.FAILS for one in checks)


def _fault(checks: Iterable[CheckResult]) -> str:
    return CHANGED if _changed(checks) else CONTRADICTS


def _sampled_again(run: Path, settings: Settings, checks: Iterable[CheckResult]) -> list[CheckResult]:
    """Return what sampling again shows; nothing of another model, whose samples are others."""
    if settings.images == 0 or _changed(checks):
        return []
    return resample(
        run, images=settings.images, samples=settings.samples, new_seed=settings.new_seed,
        error_rate=settings.error_rate, device=settings.device, progress=settings.again,
    )  # fmt: skip


def verify_guarantee(guarantee: Guarantee, settings: Settings) -> Verification:
    """Draw the samples that a guarantee lacks, derive the run again, and judge the requirements.

    A pinned model or data set that changed ends it before anything is drawn, and so does a stored run
    that contradicts itself, or was made with another model of the same checksum.

    Raises
    ------
    CertmixError
        If something that is needed is missing or unreadable.
    Interrupted
        If sampling was interrupted; what was drawn is kept.
    """
    sources, loaded = load_guaranteed(guarantee, settings.device, settings.say)
    broken = _identity_checks(guarantee, loaded, settings.runs)
    if worst(broken) is Outcome.FAILS:
        return _ended(guarantee, None, broken, "data or a pinned model changed")
    planned = plan(guarantee, sources, loaded, settings.runs)
    for sentence in planned.why:
        settings.say(sentence)
    if planned.stored is not None and not planned.current and not settings.fresh:
        before = (
            rederive(planned.stored, device=settings.device)
            if planned.trusted
            else [
                *recheck(planned.stored, loaded.dataset),
                *behaviour(planned.stored, loaded, resolve_device(settings.device)),
            ]
        )
        if worst(before) is Outcome.FAILS:
            return _ended(guarantee, planned, [*broken, *before], _fault(before))
    sampling = untouched(guarantee, loaded, planned)
    if settings.fresh or not planned.current:
        sampling = draw(
            guarantee, sources, loaded, planned, fresh=settings.fresh, device=settings.device,
            batch_size=settings.batch_size, progress=settings.progress, say=settings.say,
        )  # fmt: skip
    checks = (*broken, *_checked(planned.folder, settings))
    if worst(checks) is Outcome.FAILS:
        return _result(guarantee, planned.folder, sampling, checks, _not_judged(guarantee, _fault(checks)))
    dataset = loaded.dataset
    labels = np.asarray(dataset.labels)[spread(len(dataset), guarantee.asked.images)]
    found = figures_of(load(planned.folder), planned.indices, labels)
    judgements = tuple(judge(one, found) for one in guarantee.requirements)
    return _result(guarantee, planned.folder, sampling, checks, judgements)


def _identity_checks(guarantee: Guarantee, loaded: Loaded, runs: Path) -> list[CheckResult]:
    """Are the data, and the models that are pinned, those that the guarantee is about?"""
    found = []
    if guarantee.data.checksum is not None:
        found.append(_compared("data", guarantee.data.checksum, loaded.dataset.checksum))
    for role in ("standard", "robust"):
        claim, model = getattr(guarantee, role), getattr(loaded, role)
        if claim is not None and claim.pin:
            told = f" ({told})" if (told := what_changed(runs, claim.checksum, model)) else ""
            found.append(_compared(f"{role} classifier", claim.checksum, model.checksum, model.doubt, told))
    return found


def _compared(what: str, wanted: str, found: str, doubt: str = "", told: str = "") -> CheckResult:
    """Return the verdict on a pin; one that nothing vouches for is not more than not refuted."""
    name, same = f"pinned {what}", f"checksum {found[:12]} as in the guarantee"
    if wanted == found and doubt:
        return CheckResult(name, Outcome.UNCHECKED, f"{same}, which does not vouch for it: {doubt}")
    if wanted == found:
        return CheckResult(name, Outcome.HOLDS, same)
    return CheckResult(
        name, Outcome.FAILS,
        f"checksum {found[:12]} is not {wanted[:12]}, that of the guarantee{told}: restore what it was "
        "written for, or write a new guarantee",
    )  # fmt: skip


def _ended(guarantee: Guarantee, planned: Plan | None, checks: list[CheckResult], why: str) -> Verification:
    """Return the result of a verification that ended before anything was judged."""
    folder = None if planned is None else planned.folder
    nothing = Sampling(0, 0, 0, 0, (f"Not sampled: {why}.",))
    return _result(guarantee, folder, nothing, tuple(checks), _not_judged(guarantee, why))


def _not_judged(guarantee: Guarantee, why: str) -> tuple[Judgement, ...]:
    return tuple(
        Judgement(one, Outcome.UNCHECKED, None, None, f"not judged: {why}") for one in guarantee.requirements
    )


def _result(
    guarantee: Guarantee,
    run: Path | None,
    sampling: Sampling,
    checks: tuple[CheckResult, ...],
    judgements: tuple[Judgement, ...],
) -> Verification:
    lines = {str(requirement): line for requirement, line in guarantee.lines.items()}
    return Verification(str(guarantee.path), "guarantee", run, sampling, checks, judgements, lines)
