"""What an evaluation of a nonlinear mix found, and its table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from certmix.nuts.folder import LoadedNuts
from certmix.studies.empirical import Study
from certmix.studies.nuts_suite import NUTS, plain_name
from certmix.studies.paired import PairedChange
from certmix.tables.table import Quantity, Table
from certmix.text import plain_decimal
from certmix.types import AttackedAccuracy, EstimatedAccuracy

__all__ = ["Evaluation", "Standing", "evaluation_table"]


@dataclass(frozen=True)
class Standing:
    """How one classifier does: clean, and on every point that the evaluation found."""

    name: str
    clean: EstimatedAccuracy
    attacked: AttackedAccuracy
    clean_change: PairedChange
    attacked_change: PairedChange


@dataclass(frozen=True)
class Evaluation:
    """What a MixedNUTS evaluation found.

    Parameters
    ----------
    standings
        One a classifier; changes are relative to the robust classifier alone.
    broken_by
        For the nonlinear mix: attack -> images that it was the first to break.
    sweep
        r_d -> accuracy under the transfer attack with it alone.
    square_found
        Images that only Square broke.
    """

    standings: tuple[Standing, ...]
    broken_by: dict[str, int]
    sweep: dict[float, AttackedAccuracy]
    square_found: int

    def standing(self, name: str) -> Standing:
        """Return one classifier's."""
        return next(one for one in self.standings if one.name == name)


def evaluation_table(study: Study, nuts: LoadedNuts, found: Evaluation, complete: bool) -> Table:
    """Return the table: one row a classifier, and what broke the nonlinear mix."""
    request, own = study.bench.request, nuts.settings
    rows: list[tuple[Any, ...]] = []
    for one in found.standings:
        clean, attacked = one.clean_change, one.attacked_change
        rows.append(
            (
                one.name, one.clean, one.attacked,
                Quantity(clean.percent, 1), clean.words(), Quantity(attacked.percent, 1), attacked.words(),
            )
        )  # fmt: skip
    images = found.standings[0].clean.images
    return Table(
        name="nuts-evaluate",
        title="MixedNUTS against its base models and the plain mix: accuracy (%) with 95 % intervals",
        settings=f"{request.words()}, {images:,} images; " + ", ".join(
            f"{name} {getattr(own.transform, name):.6g}" for name in ("s", "p", "c")
        ) + f", alpha {own.alpha:.6g}, T {own.temperature:g}",
        headings=(
            "classifier", "clean", "attacked", "change of clean error (%)", "clean change, 95 %",
            "change of attacked error (%)", "attacked change, 95 %",
        ),
        rows=tuple(rows),
        notes=(
            "Change: relative to the error of the robust classifier alone, on the same images, with paired "
            "bootstrap intervals; 100 % is twice as many errors.",
            "Attacked: right on every point that any attack of this evaluation found for any classifier; an "
            "upper bound of robust accuracy, not a certificate.",
            *_comparison(found),
            "Images of the nonlinear mix by what broke it first, whose attack and which (STD: points that "
            "fool g): " + "; ".join(f"{name}: {count}" for name, count in found.broken_by.items()) + ".",
            *_obfuscation(found),
            f"Run: data {study.loaded.dataset.name}; mix {nuts.folder.name}; seed {request.seed}.",
        ),
        complete=complete,
        extra={"broken_by": found.broken_by, "square_found": found.square_found,
               "r_d_sweep": {plain_decimal(r): a.accuracy for r, a in found.sweep.items()}},
    )  # fmt: skip


def _comparison(found: Evaluation) -> tuple[str, ...]:
    """Compare with the plain mix at equal attacked accuracy, and at its own best alpha."""
    nuts = found.standing(NUTS)
    plain = [one for one in found.standings if one.name.startswith(plain_name(0.0).split(",")[0])]
    if not plain:
        return ()
    best = max(plain, key=lambda one: one.clean.correct + one.attacked.correct)
    equal = [one for one in plain if one.attacked.correct >= nuts.attacked.correct]
    notes = [f"Largest sum of clean and attacked accuracy among plain mixes: {best.name}."]
    if equal:
        match = max(equal, key=lambda one: one.clean.correct)
        difference = (nuts.clean.correct - match.clean.correct) / nuts.clean.images
        notes.append(
            f"At no less attacked accuracy than {NUTS} the most accurate plain mix is {match.name}: "
            f"{NUTS} has {100 * difference:+.1f} points of clean accuracy."
        )
    else:
        notes.append(f"No plain mix of the list has the attacked accuracy of {NUTS}.")
    return tuple(notes)


def _obfuscation(found: Evaluation) -> tuple[str, ...]:
    """Say whether gradients are hidden: by the r_d sweep, and by what Square found besides."""
    if not found.sweep:
        return ()
    words = ", ".join(f"{plain_decimal(r)}: {100 * a.accuracy:.1f}" for r, a in found.sweep.items())
    if found.square_found:
        verdict = (
            f"Square broke {found.square_found} images that no white-box attack did: gradients may be hidden"
        )
    else:
        verdict = "Square found nothing that the white-box attacks missed: no sign of hidden gradients"
    return (f"{verdict}. Accuracy (%) under transfer alone, by r_d: {words}.",)
