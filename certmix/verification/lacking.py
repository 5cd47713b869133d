"""Which numbers a guarantee still lacks, and why; and drawing those, no more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certmix.certification import proved
from certmix.certification import run as sampled_run
from certmix.certification.deterministic_request import (
    ROBUST,
    DeterministicRequest,
    margin_cell,
    standard_logits,
)
from certmix.certification.evaluate import bound_records
from certmix.certification.proved import run_deterministic
from certmix.certification.publish import is_finished
from certmix.certification.request import CertifyRequest
from certmix.certification.run import run_certify
from certmix.data import spread
from certmix.errors import Interrupted, ParameterError, RunError
from certmix.runs import Identity, Run, StudyIdentity, read_run
from certmix.runs.behaviour import changed_parts, logits_key
from certmix.runs.folder import DATABASE, DESCRIPTION
from certmix.runs.sources import Loaded, Sources, load_models, load_sources
from certmix.sampling import resolve_device
from certmix.verification.guarantee import Guarantee, source_options
from certmix.verification.stored import opened, read_description

if TYPE_CHECKING:
    from certmix.models.spec import LoadedModel

LOOKED_THROUGH = 200
"""Run folders that are looked through for one that serves, and to say what changed."""
STOPPED = "interrupted before all samples of the guarantee were drawn"

_CHANGES = {
    "alpha": "alpha", "certificates": "certificate", "certificate": "certificate", "radii": "radii",
    "failure_probability": "failure probability", "bound": "bound", "images": "images",
    "samples": "samples", "goal": "goal", "relative_precision": "relative precision",
    "lipschitz_constant": "Lipschitz constant", "constant_of": "what it is a constant of", "norm": "norm",
}  # fmt: skip
"""Parts of a request that reuse what was drawn for another."""

Request = CertifyRequest | DeterministicRequest


@dataclass(frozen=True)
class Plan:
    """What is there and what is not.

    Parameters
    ----------
    folder
        Where the run lies, or will.
    stored
        The run whose samples serve, None where there is none.  One that is not `folder` is only read:
        what the guarantee can use of it is copied.
    indices, lacking
        Of the images that the guarantee is about, and those among them that need samples (or bounds).
    current
        Whether the run was finished for this very request and these models: nothing needs to be done.
    trusted
        Whether the stored run as it lies there can be checked whole before it is continued: of one that was
        interrupted, or made with another standard model or other sources, only what it stores can.
    why
        What will be done and for what reason, one sentence each.
    """

    folder: Path
    stored: Path | None
    indices: tuple[int, ...]
    lacking: tuple[int, ...]
    current: bool
    trusted: bool
    why: tuple[str, ...]


@dataclass(frozen=True)
class Sampling:
    """What was done.

    Parameters
    ----------
    reused_images, drawn_images
        Images whose stored samples were enough, and those that more was drawn (or computed) for.
    reused_samples, drawn_samples
        Samples that lay there for all these images, selection included, and those that were drawn.
    why
        Sentences that say what was done for what reason.
    """

    reused_images: int
    drawn_images: int
    reused_samples: int
    drawn_samples: int
    why: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "why": list(self.why)}


def load_guaranteed(guarantee: Guarantee, device: str, say: Callable[[str], None]) -> tuple[Sources, Loaded]:
    """Load data and models that a guarantee names, wherever the working directory is; CertmixError."""
    sources, chosen = Sources(**source_options(guarantee)), resolve_device(device)
    if isinstance(guarantee.request, CertifyRequest):
        return sources, load_sources(sources, guarantee.request.sigma, chosen, say)
    if sources.robust is None:
        raise ParameterError(f"{guarantee.path}: no robust classifier: name one in [robust]")
    return sources, load_models(sources, sources.robust, chosen, say)


def plan(guarantee: Guarantee, sources: Sources, loaded: Loaded, runs: Path) -> Plan:
    """Return what a guarantee lacks in the folder of runs `runs`, without changing anything.

    Raises
    ------
    RunError
        If runs are there, but none that can be read.
    """
    request, dataset = guarantee.asked, loaded.dataset
    indices = tuple(int(dataset.indices[p]) for p in spread(len(dataset), request.images))
    identity = _identity_of(request, loaded)
    usual = runs / identity.folder_name()
    same = [folder for folder, differences in _others(identity, runs) if not differences]
    found: list[_Stored] = []
    errors = []
    for folder in dict.fromkeys([*([usual] if (usual / DESCRIPTION).is_file() else []), *same]):
        try:
            found.append(_stored(folder, request, indices, sources, loaded))
        except RunError as error:
            errors.append(error)
    if errors and not found:
        raise errors[0]
    if not found:
        why = (*_model_changes(guarantee, loaded), _no_run(identity, usual, request, len(indices)))
        return Plan(usual, None, indices, indices, False, False, why)
    g = loaded.standard
    own = usual.with_name(f"{usual.name}.{request.name('' if g is None else g.checksum)[-8:]}")
    best = max(found, key=lambda one: (one.current, one.folder == own, *one.rank))
    continued = best.current or (best.asked and not best.trusted) or best.folder == own
    why = (
        *_model_changes(guarantee, loaded),
        _what_is_done(request, best.described["request"], best.lacking, len(indices)),
        *_standard_changes(best.described, loaded, best.unanswered),
        *([] if continued else [f"{best.folder} is only read: its samples are copied to {own.name}."]),
    )
    folder = best.folder if continued else own
    return Plan(folder, best.folder, indices, best.lacking, best.current, best.trusted, why)


@dataclass(frozen=True)
class _Stored:
    """A run of the identity, as far as it serves: what it lacks, and whether it is of this very request."""

    folder: Path
    described: dict[str, Any]
    lacking: tuple[int, ...]
    unanswered: int
    same_models: bool
    asked: bool
    trusted: bool

    @property
    def current(self) -> bool:
        """Whether nothing needs to be done."""
        return self.trusted and self.asked and not self.lacking and not self.unanswered

    @property
    def rank(self) -> tuple[Any, ...]:
        """How well it serves: as it is, to be gone on with, with the same g, with few samples to come."""
        begun = self.asked and not self.trusted
        return (self.current, begun, self.same_models, -len(self.lacking), -self.unanswered)


def _stored(
    folder: Path, request: Request, indices: tuple[int, ...], sources: Sources, loaded: Loaded
) -> _Stored:
    described = read_run(folder)
    if "request" in described:
        described, _ = read_description(folder)
    else:  # it was stopped before it began: nothing was asked for
        described = {**described, "request": {}, "models": {}}
    lacking, unanswered = _lacking(folder, request, indices, loaded)
    own = {role: None if model is None else model.checksum for role, model in loaded.models.items()}
    same_models = {role: _checksum_of(described, role) for role in own} == own
    same = same_models and described.get("sources") == _plain(sources.as_dict())
    asked = same and described["request"] == _plain(request.as_dict())
    return _Stored(
        folder, described, lacking, unanswered, same_models, asked, trusted=same and is_finished(folder)
    )


def _plain(settings: dict[str, Any]) -> Any:
    """Return settings as JSON has them: lists for tuples."""
    return json.loads(json.dumps(settings))


def _lacking(
    folder: Path, request: Request, indices: tuple[int, ...], loaded: Loaded
) -> tuple[tuple[int, ...], int]:
    """Return the images that want more, and how many answers of the standard classifier are missing."""
    g, known = loaded.standard, set(indices)
    with closing(opened(folder, loaded.dataset.classes)) as store:
        if isinstance(request, CertifyRequest):
            images = store.images()
            there = [images[i] for i in indices if i in images]
            waiting = bound_records(there, request).waiting.tolist() if there else []
            ready = {record.index for record, waits in zip(there, waiting, strict=True) if not waits}
            known = known if g is None else set(store.standard(g.checksum))
        else:
            margins = [margin_cell(alpha) for alpha in request.weights() if request.certificate == "margin"]
            ready = set.intersection(*(store.known(cell) for cell in [ROBUST, *margins]))
            known = known if g is None else store.known(standard_logits(g.checksum))
    unanswered = sum(index not in known for index in indices)
    return tuple(index for index in indices if index not in ready), unanswered


def _identity_of(request: Request, loaded: Loaded) -> Identity | StudyIdentity:
    """Return what the stored samples of a request depend on."""
    if isinstance(request, CertifyRequest):
        return sampled_run.run_identity(request, loaded)
    return proved.run_identity(request, loaded)


# What changed since a guarantee was written and since its run was made, in words.


def _checksum_of(described: dict[str, Any], role: str) -> Any:
    model = described["models"].get(role)
    return model.get("checksum") if isinstance(model, dict) else None


def _model_changes(guarantee: Guarantee, loaded: Loaded) -> Iterator[str]:
    """Say which unpinned models are not those that the guarantee was written with."""
    for role, consequence in (
        ("robust", "its samples are its own"),
        ("standard", "no certificate rests on it"),
    ):
        claim, model = getattr(guarantee, role), getattr(loaded, role)
        if claim is not None and model is not None and claim.checksum not in (None, model.checksum):
            yield (
                f"The {role} classifier changed since the guarantee was written "
                f"({claim.checksum[:12]} then, {model.checksum[:12]} now); {consequence}."
            )


def what_changed(runs: Path, checksum: str, model: LoadedModel) -> str:
    """Say which parts of a model changed since a run in `runs` was made with one of that checksum."""
    for path in sorted(runs.glob(f"*/{DESCRIPTION}"))[:LOOKED_THROUGH] if checksum != model.checksum else ():
        try:
            known = read_run(path.parent)["models"].values()
            before = [one["parts"] for one in known if one is not None and one["checksum"] == checksum]
        except (RunError, KeyError, TypeError, AttributeError):
            continue
        if before:
            return changed_parts(before[0], model.parts)
    return ""


def _others(identity: Identity | StudyIdentity, runs: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield the run folders of the same study, by name, and in what they differ."""
    for path in sorted(runs.glob(f"*/{DESCRIPTION}"))[:LOOKED_THROUGH]:
        try:
            stored = read_run(path.parent).get("identity")
        except RunError:
            continue
        if isinstance(stored, dict) and str(stored.get("study", "certify")) == identity.study:
            yield path.parent, identity.differences(stored)


def _no_run(identity: Identity | StudyIdentity, folder: Path, request: Request, count: int) -> str:
    """Say that everything must be drawn, and in what the nearest run differs."""
    work = "sampled" if isinstance(request, CertifyRequest) else "computed"
    others = list(_others(identity, folder.parent))
    path, differences = min(others, key=lambda other: len(other[1]), default=(folder, []))
    seen = f"; the nearest run is {path.name} ({'; '.join(differences)})" if differences else ""
    return f"No run of these data, model and noise is in {folder.parent}: {count} images are {work}{seen}."


def _what_is_done(request: Request, before: dict[str, Any], lacking: Sequence[int], count: int) -> str:
    """Say what the stored run was asked differently, and how many images it is enough for."""
    now = _plain(request.as_dict())
    changed = [
        f"{_CHANGES[name]} ({_listed(before.get(name))} before, {_listed(now[name])} now)"
        for name in now
        if name in _CHANGES and before.get(name) != now[name]
    ]
    what, done = ("samples", "drawn") if isinstance(request, CertifyRequest) else ("results", "computed")
    reason = f"Changed: {', '.join(changed)}. " if changed else ""
    if not lacking:
        return f"{reason}The stored {what} of all {count} images are enough: nothing is {done}."
    reason = reason or "The run was interrupted. "
    return f"{reason}{count - len(lacking)} images have all {what}, {len(lacking)} lack some or all."


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _standard_changes(described: dict[str, Any], loaded: Loaded, unanswered: int) -> list[str]:
    """Say so where the standard classifier must answer clean images."""
    if loaded.standard is None or not unanswered:
        return []
    before = _checksum_of(described, "standard")
    changed = "changed" if before not in (None, loaded.standard.checksum) else "has not seen all images"
    return [
        f"The standard classifier {changed}: its answers to {unanswered} clean images are computed, "
        "for which no noise is drawn."
    ]


# Drawing.


def draw(
    guarantee: Guarantee,
    sources: Sources,
    loaded: Loaded,
    planned: Plan,
    *,
    fresh: bool,
    device: str,
    batch_size: int | None,
    progress: Callable[[Any], None] | None,
    say: Callable[[str], None],
) -> Sampling:
    """Draw what is lacking by `run_certify` or `run_deterministic`, which reuse all that is stored.

    Raises
    ------
    Interrupted
        If it was interrupted; what was drawn is kept.
    """
    request = guarantee.asked
    if not fresh:
        _copy_stored(request, loaded, planned)
    lacking = planned.indices if fresh else planned.lacking
    before = 0 if fresh else _samples_of(planned, request, loaded)
    work: dict[str, Any] = {
        "output": planned.folder, "fresh": fresh, "device": device, "batch_size": batch_size,
        "progress": progress, "say": say,
    }  # fmt: skip
    run: Callable[..., Any] = run_certify if isinstance(request, CertifyRequest) else run_deterministic
    if not run(request, sources, **work).summary.complete:
        raise Interrupted(STOPPED)
    drawn = _samples_of(planned, request, loaded) - before
    return Sampling(len(planned.indices) - len(lacking), len(lacking), before, drawn, planned.why)


def untouched(guarantee: Guarantee, loaded: Loaded, planned: Plan) -> Sampling:
    """Return what is reported where nothing had to be done."""
    stored = _samples_of(planned, guarantee.asked, loaded)
    return Sampling(len(planned.indices), 0, stored, 0, planned.why)


def _samples_of(planned: Plan, request: Request, loaded: Loaded) -> int:
    """Return how many samples of a plan's images are stored, those of the selection included."""
    if not isinstance(request, CertifyRequest) or not (planned.folder / DATABASE).is_file():
        return 0
    with closing(opened(planned.folder, loaded.dataset.classes)) as store:
        images = store.images()
    found = [images[index] for index in planned.indices if index in images]
    return sum(record.drawn + request.selection_samples for record in found)


def _copy_stored(request: Request, loaded: Loaded, planned: Plan) -> None:
    """Copy what a guarantee can use of a plan's stored run to its folder, unless these are one."""
    source, target = planned.stored, planned.folder
    if source is None or source == target:
        return
    wanted, classes = set(planned.indices), loaded.dataset.classes
    sums = [model.checksum for model in loaded.models.values() if model is not None]
    identity = _identity_of(request, loaded)
    with closing(opened(source, classes)) as stored, Run(target, identity, classes) as run:
        for key in ["bound", "fixed_samples", *map(logits_key, sums)]:
            if (value := stored.get(key)) is not None:
                run.store.put(key, value)
        sampled = isinstance(request, CertifyRequest)
        if sampled:
            run.store.write_images(one for index, one in stored.images().items() if index in wanted)
        for cell in stored.cells():
            answers = cell.startswith("standard ")
            indices = sorted(stored.known(cell) & wanted)
            if indices and (cell.rpartition(" ")[2] in sums if answers else not sampled):
                run.store.write(cell, indices, stored.read(cell, indices))
