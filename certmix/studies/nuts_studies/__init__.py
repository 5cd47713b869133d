"""Studies of MixedNUTS from cached results: no attack is run, each takes seconds."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from certmix.errors import ParameterError

if TYPE_CHECKING:
    from certmix.studies.nuts_studies.inputs import Inputs, Product

__all__ = ["STUDIES", "NutsStudy", "nuts_study"]


@dataclass(frozen=True)
class NutsStudy:
    """A study of cached results.

    Parameters
    ----------
    summary
        One line of help.
    module
        Module of this package whose ``study`` makes it; imported on first use.
    fits
        How many run folders of fits it needs: exactly 1, or at least this many.
    evaluation
        Whether it can judge by the points of an evaluation.
    """

    summary: str
    module: str
    fits: int = 1
    evaluation: bool = False

    @property
    def function(self) -> Callable[[Inputs], Product]:
        """The study itself."""
        found: Callable[[Inputs], Product] = importlib.import_module(f"{__name__}.{self.module}").study
        return found


STUDIES: dict[str, NutsStudy] = {
    "sensitivity": NutsStudy("objective and threshold over s, p and c (Figure 9)", "sensitivity"),
    "margins": NutsStudy(
        "margins before and after the transform (Figures 6, 7, Table 6)", "margins", 1, True
    ),
    "transform": NutsStudy("the transform itself, on examples (Figures 3, 4)", "transform"),
    "beta": NutsStudy("trade-off over beta, beside the plain mix (Figure 8)", "beta", 1, True),
    "clamp": NutsStudy("clamps compared (Table 7)", "clamp", 1, True),
    "tuning-size": NutsStudy(
        "fewer tuning images; seen and unseen ones (Tables 8, 9)", "tuning_size", 1, True
    ),
    "temperature": NutsStudy("temperature of the standard classifier (Table 10)", "temperature", 1, True),
    "transfer": NutsStudy("s, p, c of one fit on the models of another (Table 11)", "transfer", 2),
    "cost": NutsStudy("parameters and FLOPs of g, h and the mix (Table 5)", "cost"),
}
"""Studies by name; figures and tables are those of "MixedNUTS" (TMLR 2024)."""


def nuts_study(name: str, folders: Sequence[str | Path]) -> Product:
    """Make a study of MixedNUTS from run folders.

    Parameters
    ----------
    name
        A name in `STUDIES`.
    folders
        Run folders of ``certmix nuts fit`` and, where the study can use one, of
        ``certmix nuts evaluate``, in any order.

    Returns
    -------
    Product
        Its table and its figures.

    Raises
    ------
    ParameterError
        If the study is unknown, or needs other folders.
    RunError, DataError
        If a folder's contents are missing or do not fit together.
    """
    if name not in STUDIES:
        raise ParameterError(f"study '{name}' is unknown: choose one of {', '.join(STUDIES)}")
    from certmix.studies.nuts_studies.inputs import read_inputs

    wanted = STUDIES[name]
    inputs = read_inputs(folders)
    fits = len(inputs.fits)
    if fits < wanted.fits or (wanted.fits == 1 and fits > 1):
        number = "one" if wanted.fits == 1 else f"at least {wanted.fits}"
        raise ParameterError(
            f"study {name} needs {number} run folder(s) of certmix nuts fit, here are {fits}: name them"
        )
    if inputs.points is not None and not wanted.evaluation:
        raise ParameterError(f"study {name} has no use for {inputs.points.folder}: leave the evaluation out")
    return wanted.function(inputs)
