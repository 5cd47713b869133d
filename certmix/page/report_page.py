"""`certmix report`: what run folders hold, as one HTML page.  No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from certmix.atomic import write_atomically
from certmix.errors import ParameterError, RunError
from certmix.page import GENERATOR, CertifiedRun, StudyRun, page
from certmix.page.report_page_facts import commands, looks_of, parameters, provenance, split_of
from certmix.page.report_page_images import gallery
from certmix.page.report_page_results import plain_results, sampled_results
from certmix.page.report_page_sheets import plots, tables
from certmix.runs import read_run
from certmix.runs.identity import CERTIFY
from certmix.tables.words import DETERMINISTIC

__all__ = ["PICTURES", "read_page_run", "report_page", "write_report"]

PICTURES = 6
"""Images of each group that a page shows."""
FILE = "report.html"


def report_page(runs: Sequence[str | Path], *, title: str | None = None, images: int = PICTURES) -> str:
    """Return one self-contained HTML page about one or several run folders.

    Parameters
    ----------
    runs
        Folders of certification runs or of empirical studies; several are compared.
    title
        The page's heading; by default it says what the page is about.
    images
        Images shown of each group (largest radii, smallest, not certified); 0 for none.

    Raises
    ------
    CertmixError
        A folder is not a readable run, or an argument is out of range.
    """
    if not runs:
        raise ParameterError("no run was given: name the folder of a certmix run")
    if images < 0:
        raise ParameterError(f"images = {images}: give a number of at least 0; 0 leaves pictures out")
    return page([read_page_run(Path(run), images) for run in runs], title)


def read_page_run(folder: Path, images: int = PICTURES) -> CertifiedRun | StudyRun:
    """Return what a page shows of one run folder; see `report_page`."""
    described = read_run(folder)
    try:
        study = str(described["identity"].get("study", CERTIFY))
        if study == CERTIFY or study.removeprefix("certify-") in DETERMINISTIC:
            return _certified(folder, described, study, images)
        return _empirical(folder, described, study)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, ParameterError):
            raise
        raise RunError(
            f"{folder}/run.json cannot be used ({type(error).__name__} {str(error)[:200]}): only a run that "
            "began can be shown; run the command again"
        ) from None


def _certified(folder: Path, described: dict[str, Any], study: str, images: int) -> CertifiedRun:
    sampled = study == CERTIFY
    results, records = (
        sampled_results(folder, described) if sampled else (plain_results(folder, described), {})
    )
    groups, note = gallery(results[0], records, described, images)
    newest = results[0].summary
    return CertifiedRun(
        name=_name(folder),
        study=study,
        results=results,
        parameters=parameters(described, newest.norm),
        provenance=provenance(described),
        split=split_of(described) if sampled else (),
        looks=looks_of(described) if sampled else (),
        data_checksum=str(described["identity"]["data_checksum"]),
        gallery=groups,
        gallery_note=note,
        commands=commands(described, _name(folder), study),
    )


def _empirical(folder: Path, described: dict[str, Any], study: str) -> StudyRun:
    return StudyRun(
        name=_name(folder),
        study=study,
        tables=tables(folder),
        plots=plots(folder),
        parameters=parameters(described, None),
        provenance=provenance(described),
        commands=commands(described, _name(folder), study),
    )


def _name(folder: Path) -> str:
    return folder.resolve().name


def write_report(
    runs: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    title: str | None = None,
    images: int = PICTURES,
) -> Path:
    """Write `report_page` to a file and return its path.

    Parameters
    ----------
    runs, title, images
        As for `report_page`.
    output
        The file; None takes ``report.html`` in the folder of the one run.

    Raises
    ------
    CertmixError
        As for `report_page`; or the file exists and is no page of certmix.
    """
    if output is None and len(runs) != 1:
        raise ParameterError(f"{len(runs)} runs: name the file of the page with --output")
    path = Path(runs[0]) / FILE if output is None else Path(output)
    if output is not None:
        _refuse_foreign(path)
    content = report_page(runs, title=title, images=images).encode("utf-8")
    _refuse_foreign(path)
    write_atomically(path, content)
    return path


def _refuse_foreign(path: Path) -> None:
    """Refuse to replace anything but an earlier page."""
    if path.is_dir():
        raise RunError(f"{path} is a folder: name a file such as {path / FILE}")
    try:
        with open(path, "rb") as file:
            start = file.read(4096)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}): name another --output") from None
    if f'name="generator" content="{GENERATOR}"'.encode() not in start:
        raise RunError(f"{path} exists and is no page of certmix report: name another --output, or remove it")
