"""Certificates without samples: verified margins, and networks of known Lipschitz constant."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from certmix.calling import call_model
from certmix.certification.describe import surroundings
from certmix.certification.deterministic_request import (
    LABEL,
    ROBUST,
    DeterministicRequest,
    GivenConstant,
    Margin,
    column_cell,
    margin_cell,
    standard_logits,
)
from certmix.certification.proved_table import Outcomes, derived, table_of_radii
from certmix.certification.publish import is_finished
from certmix.certification.request import check_batch_size
from certmix.certification.stored import remember_planned
from certmix.data import spread, stack
from certmix.errors import ModelError, ParameterError
from certmix.files import write_atomically
from certmix.margins.graph import Graph
from certmix.margins.propagation import certified_radius, margin_lower
from certmix.margins.translation import CHECKED, build_graph
from certmix.models.checks import chance_warning
from certmix.models.spec import LoadedModel
from certmix.models.zoo import zoo_card, zoo_names
from certmix.radii import margin_slack_of
from certmix.radii.constant import STEEPNESS, margin_threshold
from certmix.runs import Run, Store, StudyIdentity, engine
from certmix.runs.behaviour import Original
from certmix.runs.cells import Progress
from certmix.runs.engine import Engine, EngineChoice
from certmix.runs.opening import Named, open_run
from certmix.runs.sources import Loaded, Sources, load_models
from certmix.sampling import resolve_device
from certmix.tables import write_products
from certmix.text import floor_digits
from certmix.types import Curve, FloatArray, IntArray, Summary

__all__ = [
    "STUDIES",
    "Batch",
    "DeterministicResult",
    "Found",
    "Work",
    "fill",
    "fill_all",
    "graph_of",
    "keep_logits",
    "load",
    "refute_constant",
    "run_deterministic",
    "run_identity",
    "unfinished",
]

BATCH = {"margin": 10, "lipschitz-constant": 100}
"""Images that are worked on together, and kept together."""


@dataclass(frozen=True)
class Work:
    """What the steps of one run share; ``graph`` is the robust model's, for bound propagation only."""

    request: DeterministicRequest
    loaded: Loaded
    device: torch.device
    batch_size: int | None
    graph: Graph | None
    store: Store
    progress: Callable[[Progress], None] | None
    say: Callable[[str], None] = field(default=lambda message: None)

    @property
    def step(self) -> int:
        """Images in one batch."""
        return self.batch_size or BATCH[self.request.certificate]

    @property
    def bounded(self) -> nn.Module | Graph:
        """What bounds are propagated through."""
        return self.loaded.robust.module if self.graph is None else self.graph


def graph_of(request: DeterministicRequest, loaded: Loaded) -> Graph | None:
    """Return the robust model's layers, if bounds are to be propagated through them.

    They are compared with the model on images of the data.

    Raises
    ------
    ModelError
        As `certmix.margins.build_graph`.
    """
    if request.certificate != "margin":
        return None
    positions = spread(len(loaded.dataset), CHECKED)
    return build_graph(loaded.robust.module, torch.from_numpy(stack(loaded.dataset, positions)))


def fill(work: Work, positions: IntArray) -> None:
    """Compute what the store lacks of one batch of images, and keep it."""
    _logits(work, positions)
    if work.request.certificate == "margin":
        for alpha in _weights(work):
            _margins(work, positions, alpha)
            _columns(work, positions, alpha)


def unfinished(work: Work, positions: IntArray) -> set[int]:
    """Return the positions of which the store lacks anything that follows from the robust model."""
    found = set(_lacking(work, ROBUST, positions).tolist())
    if work.request.certificate != "margin":
        return found
    for alpha in _weights(work):
        missing = _lacking(work, margin_cell(alpha), positions)
        found.update(missing.tolist())
        for column, near in _near(work, np.setdiff1d(positions, missing), alpha):
            found.update(_lacking(work, column_cell(alpha, column), near).tolist())
    return found


def _weights(work: Work) -> list[float]:
    return list(dict.fromkeys(work.request.weights()))


def _lacking(work: Work, cell: str, positions: IntArray) -> IntArray:
    known, indices = work.store.known(cell), work.loaded.dataset.indices
    return np.array([p for p in positions.tolist() if int(indices[p]) not in known], np.int64)


def _inputs(work: Work, positions: IntArray) -> torch.Tensor:
    return torch.from_numpy(stack(work.loaded.dataset, positions))


def _logits(work: Work, positions: IntArray) -> None:
    """Keep both models' clean logits."""
    keep_logits(work, ROBUST, work.loaded.robust, positions)
    if work.loaded.standard is not None:
        keep_logits(work, standard_logits(work.loaded.standard.checksum), work.loaded.standard, positions)


def keep_logits(work: Work, cell: str, model: LoadedModel, positions: IntArray) -> None:
    """Keep a model's clean logits of images that lack them.

    Raises
    ------
    ModelError
        If one is not finite.
    """
    missing = _lacking(work, cell, positions)
    if not len(missing):
        return
    with torch.inference_mode():
        inputs = _inputs(work, missing).to(work.device)
        logits = call_model(model.module, inputs, model.name).double().cpu().numpy()
    if not np.isfinite(logits).all():
        index = work.loaded.dataset.indices[missing][~np.isfinite(logits).all(1)][0]
        raise ModelError(f"{model.name} gives image {index} logits that are not finite: check its weights")
    work.store.write(cell, work.loaded.dataset.indices[missing], logits)


def _classes(work: Work, positions: IntArray) -> IntArray:
    logits = work.store.read(ROBUST, work.loaded.dataset.indices[positions].tolist())
    return logits.argmax(1).astype(np.int64)


def _margins(work: Work, positions: IntArray, alpha: float) -> None:
    """Keep the radii that bisection verifies."""
    missing = _lacking(work, margin_cell(alpha), positions)
    if not len(missing):
        return
    request = work.request
    assert isinstance(request, Margin)
    found = certified_radius(
        work.bounded, _inputs(work, missing), _classes(work, missing), request.norm,
        margin_threshold(alpha, margin_slack_of(alpha)), max_eps=request.max_radius,
        tolerance=request.tolerance, method=request.bound_method,
        input_range=work.loaded.dataset.input_range, chunk=work.step,
    )  # fmt: skip
    share = np.full(len(missing), found.evaluations / len(missing))
    values = np.stack([found.radius, found.status.astype(np.float64), share], 1)
    work.store.write(margin_cell(alpha), work.loaded.dataset.indices[missing], values)


def _near(work: Work, positions: IntArray, alpha: float) -> list[tuple[float, IntArray]]:
    """Return each column of the table, and the positions whose bisection stopped just short of it."""
    indices = work.loaded.dataset.indices[positions]
    if not len(indices):
        return []
    radii: FloatArray = work.store.read(margin_cell(alpha), indices.tolist())[:, 0]
    assert isinstance(work.request, Margin)
    reach = radii + 2 * work.request.tolerance
    return [
        (column, positions[(radii < column) & (column <= reach) & (radii > 0)])
        for column in work.request.radii
    ]


def _columns(work: Work, positions: IntArray, alpha: float) -> None:
    """Look at columns of the table that bisection stopped just short of."""
    assert isinstance(work.request, Margin)
    for column, near in _near(work, positions, alpha):
        missing = _lacking(work, column_cell(alpha, column), near)
        if not len(missing):
            continue
        margins = margin_lower(
            work.bounded, _inputs(work, missing), _classes(work, missing), work.request.norm, column,
            method=work.request.bound_method, input_range=work.loaded.dataset.input_range,
            chunk=work.step,
        )  # fmt: skip
        verified = (margins >= margin_threshold(alpha, margin_slack_of(alpha))) & (margins > 0)
        cell = column_cell(alpha, column)
        work.store.write(cell, work.loaded.dataset.indices[missing], verified[:, None].astype(np.float64))


LOOKED_AT = 16
SLACK = 1e-3
"""Relative excess that rounding of the model's own arithmetic may explain."""


def refute_constant(work: Work, positions: IntArray) -> None:
    """Refuse a constant below a slope that the model shows at some image.

    The slope of z_y - z_i (or h_y - h_i), y and i the two largest, is the dual
    norm of its gradient; every valid constant is at least this slope over
    `STEEPNESS`.  A constant that passes is not thereby proved.

    Raises
    ------
    ParameterError
        If the constant is refuted.
    """
    request = work.request
    assert isinstance(request, GivenConstant)
    constant, what = request.given
    of_probabilities = what == "probabilities"
    key = f"slope of {'probabilities' if of_probabilities else 'logits'}, {request.norm}"
    known = work.store.get(key)
    if known is None:
        slope = _slope(work, positions[:: max(1, len(positions) // LOOKED_AT)], of_probabilities)
    else:
        slope = float(known)
    least = slope / STEEPNESS[what]
    if least > constant * (1 + SLACK):
        raise ParameterError(
            f"Lipschitz constant {constant:g}: {work.loaded.robust.name} is steeper than that at an image, "
            f"which needs {floor_digits(least, 4)} at least: give a proved upper bound "
            "(PyTorch's spectral_norm and orthogonal are none for convolutions)"
        )
    if known is None:
        work.store.put(key, repr(slope))


def _slope(work: Work, positions: IntArray, of_probabilities: bool) -> float:
    """Return the largest dual norm of the gradient of the leading difference; 0 where there is none."""
    inputs = torch.from_numpy(stack(work.loaded.dataset, positions)).to(work.device)
    largest = 0.0
    for part in inputs.split(work.step):
        x = part.clone().requires_grad_(True)
        with torch.enable_grad():
            values = call_model(work.loaded.robust.module, x, work.loaded.robust.name)
            if of_probabilities:
                values = values.double().softmax(1)
            first, second = values.topk(2, dim=1).values.unbind(1)
            difference = (first - second).sum()
            if not difference.requires_grad:
                return 0.0
            (gradient,) = torch.autograd.grad(difference, x)
        largest = max(largest, float(_dual(gradient.flatten(1).double(), work.request.norm).max()))
    return largest


def _dual(gradient: Tensor, norm: str) -> Tensor:
    """Return the norm (n,) dual to that of the inputs."""
    order = {"l2": 2.0, "linf": 1.0, "l1": float("inf")}[norm]
    return torch.linalg.vector_norm(gradient, order, dim=1)


Cells = dict[str, tuple[list[int], FloatArray]]
"""Indices and vectors (m, k) by cell."""


@dataclass(frozen=True)
class Batch:
    """Images that are worked on together, by position; the first one's index; what is known of them."""

    positions: IntArray
    index: int
    known: Cells


@dataclass(frozen=True)
class Found:
    """What a batch brought: all of it is known now."""

    positions: IntArray
    cells: Cells


def handler_of(work: Work) -> engine.Handler:
    """Return what works on batches until time is up, with what is loaded."""

    def handle(batches: list[Batch], seconds: float, take: engine.Take) -> list[Batch]:
        end = time.monotonic() + seconds
        for done, batch in enumerate(batches, 1):
            take(_found(work, batch))
            if time.monotonic() >= end:
                return batches[done:]
        return []

    return handle


def load(request: DeterministicRequest, named: Named, batch_size: int | None, device: str) -> engine.Handler:
    """Return such a handler in another process, which loads data and robust model itself.

    Raises
    ------
    RunError
        If they are not what the driver loaded.
    """
    chosen = torch.device(device)
    loaded = named.load(chosen)
    graph = graph_of(request, loaded)
    return handler_of(Work(request, loaded, chosen, batch_size, graph, Store(None), None))


def _found(base: Work, batch: Batch) -> Found:
    """Work on a batch with a store of its own, and return what is new."""
    work = replace(base, store=Store(None))
    try:
        for cell, (indices, vectors) in batch.known.items():
            work.store.write(cell, indices, vectors)
        fill(work, batch.positions)
        new: Cells = {}
        for cell in work.store.cells():
            before = batch.known[cell][0] if cell in batch.known else []
            indices = sorted(work.store.known(cell) - set(before))
            if indices:
                new[cell] = indices, work.store.read(cell, indices)
        return Found(batch.positions, new)
    finally:
        work.store.close()


def fill_all(work: Work, positions: IntArray, by: engine.Engine, named: Named) -> IntArray:
    """Compute what the store lacks, batch by batch; return the positions that it holds in full.

    A keyboard interrupt ends the work; batches in flight are lost.
    """
    start, step, done = time.monotonic(), work.step, set[int]()

    def take(found: Found) -> None:
        for cell, (indices, vectors) in found.cells.items():
            work.store.write(cell, indices, vectors)
        done.update(found.positions.tolist())
        if work.progress is not None:
            elapsed = time.monotonic() - start
            work.progress(Progress(len(done), len(positions), work.request.certificate, elapsed))

    batches = [positions[begin : begin + step] for begin in range(0, len(positions), step)]
    alone = replace(work, loaded=replace(work.loaded, standard=None))
    try:
        _standard_logits(work, batches)
        lacking, known = unfinished(work, positions), _known(work)
        for batch in batches:
            if lacking.isdisjoint(batch.tolist()):
                take(Found(batch, {}))
        wanted = [batch for batch in batches if not lacking.isdisjoint(batch.tolist())]
        by.run(
            engine.Work(
                here=lambda: handler_of(alone),
                elsewhere=lambda: partial(load, work.request, named, work.batch_size),
                name=lambda batch: f"the batch of image {batch.index}",
            ),
            _asked(work, wanted, known),
            take,
        )
    except KeyboardInterrupt:
        pass
    kept: IntArray = positions[np.isin(positions, np.array(sorted(done), np.int64))]
    return kept


def _standard_logits(work: Work, batches: list[IntArray]) -> None:
    """Keep the standard model's clean logits, which workers do not compute."""
    model = work.loaded.standard
    if model is None:
        return
    known, indices = work.store.known(standard_logits(model.checksum)), work.loaded.dataset.indices
    for batch in batches:
        if not known.issuperset(indices[batch].tolist()):
            keep_logits(work, standard_logits(model.checksum), model, batch)


def _known(work: Work) -> Cells:
    """Return what the store holds of the robust model."""
    model, cells = work.loaded.standard, Cells()
    for cell in work.store.cells():
        if model is None or cell != standard_logits(model.checksum):
            indices = sorted(work.store.known(cell))
            cells[cell] = indices, work.store.read(cell, indices)
    return cells


def _asked(work: Work, batches: list[IntArray], known: Cells) -> list[Batch]:
    """Return batches as they are handed out, each with what is known of its images."""
    asked = []
    for positions in batches:
        indices, cells = work.loaded.dataset.indices[positions], Cells()
        for cell, (held, vectors) in known.items():
            rows = np.flatnonzero(np.isin(np.array(held), indices))
            if len(rows):
                cells[cell] = [held[row] for row in rows], vectors[rows]
        asked.append(Batch(positions, int(indices[0]), cells))
    return asked


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
        As for `certmix.certification.run.run_certify`.  Bounds are propagated
        on the CPU, whatever the device.

    Raises
    ------
    CertmixError
        For anything the user can mend: a layer that bounds cannot be
        propagated through, a constant that the model refutes, and so on.
    """
    batch_size = check_batch_size(batch_size)
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
    told = surroundings(request.as_dict(), loaded, sources, chosen, step)

    def description(run: Run) -> dict[str, Any]:
        remember_planned(run.store, request.images, dataset.indices[positions].tolist())
        return {**told, "certified": True, "engine": workers.described}

    with open_run(
        identity, loaded, chosen, description, output=output, in_memory=in_memory, fresh=fresh,
        wanted=set(dataset.indices[positions].tolist()), step=step,
    ) as run:  # fmt: skip
        work = Work(request, loaded, chosen, batch_size, graph, run.store, progress, say)
        if request.certificate == "lipschitz-constant":
            refute_constant(work, positions)
        ready = fill_all(work, positions, workers, named)
        known = run.store.known(LABEL)
        new = [p for p in ready.tolist() if int(dataset.indices[p]) not in known]
        if new:
            run.store.write(LABEL, dataset.indices[new], dataset.labels[new, None])
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
