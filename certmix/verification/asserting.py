"""`assert_certified`: a certified accuracy as a test's assertion."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
from torch import nn

from certmix import guard
from certmix.certification.describe import identity_of, in_one_precision, load
from certmix.certification.evaluate import CertifyResult
from certmix.certification.request import CertifyRequest, GivenConstant, Margin, draws_no_samples
from certmix.certification.run import CertmixWarning, run_certify
from certmix.errors import ModelError, ParameterError, describe
from certmix.models.mixture import MixedClassifier
from certmix.models.smoothed import SmoothedClassifier, SmoothedMixture
from certmix.runs.settings import settings, takes
from certmix.runs.sources import Sources
from certmix.sampling import resolve_device
from certmix.sampling.devices import automatic_precision
from certmix.text import floor_digits
from certmix.types import FloatArray, Status
from certmix.verification.checks import Outcome
from certmix.verification.judge import Figures, judge
from certmix.verification.requirements import Requirement, written

__all__ = ["SIDES", "assert_certified", "certify_and_warn"]

Model = str | nn.Module | SmoothedClassifier | SmoothedMixture
SIDES = {"lower-bound": "lower bound", "point": "value"}
"""What can be held against the threshold, and what guarantee files call it."""
_NAMED = 8
_PLAIN = {"gate": 0.0, "standard_temperature": 1.0}
"""Of plain votes, and of g as it is: nothing that a request must hear of."""


def _settled_by(model: Model) -> dict[str, Any]:
    """Return what a classifier settles of its certification: its parts, and their numbers."""
    if isinstance(model, SmoothedClassifier):
        return {"robust": model.base, "sigma": model.sigma, "gate": model.gate}
    if not isinstance(model, SmoothedMixture | MixedClassifier):
        return {"robust": model}
    own = {name: getattr(model, name) for name in ("standard", "alpha", "standard_temperature")}
    if isinstance(model, SmoothedMixture):
        return own | _settled_by(model.robust)
    if (model.trust, model.form) != ("constant", "probabilities"):
        told = f"a mix with trust {model.trust!r} of {model.form} has no certificates"
        remedy = "only trust 'constant' of probabilities has; make the MixedClassifier with these"
        raise ParameterError(f"{told}: {remedy}")
    return own | {"robust": model.robust}


def certify_given(
    model: Model,
    sigma: float | None,
    alpha: float | None,
    runs: str | Path | None,
    remarks: list[str],
    *,
    certificate: str = "exact",
    standard: Any = None,
    device: str = "auto",
    batch_size: int | None = None,
    norm: str | None = None,
    **options: Any,
) -> CertifyResult:
    """Certify a model with one certificate; see `assert_certified`.  Warnings are added to `remarks`."""
    own = _settled_by(model)
    if "standard" in own and standard is not None:
        raise ParameterError("the mix has a standard classifier of its own: leave standard out")
    robust, standard = own.pop("robust"), own.pop("standard", standard)
    for name, value in own.items():
        given = {"sigma": sigma, "alpha": alpha}.get(name, options.get(name))
        if given is not None and given != value:
            raise ParameterError(f"{name} = {given:g}: the model has {value:g}; leave {name} out")
    sigma, alpha = own.pop("sigma", sigma), own.pop("alpha", alpha)
    options |= {name: value for name, value in own.items() if value != _PLAIN[name]}
    alpha = 1.0 if alpha is None else alpha  # the model alone
    plain = draws_no_samples([certificate], norm, sigma)
    named = {key: options.pop(key) for key in list(options) if key in Sources.__struct_fields__}
    kinds = (Margin, GivenConstant) if plain else (CertifyRequest,)
    unknown = [key for key in options if not any(key in kind.__struct_fields__ for kind in kinds)]
    if unknown:
        told = f"unknown options for certificate {certificate}: {', '.join(unknown)}"
        raise ParameterError(f"{told}; see certmix.certify")
    sources = Sources(**named, standard=standard, robust=robust)
    request: Any
    if plain:
        options |= {} if norm is None else {"norm": norm}
        request = settings(Margin | GivenConstant, {"alpha": alpha, "certificate": certificate, **options})
    else:
        request = CertifyRequest(sigma, alpha, certificates=(certificate,), **options)  # type: ignore[arg-type]
    folder, modules = None, [one for one in (standard, robust) if isinstance(one, nn.Module)]
    modes = [(part, part.training) for module in modules for part in module.modules()]
    wanted = [(weight, weight.requires_grad) for module in modules for weight in module.parameters()]
    try:
        if runs is not None:  # its folder has the name that `certmix certify` would give it
            on, folder_of = resolve_device(device), lambda one: Path(runs) / one.folder_name()
            loaded = load(request, sources, on, lambda sentence: None)
            request = in_one_precision(request, loaded, lambda: automatic_precision(on), folder_of)
            folder = folder_of(identity_of(request, loaded))
        result: CertifyResult = run_certify(
            request, sources, output=folder, in_memory=folder is None, device=device,
            batch_size=batch_size, say=remarks.append,
        )  # fmt: skip
    except BaseException as error:  # a model's is not for whoever tests to take for a verdict, or for a skip
        guard.keep_interrupt(error)
        if isinstance(error, Exception) and not isinstance(error, AssertionError | SkipTest):
            raise
        remedy = "run the model on such inputs by itself to see why"
        raise ModelError(f"nothing was certified: {describe(error)}: {remedy}") from error
    finally:  # the models are as they were
        for part, training in modes:
            part.training = training
        for weight, requires_grad in wanted:
            weight.requires_grad_(requires_grad)
    if not result.summary.complete:
        raise KeyboardInterrupt
    return result


@takes(certify_given, CertifyRequest, Margin, GivenConstant, Sources, leave=("certificates", "robust"))
def assert_certified(
    model: Model,
    *,
    radius: float,
    at_least: float,
    sigma: float | None = None,
    alpha: float | None = None,
    on: str = "lower-bound",
    runs: str | Path | None = None,
    **options: Any,
) -> CertifyResult:
    """Assert that a share of images is certified at a radius.

    Parameters
    ----------
    model
        The robust classifier h before noise: a torch module, whose mode and gradients stay as they were, or a
        name as `certmix.models.spec.load_model` takes it.  A `MixedClassifier` brings g with its
        temperature and alpha, a `SmoothedClassifier` noise level and gate, a `SmoothedMixture` all of these.
    radius
        In units of the input; 0 stands for any radius > 0.
    at_least
        The least share that will do.
    sigma, alpha
        Noise level, None for certificates without samples; mixing weight in [1/2, 1], by default the mix's
        own, or 1: the model alone.
    on
        ``"lower-bound"``: the one-sided 95 % bound of Clopper and Pearson (Biometrika 26, 1934) over images
        must reach `at_least`; ``"point"``: the share of these images.
    runs
        Folder of run folders, where samples are kept and used again; None keeps nothing.
    **options
        ``certificate`` (default ``"exact"``), ``standard``, ``data``, ``images``, ``samples``, ``norm``, ...:
        as for `certmix.certify`.

    Returns
    -------
    CertifyResult
        What `certmix.certify` returns.

    Raises
    ------
    AssertionError
        If the share falls short; the message says by how much, and which images did.
    CertmixError
        For anything that cannot be certified as asked.
    """
    __tracebackhide__ = True
    if on not in SIDES:
        raise ParameterError(f"on = {on!r}: use {' or '.join(SIDES)}")
    asked = Requirement("mixed", "certified_accuracy", radius, at_least, SIDES[on])
    radii = tuple(sorted({radius, *options.pop("radii", ())}))
    remarks: list[str] = []
    result = certify_given(model, sigma, alpha, runs, remarks, radii=radii, **options)
    seen = result.outcomes
    proved = np.where(seen.robust == seen.labels, seen.radii[1].radius, 0.0)
    found = judge(asked, Figures(seen.indices, {}, {"mixed": proved}, {"mixed": np.inf}))
    if found.outcome != Outcome.HOLDS:
        lines = [f"not {asked}: {found.message}", *_short(result, proved, radius), *remarks]
        raise AssertionError("\n  ".join(lines))
    for remark in remarks:
        warnings.warn(remark, CertmixWarning, stacklevel=2)
    return result


def certify_and_warn(
    model: Model,
    *,
    sigma: float | None = None,
    alpha: float | None = None,
    runs: str | Path | None = None,
    **options: Any,
) -> CertifyResult:
    """Certify a model with one certificate, as `assert_certified` does, and hold it against nothing."""
    remarks: list[str] = []
    result = certify_given(model, sigma, alpha, runs, remarks, **options)
    for remark in remarks:
        warnings.warn(remark, CertmixWarning, stacklevel=3)
    return result


def _short(result: CertifyResult, proved: FloatArray, radius: float) -> list[str]:
    """Say of which images, which mix, with which failure probability; name the nearest misses, and why."""
    summary, found, mixed = result.summary, result.outcomes, result.outcomes.radii[1]
    parts = [
        f"lower bound: 95 %, one-sided, over {len(found.indices)} images of {summary.data}",
        f"robust {summary.robust}", f"alpha {summary.alpha:g}",
        f"certificate {summary.rows[1].certificate} ({summary.norm})",
    ]  # fmt: skip
    if summary.sigma is not None:
        parts += [f"sigma {summary.sigma:g}", f"at most {summary.samples:,} samples an image"]
        parts.append(f"failure probability {summary.failure_probability:g} an image")
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
    images = f"{len(order)} images are not certified at {written(radius)}: {', '.join(reasons)}{more}"
    return [", ".join(parts), images]
