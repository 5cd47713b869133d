"""The table of a study's run, made again from its numbers: no models, no data."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from certmix.errors import ParameterError, RunError
from certmix.runs import read_run
from certmix.runs.identity import CERTIFY, command_of
from certmix.studies.study import stored_numbers
from certmix.tables.table import Table

STUDIES = {
    "attack": "attack",
    "mix-sweep": "mix_sweep",
    "compare-trust": "compare_trust",
    "confidence": "confidence",
    "lipschitz": "lipschitz",
    "nuts-fit": "nuts_fit",
    "nuts-evaluate": "nuts_evaluate",
}
"""Module by study: its `evaluate` takes numbers, its `table` numbers and what they say."""


def show_study(folder: str | Path) -> Table:
    """Return the table that a study's run published last.

    Raises
    ------
    RunError
        If the folder is no such run, holds no table, or is damaged.
    """
    folder = Path(folder)
    study = str(read_run(folder)["identity"].get("study", CERTIFY))
    if study not in STUDIES:
        commands = ", ".join(map(command_of, STUDIES))
        raise RunError(f"{folder} is a run of {command_of(study)}: name a run of {commands}")
    module = import_module(f"certmix.studies.{STUDIES[study]}")
    with stored_numbers(folder, study) as numbers:
        try:
            table: Table = module.table(numbers, module.evaluate(numbers))
        except (IndexError, KeyError, TypeError, ValueError, ParameterError) as error:
            told = " ".join(str(error).split())[:100]
            raise RunError(f"{folder} is damaged ({told}): repeat its command with --fresh") from None
        return table
