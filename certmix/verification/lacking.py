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


class Stored(NamedTuple):
    """A run of a guarantee's identity: what it lacks for the guarantee, and what it was made for.

    ``lacking`` are the images that need samples, or bounds, ``unanswered`` the number of those of which g's
    answer is not there.  ``asked``: it was made for this very request, with these models and sources.
    ``trusted``: it can be checked whole before it is continued; of one that was interrupted, or made with
    another standard model or other sources, only what it stores can.
    """

    folder: Path
    request: dict[str, Any]
    standard: str | None
    lacking: tuple[int, ...]
    unanswered: int
    same_models: bool
    asked: bool
    trusted: bool

    @property
    def current(self) -> bool:
        """Whether nothing needs to be done."""
        return self.trusted and self.asked and not self.lacking and not self.unanswered


class Plan(NamedTuple):
    """What will be done, and for what reason.

    ``folder`` is where the run lies, or will; ``found`` the run whose samples serve, None where there is
    none: one that is not in `folder` is only read, and what the guarantee can use of it is copied.
    """

    folder: Path
    indices: tuple[int, ...]
    found: Stored | None
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
    found: list[Stored] = []
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
        return Plan(usual, indices, None, (*why, none))
    own = usual.with_name(
        f"{usual.name}.{digest_of([request.as_dict(), '' if g is None else g.checksum])[:8]}"
    )

    def rank(one: Stored) -> tuple[Any, ...]:
        """How well it serves: as it is, to be gone on with, with the same g, with few samples to come."""
        begun = one.asked and not one.trusted
        few = -len(one.lacking), -one.unanswered
        return (one.current, one.folder == own, begun, one.same_models, *few)

    best = max(found, key=rank)
    continued = best.current or (best.asked and not best.trusted) or best.folder == own
    why.append(_what_is_done(request, best.request, best.lacking, len(indices)))
    if g is not None and best.unanswered:
        changed = "changed" if best.standard not in (None, g.checksum) else "has not seen all images"
        why.append(
            f"The standard classifier {changed}: its answers to {best.unanswered} clean images are computed, "
            "for which no noise is drawn."
        )
    if not continued:
        why.append(f"{best.folder} is only read: its samples are copied to {own.name}.")
    return Plan(best.folder if continued else own, indices, best, tuple(why))


def _stored(
    folder: Path, request: Request, indices: tuple[int, ...], sources: Sources, loaded: Loaded
) -> Stored:
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
            ready = {record.index for record in bound_records(there, request).records}
            answered = answered if g is None else set(store.standard(g.checksum))
        else:
            ready = set.intersection(*map(store.known, needed_cells(request)))
            answered = answered if g is None else store.known(standard_logits(g.checksum))
    own = {role: None if model is None else model.checksum for role, model in loaded.models.items()}
    models = {role: described["models"].get(role) for role in own}
    sums = {role: one.get("checksum") if isinstance(one, dict) else None for role, one in models.items()}
    same_models = sums == own
    same = same_models and described.get("sources") == _plain(sources.as_dict())
    asked = same and described["request"] == _plain(request.as_dict())
    lacking = tuple(index for index in indices if index not in ready)
    unanswered = sum(index not in answered for index in indices)
    trusted = same and is_finished(folder)
    before = described["request"], sums["standard"]
    return Stored(folder, *before, lacking, unanswered, same_models, asked, trusted)


def _plain(settings: dict[str, Any]) -> Any:
    """Return settings as JSON has them: lists for tuples."""
    return json.loads(json.dumps(settings))


def _run_folders(runs: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the readable run folders of a folder, by name, with their descriptions."""
    for path in sorted(runs.glob(f"*/{DESCRIPTION}"))[:LOOKED_THROUGH]:
        with suppress(RunError):
            yield path.parent, read_run(path.parent)


# What changed since a guarantee was written and since its run was made, in words.


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
    guarantee: Guarantee, sources: Sources, loaded: Loaded, planned: Plan, *, fresh: bool, **work: Any
) -> Sampling:
    """Draw what is lacking by `run_certify`, which reuses all that is stored; `work` are its options.

    Interrupted if it was; what was drawn is kept.
    """
    request, classes, wanted = guarantee.asked, loaded.dataset.classes, set(planned.indices)
    folder, found, sampled = planned.folder, planned.found, isinstance(guarantee.asked, CertifyRequest)

    def samples() -> int:
        """Return how many samples of the images are stored, those of the selection included."""
        if not isinstance(request, CertifyRequest) or not (folder / DATABASE).is_file():
            return 0
        with closing(opened(folder, classes)) as store:
            drawn = [one.drawn for index, one in store.images().items() if index in wanted]
        return sum(drawn) + request.selection_samples * len(drawn)

    if found is not None and found.current and not fresh:
        return Sampling(len(wanted), 0, samples(), 0, planned.why)
    if found is not None and found.folder != folder and not fresh:  # copy what can be used of it
        sums = [model.checksum for model in loaded.models.values() if model is not None]
        identity = identity_of(request, loaded)
        with closing(opened(found.folder, classes)) as stored, Run(folder, identity, classes) as run:
            for key in ["bound", "fixed_samples", *map(logits_key, sums)]:
                if (value := stored.get(key)) is not None:
                    run.store.put(key, value)
            if sampled:
                run.store.write_images(one for index, one in stored.images().items() if index in wanted)
            for cell in stored.cells():
                answers = cell.startswith("standard ")
                indices = sorted(stored.known(cell) & wanted)
                if indices and (cell.rpartition(" ")[2] in sums if answers else not sampled):
                    run.store.write(cell, indices, stored.read(cell, indices))
    lacking = planned.indices if fresh or found is None else found.lacking
    before = 0 if fresh else samples()
    if not run_certify(request, sources, output=folder, fresh=fresh, **work).summary.complete:
        raise Interrupted("interrupted before all samples of the guarantee were drawn")
    return Sampling(len(wanted) - len(lacking), len(lacking), before, samples() - before, planned.why)
