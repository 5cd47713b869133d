"""Studies and checks as functions of models and data: each does what the command of its name does."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from certmix.assurance import Evidence
from certmix.certification.evaluate import CertifyResult
from certmix.certification.reproduce import Reproduction
from certmix.certification.request.sampled import CertifyRequest
from certmix.errors import ParameterError, RunError, check_choice, warn
from certmix.models.given import as_they_were
from certmix.nuts.grid import GRIDS
from certmix.page import PICTURES, write_report
from certmix.progress import watching
from certmix.runs.attack_request import AttackRequest, asked_attack
from certmix.runs.cells import Progress
from certmix.runs.settings import check_known, divide, refuse, takes
from certmix.runs.sources import OF_ROBUST, OF_STANDARD, Data, Models, Sources, sources_of
from certmix.studies import DEFAULTS
from certmix.studies.nuts_choices import CertifiedRequest, FitChoices, asked_fit
from certmix.studies.study import StudyResult, Surroundings
from certmix.tables.result import Result
from certmix.tables.trade_off import TradeOff
from certmix.verification.falsify.falsify import Falsification
from certmix.verification.guarantees.claim import Terms
from certmix.verification.guarantees.guarantee import Guarantee
from certmix.verification.request import FalsifyRequest, VerifyRequest
from certmix.verification.verify import Verification

__all__ = [
    "attack", "compare_trust", "confidence", "evidence", "falsify", "guarantee_check", "guarantee_init",
    "lipschitz", "mix_sweep", "nuts_evaluate", "nuts_fit", "recertify", "report", "reproduce",
    "trade_off", "verify",
]  # fmt: skip

Run = str | Path | Result
"""A run folder, or the result of what was kept in one."""
KEPT = ("standard", "input_range")
"""Settings of which None is a value of its own, and not the default."""


def around(
    *,
    output: str | Path | bool | None = None,
    fresh: bool = False,
    device: str = "auto",
    progress: bool | Callable[[Progress], None] | None = None,
) -> None:
    """Have keywords that every study takes."""


def _given(function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that say something, of those that a function takes; ParameterError for others."""
    check_known(options, inspect.signature(function).parameters, f"help(certmix.{function.__name__})")
    return {name: value for name, value in options.items() if value is not None or name in KEPT}


def _several(value: Any) -> tuple[Any, ...]:
    """Return one value, or several, as a tuple."""
    alone = isinstance(value, str | Path | Result) or not hasattr(value, "__iter__")
    return (value,) if alone else tuple(value)


def _study(
    run: Callable[..., StudyResult],
    models: Any,
    data: Any,
    given: dict[str, Any],
    alone: str = "",
    **more: Any,
) -> StudyResult:
    """Run a study; `alone` says what h alone is not for, "" where a study takes g as well."""
    sources = sources_of(models, data, given)
    if alone:
        if models is not None and sources.standard is not None:
            raise ParameterError(f"models are a pair, and {alone}")
        sources = sources.replace(standard=None)
    output, fresh, device = (given.pop(name, None) for name in ("output", "fresh", "device"))
    if output in (None, False) and fresh:
        raise ParameterError("fresh = True is for a run folder: leave it out, or add output")
    folder, in_memory = None if isinstance(output, bool) else output, output in (None, False)
    where = Surroundings(folder, in_memory, bool(fresh), device or "auto")
    with as_they_were(sources.standard, sources.robust), watching(given.pop("progress", None)) as update:
        return run(sources=sources, where=replace(where, progress=update), **more)


@takes(around, AttackRequest, Sources)
def attack(
    models: Models = None,
    data: Data = None,
    *,
    alpha: float | None = None,
    standard_temperature: float = 1.0,
    save: str | Path | None = None,
    **options: Any,
) -> StudyResult:
    """Attack one classifier, or with `alpha` the mix of a pair: accuracy clean and attacked.

    Attacked accuracy is an upper bound of robust accuracy, no certificate.  Points found lie in the ball and
    in the input range exactly.

    Parameters
    ----------
    models, data
        As for `certmix.certify`; a mix that is a module is attacked as one.
    alpha, standard_temperature
        Mixing weight in [0, 1], and what g's logits are divided by; None attacks h alone.
    save
        ``.npz`` file for the points, which any function takes as data.
    **options
        Fields of `certmix.runs.attack_request.AttackRequest` (attack, norm, eps, steps, inputs, ...) and of
        `certmix.runs.sources.Sources`; output, fresh, device, progress as for `certmix.certify`.

    Returns
    -------
    StudyResult
        ``.data`` says of each input what became of it.

    Raises
    ------
    CertmixError
        For anything the user can mend: see `certmix.errors`.
    """
    from certmix.studies.attack import attack as run

    given = _given(attack, options)
    if alpha is None:
        refuse(given, OF_STANDARD, "is of the mix: add alpha, or")
    request = asked_attack(given, DEFAULTS["attack"])
    alone = "" if alpha is not None else "one is attacked alone: add alpha, their weight"
    return _study(
        run, models, data, given, alone, request=request, alpha=alpha,
        standard_temperature=standard_temperature, save=None if save is None else Path(save),
    )  # fmt: skip


@takes(around, AttackRequest, Sources, usual=DEFAULTS["mix-sweep"])
def mix_sweep(
    models: Models = None,
    data: Data = None,
    *,
    alphas: Sequence[float] | None = None,
    standard_temperature: float = 1.0,
    **options: Any,
) -> StudyResult:
    """Return the accuracy of the mix over alpha, clean and attacked (Figure 2 of the first paper).

    `alphas` are weights in [0, 1], by default 21 of them; models are a pair.  The rest is as for
    `certmix.attack`.
    """
    from certmix.studies.mix_sweep import DEFAULT_ALPHAS
    from certmix.studies.mix_sweep import mix_sweep as run

    given = _given(mix_sweep, options)
    request = asked_attack(given, DEFAULTS["mix-sweep"])
    weights = DEFAULT_ALPHAS if alphas is None else _several(alphas)
    return _study(
        run, models, data, given, request=request, alphas=weights, standard_temperature=standard_temperature
    )


@takes(around, AttackRequest, Sources, leave=("norm",), usual=DEFAULTS["compare-trust"])
def compare_trust(
    models: Models = None,
    data: Data = None,
    *,
    trusts: str | Sequence[str] = ("constant", "max-gradient"),
    forms: str | Sequence[str] = ("probabilities", "logits"),
    norms: str | Sequence[str] = "linf",
    weights: Sequence[float] = (0.25, 0.5, 0.6, 0.75, 0.9),
    **options: Any,
) -> StudyResult:
    """Compare what trust terms pay in robustness for clean accuracy (Figures 1 and 4 of the first paper).

    `trusts` are of constant, gradient, max-gradient and gradient-ratio, `forms` what is mixed, `weights`
    those of h at the median input; models are a pair.  The rest is as for `certmix.attack`.
    """
    from certmix.studies.compare_trust import compare_trust as run

    given, several = _given(compare_trust, options), _several(norms)
    if len(set(several)) > 1:
        refuse(given, ["eps"], "is one radius, and there are several norms: give one of them, or")
    request = asked_attack({**given, "norm": next(iter(several), None)}, DEFAULTS["compare-trust"])
    divide(given, AttackRequest)
    return _study(
        run, models, data, given, request=request, weights=_several(weights), trusts=_several(trusts),
        forms=_several(forms), norms=several,
    )  # fmt: skip


@takes(around, AttackRequest, Sources, usual=DEFAULTS["confidence"])
def confidence(models: Models = None, data: Data = None, **options: Any) -> StudyResult:
    """Return how sure a pair is when right or wrong, clean or attacked (Table 1 of the first paper).

    Arguments are as for `certmix.attack`.
    """
    from certmix.studies.confidence import confidence as run

    given = _given(confidence, options)
    return _study(run, models, data, given, request=asked_attack(given, DEFAULTS["confidence"]))


@takes(around, AttackRequest, Sources, leave=("attack", *OF_STANDARD), usual=DEFAULTS["lipschitz"])
def lipschitz(
    models: Models = None,
    data: Data = None,
    *,
    of: str = "probabilities",
    ratio: str | None = None,
    alpha: float | None = None,
    check: float | None = None,
    **options: Any,
) -> StudyResult:
    """Estimate local Lipschitz constants of one classifier by search: lower bounds, never certified.

    `of` is probabilities or logits, `ratio` what counts as a slope (relaxed, each, together, yang), `alpha`
    (0.76 by default) the weight of the estimated radius of Theorem 3.5, `check` a global constant to be
    contradicted.  The rest is as for `certmix.attack`; `batch_size` counts points, one a class of each input.
    """
    from certmix.studies.lipschitz import local_lipschitz as run

    given = _given(lipschitz, options)
    if alpha is not None and (check is not None or of != "probabilities" or ratio not in (None, "relaxed")):
        refuse({"alpha": alpha}, ["alpha"], "is for the radius that relaxed constants of probabilities give")
    request = asked_attack(given, DEFAULTS["lipschitz"])
    return _study(
        run, models, data, given, "constants are of one: give it alone", request=request, of=of, ratio=ratio,
        check=check, **({} if alpha is None else {"alpha": alpha}),
    )  # fmt: skip


@takes(
    around,
    FitChoices,
    CertifiedRequest,
    AttackRequest,
    Sources,
    leave=("attack",),
    usual=DEFAULTS["nuts-fit"],
)
def nuts_fit(
    models: Models = None,
    data: Data = None,
    *,
    logits: str | Path | None = None,
    published: str | None = None,
    certified: bool = False,
    **options: Any,
) -> StudyResult:
    """Fit MixedNUTS: s, p, c and alpha of a nonlinear mix of a pair, by Algorithm 1.

    Parameters
    ----------
    models, data
        As for `certmix.certify`: a pair (standard, robust), and the tuning inputs.
    logits
        A file of cached logits (a run folder's ``logits.npz``) to fit on instead.
    published
        No fit: the numbers that the paper found for ``cifar10``, ``cifar100`` or ``imagenet``, into `output`.
    certified
        Choose for certified accuracy of a smoothed h; needs `sigma` and `at_radius`.
    **options
        Fields of `certmix.studies.nuts_choices.FitChoices` (beta, clamp, ...), with `certified` those of
        `CertifiedRequest`; otherwise as for `certmix.attack`.

    Returns
    -------
    StudyResult
        ``.data.mix.mixture`` is the mix as a module.  `certmix.nuts_evaluate` takes the result, and any
        function takes ``nuts:FOLDER``, where `output` named the folder and the models have names.
    """
    from certmix.studies import nuts_fit as fitting

    given = _given(nuts_fit, options)
    if published is not None:
        check_choice("published", published, GRIDS)
        if data is not None or certified or logits is not None:
            raise ParameterError("published fits nothing: leave data, logits and certified out")
    choices = asked_fit(
        given, lambda names, why: refuse(given, names, why.replace("--", "")),
        published=published is not None, certified=certified, logits=logits is not None,
    )  # fmt: skip
    if choices is None:
        return fitting.nuts_published(
            str(published), given["output"], sources_of(models, None, given),
            copy_weights=given.get("copy_weights", False), device=given.get("device", "auto"),
        )  # fmt: skip
    if isinstance(choices, CertifiedRequest):
        from certmix.studies.nuts_certified import nuts_certified

        return _study(nuts_certified, models, data, given, request=choices)
    if logits is not None:
        if models is not None or data is not None:
            raise ParameterError("logits hold what is fitted on: leave models and data out")
        return fitting.fit_file(Path(logits), choices)
    usual = {k: v for k, v in DEFAULTS["nuts-fit"].items() if k != "steps" or not choices.gradient_free}
    request = asked_attack({**given, "attack": "apgd-ce"}, usual)
    divide(given, AttackRequest)
    return _study(fitting.nuts_fit, models, data, given, request=request, choices=choices)


@takes(
    around, AttackRequest, Sources, usual=DEFAULTS["nuts-evaluate"],
    leave=("attack", *OF_STANDARD, *OF_ROBUST),
)  # fmt: skip
def nuts_evaluate(
    mix: str | Path | StudyResult,
    data: Data = None,
    *,
    plain_alphas: Sequence[float] = (0.6, 0.75, 0.9),
    targets: int = 9,
    queries: int = 500,
    r_d_sweep: Sequence[float] = (0.0, 0.3, 0.6, 0.9),
    sweep_inputs: int = 50,
    autoattack: bool = False,
    **options: Any,
) -> StudyResult:
    """Attack a fitted nonlinear mix every way there is, on inputs that it was not tuned on.

    `mix` is what `certmix.nuts_fit` returned, or the folder of a fit.  `plain_alphas` are weights of the
    plain mix to compare with, `targets` of targeted APGD, `queries` of Square; the obfuscation check is
    transfer with each of `r_d_sweep` on `sweep_inputs` of the inputs.  The rest is as for `certmix.attack`.
    """
    from certmix.studies.nuts_evaluate import nuts_evaluate as run

    given = _given(nuts_evaluate, options)
    fitted = getattr(mix.data, "mix", None) if isinstance(mix, StudyResult) else mix
    if fitted is None or not isinstance(mix, str | Path | StudyResult):
        raise ParameterError(
            f"mix of type {type(mix).__name__}: give what certmix.nuts_fit returned, or the folder of a fit"
        )
    request = asked_attack({**given, "attack": "apgd-ce"}, DEFAULTS["nuts-evaluate"])
    divide(given, AttackRequest)
    return _study(
        run, None, data, {**given, "standard": None}, folder=fitted, request=request,
        plain_alphas=_several(plain_alphas), targets=targets, queries=queries,
        r_d_sweep=_several(r_d_sweep), sweep_inputs=sweep_inputs, autoattack=autoattack,
    )  # fmt: skip


def _place(run: Any) -> str | Path:
    """Return the path of a run, a log or a file of counts."""
    if isinstance(run, Result):
        folder = getattr(run, "folder", None)
        if folder is None:
            raise RunError(f"the {type(run).__name__} was kept in memory alone: give it a folder by output")
        return Path(folder)
    if not isinstance(run, str | Path):
        raise ParameterError(f"{run!r:.60} is no run: give a run folder, a file, or a result that was kept")
    return run


def _sources(sources: Any, sigma: Any) -> list[tuple[str | Path, float | None]]:
    from certmix.certification.stored import of_each

    places = [_place(one) for one in _several(sources)]
    if not places:
        raise ParameterError("no source was given: name run folders, logs or files of class counts")
    return of_each(places, () if sigma is None else _several(sigma))


def _of_stored(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a function these fields of a request, None as the run has them."""
    left = [name for name in CertifyRequest.__struct_fields__ if name not in names]
    return takes(CertifyRequest, leave=left, usual=dict.fromkeys(names))


@_of_stored(
    "certificates", "bound", "failure_probability", "radii", "gate", "standard_temperature", "tuned", "noise",
    "scale",
)  # fmt: skip
def recertify(
    sources: Run | Sequence[Run],
    *,
    sigma: float | Sequence[float] | None = None,
    alpha: float | None = None,
    as_printed: bool = False,
    assume_selected: bool = False,
    rows: int | None = None,
    best: bool = False,
    **options: Any,
) -> CertifyResult:
    """Return the table of what was sampled before, at another alpha, bound or radius: nothing is sampled.

    Parameters
    ----------
    sources
        A run folder or its `CertifyResult`, a published log, or a file of class counts; with `best` several,
        of which each cell shows the best.
    sigma, as_printed, assume_selected, rows
        Of logs and files: noise level (one, or one each), radii as printed, classes chosen on other samples,
        and how many rows there should be.
    alpha, **options
        As for `certmix.certify` (certificates, bound, failure_probability, radii, gate,
        standard_temperature, tuned); None is the run's own.
    """
    from certmix.certification.analysis.best import of_all

    given, read = _given(recertify, options), _sources(sources, sigma)
    how = {"alpha": alpha, "as_printed": as_printed, "assume_selected": assume_selected, "rows": rows}
    made, folder = of_all(read, several=best, **given, **how), Path(read[0][0])
    return CertifyResult(made, folder if len(read) == 1 and os.path.isdir(folder) else None)


@_of_stored("gate", "standard_temperature")
def trade_off(
    sources: Run | Sequence[Run],
    *,
    sigma: float | Sequence[float] | None = None,
    at_radius: float = 0.25,
    certificates: str | Sequence[str] | None = None,
    match_clean_accuracy: float | str | None = None,
    standard_accuracy: float | None = None,
    as_printed: bool = False,
    assume_selected: bool = False,
    **options: Any,
) -> TradeOff:
    """Return clean and certified accuracy over all alpha, of runs, logs or class counts.

    `at_radius` is that of the certified accuracy, `match_clean_accuracy` picks for each source the largest
    alpha whose mix is so accurate (``"baseline"``: as the robust classifier of least sigma alone), and
    `standard_accuracy` is assumed of g where a file knows nothing of it.  The rest is as for
    `certmix.recertify`.
    """
    from certmix.certification.analysis.trade_off import read_mixable
    from certmix.certification.analysis.trade_off import trade_off as run

    given = _given(trade_off, options)
    given |= {"as_printed": as_printed, "assume_selected": assume_selected}
    given["standard_accuracy"] = standard_accuracy
    read = [read_mixable(place, sigma=level, **given) for place, level in _sources(sources, sigma)]
    wanted = None if certificates is None else _several(certificates)
    return run(read, at_radius=at_radius, certificates=wanted, match_clean_accuracy=match_clean_accuracy)


@contextmanager
def _handed(models: Any, data: Any) -> Iterator[Sources | None]:
    """Yield the data and models that were handed over, None where there are none; give them back after."""
    if models is None and data is None:
        yield None
        return
    sources = sources_of(models, data, {})
    with as_they_were(sources.standard, sources.robust):
        yield sources


@takes(VerifyRequest)
def verify(
    target: Run,
    models: Models = None,
    data: Data = None,
    *,
    progress: bool | Callable[[Progress], None] | None = None,
    **options: Any,
) -> Verification:
    """Check that a guarantee file holds, or that a run of `certmix.certify` is what it says.

    Everything is derived again from the counts by a second implementation, and some inputs are sampled again.

    Parameters
    ----------
    target
        A guarantee file, a run folder, or a `CertifyResult` that was kept in one.
    models, data
        As for `certmix.certify`: those of a run that was made from Python objects.
    progress, **options
        As for `certmix.certify`, and fields of `certmix.verification.request.VerifyRequest`.

    Returns
    -------
    Verification
        ``.outcome`` is holds, fails or unchecked; ``.exit_code`` 0, 1 or 2.
    """
    from certmix.verification.verify import verify as run

    request = VerifyRequest(**_given(verify, options))
    with _handed(models, data) as handed, watching(progress) as update:
        return run(_place(target), request, sources=handed, say=warn, progress=update)


@takes(VerifyRequest, leave=("proof",))
def evidence(
    target: Run,
    output: str | Path,
    models: Models = None,
    data: Data = None,
    *,
    progress: bool | Callable[[Progress], None] | None = None,
    **options: Any,
) -> Evidence:
    """Verify a run or a guarantee file, and write evidence for a safety case into a new folder.

    `output` does not exist, or is empty; the rest is as for `certmix.verify`.  ``.result`` is PASSED where a
    guarantee holds, WARNED where a run is what it says and was held against no requirement, else FAILED.
    """
    from certmix.assurance.pack import write_evidence

    request = VerifyRequest(**_given(evidence, options))
    with _handed(models, data) as handed, watching(progress) as update:
        return write_evidence(_place(target), output, request, sources=handed, say=warn, progress=update)


@takes(Terms, leave=("joint", "bounds"))
def guarantee_init(
    run: Run,
    models: Models = None,
    data: Data = None,
    *,
    output: str | Path = "guarantee.toml",
    slack: float = 0.02,
    pin: bool = False,
    groups: Mapping[str, str] | None = None,
    per: str | Sequence[str] = (),
    budget: int | None = None,
    force: bool = False,
    **options: Any,
) -> Guarantee:
    """Write a guarantee file that a run meets with some room, and return what it says.

    Parameters
    ----------
    run
        A run folder, or a `CertifyResult` that was kept in one.
    models, data
        The names of factories, ``file.py:factory``, that make what the run had as Python objects.
    output, force
        The file, and whether to replace it.
    slack, pin
        How far requirements lie below the lower bounds of the run; whether both models are pinned.
    groups, per
        Name to ``FILE``, ``FILE#COLUMN`` or ``#COLUMN`` of the slices of the inputs; and those, or
        ``"class"``, of whose parts accuracies are asked for.
    budget
        The most samples that a verification may draw.
    **options
        ``confidence``, ``unit`` and ``domain``: fields of `certmix.verification.guarantees.claim.Terms`.

    Returns
    -------
    Guarantee
        As `certmix.guarantee_check` returns it.  CertmixError for anything that the user can mend.
    """
    from certmix.verification.proposing import proposed

    check_known(options, Terms.__struct_fields__, "help(certmix.guarantee_init)")
    named = [f"{name}={place}" for name, place in (groups or {}).items()]
    with _handed(models, data) as handed:
        return proposed(
            Path(_place(run)), Path(output), groups=named, force=force, slack=slack, pin=pin,
            per=_several(per), budget=budget, terms=Terms(**options), sources=handed,
        )[0]  # fmt: skip


def guarantee_check(file: str | Path) -> Guarantee:
    """Return what a guarantee file says, loading nothing; ParameterError, with the line, if it is wrong."""
    from certmix.verification.guarantees.guarantee import read_guarantee

    return read_guarantee(file)


def reproduce(
    run: Run,
    models: Models = None,
    data: Data = None,
    *,
    output: str | Path,
    device: str = "auto",
    run_code: bool = False,
    progress: bool | Callable[[Progress], None] | None = None,
) -> Reproduction:
    """Do what a run says once more, in the folder `output`, and compare input by input.

    `models` and `data` are those of a run that was made from Python objects, or names of factories that make
    them; the rest is as for `certmix.verify`.  ``.equal`` says whether all counts and figures agree.
    """
    from certmix.certification.reproduce import reproduce as again

    with _handed(models, data) as handed, watching(progress) as update:
        return again(
            Path(_place(run)), Path(output), sources=handed, device=device, run_code=run_code,
            progress=update, say=warn,
        )  # fmt: skip


@takes(FalsifyRequest)
def falsify(
    run: Run,
    models: Models = None,
    data: Data = None,
    *,
    output: str | Path | None = None,
    device: str = "auto",
    progress: bool | Callable[[Progress], None] | None = None,
    **options: Any,
) -> Falsification:
    """Attack the certificates of a run inside their balls: a finding shows that one is wrong.

    That nothing is found proves nothing.  `output` is the folder for findings, by default ``falsify`` in the
    run's; `models` and `data` are as for `certmix.verify`, **options** fields of
    `certmix.verification.request.FalsifyRequest`.
    """
    from certmix.verification.falsify.falsify import falsify as attacked

    request = FalsifyRequest(**_given(falsify, options))
    with _handed(models, data) as handed, watching(progress) as update:
        return attacked(
            _place(run), request, sources=handed, output=output, device=device, progress=update, say=warn
        )


def report(
    runs: Run | Sequence[Run],
    *,
    output: str | Path | None = None,
    title: str | None = None,
    inputs: int = PICTURES,
) -> Path:
    """Write one self-contained HTML page of a run, or of several to compare, and return its path.

    `output` is the file, by default ``report.html`` in the run's folder; `inputs` how many inputs are shown
    of each group, 0 for none.
    """
    if isinstance(inputs, bool) or not isinstance(inputs, int):
        raise ParameterError(f"inputs = {inputs!r:.60}: give a whole number of at least 0")
    return write_report([_place(one) for one in _several(runs)], output, title=title, inputs=inputs)
