"""A certification, from data and two models to a table: opened, filled, evaluated, published."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from certmix.certification.describe import about_data, identity_of, in_one_precision, load
from certmix.certification.drawing import Drawing, run_population
from certmix.certification.evaluate import CertifyResult
from certmix.certification.population import PopulationResult
from certmix.certification.proved import Proving
from certmix.certification.publish import derive, is_finished, publish
from certmix.certification.request.parts import check_batch_size
from certmix.certification.request.population import Population
from certmix.certification.request.proved import Enumerated, GivenConstant, Margin
from certmix.certification.request.reading import Request, request_of
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.request.shard import Shard
from certmix.certification.sampled import Budget, Sampling
from certmix.certification.tuned import resolve_tuned
from certmix.data import spread
from certmix.errors import ParameterError, warn
from certmix.models.given import PLAIN, as_they_were, settled_by
from certmix.progress import watching
from certmix.runs import Identity, Run, StudyIdentity, default_folder
from certmix.runs.cells import Cells, Progress, fill
from certmix.runs.engine import Engine, EngineChoice
from certmix.runs.opening import open_run
from certmix.runs.settings import check_known, divide, refuse, takes, too_many_inputs, written
from certmix.runs.sources import Data, Models, Sources, sources_of
from certmix.sampling import resolve_device
from certmix.sampling.compiling import CompileError, check_compilable
from certmix.sampling.devices import AUTO, PARTLY, Passes, automatic_precision, refuse_tf32

__all__ = ["Progress", "certify", "run_certify"]

HELP = "help(certmix.certify)"


def asked(models: Any, data: Any, given: dict[str, Any]) -> tuple[Request | Population, Sources]:
    """Take from what was given a request, data and models; ParameterError for what has no effect.

    One model is h's base, a pair g and h; a mix, or a smoothed classifier, brings what it was made with.
    """
    pair = list(models) if isinstance(models, tuple | list) else [models]
    own = settled_by(pair[-1]) if pair else {}
    if "standard" in own and (len(pair) > 1 or given.get("standard") is not None):
        raise ParameterError("the mix has a standard classifier of its own: leave standard out")
    if own.keys() > {"robust"}:
        pair = [own.pop("standard", None if len(pair) < 2 else pair[0]), own.pop("robust")]
        models = tuple(pair)
        for name, value in own.items():
            if given.get(name, value) != value:
                own_value = f"the model has {written(value)}"
                raise ParameterError(f"{name} = {given[name]}: {own_value}; leave {name} out")
        given.update({name: value for name, value in own.items() if value != PLAIN.get(name)})
    sources = sources_of(models, data, given)
    if sources.standard is None:
        given.setdefault("alpha", 1.0)  # h alone
    if "alpha" not in given:
        raise ParameterError("no alpha is given: add the mixing weight, such as alpha = 0.76")
    return request_of(given, lambda names, why: refuse(given, names, why.replace("--", ""))), sources


@takes(
    CertifyRequest, Margin, GivenConstant, Enumerated, Population, Sources, EngineChoice,
    leave=("certificate",),
)  # fmt: skip
def certify(
    models: Models = None,
    data: Data = None,
    *,
    sigma: float | None = None,
    alpha: float | None = None,
    output: str | Path | bool | None = None,
    fresh: bool = False,
    device: str = "auto",
    batch_size: int | None = None,
    compiled: bool | None = None,
    progress: bool | Callable[[Progress], None] | None = None,
    workers: int | None = 1,
    executor: Executor | None = None,
    shard: str | None = None,
    **options: Any,
) -> CertifyResult | PopulationResult:
    """Certify a classifier, or the mix of a standard and a robust one.

    Every option of ``certmix certify`` has its counterpart here, of the same name and default.

    Parameters
    ----------
    models
        One model, the base of the robust classifier h, without another; or a pair (standard, robust), whose
        mix is certified.  Each is a name or path, a torch module or another callable that takes a batch to
        logits.  A `SmoothedClassifier`, `SmoothedMixture` or `MixedClassifier` brings its own settings.
        None: the shipped models.  Modules get their mode, gradients and device back.
    data
        A pair (inputs, labels) of tensors or arrays, a map-style torch Dataset, a DataLoader, a
        `certmix.types.Dataset`, a name or a path; None: the shipped test images.
    sigma
        Noise level of the robust classifier, in units of the input; None for
        the certificates ``margin`` and ``lipschitz-constant``.
    alpha
        Mixing weight in [1/2, 1]; of one model 1 by default.
    output
        Run folder; None keeps the run in memory, True is ``runs/<identity>``, as on the command line.
    fresh
        Start over in an existing folder.
    device, batch_size, compiled
        Where and how to run; they do not change what is drawn on one device type.  `compiled`
        compiles the robust model before the first batch (``--compile``); None if the samples still to
        draw repay it.
    progress
        None shows a bar on terminals and in notebooks, and a line a minute elsewhere; False nothing.  A
        function is called after each input, or batch of inputs.
    workers
        Processes that share the work; with another engine than ``local``
        (see **options**) workers of that.  None: on a CPU one a core, in runs that are long enough
        (a script must then call certmix under ``if __name__ == "__main__":``).
    executor
        A `concurrent.futures.Executor` that does the work instead, such as those of Dask or of
        MPI; it gets `workers` tasks at a time, or as many as it says it has workers.
    shard
        ``"2/8"`` does the second of eight shares of the inputs; see
        `certmix.certification.shards.merge`.
    **options
        Fields of `certmix.certification.request.sampled.CertifyRequest` (inputs, samples,
        certificates, radii, seed, ...), or, without sigma, ``certificates`` and
        fields of `certmix.certification.request.proved.Margin` or `GivenConstant` (norm, ...); of
        `certmix.runs.sources.Sources` (split, input_range, standard_weights, ...); and, with
        samples, of `certmix.runs.engine.EngineChoice` (engine, gpus_per_worker, ray_address).

    Returns
    -------
    CertifyResult or PopulationResult
        ``.table`` prints, ``.plot()`` draws, ``.outcomes`` has classes and radii input by input.  With
        ``goal="population"`` the ``.claim`` of a `certmix.certification.population.PopulationResult` holds
        the share that is shown.

    Raises
    ------
    CertmixError
        For anything the user can mend: see `certmix.errors`.

    Examples
    --------
    >>> import torch
    >>> net, inputs = torch.nn.Linear(2, 2), torch.rand(4, 2)
    >>> found = certify(net, (inputs, net(inputs).argmax(1)), sigma=0.25, samples=1000, progress=False)
    >>> found.summary.inputs
    4
    """
    check_known(options, inspect.signature(certify).parameters, HELP)
    given = {"sigma": sigma, "alpha": alpha, "shard": shard, "compiled": compiled, **options}
    usual = ("sigma", "alpha", "shard", "compiled", "norm", "radii")
    given = {name: value for name, value in given.items() if name not in usual or value is not None}
    request, sources = asked(models, data, given)
    (spreading,) = divide(given, EngineChoice)
    with as_they_were(sources.standard, sources.robust), watching(progress) as update:
        return run_certify(
            request, sources,
            output=None if isinstance(output, bool) else output, in_memory=output in (None, False),
            fresh=fresh, device=device, batch_size=batch_size, compiled=compiled, progress=update,
            engine=EngineChoice(workers=workers, **spreading), executor=executor,
            shard=None if shard is None else Shard.parse(shard),
        )  # fmt: skip


def run_certify(
    request: Request | Population,
    sources: Sources,
    *,
    output: str | Path | None = None,
    in_memory: bool = False,
    fresh: bool = False,
    device: str = "auto",
    batch_size: int | None = None,
    compiled: bool | None = None,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] = warn,
    engine: EngineChoice | None = None,
    executor: Executor | None = None,
    shard: Shard | None = None,
    like: Callable[..., None] | None = None,
    budget: Budget | None = None,
) -> Any:
    """Run or resume one certification; see `certify`.  `like` may refuse its models, on their device.

    With a `budget` this process draws, and no more samples than that: the result may be partial.

    Without `output` and not `in_memory`, the folder is ``runs/<identity>``, with
    the shard's number if there is one.  A keyboard interrupt ends the work
    and returns what there is, marked as partial.
    """
    batch_size = check_batch_size(batch_size)
    chosen = resolve_device(device)
    if compiled:
        check_compilable(chosen)
    if isinstance(request, CertifyRequest | Population) and request.sigma is not None:
        sources = sources.at(request.sigma)
    if isinstance(request, Population):
        sources = sources.replace(standard=None)
    loaded = load(request, sources, chosen, say)
    request = about_data(request, loaded.dataset)
    temperature = getattr(request, "standard_temperature", 1.0)
    if loaded.standard is None and temperature != 1.0:
        raise ParameterError(
            f"standard temperature = {temperature:g}: there is no standard model: leave it "
            "out, or name one with --standard"
        )
    if like is not None:
        like(loaded, chosen)
    spread_by = Engine(engine or EngineChoice(), chosen, executor)
    native = lru_cache(lambda: spread_by.ask(automatic_precision))

    def folder_of(identity: Identity | StudyIdentity) -> Path:
        whole = default_folder(identity)
        if output is not None:
            return Path(output)
        return whole if shard is None else whole.with_name(f"{whole.name}-shard{shard.number}of{shard.of}")

    if isinstance(request, CertifyRequest):
        request = resolve_tuned(request, loaded, spread(len(loaded.dataset), request.inputs), say)
    automatic = isinstance(request, CertifyRequest) and request.precision == AUTO
    request = in_one_precision(request, loaded, native, None if in_memory or fresh else folder_of)
    if isinstance(request, CertifyRequest | Population):
        refuse_tf32(request.precision, spread_by.device)
    if isinstance(request, Population):
        drawing = Drawing(request, sources, loaded, Passes(chosen, batch_size, False), spread_by, say)
        folder = folder_of(identity_of(request, loaded))
        return run_population(drawing, folder, in_memory=in_memory, fresh=fresh, progress=progress)
    given = sources, loaded, Passes(chosen, batch_size, compiled), spread_by, say, shard
    recipe: Sampling | Proving
    if isinstance(request, CertifyRequest):
        recipe = Sampling(request, *given, budget=budget)
    else:
        recipe = Proving(request, *given)
    for note in recipe.expectations():
        say(note)
    dataset = loaded.dataset
    share = recipe.everyone if shard is None else recipe.everyone[shard.number - 1 :: shard.of]
    if told_inputs := too_many_inputs(request, len(dataset)):
        say(told_inputs)
    identity = identity_of(request, loaded)
    told: dict[str, Any] = {}

    def admit(run: Run) -> dict[str, Any]:
        nonlocal recipe
        recipe = recipe.settled(run.store) if isinstance(recipe, Sampling) else recipe
        told.update(recipe.admit(run))
        return told

    with open_run(
        identity, loaded, chosen, admit, output=folder_of(identity), in_memory=in_memory, fresh=fresh,
        classes=dataset.classes,
        sigma=request.smoothing.level if isinstance(request, CertifyRequest) else None,
        wanted=set(dataset.indices[share].tolist()), step=recipe.step, say=say,
    ) as run:  # fmt: skip
        complete, standard, positions = True, loaded.standard, recipe.positions
        if standard is not None:
            cell = recipe.standard(standard)
            alone = Cells([cell], dataset, chosen, recipe.step)
            complete = fill(run.store, alone.todo(run.store, positions))
            if complete:
                found = run.store.read(cell.name, dataset.indices[positions].tolist())
                right = found.argmax(1) == dataset.labels[positions]
                recipe.near_chance(standard, int(right.sum()), len(right), " on clean inputs")
        if complete:
            todo, watched = recipe.todo(run.store), recipe.watched(progress)
            if automatic and todo.items and identity.as_dict()["precision"] != native():
                say(
                    f"precision auto: the run goes on in {identity.as_dict()['precision']}, in which it was "
                    f"begun; --precision {native()}, which auto is here, makes another"
                )
            try:
                complete = fill(run.store, todo, engine=spread_by, progress=watched)
            except CompileError as error:
                if compiled is not None or not isinstance(recipe, Sampling):
                    raise
                say(f"{str(error).partition(': use --compile')[0]}: it runs as it is")
                recipe = replace(recipe, compiled=False)
                told["compiled"] = PARTLY if run.store.records().drawn.any() else False
                run.begin(told)
                complete = fill(run.store, recipe.todo(run.store), engine=spread_by, progress=watched)
        complete = complete and not (budget is not None and budget.short)
        evaluation = derive(request, run.store, told)
        recipe.look_at(evaluation.outcomes)
        if not complete:
            evaluation = replace(evaluation, summary=replace(evaluation.summary, complete=False))
        if evaluation.summary.inputs and (complete or not (run.path and is_finished(run.path))):
            publish(run, request, evaluation)
        return CertifyResult(evaluation, run.path, not complete)
