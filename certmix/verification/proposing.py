"""A guarantee from a run: what the run shows, less a step."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from certmix.certification.publish import refuse_unfinished
from certmix.certification.request.population import Population
from certmix.certification.request.sampled import CertifyRequest
from certmix.data import is_fetched, spread
from certmix.errors import ParameterError, RunError
from certmix.files import as_argument, write_atomically
from certmix.models.kinds import is_factory
from certmix.runs.folder import DESCRIPTION
from certmix.runs.sources import Sources, absolute, handed_over, load_data, with_classes
from certmix.text import floor_digits
from certmix.verification.guarantees.claim import Terms
from certmix.verification.guarantees.groups import checksum_of, groups_of
from certmix.verification.guarantees.guarantee import (
    GroupClaim,
    Guarantee,
    ModelClaim,
    guarantee_text,
    named_group,
    parse_guarantee,
    relative_claims,
)
from certmix.verification.guarantees.requirements import Requirement, written
from certmix.verification.judge import figure, figures_of
from certmix.verification.stored import load

HEADING = """A guarantee, checked by: certmix verify FILE
Requirements without "on value" are judged on lower bounds for the population of inputs."""


def propose(
    run: Path,
    path: Path,
    *,
    slack: float = 0.02,
    pin: bool = False,
    terms: Terms | None = None,
    groups: Mapping[str, GroupClaim] | None = None,
    per: Sequence[str] = (),
    budget: int | None = None,
    sources: Sources | None = None,
) -> tuple[Guarantee, dict[Requirement, str]]:
    """Return a guarantee whose thresholds lie `slack` below a run's lower bounds, and remarks.

    The bounds of all that was looked at hold together, so that it does not matter what the run showed before
    thresholds were chosen.  `per` are groups of whose members accuracies are asked for as well: ``class``, or
    one of `groups`, whose files are seen from the folder of `path`.  `sources` name the factories of data and
    models that a run had as Python objects.
    """
    if not 0 <= slack < 1:
        raise ParameterError(f"slack = {slack}: it must be at least 0 and below 1, such as 0.02")
    terms = terms or Terms()
    if terms.joint != "split":
        raise ParameterError(
            f"joint = {terms.joint}: thresholds below the bounds of a run need bounds that hold together: "
            "leave it out, or write it into a file whose thresholds were fixed before the run"
        )
    stored = load(Path(run))
    if isinstance(stored.request, Population):
        claim = f"population_certified_accuracy@{written(stored.request.at_radius)} >= SHARE"
        raise ParameterError(f"{run} is a claim about a population: write the guarantee yourself, of {claim}")
    refuse_unfinished(Path(run))
    described, request = stored.description, stored.request
    try:
        given = {} if sources is None else handed_over(described["sources"], sources.handed())
        if odd := [role for role, one in given.items() if not isinstance(one, str)]:
            told = "a file can only name it: give a factory, such as 'm.py:make'"
            raise ParameterError(f"{odd[0]} is an object: {told}")
        named: Sources = Sources.from_dict(described["sources"], Path(run) / DESCRIPTION, given=given)
        if "data" not in given and (is_factory(str(named.data)) or is_fetched(named.data)):
            what = "data on a network" if is_fetched(named.data) else "code"
            told = f"{named.data} is {what} that {run} names"
            shown = as_argument(str(named.data))
            raise ParameterError(f"{told}: read it, then name it yourself, with --data {shown}")
        dataset = load_data(named.as_user() if "data" in given else named)
        data, standard, robust = relative_claims(absolute(named.as_dict()), path.parent)
        if robust is None:  # the shipped one, which the run chose itself
            robust = ModelClaim(str(described["models"]["robust"]["spec"]))
        claims: list[Any] = [
            claim and claim.replace(checksum=str(described["models"][role]["checksum"]), pin=pin)
            for role, claim in (("standard", standard), ("robust", robust))
        ]
        data = data.replace(checksum=str(described["data"]["checksum"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{run}/run.json is damaged ({error}): restore it, or run it again") from None
    if dataset.checksum != data.checksum:
        raise RunError(f"{run} was made on other data than lie there now: restore the data, or run it again")
    dataset = with_classes(dataset, stored.classes)
    positions = spread(len(dataset), request.inputs)
    if isinstance(request, CertifyRequest):
        request = request.replace(certificates=request.certificates[:1])
    blank = Guarantee((), data, claims[0], claims[1], request, path, terms, dict(groups or {}), budget)
    names = groups_of(dataset, blank.groups, blank)
    found = figures_of(
        stored, dataset.indices[positions].tolist(), dataset.labels[positions],
        {name: own[positions] for name, own in names.items()},
    )  # fmt: skip
    if unknown := [one for one in per if one not in names]:
        raise ParameterError(f"group {unknown[0]} is unknown: use one of {', '.join(names)}")
    radii = [radius for radius in request.radii if radius > 0]
    clean = "robust" if standard is None else "mixed"
    wanted = [
        Requirement(clean, "clean_accuracy", None, 0.0),
        *(Requirement("mixed", "certified_accuracy", radius, 0.0) for radius in radii),
        Requirement("mixed", "mean_certified_radius", None, 0.0),
    ]
    for group in per:
        for member in sorted(set(found.groups[group].tolist())):
            part = {"group": group, "member": member}
            wanted += [one.replace(**part) for one in wanted[: 1 + len(radii[:1])]]
    wanted = [one for one in wanted if figure(one, found) is not None]
    proposed = {}
    for asked in wanted:
        seen = figure(asked, found, terms.missed(max(terms.bounds, len(wanted))))
        assert seen is not None
        value, lower = seen
        digits = 2
        threshold = lower - slack if asked.is_share else lower * (1 - slack)
        if threshold > 0 and not asked.is_share:  # two digits of its own
            digits = max(2, 1 - math.floor(math.log10(threshold)))
        threshold = float(floor_digits(max(threshold, 0.0), digits))
        if threshold > 0:
            shown = floor_digits(value, 4) if math.isfinite(value) else "unbounded"
            remark = f"seen: {shown}, lower bound {floor_digits(lower, 4)}"
            proposed[asked.replace(threshold=threshold)] = remark
    if not proposed:
        raise RunError(f"{run} shows nothing above {slack:g} to demand: give a smaller --slack")
    if len(proposed) < len(wanted):  # the others were looked at as well
        terms = terms.replace(bounds=max(terms.bounds, len(wanted)))
    held = {name: one.replace(checksum=checksum_of(names[name])) for name, one in blank.groups.items()}
    return replace(blank, requirements=tuple(proposed), terms=terms, groups=held), proposed


def proposed(
    run: Path, output: Path | None, *, groups: Sequence[str] = (), force: bool = False, **how: Any
) -> tuple[Guarantee, str]:
    """Write what `propose` proposes into a file, where there is one; return it and its text.

    `groups` are as `certmix.verification.guarantees.guarantee.named_group` reads them.
    """
    path = output or Path("guarantee.toml")
    if output is not None and os.path.exists(output) and not force:
        raise ParameterError(f"{output} exists: name another --output, or add --force to replace it")
    named = dict(named_group(one, path.parent) for one in groups)
    made, remarks = propose(run, path, groups=named, **how)
    content = guarantee_text(made, remarks=remarks, heading=HEADING)
    parse_guarantee(content, made.path)  # names of models and data may be such as no file can hold
    if output is not None:
        write_atomically(output, content.encode())
    return made, content
