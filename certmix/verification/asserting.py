"""`assert_certified`: a certified accuracy as a test's assertion."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np

from certmix import guard
from certmix.certification.describe import identity_of, in_one_precision, load
from certmix.certification.evaluate import CertifyResult
from certmix.certification.request.proved import Enumerated, GivenConstant, Margin
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.run import asked, run_certify
from certmix.errors import ModelError, ParameterError, describe, warn
from certmix.models.given import as_they_were
from certmix.runs.settings import check_known, takes
from certmix.runs.sources import Data, Models, Sources
from certmix.sampling import resolve_device
from certmix.sampling.devices import automatic_precision
from certmix.text import floor_digits
from certmix.types import FloatArray, Status
from certmix.verification.checks import Outcome
from certmix.verification.guarantees.requirements import Requirement, written
from certmix.verification.judge import Figures, judge

__all__ = ["SIDES", "assert_certified", "certify_and_warn"]

SIDES = {"lower-bound": "lower bound", "point": "value"}
"""What can be held against the threshold, and what guarantee files call it."""
_NAMED = 8


def certify_given(
    models: Any,
    data: Data,
    runs: str | Path | None,
    remarks: list[str],
    *,
    certificate: str = "exact",
    device: str = "auto",
    batch_size: int | None = None,
    **options: Any,
) -> CertifyResult:
    """Certify with one certificate; see `assert_certified`.  Warnings are added to `remarks`."""
    check_known(options, inspect.signature(assert_certified).parameters, "help(certmix.assert_certified)")
    given = {name: value for name, value in options.items() if value is not None or name == "input_range"}
    request, sources = asked(models, data, {**given, "certificates": (certificate,)})
    folder = None
    try:
        with as_they_were(sources.standard, sources.robust):
            if runs is not None:  # its folder has the name that `certmix certify` would give it
                on, folder_of = resolve_device(device), lambda one: Path(runs) / one.folder_name()
                loaded = load(request, sources, on, lambda sentence: None)
                request = in_one_precision(request, loaded, lambda: automatic_precision(on), folder_of)
                folder = folder_of(identity_of(request, loaded))
            result = run_certify(
                request, sources, output=folder, in_memory=folder is None, device=device,
                batch_size=batch_size, say=remarks.append,
            )  # fmt: skip
    except BaseException as error:  # a model's is not for whoever tests to take for a verdict, or for a skip
        guard.keep_interrupt(error)
        if isinstance(error, Exception) and not isinstance(error, AssertionError | SkipTest):
            raise
        remedy = "run the model on such inputs by itself to see why"
        raise ModelError(f"nothing was certified: {describe(error)}: {remedy}") from error
    if not result.summary.complete:
        raise KeyboardInterrupt
    return result


@takes(certify_given, CertifyRequest, Margin, GivenConstant, Enumerated, Sources, leave=("certificates",))
def assert_certified(
    models: Models = None,
    data: Data = None,
    *,
    radius: float,
    at_least: float,
    sigma: float | None = None,
    alpha: float | None = None,
    on: str = "lower-bound",
    runs: str | Path | None = None,
    **options: Any,
) -> CertifyResult:
    """Assert that a share of inputs is certified at a radius.

    Parameters
    ----------
    models, data
        As for `certmix.certify`: one model, or a pair (standard, robust); tensors, a Dataset, a name.
    radius
        In units of the input; 0 stands for any radius > 0.
    at_least
        The least share that will do.
    sigma, alpha
        Noise level, None for certificates without samples; mixing weight in [1/2, 1], by default the mix's
        own, or 1: the model alone.
    on
        ``"lower-bound"``: the one-sided 95 % bound of Clopper and Pearson (Biometrika 26, 1934) over inputs
        must reach `at_least`; ``"point"``: the share of these inputs.
    runs
        Folder of run folders, where samples are kept and used again; None keeps nothing.
    **options
        ``certificate`` (default ``"exact"``), ``inputs``, ``samples``, ``norm``, ...:
        as for `certmix.certify`.

    Returns
    -------
    CertifyResult
        What `certmix.certify` returns.

    Raises
    ------
    AssertionError
        If the share falls short; the message says by how much, and which inputs did.
    CertmixError
        For anything that cannot be certified as asked.
    """
    __tracebackhide__ = True
    if on not in SIDES:
        raise ParameterError(f"on = {on!r}: use {' or '.join(SIDES)}")
    wanted = Requirement("mixed", "certified_accuracy", radius, at_least, SIDES[on])
    radii = tuple(sorted({radius, *options.pop("radii", ())}))
    remarks: list[str] = []
    result = certify_given(models, data, runs, remarks, sigma=sigma, alpha=alpha, radii=radii, **options)
    seen = result.outcomes
    proved = np.where(seen.robust == seen.labels, seen.radii[1].radius, 0.0)
    delta = result.summary.failure_probability or 0.0
    found = judge(wanted, Figures(seen.indices, {}, {"mixed": proved}, {"mixed": np.inf}, {}, delta))
    if found.outcome != Outcome.HOLDS:
        lines = [f"not {wanted}: {found.message}", *_short(result, proved, radius), *remarks]
        raise AssertionError("\n  ".join(lines))
    for remark in remarks:
        warn(remark)
    return result


def certify_and_warn(
    models: Models = None, data: Data = None, *, runs: str | Path | None = None, **options: Any
) -> CertifyResult:
    """Certify with one certificate, as `assert_certified` does, and hold it against nothing."""
    remarks: list[str] = []
    result = certify_given(models, data, runs, remarks, **options)
    for remark in remarks:
        warn(remark)
    return result


def _short(result: CertifyResult, proved: FloatArray, radius: float) -> list[str]:
    """Say of which inputs, which mix, with which failure probability; name the nearest misses, and why."""
    summary, found, mixed = result.summary, result.outcomes, result.outcomes.radii[1]
    parts = [
        f"lower bound: 95 %, one-sided, over {len(found.indices)} inputs of {summary.data}",
        f"robust {summary.robust}", f"alpha {summary.alpha:g}",
        f"certificate {summary.rows[1].certificate} ({summary.norm})",
    ]  # fmt: skip
    if summary.sigma is not None:
        parts += [f"sigma {summary.sigma:g}", f"at most {summary.samples:,} samples an input"]
        parts.append(f"failure probability {summary.failure_probability:g} an input")
    short = np.flatnonzero(~((proved >= radius) & (proved > 0)))
    order = short[np.argsort(-proved[short], kind="stable")]
    reasons = []
    for k in order[:_NAMED].tolist():
        own = float(mixed.radius[k])
        why = f"radius {floor_digits(own, 3)}" if own > 0 else "no radius"
        if found.robust[k] != found.labels[k]:
            why = f"class {found.robust[k]}, label {found.labels[k]}"
        elif mixed.status[k] == Status.ABSTAIN:
            why = "no class established"
        reasons.append(f"{found.indices[k]} ({why})")
    more = f", and {len(order) - _NAMED} more" if len(order) > _NAMED else ""
    inputs = f"{len(order)} inputs are not certified at {written(radius)}: {', '.join(reasons)}{more}"
    return [", ".join(parts), inputs]
