"""The argument of AMLAS stage 5 (model verification) as a Markdown stub: what is known, and boxes to sign."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib.metadata import version
from importlib.resources import files

import jinja2

from certmix.assurance.facts import Facts
from certmix.assurance.in_toto import TEST_RESULT
from certmix.assurance.limits import POPULATION
from certmix.tables import render
from certmix.tables.words import PATCH
from certmix.text import plain_decimal
from certmix.verification.outputs import escaped, markdown

FILES = {
    "statement.json": "in-toto statement with the test result: to be signed",
    "ml-bom.cdx.json": "CycloneDX bill of materials, with figures and their intervals",
    "argument.md": "argument along AMLAS stage 5, with boxes to sign",
    "verification.json": "what certmix verify found",
    "verification.xml": "the same as JUnit",
    "proof.json": "counts, bounds, radii and inequalities behind the table",
    "check_proof.py": "checks the proof without certmix",
    "check_votes.py": "checks the proof of votes on all cases without certmix",
    "check_population.py": "checks the proof of a claim about a population without certmix",
    "report.html": "the run as a page, without pictures of inputs",
}
"""Files of the evidence, and what they are."""
LETTERS = {"robust classifier": " [V]", "standard classifier": " [V]", "data": " [P]"}


def argument_of(facts: Facts, made: Collection[str], left_out: dict[str, str]) -> str:
    """Return the stub; `made` are the files of the evidence, and `left_out` says why others are not there."""
    table = "" if facts.table is None else render(facts.table, "markdown")
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"escaped": escaped, "decimal": plain_decimal}
    template = (files("certmix.assurance") / "argument.md.j2").read_text(encoding="utf-8")
    text = environment.from_string(template).render(
        facts=facts, files=made, left_out=left_out, named=FILES.items(), version=version("certmix"),
        letters=LETTERS, domain=_domain(facts), judged=facts.found.judgements,
        claim=facts.found.claim, predicate=TEST_RESULT,
        blank="_" * 24, table=re.sub("^#+ ", "### ", table).rstrip(),
        log=markdown(facts.found).partition("\n\n")[2].rstrip(),
    )  # fmt: skip
    return re.sub("\n{3,}", "\n\n", text)


def _domain(facts: Facts) -> list[tuple[str, str]]:
    """Return of which inputs, and of which changes of them, something is claimed."""
    data, sources, count = facts.described["data"], facts.described["sources"], facts.request.inputs
    if (claim := facts.found.claim) is not None:
        where = f"{claim.population}" + (f"; {claim.domain}" if claim.domain else "")
        inputs, values, done, unit = where, claim.inputs, claim.preprocessing, f", in units of {claim.unit}"
    else:
        names = ("resize", "crop", "standard_normalize", "robust_normalize")
        told = [f"{name.replace('_', ' ')} {sources[name]}" for name in names if sources.get(name)]
        box, all_of = data.get("input_range"), f"{data['inputs']:,}"
        inputs = f"all {all_of}" if count == "all" else f"{count} of {all_of}, evenly spread"
        if facts.kind == POPULATION:
            inputs = f"draws at random from {all_of}"
        values, unit = "of any size" if box is None else f"from {box[0]:g} to {box[1]:g}", ""
        done = ", ".join(told) or "none by certmix"
    perturbed = f"all changes of an input of at most the radius in the {facts.norm} norm{unit}"
    if facts.norm == PATCH:
        perturbed = "all changes of an input within a square of the size that the table names"
    return [
        ("inputs", f"{inputs}; {len(data['class_names'])} classes"), ("values", values),
        ("preprocessing", done), ("perturbations", perturbed),
    ]  # fmt: skip
