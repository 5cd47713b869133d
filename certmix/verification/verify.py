"""Verification of a guarantee or of a run: what was promised, checked from data, models and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from certmix.certification.describe import load as load_models
from certmix.certification.publish import is_finished, unfinished
from certmix.data import spread
from certmix.errors import ModelError
from certmix.runs.sources import Loaded, Sources
from certmix.sampling import resolve_device
from certmix.verification.checks import CheckResult, Outcome, worst
from certmix.verification.guarantee import Guarantee, read_guarantee, source_options
from certmix.verification.judge import CONFIDENCE, Judgement, figures_of, judge
from certmix.verification.lacking import Sampling, draw, plan, what_changed
from certmix.verification.rederive import MODEL_CHECKS, behaviour, recheck, rederive
from certmix.verification.request import VerifyRequest
from certmix.verification.resample import resample
from certmix.verification.stored import load

__all__ = ["EXIT_CODES", "Verification", "unchecked", "verify", "verify_guarantee"]

EXIT_CODES = {Outcome.HOLDS: 0, Outcome.FAILS: 1, Outcome.UNCHECKED: 2}
"""What a shell is told."""

Again = Callable[[int, int], None] | None


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
        return worst([*self.checks, *self.judgements])

    @property
    def exit_code(self) -> int:
        """0 holds, 1 falls short or was tampered with, 2 could not be checked."""
        return EXIT_CODES[self.outcome]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "schema_version": 1, "target": self.target, "kind": self.kind,
            "outcome": str(self.outcome), "exit_code": self.exit_code,
            "run": None if self.run is None else str(self.run),
            "sampling": None if self.sampling is None else self.sampling.as_dict(),
            "requirements": [one.as_dict() for one in self.judgements],
            "confidence": CONFIDENCE if self.judgements else None,
            "checks": [check.as_dict() for check in self.checks],
        }  # fmt: skip


CONTRADICTS = "the stored run contradicts itself; restore it, or start over with --fresh"
CHANGED = "a model is not the one that the stored run was made with; restore it, or start over with --fresh"


def verify(
    target: str | Path,
    request: VerifyRequest | None = None,
    *,
    say: Callable[[str], None] = lambda sentence: None,
    progress: Callable[[Any], None] | None = None,
    again: Again = None,
) -> Verification:
    """Verify a guarantee file, or the folder of a run.

    `say`, `progress` and `again` receive remarks, the progress of sampling, and (done, total) of sampling
    again.  Raises CertmixError if something that is needed is missing, unreadable or malformed.
    """
    request = request or VerifyRequest()
    run = Path(target)
    try:
        if not run.is_dir():
            return verify_guarantee(read_guarantee(run), request, say=say, progress=progress, again=again)
        checks = rederive(run, device=request.device)
        told = None if worst(checks) is Outcome.FAILS or is_finished(run) else unfinished(run)
        if told is None:
            checks += [] if _changed(checks) else resample(run, request, progress=again)
        else:  # no check but this one of a run that contradicts nothing
            checks = [CheckResult("complete run", Outcome.UNCHECKED, told)]
        return Verification(str(run), "run", run, None, tuple(checks))
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


def _changed(checks: Iterable[CheckResult]) -> bool:
    """Whether a model is not the one that a run was made with: then its samples are others."""
    return any(one.check in MODEL_CHECKS and one.outcome is Outcome.FAILS for one in checks)


def verify_guarantee(
    guarantee: Guarantee,
    request: VerifyRequest,
    *,
    say: Callable[[str], None] = lambda sentence: None,
    progress: Callable[[Any], None] | None = None,
    again: Again = None,
) -> Verification:
    """Draw the samples that a guarantee lacks, derive the run again, and judge the requirements.

    A pinned model or data set that changed ends it before anything is drawn, and so does a stored run
    that contradicts itself, or was made with another model of the same checksum.  Interrupted if sampling
    was; what was drawn is kept.
    """
    sources, chosen = Sources(**source_options(guarantee)), resolve_device(request.device)
    loaded = load_models(guarantee.request, sources, chosen, say)
    broken = _identity_checks(guarantee, loaded, Path(request.runs))
    if worst(broken) is Outcome.FAILS:
        return _result(guarantee, None, broken, why="data or a pinned model changed")
    planned = plan(guarantee, sources, loaded, Path(request.runs))
    for sentence in planned.why:
        say(sentence)
    stored = planned.found
    if stored is not None and not stored.current and not request.fresh:
        if stored.trusted:
            before = rederive(stored.folder, device=request.device)
        else:
            before = recheck(stored.folder, loaded.dataset) + behaviour(stored.folder, loaded, chosen)
        if worst(before) is Outcome.FAILS:
            return _result(guarantee, planned.folder, [*broken, *before])
    sampling = draw(
        guarantee, sources, loaded, planned, fresh=request.fresh, device=request.device,
        batch_size=request.batch_size, progress=progress, say=say,
    )  # fmt: skip
    checks = broken + rederive(planned.folder, device=request.device)
    checks += [] if _changed(checks) else resample(planned.folder, request, progress=again)
    if worst(checks) is Outcome.FAILS:
        return _result(guarantee, planned.folder, checks, sampling=sampling)
    dataset = loaded.dataset
    labels = np.asarray(dataset.labels)[spread(len(dataset), guarantee.asked.images)]
    found = figures_of(load(planned.folder), planned.indices, labels)
    judged = [judge(one, found) for one in guarantee.requirements]
    return _result(guarantee, planned.folder, checks, judged, sampling=sampling)


def _result(
    guarantee: Guarantee,
    run: Path | None,
    checks: Iterable[CheckResult],
    judged: Iterable[Judgement] | None = None,
    *,
    why: str = "",
    sampling: Sampling | None = None,
) -> Verification:
    """Return what came out: verdicts, or why nothing was judged, and not even sampled where nothing was."""
    if judged is None:
        why = why or (CHANGED if _changed(checks) else CONTRADICTS)
        sampling = sampling or Sampling(0, 0, 0, 0, (f"Not sampled: {why}.",))
        told = f"not judged: {why}"
        judged = [Judgement(one, Outcome.UNCHECKED, None, None, told) for one in guarantee.requirements]
    lines = {str(requirement): line for requirement, line in guarantee.lines.items()}
    return Verification(str(guarantee.path), "guarantee", run, sampling, tuple(checks), tuple(judged), lines)


def _identity_checks(guarantee: Guarantee, loaded: Loaded, runs: Path) -> list[CheckResult]:
    """Are the data, and the models that are pinned, those that the guarantee is about?

    Of a model that nothing vouches for the checksum says no more than that it is not refuted.
    """
    pins: list[tuple[str, str | None, Any]] = [("data", guarantee.data.checksum, loaded.dataset)]
    for role in ("standard", "robust"):
        claim = getattr(guarantee, role)
        if claim is not None and claim.pin:
            pins.append((f"{role} classifier", claim.checksum, getattr(loaded, role)))
    found = []
    for what, wanted, now in pins:
        name, doubt = f"pinned {what}", getattr(now, "doubt", "")
        same, outcome = f"checksum {now.checksum[:12]} as in the guarantee", Outcome.HOLDS
        if wanted is None:
            continue
        if wanted != now.checksum:
            told = "" if what == "data" else what_changed(runs, wanted, now)
            outcome, same = Outcome.FAILS, (
                f"checksum {now.checksum[:12]} is not {wanted[:12]}, that of the guarantee"
                f"{told and f' ({told})'}: restore what it was written for, or write a new guarantee"
            )  # fmt: skip
        elif doubt:
            outcome, same = Outcome.UNCHECKED, f"{same}, which does not vouch for it: {doubt}"
        found.append(CheckResult(name, outcome, same))
    return found
