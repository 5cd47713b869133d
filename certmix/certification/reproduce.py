"""Run a finished run again from its description and compare, input by input."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from certmix.certification.evaluate import CertifyResult, Evaluation
from certmix.certification.proved_table import radii_by_input
from certmix.certification.publish import derive, opened, refuse_unfinished
from certmix.certification.request.population import Population
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.run import Progress, run_certify
from certmix.data import is_fetched
from certmix.errors import RunError
from certmix.models.composed import is_code
from certmix.models.kinds import is_factory
from certmix.runs import Store, read_run
from certmix.runs.behaviour import hold_original
from certmix.runs.folder import DATABASE, DESCRIPTION
from certmix.runs.sources import Sources, handed_over
from certmix.sampling.compiling import has_compiler

ROLES = ("data", "standard", "robust", "denoiser")

__all__ = ["Difference", "Reproduction", "reproduce"]


@dataclass(frozen=True)
class Difference:
    """One input whose counts differ: how many of the compared samples voted otherwise."""

    index: int
    selection: int
    estimation: int


@dataclass(frozen=True)
class Reproduction:
    """The new result, inputs compared, and where their counts differ.

    Without samples ``compares`` is ``radii``, and what differs is in ``changed``.
    """

    result: CertifyResult
    compared: int
    differences: tuple[Difference, ...]
    changed: tuple[str, ...]
    compares: str = "counts"

    @property
    def equal(self) -> bool:
        """Whether all counts and all figures agree."""
        return not self.differences and not self.changed


def reproduce(
    folder: Path,
    output: Path,
    *,
    sources: Sources | None = None,
    device: str = "auto",
    run_code: bool = False,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> Reproduction:
    """Do what a run's ``run.json`` says once more, in the folder `output`, and compare.

    `sources` hold what stands for the Python objects of a run: these again, or the names of factories, whose
    products must have the same content.  `device`, `progress` and `say` are as for `certmix.certify`; noise
    is equal on one device type only.  Code that ``run.json`` names runs only with `run_code`: else it is a
    ModelError.  A run that cannot be read, or is not complete, is a RunError.
    """
    folder = Path(folder)
    refuse_unfinished(folder)
    described = read_run(folder)
    with opened(folder, described) as (request, store):
        if isinstance(request, Population):
            told = f"{folder} is a claim about a population"
            raise RunError(f"{told}: certmix verify draws some of it again, --fresh all")
        stored = described["sources"]
        given = {} if sources is None else handed_over(stored, sources.handed())
        named: Sources = Sources.from_dict(stored, folder / DESCRIPTION, run_code, given=given)
        if given and not any(_is_code(role, stored.get(role)) for role in ROLES if role not in given):
            named = named.as_user()
        batch_size = described.get("batch_size")
        if not isinstance(batch_size, int | None) or batch_size == 0:
            raise TypeError("a good batch size")
        before = _by_input(derive(request, store, described))
    with closing(Store(folder / DATABASE, read_only=True)) as store:
        result = run_certify(
            request, named, output=output, device=device, batch_size=batch_size,
            # a compiled model rounds otherwise
            compiled=described.get("compiled") is True and has_compiler(),
            progress=progress, say=say, like=partial(hold_original, folder, described, store),
        )  # fmt: skip
    after = _by_input(result.evaluation)
    common = [index for index in after if index in before]
    differences, changed = [], list[str]()
    for index in common:
        old, new = before[index], after[index]
        if isinstance(new, dict):
            changed += [
                f"input {index}: {column} {old.get(column)} before, {new[column]} now"
                for column in new
                if old.get(column) != new[column]
            ]
            continue
        last = max(old.estimation.keys() & new.estimation.keys(), default=None)
        estimation = 0 if last is None else _moved(old.estimation[last], new.estimation[last])
        if (selection := _moved(old.selection, new.selection)) or estimation:
            differences.append(Difference(index, selection, estimation))
    now = read_run(output)["identity"]
    changed += [
        f"{part}: {described['identity'].get(part)} before, {now.get(part)} now"
        for part in now
        if described["identity"].get(part) != now.get(part)
    ]
    compares = "counts" if isinstance(request, CertifyRequest) else "radii"
    if len(after) > len(common):
        changed.append(f"{len(after) - len(common)} inputs have no {compares} in {folder}")
    return Reproduction(result, len(common), tuple(differences), tuple(changed), compares)


def _is_code(role: str, spec: Any) -> bool:
    if role == "data":
        return is_fetched(spec) or (isinstance(spec, str) and is_factory(spec))
    return isinstance(spec, str) and is_code(spec)


def _by_input(found: Evaluation) -> dict[Any, Any]:
    """Return records by input, or the figures of a run without samples by name."""
    if found.bounds is None:
        return dict(radii_by_input(found.outcomes))
    return {record.index: record for record in found.records}


def _moved(one: np.ndarray, other: np.ndarray) -> int:
    """Return how many samples voted for another class, as far as counts can tell."""
    return int(np.abs(one - other).sum() // 2)
