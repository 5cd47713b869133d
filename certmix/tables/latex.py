"""The summary as a LaTeX table for a paper, in the style of booktabs."""

from __future__ import annotations

from itertools import groupby

from certmix.tables.cells import CLEAN_LABELS, accuracy, clean_values, interval_ends, known, mean_radius
from certmix.tables.wording import (
    Dialect,
    classifier_label,
    notes,
    one_line,
    partial_warning,
    radius_heading,
    settings,
)
from certmix.types import CertifiedAccuracy, Summary

__all__ = ["latex_table"]

_SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\char34{}",
        **{c: f"\\{c}" for c in "{}$&#_%"},
    }
)


def latex_table(summary: Summary) -> str:
    """Return a floating table with caption, certified and clean accuracies and notes.

    Needs only ``booktabs``.  Each figure carries the ends of its interval as
    subscript and superscript.
    """
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{3pt}",
        r"\setlength{\belowcaptionskip}{6pt}",
        r"\renewcommand{\arraystretch}{1.5}",
        f"\\caption{{{_caption(summary)}}}",
        r"\label{tab:certified-accuracy}",
        *_certified(summary),
        r"\par\medskip",
        *_clean(summary),
        r"\par\medskip",
        r"\begin{minipage}{\linewidth}",
        r"\scriptsize\raggedright",
        *(f"{note}\\par" for note in notes(summary, _LATEX)),
        r"\end{minipage}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return one_line(text).translate(_SPECIAL)


_LATEX = Dialect(r"$\sigma$", r"$\alpha$", "$>$", r"$\geq$", "--", _escape)
_NORMS = {"l1": r"$\ell_1$", "l2": r"$\ell_2$", "linf": r"$\ell_\infty$"}


def _caption(summary: Summary) -> str:
    warning = partial_warning(summary)
    partial = f"\\textbf{{{warning.capitalize()}.}} " if warning else ""
    return (
        f"{partial}Certified accuracy (\\%) at {_NORMS.get(summary.norm, _escape(summary.norm))} radius; "
        f"{settings(summary, _LATEX)}. "
        r"Subscripts and superscripts: ends of the two-sided 95\,\% Clopper--Pearson interval over images."
    )


def _certified(summary: Summary) -> list[str]:
    radii = [radius_heading(radius, _LATEX) for radius in summary.radii]
    heading = ["", *radii, r"\shortstack{mean\\radius}"]
    lines = [f"\\begin{{tabular}}{{l*{{{len(heading) - 1}}}{{r}}}}", r"\toprule", _line(heading)]
    for classifier, rows in groupby(summary.rows, key=lambda row: row.classifier):
        label = classifier_label(classifier, summary.alpha, _LATEX)
        lines += [r"\midrule", _line([f"\\multicolumn{{{len(heading)}}}{{l}}{{{label}}}"])]
        lines += [_line(_cells(row, summary.norm)) for row in rows]
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _cells(row: CertifiedAccuracy, norm: str) -> list[str]:
    figures = []
    for share, interval in zip(row.certified_accuracy, row.interval, strict=True):
        low, high = interval_ends(interval)
        figures.append(f"${accuracy(share)}_{{{low}}}^{{{high}}}$" if known(share) else _LATEX.unknown)
    return [f"\\quad {_escape(row.certificate)}", *figures, mean_radius(row, _LATEX, norm=norm)]


def _clean(summary: Summary) -> list[str]:
    return [
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        _line(["", *(label.replace("(g)", "($g$)").replace("(h)", "($h$)") for label in CLEAN_LABELS)]),
        r"\midrule",
        _line([r"clean accuracy (\%)", *clean_values(summary.clean_accuracy, _LATEX)]),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"
