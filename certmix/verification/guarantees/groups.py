"""Groups that requirements divide inputs by: classes of labels, and slices that a file or a column names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from certmix.data.frames import TABLES, frame_of
from certmix.errors import ParameterError
from certmix.files import digest_of, read_file, remedy_of
from certmix.types import Dataset
from certmix.verification.guarantees.guarantee import GroupClaim, Guarantee, beside, source_options
from certmix.verification.guarantees.requirements import CLASS, Requirement

Groups = Mapping[str, NDArray[np.str_]]
"""Of each group the name (N,) that each input of a data set has in it, in its order."""
LARGEST = 1 << 28


def groups_of(
    dataset: Dataset, named: Mapping[str, GroupClaim], guarantee: Guarantee | None = None
) -> Groups:
    """Return the groups of a data set, with the classes; paths of `named` are those of a guarantee.

    ParameterError or DataError if a file cannot be read, or does not hold a name for each input.
    """
    found: dict[str, NDArray[np.str_]] = {CLASS: np.array(dataset.class_names, np.str_)[dataset.labels]}
    for name, claim in named.items():
        if claim.file is not None:
            path = Path(claim.file if guarantee is None else beside(claim.file, guarantee))
        else:
            path = Path(str(dataset.name if guarantee is None else source_options(guarantee)["data"]))
        names = _names(path, claim.column, name)
        if len(names) != len(dataset):
            raise ParameterError(
                f"group {name}: {path} names {len(names):,} inputs, {dataset.name} holds {len(dataset):,}: "
                "give a name for each, in their order"
            )
        found[name] = np.array(names, np.str_)
    return found


def _names(path: Path, column: str | None, name: str) -> list[str]:
    """Return the names that a file holds, one an input."""
    table = path.suffix.lower() in TABLES
    if table != (column is not None):
        told = f"{path} is a table: add column" if table else f"{path} is no table: leave column out"
        raise ParameterError(f"group {name}: {told}")
    try:
        if column is not None:
            frame = frame_of(path, as_text=True)
            if column not in frame.columns:
                raise ParameterError(f"group {name}: {path} has no column {column!r}: name one that it has")
            names = [str(one).strip() for one in frame[column]]
        else:
            names = [line.strip() for line in read_file(path, LARGEST).decode("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        remedy = remedy_of(error, "name a text file")
        raise ParameterError(f"group {name}: {path} cannot be read ({reason}): {remedy}") from None
    odd = [row for row, one in enumerate(names, 1) if not one or not one.isprintable() or "'" in one]
    if odd:
        told = "give each input a printable name without quotation marks"
        raise ParameterError(f"group {name}: {path}, row {odd[0]}: {told}")
    return names


def checksum_of(names: NDArray[np.str_]) -> str:
    """Return the checksum of the names of a group."""
    return digest_of(names.tolist())


def expanded(guarantee: Guarantee, groups: Groups) -> list[tuple[Requirement, Requirement]]:
    """Return each requirement of a single part of the inputs, with the one of the file that asks for it.

    ParameterError for a member that no input of the data set has.
    """
    found = []
    for asked in guarantee.requirements:
        known = [] if asked.group is None else sorted(set(groups[asked.group].tolist()))
        if asked.member and asked.member not in known:
            told = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
            raise ParameterError(f"{asked}: no input's {asked.group} is {asked.member!r}: use one of {told}")
        found += [(one, asked) for one in asked.of_each(known)]
    return found
