"""What the files of the evidence tell: a verification, its run and table, without what is private."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from certmix.assurance.limits import POPULATION, SAMPLED, Limit, limits_of
from certmix.assurance.private import Private
from certmix.certification.publish import show
from certmix.certification.request.population import Population
from certmix.certification.request.reading import Request
from certmix.certification.request.sampled import CertifyRequest
from certmix.errors import ParameterError, RunError
from certmix.files import BULK, TEXT, digest_of_file
from certmix.runs.folder import DATABASE, DESCRIPTION, with_paths
from certmix.tables.table import Table
from certmix.tables.words import summary_table
from certmix.types import Summary
from certmix.verification.checks import SAMPLED_AGAIN, Outcome, worst
from certmix.verification.judge import Judgement
from certmix.verification.request import VerifyRequest
from certmix.verification.stored import load
from certmix.verification.verify import Verification

EPOCH = "SOURCE_DATE_EPOCH"
LETTERS = {"robust": "h", "standard": "g"}
NOT_JUDGED = "no requirement was given"
NOT_AGAIN = "nothing was sampled or computed again (--resample 0)"


@dataclass(frozen=True)
class Artefact:
    """A model, the data or a file of the run: its SHA-256 (hex), and what that is of."""

    role: str
    name: str
    digest: str
    of: str


@dataclass(frozen=True)
class Facts:
    """What is told of one verification; nothing in it is private.

    `summary` is the table of a claim about a population, and None where a check failed: nobody vouches for
    the figures.  `guarantee` is the name and SHA-256 of the file that was verified, None of a run.
    """

    found: Verification
    how: dict[str, Any]
    described: dict[str, Any]
    request: Request | Population
    summary: Summary | Table | None
    artefacts: tuple[Artefact, ...]
    guarantee: tuple[str, str] | None
    time: str
    private: Private

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        assert self.found.run is not None
        return self.found.run.name

    @property
    def kind(self) -> str:
        """How the run certifies, as in `certmix.assurance.limits`."""
        if isinstance(self.request, Population):
            return POPULATION
        return SAMPLED if isinstance(self.request, CertifyRequest) else self.request.certificate

    @property
    def table(self) -> Table | None:
        """The table of the run, None where nobody vouches for its figures."""
        return summary_table(self.summary) if isinstance(self.summary, Summary) else self.summary

    @property
    def norm(self) -> str:
        """The norm of the radii, in words."""
        if isinstance(self.summary, Summary):
            return self.summary.norm
        return str(self.summary.data["norm"]) if self.summary and self.summary.data else "run's"

    @property
    def limits(self) -> list[Limit]:
        """What such a run does not say."""
        return limits_of(self.kind)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why a verification that holds is not all that could be asked for."""
        again = any(one.check in SAMPLED_AGAIN for one in self.found.checks)
        judged = self.found.kind == "guarantee"
        return (*(() if judged else (NOT_JUDGED,)), *(() if again else (NOT_AGAIN,)))

    @property
    def result(self) -> str:
        """PASSED for a guarantee that holds, WARNED for what holds in spite of doubts, else FAILED."""
        if self.found.outcome is not Outcome.HOLDS:
            return "FAILED"
        return "WARNED" if self.doubts else "PASSED"

    @property
    def meaning(self) -> str:
        """What the result means, in words."""
        if self.result == "FAILED":
            said = (("Does not hold", Outcome.FAILS), ("Could not be checked", Outcome.UNCHECKED))
            told = [f"{how}: {', '.join(names)}" for how, one in said if (names := self.names(one))]
            return f"{'. '.join(told)}."
        held = "The guarantee was verified, and every requirement and check holds."
        if NOT_JUDGED in self.doubts:
            held = "The run is what it says: every check holds. It was held against no requirement."
        return f"{held} {NOT_AGAIN[0].upper()}{NOT_AGAIN[1:]}." if NOT_AGAIN in self.doubts else held

    def names(self, outcome: Outcome) -> list[str]:
        """Return the requirements and checks of an outcome, by name."""
        judged = [str(one.requirement) for one in self.found.judgements if one.outcome is outcome]
        return judged + [one.check for one in self.found.checks if one.outcome is outcome]


def facts_of(found: Verification, request: VerifyRequest) -> Facts:
    """Return what is told of a verification; RunError if no run was reached."""
    if found.run is None:
        told = next((one.message for one in found.checks if one.outcome is not Outcome.HOLDS), "no run")
        raise RunError(f"{found.target} reached no run to make evidence of ({told}): mend that, and repeat")
    run, target, stored = found.run, Path(found.target), load(found.run)
    described = stored.description
    private = Private([str(found.target), str(run), request.runs, *_paths(described.get("sources"))])
    named = replace(
        found,
        target=private.text(target.resolve().name),
        run=Path(private.text(run.resolve().name)),
        checks=tuple(replace(one, message=private.text(one.message)) for one in found.checks),
        judgements=tuple(_judged(one, private.text) for one in found.judgements),
        claim=found.claim and found.claim.worded(private.text),
        sampling=found.sampling and found.sampling._replace(why=tuple(map(private.text, found.sampling.why))),
    )
    plain = private.plain({**described, "sources": with_paths(described["sources"], _last)})
    guarantee = None if os.path.isdir(target) else (named.target, digest_of_file(target, TEXT))
    asked = request.as_dict()
    names = ("resample", "resample_samples", "new_seed", "error_rate", "device", "run_code")
    return Facts(
        named, {name: asked[name] for name in names}, plain, stored.request,
        None if worst(found.checks) is Outcome.FAILS else _shown(run, private),
        tuple(_artefacts(run, plain)), guarantee, _time(run), private,
    )  # fmt: skip


def _judged(one: Judgement, change: Callable[[str], str]) -> Judgement:
    """Return a verdict with its texts changed: names of groups are the author's."""
    asked = one.requirement
    named = asked.replace(
        group=asked.group and change(asked.group), member=asked.member and change(asked.member)
    )
    return one._replace(requirement=named, message=change(one.message))


def _paths(sources: Any) -> list[str]:
    """Return the paths that sources name."""
    seen: list[str] = []

    def note(path: str) -> str:
        seen.append(path)
        return path

    with_paths(sources, note)
    return seen


def _last(path: str) -> str:
    return os.path.basename(path.replace("\\", "/").rstrip("/"))


def _shown(run: Path, private: Private) -> Summary | Table:
    """Return the table of a run, with names and notes that tell nothing private."""
    summary: Any = show(run)
    names = (
        "data",
        "notes",
        "details",
        *(("records",) if isinstance(summary, Table) else ("standard", "robust")),
    )
    texts: dict[str, Any] = {name: private.plain(getattr(summary, name)) for name in names}
    return replace(summary, **texts)  # type: ignore[no-any-return]


def _artefacts(run: Path, described: dict[str, Any]) -> Iterator[Artefact]:
    for role in LETTERS:
        if (model := described["models"].get(role)) is not None:
            yield Artefact(
                f"{role} classifier", str(model["name"]), str(model["checksum"]), "docs/models.md#checksums"
            )
    data = described["data"]
    about = "type, shape and values of inputs, labels and indices (docs/data.md)"
    yield Artefact("data", f"{data['name']}, {data['split']}", str(data["checksum"]), about)
    for name in (DESCRIPTION, DATABASE, f"{DATABASE}-wal"):
        if os.path.isfile(path := run / name) and path.stat().st_size:
            yield Artefact("run", name, digest_of_file(path, BULK), "the file")


def _time(run: Path) -> str:
    """Return when the run was published, or what SOURCE_DATE_EPOCH says, in UTC."""
    given = os.environ.get(EPOCH)
    try:
        seconds = (run / DESCRIPTION).stat().st_mtime if given is None else int(given)
        return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        raise ParameterError(f"{EPOCH} = {given!r:.40}: give whole seconds since 1970, or unset it") from None
