"""A verification as text, JSON, Markdown, JUnit XML, or workflow commands of GitHub Actions."""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from certmix.errors import RunError, one_line
from certmix.verification.checks import SAMPLED_AGAIN, Outcome

if TYPE_CHECKING:
    from certmix.verification.verify import Verification

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
MARKS = {Outcome.HOLDS: "\u2713", Outcome.FAILS: "\u2717", Outcome.UNCHECKED: "?"}
WORDS = {Outcome.HOLDS: "holds", Outcome.FAILS: "does not hold", Outcome.UNCHECKED: "could not be checked"}

Row = tuple[str, str, Outcome, str]


def _rows(found: Verification) -> list[Row]:
    """Return (kind, name, outcome, message) of every requirement and check, on one line each."""
    judged = [("requirement", str(j.requirement), j.outcome, j.message) for j in found.judgements]
    checked = []
    for check in found.checks:
        more = " ..." if check.count > len(check.inputs) else ""
        inputs = f" (idx {', '.join(map(str, check.inputs))}{more})" if check.inputs else ""
        checked.append(("check", check.check, check.outcome, f"{check.message}{inputs}"))
    return [(kind, one_line(name), outcome, one_line(said)) for kind, name, outcome, said in judged + checked]


def _heading(found: Verification) -> str:
    return one_line(f"{found.kind} {found.target}: {WORDS[found.outcome]}")


def _facts(found: Verification) -> list[str]:
    """Return the run folder, what was sampled and why, and what the bounds mean, one line each."""
    lines = [] if found.run is None else [f"run: {found.run}"]
    if found.sampling is not None:
        done = found.sampling
        inputs = f"{done.reused_inputs:,} inputs reused, {done.drawn_inputs:,} drawn for"
        drawn = f"{done.drawn_samples:,} samples drawn."
        lines.append(" ".join([f"sampling: {inputs}, {drawn}", *done.why]))
    lines += [] if found.claim is None else found.claim.sentences()
    return [one_line(line) for line in lines]


def text(found: Verification, details: bool = True) -> str:
    """Return what people read on a terminal, gravest first; without `details` what holds in a paragraph."""
    lines = [_heading(found), *(f"  {fact}" for fact in _facts(found))]
    quiet = []
    gravest = sorted(_rows(found), key=lambda row: list(Outcome).index(row[2]), reverse=True)
    for kind, name, outcome, message in gravest:
        if details or kind == "requirement" or outcome is not Outcome.HOLDS or name in SAMPLED_AGAIN:
            lines.append(f"{MARKS[outcome]} {name}: {message}")
        else:
            quiet.append(name)
    if quiet:
        many = "check holds" if len(quiet) == 1 else f"{len(quiet)} checks hold"
        held = f"{MARKS[Outcome.HOLDS]} {many} (see --details): {', '.join(quiet)}"
        lines += textwrap.wrap(held, 100, subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(lines) + "\n"


def markdown(found: Verification) -> str:
    """Return a Markdown section with one table."""
    rows = [
        f"| {MARKS[outcome]} | {escaped(name)} | {escaped(message)} |"
        for _, name, outcome, message in _rows(found)
    ]
    facts = "\n".join(f"- {escaped(fact)}" for fact in _facts(found))
    table = "\n".join(["|   | what | found |", "| - | --- | --- |", *rows])
    parts = (f"## certmix verify: {escaped(_heading(found))}", table, facts)
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(words: str) -> str:
    """Return words of which Markdown makes nothing."""
    return re.sub(r"([\\`*_\[\]<>|#~&$@!])", r"\\\1", words)


def junit(found: Verification) -> str:
    """Return JUnit XML: one suite, one case a result; what could not be checked is an error."""
    rows = _rows(found)
    outcomes = [outcome for *_, outcome, _ in rows]
    failures, errors = (str(outcomes.count(one)) for one in (Outcome.FAILS, Outcome.UNCHECKED))
    totals = {"tests": str(len(rows)), "failures": failures, "errors": errors}
    root = ElementTree.Element("testsuites", {"name": "certmix verify", **totals})
    suite = ElementTree.SubElement(root, "testsuite", {"name": _xml(found.target), **totals, "skipped": "0"})
    claim = {} if found.claim is None else found.claim.as_dict()
    properties = ElementTree.SubElement(suite, "properties") if claim else suite
    for name, value in claim.items():
        if value is not None:
            ElementTree.SubElement(properties, "property", {"name": name, "value": _xml(str(value))})
    for kind, name, outcome, message in rows:
        case = ElementTree.SubElement(suite, "testcase", {"classname": f"certmix.{kind}", "name": _xml(name)})
        if outcome is Outcome.HOLDS:
            ElementTree.SubElement(case, "system-out").text = _xml(message)
        else:
            tag = "failure" if outcome is Outcome.FAILS else "error"
            problem = ElementTree.SubElement(case, tag, {"message": _xml(message), "type": str(outcome)})
            problem.text = _xml(message)
    ElementTree.SubElement(suite, "system-out").text = _xml("\n".join(_facts(found)))
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _xml(words: str) -> str:
    """Replace what XML 1.0 cannot hold, escaped or not."""
    return re.sub("[^\t\n\r\u0020-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010ffff]", "\ufffd", words)


def github(found: Verification) -> str:
    """Return workflow commands: an error for each result that does not hold, and a notice of the whole."""
    lines = []
    for kind, name, outcome, message in _rows(found):
        if outcome is Outcome.HOLDS:
            continue
        properties = {"title": f"certmix: {kind} {WORDS[outcome]}"}
        if kind == "requirement" and name in found.lines:
            # The path as the repository sees it, as annotations want it.
            root = Path(os.path.abspath(os.environ.get("GITHUB_WORKSPACE") or "."))
            full = Path(os.path.abspath(found.target))
            file = one_line((full.relative_to(root) if full.is_relative_to(root) else full).as_posix())
            properties = {"file": file, "line": str(found.lines[name])} | properties
        lines.append(_command("error", properties, f"{name}: {message}"))
    title = {"title": f"certmix verify: {WORDS[found.outcome]}"}
    lines.append(_command("notice", title, "\n".join([_heading(found), *_facts(found)])))
    return "\n".join(lines) + "\n"


def _command(name: str, properties: dict[str, str], message: str) -> str:
    """Return one workflow command, with everything escaped that would end or extend it."""
    escaped = {key: _data(value).replace(":", "%3A") for key, value in properties.items()}
    listed = ",".join(f"{key}={value.replace(',', '%2C')}" for key, value in escaped.items())
    return f"::{name} {listed}::{_data(message)}"


def _data(words: str) -> str:
    return words.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def append_summary(found: Verification) -> None:
    """Append the Markdown section to the job summary of GitHub Actions, where there is one; RunError."""
    place = os.environ.get(SUMMARY_VARIABLE)
    if not place:
        return
    try:
        with open(place, "a", encoding="utf-8") as file:
            file.write(markdown(found) + "\n")
    except OSError as error:
        told = f"the summary {place} cannot be written ({error.strerror})"
        raise RunError(f"{told}: mend ${SUMMARY_VARIABLE}, or unset it") from None


FORMATS: dict[str, Callable[[Verification], str]] = {
    "text": text, "json": lambda found: json.dumps(found.as_dict(), indent=2, allow_nan=False) + "\n",
    "junit": junit, "github": github, "markdown": markdown,
}  # fmt: skip
"""How a verification can be shown, by name."""
