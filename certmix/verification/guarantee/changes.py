"""Why samples are drawn or not: what changed since a guarantee was written and since its run was made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certmix.certification.deterministic_request import DeterministicRequest
from certmix.certification.request import CertifyRequest
from certmix.errors import RunError
from certmix.runs import Identity, StudyIdentity, read_run
from certmix.runs.behaviour import changed_parts
from certmix.runs.folder import DESCRIPTION
from certmix.runs.sources import Loaded
from certmix.verification.guarantee.guarantees import Guarantee

if TYPE_CHECKING:
    from certmix.models.spec import LoadedModel

__all__ = [
    "checksum_of",
    "model_changes",
    "no_run",
    "run_folders",
    "standard_changes",
    "what_changed",
    "what_is_done",
]

LOOKED_THROUGH = 200
"""Run folders that are looked through for one that serves, and to say what changed."""

_CHANGES = {
    "alpha": "alpha", "certificates": "certificate", "certificate": "certificate", "radii": "radii",
    "failure_probability": "failure probability", "bound": "bound", "images": "images",
    "samples": "samples", "goal": "goal", "relative_precision": "relative precision",
    "lipschitz_constant": "Lipschitz constant", "constant_of": "what it is a constant of", "norm": "norm",
}  # fmt: skip
"""Parts of a request that reuse what was drawn for another."""


def checksum_of(described: dict[str, Any], role: str) -> Any:
    """Return the checksum of a model in a run's description, None without one."""
    model = described["models"].get(role)
    return model.get("checksum") if isinstance(model, dict) else None


def _short(checksum: object) -> str:
    return str(checksum)[:12]


def model_changes(guarantee: Guarantee, loaded: Loaded) -> list[str]:
    """Say which unpinned models are not those that the guarantee was written with."""
    found = []
    for role, consequence in (
        ("robust", "its samples are its own"),
        ("standard", "no certificate rests on it"),
    ):
        claim, model = getattr(guarantee, role), getattr(loaded, role)
        if claim is not None and model is not None and claim.checksum not in (None, model.checksum):
            found.append(
                f"The {role} classifier changed since the guarantee was written "
                f"({_short(claim.checksum)} then, {_short(model.checksum)} now); {consequence}."
            )
    return found


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


def run_folders(identity: Identity | StudyIdentity, runs: Path) -> list[Path]:
    """Return the folders in `runs` that hold this identity, the one of the usual name first."""
    usual = runs / identity.folder_name()
    first = [usual] if (usual / DESCRIPTION).is_file() else []
    same = [folder for folder, differences in _others(identity, runs) if not differences]
    return list(dict.fromkeys([*first, *same]))


def _others(identity: Identity | StudyIdentity, runs: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield the run folders of the same study, by name, and in what they differ."""
    for path in sorted(runs.glob(f"*/{DESCRIPTION}"))[:LOOKED_THROUGH]:
        try:
            stored = read_run(path.parent).get("identity")
        except RunError:
            continue
        if isinstance(stored, dict) and str(stored.get("study", "certify")) == identity.study:
            yield path.parent, identity.differences(stored)


def no_run(
    identity: Identity | StudyIdentity,
    folder: Path,
    request: CertifyRequest | DeterministicRequest,
    count: int,
) -> list[str]:
    """Say that everything must be drawn, and in what the nearest run differs."""
    work = "sampled" if isinstance(request, CertifyRequest) else "computed"
    others = list(_others(identity, folder.parent))
    path, differences = min(others, key=lambda other: len(other[1]), default=(folder, []))
    seen = f"; the nearest run is {path.name} ({'; '.join(differences)})" if differences else ""
    return [f"No run of these data, model and noise is in {folder.parent}: {count} images are {work}{seen}."]


def what_is_done(
    request: CertifyRequest | DeterministicRequest,
    before: dict[str, Any],
    now: dict[str, Any],
    lacking: Sequence[int],
    count: int,
) -> list[str]:
    """Say what the stored run was asked differently, and how many images it is enough for."""
    changed = [
        f"{_CHANGES[name]} ({_listed(before.get(name))} before, {_listed(now[name])} now)"
        for name in now
        if name in _CHANGES and before.get(name) != now[name]
    ]
    what, done = ("samples", "drawn") if isinstance(request, CertifyRequest) else ("results", "computed")
    reason = f"Changed: {', '.join(changed)}. " if changed else ""
    if not lacking:
        return [f"{reason}The stored {what} of all {count} images are enough: nothing is {done}."]
    if not changed:
        reason = "The run was interrupted. "
    return [f"{reason}{count - len(lacking)} images have all {what}, {len(lacking)} lack some or all."]


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def standard_changes(described: dict[str, Any], loaded: Loaded, unanswered: int) -> list[str]:
    """Say so where the standard classifier must answer clean images."""
    if loaded.standard is None or not unanswered:
        return []
    before = checksum_of(described, "standard")
    changed = "changed" if before not in (None, loaded.standard.checksum) else "has not seen all images"
    return [
        f"The standard classifier {changed}: its answers to {unanswered} clean images are computed, "
        "for which no noise is drawn."
    ]
