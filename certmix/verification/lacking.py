"""Which numbers a guarantee still lacks, and why; and drawing those, no more."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from certmix.certification.describe import identity_of
from certmix.certification.evaluate import bound_records
from certmix.certification.publish import is_finished
from certmix.certification.request import CertifyRequest, DeterministicRequest, needed_cells, standard_logits
from certmix.certification.run import run_certify
from certmix.data import spread
from certmix.errors import Interrupted, RunError
from certmix.files import digest_of
from certmix.runs import Run, read_run
from certmix.runs.behaviour import changed_parts, logits_key
from certmix.runs.folder import CERTIFY, DATABASE, DESCRIPTION
from certmix.runs.sources import Loaded, Sources
from certmix.verification.guarantee import Guarantee
from certmix.verification.stored import opened, read_description

if TYPE_CHECKING:
    from certmix.models.spec import LoadedModel

LOOKED_THROUGH = 200
"""Run folders that are looked through for one that serves, and to say what changed."""

_NAMES = {
    "certificates": "certificate",
    "lipschitz_constant": "Lipschitz constant",
    "constant_of": "what it is a constant of",
}
"""Parts of a request whose names are not their words."""

Request = CertifyRequest | DeterministicRequest


class Plan(NamedTuple):
    """What is there and what is not.

    ``folder`` is where the run lies, or will; ``stored`` the run whose samples serve, None where there is
    none: one that is not `folder` is only read, and what the guarantee can use of it is copied.
    ``lacking`` are those of the images (``indices``) that need samples, or bounds.  ``current``: the run was
    finished for this very request and these models, nothing needs to be done.  ``trusted``: the stored run
    can be checked whole before it is continued; of one that was interrupted, or made with another standard
    model or other sources, only what it stores can.  ``why`` says what will be done for what reason.
    """

    folder: Path
    stored: Path | None
    indices: tuple[int, ...]
    lacking: tuple[int, ...]
    current: bool
    trusted: bool
    why: tuple[str, ...]


class Sampling(NamedTuple):
    """What was done: images reused and drawn for, samples (selection included) reused and drawn."""

    reused_images: int
    drawn_images: int
    reused_samples: int
    drawn_samples: int
    why: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**self._asdict(), "why": list(self.why)}


def plan(guarantee: Guarantee, sources: Sources, loaded: Loaded, runs: Path) -> Plan:
    """Return what a guarantee lacks in the folder of runs `runs`, without changing anything.

    RunError if runs are there, but none that can be read.
    """
    request, dataset, g = guarantee.asked, loaded.dataset, loaded.standard
    indices = tuple(int(dataset.indices[p]) for p in spread(len(dataset), request.images))
    identity = identity_of(request, loaded)
    usual = runs / identity.folder_name()
    others = [
        (folder, identity.differences(stored))
        for folder, described in _run_folders(runs)
        if isinstance(stored := described.get("identity"), dict)
        and str(stored.get("study", CERTIFY)) == identity.study
    ]
    same = [folder for folder, differences in others if not differences]
    found: list[_Stored] = []
    errors = []
    for folder in dict.fromkeys([*([usual] if (usual / DESCRIPTION).is_file() else []), *same]):
        try:
            found.append(_stored(folder, request, indices, sources, loaded))
        except RunError as error:
            errors.append(error)
    if errors and not found:
        raise errors[0]
    why = []
    for role, so in (("robust", "its samples are its own"), ("standard", "no certificate rests on it")):
        claim, model = getattr(guarantee, role), getattr(loaded, role)
        if claim is not None and model is not None and claim.checksum not in (None, model.checksum):
            why.append(
                f"The {role} classifier changed since the guarantee was written "
                f"({claim.checksum[:12]} then, {model.checksum[:12]} now); {so}."
            )
    if not found:
        work = "sampled" if isinstance(request, CertifyRequest) else "computed"
        path, differences = min(others, key=lambda other: len(other[1]), default=(usual, []))
        seen = f"; the nearest run is {path.name} ({'; '.join(differences)})" if differences else ""
        none = f"No run of these data, model and noise is in {runs}: {len(indices)} images are {work}{seen}."
        return Plan(usual, None, indices, indices, False, False, (*why, none))
    own = usual.with_name(
        f"{usual.name}.{digest_of([request.as_dict(), '' if g is None else g.checksum])[:8]}"
    )

    def rank(one: _Stored) -> tuple[Any, ...]:
        """How well it serves: as it is, to be gone on with, with the same g, with few samples to come."""
        begun = one.asked and not one.trusted
        few = -len(one.lacking), -one.unanswered
        return (one.current, one.folder == own, begun, one.same_models, *few)

    best = max(found, key=rank)
    continued = best.current or (best.asked and not best.trusted) or best.folder == own
    why.append(_what_is_done(request, best.described["request"], best.lacking, len(indices)))
    if g is not None and best.unanswered:
        before = _checksum_of(best.described, "standard")
        changed = "changed" if before not in (None, g.checksum) else "has not seen all images"
        why.append(
            f"The standard classifier {changed}: its answers to {best.unanswered} clean images are computed, "
            "for which no noise is drawn."
        )
    if not continued:
        why.append(f"{best.folder} is only read: its samples are copied to {own.name}.")
    folder = best.folder if continued else own
    return Plan(folder, best.folder, indices, best.lacking, best.current, best.trusted, tuple(why))


class _Stored(NamedTuple):
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


def _stored(
    folder: Path, request: Request, indices: tuple[int, ...], sources: Sources, loaded: Loaded
) -> _Stored:
    described = read_run(folder)
    if "request" in described:
        described, _ = read_description(folder)
    else:  # it was stopped before it began: nothing was asked for
        described = {**described, "request": {}, "models": {}}
    g, answered = loaded.standard, set(indices)
    with closing(opened(folder, loaded.dataset.classes)) as store:
        if isinstance(request, CertifyRequest):
            images = store.images()
            there = [images[i] for i in indices if i in images]
            waiting = bound_records(there, request).waiting.tolist() if there else []
            ready = {record.index for record, waits in zip(there, waiting, strict=True) if not waits}
            answered = answered if g is None else set(store.standard(g.checksum))
        else:
            ready = set.intersection(*map(store.known, needed_cells(request)))
            answered = answered if g is None else store.known(standard_logits(g.checksum))
    own = {role: None if model is None else model.checksum for role, model in loaded.models.items()}
    same_models = {role: _checksum_of(described, role) for role in own} == own
    same = same_models and described.get("sources") == _plain(sources.as_dict())
    asked = same and described["request"] == _plain(request.as_dict())
    lacking = tuple(index for index in indices if index not in ready)
    unanswered = sum(index not in answered for index in indices)
    trusted = same and is_finished(folder)
    return _Stored(folder, described, lacking, unanswered, same_models, asked, trusted)


def _plain(settings: dict[str, Any]) -> Any:
    """Return settings as JSON has them: lists for tuples."""
    return json.loads(json.dumps(settings))


def _run_folders(runs: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the readable run folders of a folder, by name, with their descriptions."""
    for path in sorted(runs.glob(f"*/{DESCRIPTION}"))[:LOOKED_THROUGH]:
        with suppress(RunError):
            yield path.parent, read_run(path.parent)


# What changed since a guarantee was written and since its run was made, in words.


def _checksum_of(described: dict[str, Any], role: str) -> Any:
    model = described["models"].get(role)
    return model.get("checksum") if isinstance(model, dict) else None


def what_changed(runs: Path, checksum: str, model: LoadedModel) -> str:
    """Say which parts of a model changed since a run in `runs` was made with one of that checksum."""
    for _, described in _run_folders(runs) if checksum != model.checksum else ():
        with suppress(KeyError, TypeError, AttributeError):
            known = described["models"].values()
            before = [one["parts"] for one in known if one is not None and one["checksum"] == checksum]
            if before:
                return changed_parts(before[0], model.parts)
    return ""


def _what_is_done(request: Request, before: dict[str, Any], lacking: Sequence[int], count: int) -> str:
    """Say what the stored run was asked differently, and how many images it is enough for."""
    now = _plain(request.as_dict())
    changed = []
    for name in now:
        if before.get(name) != now[name]:
            was, wanted = (
                ", ".join(map(str, value)) if isinstance(value, list) else str(value)
                for value in (before.get(name), now[name])
            )
            changed.append(f"{_NAMES.get(name, name.replace('_', ' '))} ({was} before, {wanted} now)")
    what, done = ("samples", "drawn") if isinstance(request, CertifyRequest) else ("results", "computed")
    reason = f"Changed: {', '.join(changed)}. " if changed else ""
    if not lacking:
        return f"{reason}The stored {what} of all {count} images are enough: nothing is {done}."
    reason = reason or "The run was interrupted. "
    return f"{reason}{count - len(lacking)} images have all {what}, {len(lacking)} lack some or all."


# Drawing.


def draw(
    guarantee: Guarantee,
    sources: Sources,
    loaded: Loaded,
    planned: Plan,
    *,
    fresh: bool,
    **work: Any,
) -> Sampling:
    """Draw what is lacking by `run_certify`, which reuses all that is stored; `work` are its options.

    Interrupted if it was; what was drawn is kept.
    """
    request = guarantee.asked
    if planned.current and not fresh:
        return Sampling(len(planned.indices), 0, _samples_of(planned, request, loaded), 0, planned.why)
    if not fresh:
        _copy_stored(request, loaded, planned)
    lacking = planned.indices if fresh else planned.lacking
    before = 0 if fresh else _samples_of(planned, request, loaded)
    if not run_certify(request, sources, output=planned.folder, fresh=fresh, **work).summary.complete:
        raise Interrupted("interrupted before all samples of the guarantee were drawn")
    drawn = _samples_of(planned, request, loaded) - before
    return Sampling(len(planned.indices) - len(lacking), len(lacking), before, drawn, planned.why)


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
    identity = identity_of(request, loaded)
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
