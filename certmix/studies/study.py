"""What studies of two classifiers share: opening, publishing, and showing again.

A study takes a request (attack and inputs), sources (data and models) and surroundings, and returns a
`StudyResult`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from certmix.certification.describe import description
from certmix.data import spread, stack
from certmix.data.scales import refuse_scale
from certmix.errors import DataError, Interrupted, ModelError, RunError, brief, warn
from certmix.files import parse_json, write_atomically
from certmix.models.checks import chance_warning
from certmix.models.mixture import MixedClassifier
from certmix.models.spec import LoadedModel
from certmix.nuts.adaptive import DirectBypass, direct_bypass
from certmix.nuts.grid import Number
from certmix.nuts.mixture import NutsMixture
from certmix.runs import Run, Store, StudyIdentity, read_run
from certmix.runs.attack_request import AttackRequest, check_ball
from certmix.runs.attacking import Bench, attacked_outputs, blind_notes, fill, outputs
from certmix.runs.cells import Cell, Progress
from certmix.runs.folder import CERTIFY, DATABASE, command_of
from certmix.runs.opening import open_run
from certmix.runs.settings import Settings, fields, settings, too_many_inputs
from certmix.runs.sources import Loaded, Sources, load_models
from certmix.sampling import resolve_device
from certmix.studies import DEFAULTS, STUDIES
from certmix.tables.formats import write_files
from certmix.tables.result import Result
from certmix.tables.table import Table
from certmix.types import FloatArray, IntArray

__all__ = ["StudyResult", "Surroundings", "show_study"]

S = TypeVar("S", bound=Settings)

ROBUST = "cifar10-adversarial-linf"
"""The shipped robust classifier of empirical studies."""

SHOWN = "shown"
"""Key of a run's store: the `Shown` of the table that was published last."""

CLEAN, STD, ROB = "clean", "STD", "ROB"

LOOKED_AT = 50
"""Inputs on which it is looked whether a model is near chance, before the study begins."""


@dataclass(frozen=True)
class Surroundings:
    """Where and how a study runs; nothing here changes what it finds on one device type.

    ``output`` is the run folder, None for ``runs/<identity>``; ``in_memory`` keeps nothing; ``fresh`` starts
    over in an existing folder.  ``device`` is ``auto``, ``cpu``, ``cuda`` or ``mps``.  ``progress`` and
    ``say`` receive progress, and warnings of one line.
    """

    output: str | Path | None = None
    in_memory: bool = False
    fresh: bool = False
    device: str = "auto"
    progress: Callable[[Progress], None] | None = None
    say: Callable[[str], None] = warn


@dataclass(frozen=True, repr=False)
class StudyResult(Result):
    """What a study found: its table, its plots, and in ``data`` what these do not hold, None of most studies.

    A plot, by the stem of its file, takes ``png`` or ``svg`` and returns the content; ``files`` are others of
    the run folder, by name.  ``folder`` is where all lie; None in memory.
    """

    table: Table
    plots: Mapping[str, Callable[[str], bytes]] = field(default_factory=dict)
    data: Any = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def complete(self) -> bool:
        """Whether every input that was asked for is in it."""
        return self.table.complete


class Shown(msgspec.Struct, frozen=True):
    """The inputs and notes of a table, as the store keeps them."""

    indices: tuple[Number, ...]
    labels: tuple[Number, ...]
    cells: tuple[str, ...]
    blind: tuple[str, ...]
    complete: bool


@dataclass(frozen=True)
class Numbers:
    """What a study's table is made from: numbers of inputs, and names; no model and no data.

    ``asked`` holds identity and request of ``run.json``; ``blind`` are notes.
    """

    store: Store
    folder: Path | None
    asked: Mapping[str, Any]
    data: str
    models: Mapping[str, str]
    class_names: tuple[str, ...]
    indices: IntArray
    labels: IntArray
    cells: tuple[str, ...]
    blind: tuple[str, ...]
    complete: bool

    @classmethod
    def of(cls, store: Store, folder: Path | None, run: Mapping[str, Any], shown: Shown) -> Numbers:
        """Return those of a run from ``run.json`` and from what is kept as `SHOWN`."""
        return cls(
            store, folder, {**run["identity"], **run["request"]}, str(run["data"]["name"]),
            {role: str(one["name"]) for role, one in run["models"].items() if one},
            tuple(map(str, run["data"]["class_names"])), np.array(shown.indices, np.int64),
            np.array(shown.labels, np.int64), shown.cells, shown.blind, shown.complete,
        )  # fmt: skip

    def read(self, cell: str) -> FloatArray:
        """Return what a cell keeps of each input, float64 (m, k)."""
        return np.asarray(self.store.read(cell, self.indices.tolist()), np.float64)

    def pair(self, cell: str) -> tuple[Tensor, Tensor]:
        """Return both classifiers' logits (m, c) of a cell that keeps them side by side."""
        standard, robust = np.split(self.read(cell), 2, axis=1)
        return torch.from_numpy(standard), torch.from_numpy(robust)

    @cached_property
    def request(self) -> AttackRequest:
        return some(AttackRequest, self.asked)

    @property
    def provenance(self) -> str:
        """The note of a study that mixes: its data, its models, its seed."""
        return self.provenance_of(self.request.seed)

    def provenance_of(self, seed: int) -> str:
        """Return the same of a study with other settings."""
        models = "; ".join(f"{role} {self.models[role]}" for role in ("standard", "robust"))
        return f"Run: data {self.data}; {models}; seed {seed}."

    def publish(self, run: Run, found: StudyResult) -> StudyResult:
        """Write table, plots and files into the run folder, and keep what the table is made from.

        Partial ones do not replace those of a finished request: what was found is kept in the database.
        """
        found = replace(found, folder=run.path)
        if not found.complete and json.loads(run.store.get(SHOWN) or "{}").get("complete"):
            return found
        inputs = self.indices.tolist(), self.labels.tolist()
        shown = Shown(*inputs, self.cells, self.blind, self.complete)
        run.store.put(SHOWN, msgspec.json.encode(shown).decode())

        def write(folder: Path) -> None:
            write_files(folder, found.table, found.plots)
            for file, content in found.files.items():
                write_atomically(folder / file, content)

        run.publish(write)
        return found


@dataclass(frozen=True)
class Study:
    """An open study: its bench, its models, its folder, and what ``run.json`` is to say."""

    bench: Bench
    loaded: Loaded
    run: Run
    described: Mapping[str, Any]

    @property
    def pair(self) -> tuple[nn.Module, nn.Module]:
        """Both classifiers' modules, of a study that mixes."""
        assert self.loaded.standard is not None
        return self.loaded.standard.module, self.loaded.robust.module

    def both(self) -> list[Cell]:
        """Return the cells of both classifiers' logits: clean, and where each of them is attacked by itself.

        Points go on to be attacked after they are misclassified.
        """
        (g, h), kept = self.pair, partial(attacked_outputs, self.bench, self.pair)
        clean = Cell(CLEAN, lambda batch: outputs(self.pair, batch.inputs))
        return [clean, Cell(STD, partial(kept, STD, g, False)), Cell(ROB, partial(kept, ROB, h, False))]

    def mix(self, alpha: float, standard_temperature: float) -> nn.Module:
        """Return the mix to attack, in evaluation mode; of a one-hot g with the gradient of g as it is."""
        if standard_temperature != 0.0:
            return MixedClassifier(*self.pair, alpha, standard_temperature=standard_temperature).eval()
        return direct_bypass(MixedClassifier(*self.pair, alpha, standard_temperature=0.0).eval(), alpha)

    def fill(
        self, cells: Sequence[Cell], attacked: Sequence[str] = (), bench: Bench | None = None
    ) -> Numbers:
        """Compute what the cells lack; say where the attacks on the cells `attacked` may be blind."""
        bench = bench or self.bench
        held, complete = fill(bench, cells)
        if not len(held):
            raise Interrupted("interrupted before the first batch was done")
        notes = blind_notes(bench.store, attacked)
        for note in notes:
            bench.say(note)
        shown = Shown(
            bench.dataset.indices[held].tolist(), bench.dataset.labels[held].tolist(),
            tuple(cell.name for cell in cells), (*bench.blind, *notes), complete,
        )  # fmt: skip
        return Numbers.of(bench.store, self.run.path, self.described, shown)


def some(kind: type[S], asked: Mapping[str, Any]) -> S:
    """Make settings of those of the stored values that they know."""
    return settings(kind, {field.name: asked[field.name] for field in fields(kind) if field.name in asked})


@contextmanager
def stored_numbers(folder: Path, study: str | None = None) -> Iterator[Numbers]:
    """Open a run's numbers, those of the table that was published last; no model and no data are loaded.

    Another study, no table, or damage, also as the block finds it, is a RunError.
    """
    run = read_run(folder, study)
    with closing(Store(folder / DATABASE, read_only=True)) as store:
        text = store.get(SHOWN)
        if text is None:
            raise RunError(f"{folder} holds no table, its command did not finish: repeat it")
        try:
            numbers = Numbers.of(store, folder, run, msgspec.convert(parse_json(text.encode()), Shown))
            if not 0 < len(numbers.indices) == len(numbers.labels):
                raise ValueError(f"{len(numbers.indices)} inputs and {len(numbers.labels)} labels")
            yield numbers
        except (AttributeError, LookupError, TypeError, ValueError, msgspec.ValidationError) as error:
            told = brief(error, 100)
            raise RunError(f"{folder} is damaged ({told}): repeat its command with --fresh") from None


def show_study(folder: str | Path) -> Table:
    """Return the table that a study's run published last, made again from its numbers: no models, no data.

    A folder that is no such run, holds no table, or is damaged, is a RunError.
    """
    return shown_study(folder).table


def shown_study(folder: str | Path) -> StudyResult:
    """Return the table of `show_study`, with its plots."""
    folder = Path(folder)
    study = str(read_run(folder)["identity"].get("study", CERTIFY))
    if study not in STUDIES:
        commands = ", ".join(map(command_of, STUDIES))
        raise RunError(f"{folder} is a run of {command_of(study)}: name a run of {commands}")
    with stored_numbers(folder, study) as numbers:
        found: StudyResult = import_module(f"certmix.studies.{study.replace('-', '_')}").view(numbers)
        return found


@contextmanager
def open_study(
    name: str,
    request: AttackRequest,
    sources: Sources | None,
    where: Surroundings | None,
    *,
    asked: Mapping[str, Any],
    identity: Mapping[str, Any] | None = None,
    mixes: bool = True,
    loaded: Loaded | None = None,
    left_out: IntArray | None = None,
) -> Iterator[Study]:
    """Load data and models, open the run folder of a command, and describe the run in it.

    `asked` goes into ``run.json`` (plain data), `identity` is what else the records depend on.  A study that
    does not mix leaves the standard model alone.  `loaded` are data and models where the sources do not say
    how to load them; of the inputs `left_out`, by index, nothing may be reported.
    """
    sources, where, identity = sources or Sources(), where or Surroundings(), identity or {}
    device = resolve_device(where.device)
    if not mixes:
        sources = sources.replace(standard=None)
    if loaded is None:
        robust = ROBUST if sources.robust is None else sources.robust
        loaded = load_models(sources, robust, device, where.say)
    if mixes and loaded.standard is None:
        raise ModelError(f"{name} mixes two classifiers: name the accurate one with --standard")
    dataset = loaded.dataset
    refuse_scale(dataset, f"certmix {name}")
    warning = check_ball(request.eps, request.norm, dataset)
    by_queries = request.attack == "square" or identity.get("gradient_free")
    models = [model for model in (loaded.standard, loaded.robust) if model is not None]
    blind = () if by_queries else blind_mixes(models)
    for note in (*filter(None, [warning]), *blind):
        where.say(note)
    usable = np.flatnonzero(~np.isin(dataset.indices, [] if left_out is None else left_out))
    if len(usable) == 0:
        raise DataError(
            f"all {len(dataset)} inputs of {dataset.name} were used for tuning: evaluate on others"
        )
    if told := too_many_inputs(request, len(usable), DEFAULTS.get(name, {}).get("inputs")):
        where.say(told)
    positions = usable[spread(len(usable), request.inputs)]
    looked = positions[spread(len(positions), min(LOOKED_AT, len(positions)))]
    inputs = torch.from_numpy(stack(dataset, looked.tolist())).to(device)
    for model in reversed(models):  # before anything is attacked
        right = int((outputs([model.module], inputs).argmax(1) == dataset.labels[looked]).sum())
        warning = chance_warning(model.name, right, len(looked), dataset.classes)
        if warning and right * dataset.classes <= len(looked):
            where.say(warning)
    parts = {
        "data_checksum": dataset.checksum,
        "standard_checksum": None if loaded.standard is None else loaded.standard.checksum,
        "robust_checksum": loaded.robust.checksum,
        **request.identity(),
        **identity,
    }
    label = "-".join([dataset.name, *(model.name for model in models), request.attack, request.norm])
    known = StudyIdentity(name, label, parts)
    described = description({**request.as_dict(), **asked}, loaded, sources, device, request.batch_size)
    with open_run(
        known, loaded, device, lambda run: described,
        output=where.output, in_memory=where.in_memory, fresh=where.fresh, say=where.say,
    ) as run:  # fmt: skip
        bench = Bench(dataset, positions, device, request, run.store, where.progress, where.say, blind)
        yield Study(bench, loaded, run, {**described, "identity": known.as_dict()})


def surrogate_notes(standard_temperature: float) -> tuple[str, ...]:
    """Return what a table says of `Study.mix`, where its gradient is not its own."""
    told = (
        "A one-hot g has no gradient: attacks on the mix follow that of the mix with g as it is, and the mix "
        "itself judges what they find."
    )
    return (told,) if standard_temperature == 0.0 else ()


def _is_blind(module: nn.Module) -> bool:
    """Whether a module is, or holds, a mix whose standard model answers one-hot, without the bypass."""
    # At temperature 0 no gradient flows through that answer: Section 3.1 and Appendix B.2 of MixedNUTS.
    if isinstance(module, DirectBypass):
        return False
    if isinstance(module, NutsMixture | MixedClassifier) and module.standard_temperature == 0.0:
        return True
    return any(_is_blind(part) for part in module.children())


def blind_mixes(models: Sequence[LoadedModel]) -> tuple[str, ...]:
    """Return a note for each model that a search by gradients sees only in part."""
    notes = []
    for name in [model.name for model in models if _is_blind(model.module)]:
        instead = "give its certmix.nuts.adaptive.direct_bypass"
        if name.startswith("nuts:"):
            instead = f"name {name}#bypass"
        notes.append(
            f"{name}: attack may be blind: its one-hot g (standard temperature 0) gives no gradient, so it "
            f"seems more robust than it is; {instead} instead (docs/nuts-use.md#attack)"
        )
    return tuple(notes)
