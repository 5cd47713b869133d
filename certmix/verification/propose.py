"""A guarantee from a run: what the run shows, less a step."""

from __future__ import annotations

import math
from pathlib import Path

from certmix.certification.deterministic_request import DeterministicRequest
from certmix.certification.publish import refuse_unfinished
from certmix.certification.request import CertifyRequest
from certmix.data import spread
from certmix.errors import ParameterError, RunError
from certmix.runs.sources import Sources, load_data
from certmix.text import floor_digits
from certmix.verification.guarantee import Guarantee, ModelClaim, relative_claims
from certmix.verification.judge import Figures, figure, figures_of
from certmix.verification.requirements import Requirement
from certmix.verification.stored import Run, load

DEFAULT_SLACK = 0.02


def propose(
    run: Path, path: Path, *, slack: float = DEFAULT_SLACK, pin: bool = False
) -> tuple[Guarantee, dict[Requirement, str]]:
    """Return a guarantee that a run meets with some room, and a remark on each requirement.

    Parameters
    ----------
    run
        Folder of a finished run of ``certmix certify``.
    path
        Where the guarantee will be written: paths in it are relative to its folder.
    slack
        How far thresholds lie below the lower bounds that the run shows: shares by this much,
        mean radii by this share of themselves.
    pin
        Pin both models.

    Raises
    ------
    CertmixError
        If the run cannot be read, is not complete, or was made from Python objects.
    """
    if not 0 <= slack < 1:
        raise ParameterError(f"slack = {slack}: it must be at least 0 and below 1, such as {DEFAULT_SLACK}")
    stored = load(Path(run))
    refuse_unfinished(Path(run))
    try:
        return _from_run(stored, path, slack, pin)
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{run}/run.json is damaged ({error}): restore it, or run it again") from None


def _from_run(run: Run, path: Path, slack: float, pin: bool) -> tuple[Guarantee, dict[Requirement, str]]:
    description, request = run.description, run.request
    dataset = load_data(Sources.from_dict(description["sources"]))
    if dataset.checksum != description["data"]["checksum"]:
        raise RunError(
            f"{run.folder} was made on other data than lie there now: restore the data, or run it again"
        )
    positions = spread(len(dataset), request.images)
    found = figures_of(run, dataset.indices[positions].tolist(), dataset.labels[positions])
    if isinstance(request, CertifyRequest):
        request = request.replace(certificates=request.certificates[:1])
    data, standard, robust = relative_claims(description["sources"], path.parent)
    shipped = ModelClaim(str(description["models"]["robust"]["spec"]))
    claims = {"standard": standard, "robust": robust or shipped}
    for role, claim in claims.items():
        if claim is not None:
            checksum = str(description["models"][role]["checksum"])
            claims[role] = claim.replace(checksum=checksum, pin=pin)
    named = claims["robust"]
    assert named is not None
    proposed = _proposed(request, found, slack, with_mix=claims["standard"] is not None)
    if not proposed:
        raise RunError(f"{run.folder} shows nothing above {slack:g} to demand: give a smaller --slack")
    guarantee = Guarantee(
        tuple(proposed), data.replace(checksum=str(description["data"]["checksum"])),
        claims["standard"], named, request, path,
    )  # fmt: skip
    return guarantee, proposed


def _proposed(
    request: CertifyRequest | DeterministicRequest, found: Figures, slack: float, *, with_mix: bool
) -> dict[Requirement, str]:
    """Return requirements below what the figures show, each with what was seen."""
    columns = [radius for radius in request.radii or () if radius > 0]
    clean = "mixed" if with_mix else "robust"
    wanted: list[tuple[str, str, float | None]] = [(clean, "clean_accuracy", None)]
    wanted += [("mixed", "certified_accuracy", radius) for radius in columns]
    wanted += [("mixed", "mean_certified_radius", None)]
    proposed = {}
    for classifier, quantity, radius in wanted:
        seen = figure(Requirement(classifier, quantity, radius, 0.0), found)
        if seen is None:
            continue
        value, lower = seen
        share = quantity != "mean_certified_radius"
        threshold = _step_below(lower - slack if share else lower * (1 - slack), fine=not share)
        if threshold > 0:
            remark = f"seen: {_shown(value)}, lower bound {_shown(lower)}"
            proposed[Requirement(classifier, quantity, radius, threshold)] = remark
    return proposed


def _step_below(x: float, *, fine: bool) -> float:
    """Return x rounded down: to hundredths, or to two digits of its own."""
    if x <= 0:
        return 0.0
    digits = max(2, 1 - math.floor(math.log10(x))) if fine else 2
    return float(floor_digits(x, digits))


def _shown(x: float) -> str:
    return floor_digits(x, 4) if math.isfinite(x) else "unbounded"
