"""Evidence of a run or a guarantee: verified, then written as one folder of files for auditors and tools."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import randbits
from tempfile import TemporaryDirectory
from typing import Any

from certmix.assurance.argument import FILES, argument_of
from certmix.assurance.facts import Facts, facts_of
from certmix.assurance.in_toto import statement_of
from certmix.assurance.limits import POPULATION
from certmix.assurance.ml_bom import bom_of
from certmix.certification.publish import refuse_unfinished
from certmix.certification.request.proved import Enumerated
from certmix.errors import CertmixError, ParameterError, RunError, describe
from certmix.files import digest_of, make_folder, remedy_of, unwritable
from certmix.page import render
from certmix.page.runs import read_page_run
from certmix.runs.folder import DESCRIPTION
from certmix.runs.sources import Sources
from certmix.tables.result import Result
from certmix.tables.table import Table
from certmix.types import Summary
from certmix.verification.figures import write_proof
from certmix.verification.outputs import FORMATS
from certmix.verification.proofs import check_population, check_proof, check_votes
from certmix.verification.request import VerifyRequest
from certmix.verification.verify import Verification, verify

__all__ = ["Evidence", "pack", "write_evidence"]


@dataclass(frozen=True, repr=False)
class Evidence(Result):
    """What was written: the folder, the SHA-256 of each file by its name, and what it comes to.

    ``result`` is PASSED, WARNED or FAILED, ``meaning`` that in words; ``verification`` is what it rests on.
    """

    folder: Path
    files: dict[str, str]
    result: str
    meaning: str
    verification: Verification

    @property
    def exit_code(self) -> int:
        """That of the verification: 0 holds, 1 falls short or was tampered with, 2 could not be checked."""
        return self.verification.exit_code

    @property
    def table(self) -> Table:
        """The files, a row each."""
        rows = tuple((name, FILES[name]) for name in self.files)
        return Table(
            "evidence", f"{self.folder}: {self.result}", self.meaning, ("file", "what it is"), rows,
            extra={"folder": str(self.folder), "result": self.result, "sha256": self.files},
        )  # fmt: skip


def prepared(target: str | Path, output: str | Path, request: VerifyRequest) -> VerifyRequest:
    """Return the request with its new seed drawn; RunError if `output` or the run will not do."""
    folder = Path(output)
    try:
        Path(target).resolve().name.encode()
    except UnicodeEncodeError as error:
        raise _no_text(error) from None
    try:
        taken = os.path.lexists(folder) and (not os.path.isdir(folder) or any(folder.iterdir()))
    except OSError as error:
        raise unwritable(folder, error) from error
    if taken:
        raise RunError(f"{folder} exists: name another --output, or remove it; evidence is not overwritten")
    if os.path.isdir(target):
        refuse_unfinished(Path(target))
    if request.proof is not None:
        raise ParameterError("proof is part of the evidence: leave it out")
    drawn = request.new_seed is None and request.resample > 0
    return request.replace(new_seed=randbits(48)) if drawn else request


def _no_text(error: UnicodeEncodeError) -> RunError:
    """Return the error of a name that evidence, which is UTF-8, cannot hold."""
    name = error.object[max(0, error.start - 30) : error.end + 30]
    return RunError(f"{name!r} is part of a name that is no text in UTF-8: rename that file or folder")


def write_evidence(
    target: str | Path,
    output: str | Path,
    request: VerifyRequest | None = None,
    *,
    sources: Sources | None = None,
    **how: Any,
) -> Evidence:
    """Verify a run or a guarantee, and write the evidence into a new folder.

    Parameters
    ----------
    target, request, sources, how
        As for `certmix.verification.verify.verify`; the proof file is part of the evidence.
    output
        A folder that does not exist, or is empty.

    Returns
    -------
    Evidence
        Of the same input and `new_seed` every file has the same bytes; its only time is SOURCE_DATE_EPOCH, or
        when the run was published.

    RunError if no run is reached, or the folder cannot be written.
    """
    asked = prepared(target, output, request or VerifyRequest())
    return pack(verify(target, asked, sources=sources, **how), asked, output)


def pack(found: Verification, request: VerifyRequest, output: str | Path) -> Evidence:
    """Write the evidence of a verification that was just made by `request`."""
    try:
        facts = facts_of(found, request)
        assert found.run is not None
        files = _files(facts, found.run)
    except CertmixError:
        raise
    except UnicodeEncodeError as error:
        raise _no_text(error) from None
    except OSError as error:
        told = f"{error.filename or found.run} cannot be read ({error.strerror or error})"
        raise RunError(f"{told}: {remedy_of(error, 'restore it from a copy')}") from None
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        told = f"{found.run}/{DESCRIPTION} is damaged ({describe(error)})"
        raise RunError(f"{told}: restore it, or run it again; certmix verify says more") from None
    folder = Path(output)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        make_folder(folder.parent)
        beside.mkdir()
        try:
            for name, content in files.items():
                (beside / name).write_bytes(content)
            if os.path.isdir(folder):
                folder.rmdir()
            os.replace(beside, folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    sums = {name: digest_of(content) for name, content in files.items()}
    return Evidence(folder, sums, facts.result, facts.meaning, found)


def _files(facts: Facts, run: Path) -> dict[str, bytes]:
    """Return the files by name."""
    left_out: dict[str, str] = {}
    files = {
        "verification.json": FORMATS["json"](facts.found).encode(),
        "verification.xml": FORMATS["junit"](facts.found).encode(),
        "ml-bom.cdx.json": _json(bom_of(facts)),
    }
    if facts.summary is None:
        left_out |= dict.fromkeys(("proof.json", "report.html"), "a check of the run fails.")
    else:
        shown, plain = read_page_run(run, 0), facts.private.plain
        own: dict[str, Any] = {"tables": (facts.summary,)}
        if shown.certified is not None and isinstance(facts.summary, Summary):
            own = {"certified": replace(shown.certified, summary=facts.summary)}
        page = replace(
            shown, name=facts.name, parameters=plain(shown.parameters), provenance=plain(shown.provenance),
            commands=plain(shown.commands), **own,
        )  # fmt: skip
        files["report.html"] = facts.private.known(render([page])).encode()
        try:
            with TemporaryDirectory() as place:
                write_proof(run, Path(place) / "proof.json")
                files["proof.json"] = (Path(place) / "proof.json").read_bytes()
            scripts = [check_votes] if isinstance(facts.request, Enumerated) else [check_proof]
            scripts += [check_population] * (facts.kind == POPULATION)  # which takes formulas from the other
            for source in (Path(str(script.__file__)) for script in scripts):
                files[source.name] = source.read_bytes()
        except ParameterError as error:
            left_out["proof.json"] = f"{error}."
    files["statement.json"] = _json(statement_of(facts, files))
    names = {*files, "argument.md"}
    files["argument.md"] = argument_of(facts, names, left_out).encode()
    return {name: files[name] for name in FILES if name in files}


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()
