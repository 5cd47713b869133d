"""Verification of a guarantee or of a run: what was promised, checked from data, models and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from certmix.certification.publish import is_finished, unfinished
from certmix.certification.request import check_batch_size
from certmix.data import spread
from certmix.errors import ModelError, ParameterError
from certmix.runs.sources import Loaded
from certmix.sampling import resolve_device
from certmix.verification.checks import CheckResult, Outcome, worst
from certmix.verification.guarantee import Guarantee, read_guarantee
from certmix.verification.judge import CONFIDENCE, Judgement, figures_of, judge
from certmix.verification.lacking import Sampling, draw, load_guaranteed, plan, what_changed
from certmix.verification.rederive import MODEL_CHECKS, behaviour, recheck, rederive
from certmix.verification.resample import resample
from certmix.verification.stored import load

__all__ = ["EXIT_CODES", "Settings", "Verification", "unchecked", "verify", "verify_guarantee", "verify_run"]

SCHEMA_VERSION = 1
EXIT_CODES = {Outcome.HOLDS: 0, Outcome.FAILS: 1, Outcome.UNCHECKED: 2}
"""What a shell is told."""


def _nothing(*_: Any) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Settings:
    """How to verify.

    Parameters
    ----------
    runs
        Folder of run folders, for guarantees.
    images
        How many images are sampled again in depth; 0 for none.
    samples
        Samples that are drawn again for each of them, on average.
    new_seed, error_rate
        As for `certmix.verification.resample.resample`.  All numbers are
        checked at once, whether anything is sampled again or not.
    fresh
        Delete the guarantee's run and sample anew.
    device, batch_size
        As for `certmix.certify`.
    say, progress, again
        Receive remarks, the progress of sampling, and (done, total) of sampling again.
    """

    runs: Path = Path("runs")
    images: int = 5
    samples: int = 1000
    new_seed: int | None = None
    error_rate: float = 1e-3
    fresh: bool = False
    device: str = "auto"
    batch_size: int | None = None
    say: Callable[[str], None] = _nothing
    progress: Callable[[Any], None] | None = None
    again: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        check_batch_size(self.batch_size)
        if not 0 < self.error_rate < 1:
            raise ParameterError(
                f"error rate = {self.error_rate}: it must lie strictly between 0 and 1, such as 0.001"
            )
        if self.new_seed is not None and self.new_seed < 0:
            raise ParameterError(f"new seed = {self.new_seed}: give one of at least 0, or none")
        if self.images < 0:
            raise ParameterError(f"images to sample again = {self.images}: give at least 0, which is none")
        if self.images > 0 and self.samples < 1:
            raise ParameterError(f"samples to draw again = {self.samples}: give at least 1")


@dataclass(frozen=True)
class Verification:
    """What came out of a guarantee or a run, as it was named: checks, and verdicts on requirements.

    ``run`` is the run folder, None if none was reached; ``sampling`` what was reused and drawn, None for
    runs; ``lines`` those of the requirements in the guarantee file.
    """

    target: str
    kind: str
    run: Path | None
    sampling: Sampling | None
    checks: tuple[CheckResult, ...]
    judgements: tuple[Judgement, ...] = ()
    lines: dict[str, int] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """The gravest outcome of all."""
        judged = [CheckResult(str(j.requirement), j.outcome, j.message) for j in self.judgements]
        return worst([*self.checks, *judged])

    @property
    def exit_code(self) -> int:
        """0 holds, 1 falls short or was tampered with, 2 could not be checked."""
        return EXIT_CODES[self.outcome]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "schema_version": SCHEMA_VERSION, "target": self.target, "kind": self.kind,
            "outcome": str(self.outcome), "exit_code": self.exit_code,
            "run": None if self.run is None else str(self.run),
            "sampling": None if self.sampling is None else self.sampling.as_dict(),
            "requirements": [one.as_dict() for one in self.judgements],
            "confidence": CONFIDENCE if self.judgements else None,
            "checks": [check.as_dict() for check in self.checks],
        }  # fmt: skip


CONTRADICTS = "the stored run contradicts itself; restore it, or start over with --fresh"
CHANGED = "a model is not the one that the stored run was made with; restore it, or start over with --fresh"


def verify(target: str | Path, settings: Settings) -> Verification:
    """Verify a guarantee file, or the folder of a run; CertmixError if something needed is missing."""
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
    """Derive a run again from its counts, and sample some of its images again.  It is only read.

    One that contradicts nothing but is unfinished has no other check.
    """
    checks = rederive(run, device=settings.device)
    if worst(checks) is not Outcome.FAILS and not is_finished(run) and (told := unfinished(run)) is not None:
        checks = [CheckResult("complete run", Outcome.UNCHECKED, told)]
    else:
        checks = [*checks, *_sampled_again(run, settings, checks)]
    return Verification(str(run), "run", run, None, tuple(checks))


def _changed(checks: Iterable[CheckResult]) -> bool:
    """Whether a model is not the one that a run was made with."""
    return any(one.check in MODEL_CHECKS and one.outcome is Outcome.FAILS for one in checks)


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
    that contradicts itself, or was made with another model of the same checksum.  Interrupted if sampling
    was; what was drawn is kept.
    """
    sources, loaded = load_guaranteed(guarantee, settings.device, settings.say)
    broken = _identity_checks(guarantee, loaded, settings.runs)
    if worst(broken) is Outcome.FAILS:
        return _result(guarantee, None, broken, "data or a pinned model changed")
    planned = plan(guarantee, sources, loaded, settings.runs)
    for sentence in planned.why:
        settings.say(sentence)
    if planned.stored is not None and not planned.current and not settings.fresh:
        if planned.trusted:
            before = rederive(planned.stored, device=settings.device)
        else:
            before = recheck(planned.stored, loaded.dataset)
            before += behaviour(planned.stored, loaded, resolve_device(settings.device))
        if worst(before) is Outcome.FAILS:
            why = CHANGED if _changed(before) else CONTRADICTS
            return _result(guarantee, planned.folder, [*broken, *before], why)
    sampling = draw(
        guarantee, sources, loaded, planned, fresh=settings.fresh, device=settings.device,
        batch_size=settings.batch_size, progress=settings.progress, say=settings.say,
    )  # fmt: skip
    own = rederive(planned.folder, device=settings.device)
    checks = [*broken, *own, *_sampled_again(planned.folder, settings, own)]
    if worst(checks) is Outcome.FAILS:
        why = CHANGED if _changed(checks) else CONTRADICTS
        return _result(guarantee, planned.folder, checks, why, sampling)
    dataset = loaded.dataset
    labels = np.asarray(dataset.labels)[spread(len(dataset), guarantee.asked.images)]
    found = figures_of(load(planned.folder), planned.indices, labels)
    judged = [judge(one, found) for one in guarantee.requirements]
    return _result(guarantee, planned.folder, checks, judged, sampling)


def _result(
    guarantee: Guarantee,
    run: Path | None,
    checks: Iterable[CheckResult],
    judged: Iterable[Judgement] | str,
    sampling: Sampling | None = None,
) -> Verification:
    """Return what came out: verdicts, or why nothing was judged, and not even sampled where nothing was."""
    if isinstance(judged, str):
        sampling = sampling or Sampling(0, 0, 0, 0, (f"Not sampled: {judged}.",))
        told = f"not judged: {judged}"
        judged = [Judgement(one, Outcome.UNCHECKED, None, None, told) for one in guarantee.requirements]
    lines = {str(requirement): line for requirement, line in guarantee.lines.items()}
    return Verification(str(guarantee.path), "guarantee", run, sampling, tuple(checks), tuple(judged), lines)


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
