"""Do printed tables say what the JSON says, without rounding in their favour?"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from certmix.errors import RunError
from certmix.tables import render
from certmix.types import Summary
from certmix.verification.checks import CheckResult
from certmix.verification.rederivation.published import TABLE, Published
from certmix.verification.rederivation.sources import judged, unchecked

__all__ = ["check_newest", "printed_faults"]

_FILES = {
    "certified-accuracy.csv": "csv",
    "certified-accuracy.md": "markdown",
    "certified-accuracy.tex": "latex",
}


def printed_faults(found: Published, description: dict[str, Any]) -> Iterator[str]:
    """Say what is wrong with the tables beside a JSON.

    Numbers of the CSV file are the JSON's.  All tables are rendered again and
    compared whole where this version of certmix wrote them.
    """
    texts = {name: _text(found.folder / name) for name in _FILES}
    yield from _csv_faults(texts["certified-accuracy.csv"], found.summary)
    if description["versions"].get("certmix") == version("certmix"):
        for name, kind in _FILES.items():
            if texts[name] != render(found.summary, kind):
                yield f"{name} is not what its JSON renders to"


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: not readable ({' '.join(str(error).split())}): run again") from None


def _csv_faults(text: str, summary: Summary) -> Iterator[str]:
    rows = list(csv.DictReader(text.splitlines()))
    if len(rows) != len(summary.rows):
        yield f"the CSV has {len(rows)} rows, the JSON {len(summary.rows)}"
        return
    for printed, row in zip(rows, summary.rows, strict=True):
        ends = [end for k in (0, 1) for end in (pair[k] for pair in row.interval)]
        wanted = [*row.certified_accuracy, *ends, row.mean_certified_radius]
        values = [
            value for name, value in printed.items() if "@" in str(name) or name == "mean_certified_radius"
        ]
        if len(values) != len(wanted) or any(
            (value == "") != (number != number) or (value and _float(value) != number)
            for value, number in zip(values, wanted, strict=False)
        ):
            yield f"a figure of {row.classifier} {row.certificate} in the CSV is not the JSON's"


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


REPEAT = "differs from results/: repeat certmix certify, which writes it anew"


def check_newest(folder: Path, name: str | None, published: list[Published]) -> CheckResult:
    """The products at the top of a run folder are copies of those of its newest request.

    Parameters
    ----------
    folder
        The run folder.
    name
        Name of the newest request's products; None if it is not known.
    published
        All products.
    """
    check = "newest products"
    top = folder / TABLE
    same = [found for found in published if top.is_file() and _same(folder, found.folder)]
    if not top.is_file() and not published:
        return unchecked(check, "nothing was published yet")
    if not same:
        return judged(check, [(None, f"{_odd(folder, published)} of the run folder {REPEAT}")], "")
    if name is None or all(found.name != name for found in published):
        return unchecked(check, "the newest request is unfinished: its products are still to come")
    if all(found.name != name for found in same):
        return judged(check, [(None, f"the products of the run folder are not those of results/{name}")], "")
    return judged(check, [], f"copies of results/{name}")


def _odd(top: Path, published: list[Published]) -> str:
    """Name the products at the top that no request has with equal content."""
    names = sorted({path.name for found in published for path in found.folder.iterdir() if path.is_file()})
    kept = {
        name: {(found.folder / name).read_bytes() for found in published if (found.folder / name).is_file()}
        for name in names
    }
    odd = [n for n in names if not (top / n).is_file() or (top / n).read_bytes() not in kept[n]]
    return ", ".join(odd[:4]) or "the set of products"


def _same(top: Path, folder: Path) -> bool:
    """Whether every product of a request lies at the top with equal content."""
    names = [path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    return all((top / n).is_file() and (top / n).read_bytes() == (folder / n).read_bytes() for n in names)
