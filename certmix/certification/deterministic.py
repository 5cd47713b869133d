"""Certificates without samples: verified margins, and networks of known Lipschitz constant."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certmix.certification.describe import surroundings
from certmix.certification.deterministic_check import refute_constant
from certmix.certification.deterministic_fill import BATCH, Work, graph_of
from certmix.certification.deterministic_request import LABEL, DeterministicRequest
from certmix.certification.deterministic_spread import fill_all
from certmix.certification.deterministic_table import Outcomes, derived, table_of_radii
from certmix.certification.request import check_batch_size
from certmix.certification.stored import remember_planned
from certmix.certification.unfinished import is_finished
from certmix.data import spread
from certmix.errors import ModelError
from certmix.files import write_atomically
from certmix.models.checks import chance_warning
from certmix.models.zoo import zoo_card, zoo_names
from certmix.runs import Run, StudyIdentity
from certmix.runs.attacking import Progress
from certmix.runs.behaviour import Original
from certmix.runs.elsewhere import Named
from certmix.runs.engine import Engine, EngineChoice
from certmix.runs.opening import open_run
from certmix.runs.sources import Loaded, Sources, load_models
from certmix.sampling import resolve_device
from certmix.tables import write_products
from certmix.types import Curve, IntArray, Summary

__all__ = ["STUDIES", "DeterministicResult", "run_deterministic", "run_identity"]

STUDIES = {"certify-margin": "margin", "certify-lipschitz-constant": "lipschitz-constant"}
"""Names of the studies in run folders, and their certificates."""

RADII_FILE = "radii.tsv"


@dataclass(frozen=True)
class DeterministicResult:
    """What a certification without samples found, and where it lies (None: in memory).

    ``outcomes`` holds classes and radii image by image; its first radii are
    those of the robust classifier alone, as in ``summary.rows``.
    """

    summary: Summary
    curves: tuple[Curve, ...]
    outcomes: Outcomes
    folder: Path | None


def run_deterministic(
    request: DeterministicRequest,
    sources: Sources,
    *,
    output: str | Path | None = None,
    in_memory: bool = False,
    fresh: bool = False,
    device: str = "auto",
    batch_size: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] = lambda message: None,
    engine: EngineChoice | None = None,
    executor: Executor | None = None,
    like: Original | None = None,
) -> DeterministicResult:
    """Run or resume one certification without samples.

    Parameters
    ----------
    request, sources
        What is asked for; the robust model is certified as it is.
    output, in_memory, fresh, device, batch_size, progress, say, engine, executor, like
        As for `certmix.certification.certify.run_certify`.  Bounds are propagated
        on the CPU, whatever the device.

    Raises
    ------
    CertmixError
        For anything the user can mend: a layer that bounds cannot be
        propagated through, a constant that the model refutes, and so on.
    """
    check_batch_size(batch_size)
    chosen = resolve_device(device)
    robust = _default_robust(request) if sources.robust is None else sources.robust
    loaded = load_models(sources, robust, chosen, say)
    if like is not None:
        like.hold(loaded, chosen)
    graph = graph_of(request, loaded)
    _expect(request, loaded, say)
    identity = run_identity(request, loaded)
    workers = Engine(engine or EngineChoice(), chosen, executor)
    named = Named.of(sources, robust, loaded, chosen)

    dataset = loaded.dataset
    positions = spread(len(dataset), request.images)
    step = batch_size or BATCH[request.certificate]

    def description(run: Run) -> dict[str, Any]:
        remember_planned(run.store, request.images, dataset.indices[positions].tolist())
        described = surroundings(request.as_dict(), loaded, sources, chosen, step)
        return {**described, "certified": True, "engine": workers.described}

    with open_run(
        identity, loaded, chosen, description, output=output, in_memory=in_memory, fresh=fresh,
        wanted=set(dataset.indices[positions].tolist()), step=step,
    ) as run:  # fmt: skip
        work = Work(request, loaded, chosen, batch_size, graph, run.store, progress, say)
        if request.certificate == "lipschitz-constant":
            refute_constant(work, positions)
        ready = fill_all(work, positions, workers, named)
        run.store.write(LABEL, dataset.indices[ready], dataset.labels[ready, None])
        told = surroundings(request.as_dict(), loaded, sources, chosen, step)
        found, summary, curves = derived(request, run.store, told)
        _warn_near_chance(work, found)
        if len(found.indices) and (summary.complete or not (run.path and is_finished(run.path))):

            def write(folder: Path) -> None:
                write_products(folder, summary, curves)
                write_atomically(folder / RADII_FILE, table_of_radii(found).encode())

            run.publish(write)
        return DeterministicResult(summary, curves, found, run.path)


def _default_robust(request: DeterministicRequest) -> str:
    """Return the shipped model that was trained for bound propagation.

    Raises
    ------
    ModelError
        If there is none, or another certificate is asked for.
    """
    if request.certificate == "lipschitz-constant":
        raise ModelError("no model of known Lipschitz constant is shipped: name yours with --robust")
    for name in zoo_names():
        if zoo_card(name).recipe.get("name") == "interval":
            return name
    raise ModelError(
        "no model trained for bound propagation is shipped: train one (certmix train interval) and name it "
        "with --robust; others, such as cifar10-adversarial-linf, can be named but have radii near 0"
    )


def _expect(request: DeterministicRequest, loaded: Loaded, say: Callable[[str], None]) -> None:
    """Say what cannot be shown, before any image is looked at."""
    if request.alpha == 0.5:
        say("alpha = 0.5: the mix ties with the worst accurate classifier everywhere: raise --alpha")
    if isinstance(request.images, int) and request.images > len(loaded.dataset):
        say(f"{request.images} images asked for, the data has {len(loaded.dataset)}: all are used")


def run_identity(request: DeterministicRequest, loaded: Loaded) -> StudyIdentity:
    """Return what a request's stored figures depend on: it names the run folder."""
    study = next(study for study, certificate in STUDIES.items() if certificate == request.certificate)
    parts = {
        "data_checksum": loaded.dataset.checksum,
        "robust_checksum": loaded.robust.checksum,
        **request.identity(),
    }
    words = [loaded.dataset.name, loaded.robust.name]
    return StudyIdentity(study, "-".join([*words, *map(str, request.identity().values())][:4]), parts)


def _warn_near_chance(work: Work, found: Outcomes) -> None:
    models = {"robust": work.loaded.robust, "standard": work.loaded.standard}
    for role, model in models.items():
        predicted: IntArray | None = getattr(found, role)
        if model is None or predicted is None:
            continue
        right, total = int((predicted == found.labels).sum()), len(predicted)
        warning = chance_warning(model.name, right, total, work.loaded.dataset.classes)
        if warning:
            work.say(warning)
