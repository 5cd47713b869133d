import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from certmix.errors import ParameterError
from certmix.tables import FORMATS, formats, render
from certmix.tables.table import Quantity, Table
from certmix.types import CertifiedAccuracy, CleanAccuracy, Summary


def strict(text: str) -> object:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_contract_key_by_key(small: Summary) -> None:
    found = strict(render(small, "json"))
    assert found["schema_version"] == 1
    assert found["sigma"] == 0.5
    assert found["alpha"] == 0.76
    assert found["images"] == 100
    assert found["failure_probability"] == 0.001
    assert found["radii"] == [0.0, 0.25]
    assert found["clean_accuracy"] == {"standard": 0.95, "robust": 0.57, "mixed": None}
    assert found["complete"] is True
    assert found["goal"] == "fixed"
    assert found["rows"] == [
        {
            "classifier": "robust",
            "certificate": "exact",
            "certified_accuracy": [0.57, 0.29],
            "interval": [[0.4671, 0.6687], [0.2036, 0.38931]],
            "mean_certified_radius": 0.12367,
        },
        {
            "classifier": "mixed",
            "certificate": "smoothing",
            "certified_accuracy": [0.07, 0.0],
            "interval": [[0.0286, 0.139], [0.0, 0.0363]],
            "mean_certified_radius": 0.0299999,
        },
    ]
    assert found["mean_samples"] is None
    assert found["notes"] == ["alpha was chosen on 50% of the images"]


def test_json_is_null_where_not_finite_and_takes_numpy_scalars(small: Summary) -> None:
    row = CertifiedAccuracy(
        "mixed",
        "exact",
        (np.float64(0.1), math.nan),
        ((np.float64(0.0), math.inf), (-math.inf, 1.0)),
        math.inf,
    )
    summary = replace(small, rows=(row,), images=np.int64(100), complete=np.bool_(False))
    found = strict(render(summary, "json"))
    assert found["rows"][0]["certified_accuracy"] == [0.1, None]
    assert found["rows"][0]["interval"] == [[0.0, None], [None, 1.0]]
    assert found["rows"][0]["mean_certified_radius"] is None
    assert found["images"] == 100
    assert found["complete"] is False


def test_csv_reads_back_the_same_numbers(run_with: Callable) -> None:
    summary = run_with((0.0, 0.25, 1.0), images=170).summary
    lines = list(csv.DictReader(io.StringIO(render(summary, "csv"))))
    assert list(lines[0])[:6] == [
        "classifier",
        "certificate",
        "sigma",
        "alpha",
        "images",
        "failure_probability",
    ]
    assert list(lines[0])[6:15] == [
        f"{name}@{r}" for name in ("certified_accuracy", "lower", "upper") for r in ("0", "0.25", "1")
    ]
    for line, row in zip(lines, summary.rows, strict=True):
        assert (line["classifier"], line["certificate"]) == (row.classifier, row.certificate)
        for i, radius in enumerate(("0", "0.25", "1")):
            assert float(line[f"certified_accuracy@{radius}"]) == row.certified_accuracy[i]
            assert float(line[f"lower@{radius}"]) == row.interval[i][0]
            assert float(line[f"upper@{radius}"]) == row.interval[i][1]
        assert float(line["mean_certified_radius"]) == row.mean_certified_radius
        assert float(line["clean_accuracy_mixed"]) == 0.92
        assert line["images"] == "170"
        assert line["complete"] == "true"


def test_csv_has_plain_decimals_and_blanks_for_the_unknown(small: Summary) -> None:
    lines = render(replace(small, failure_probability=1e-7), "csv").splitlines()
    assert lines[1] == (
        "robust,exact,0.5,0.76,100,0.0000001,0.57,0.29,0.4671,0.2036,0.6687,0.38931,0.12367,0.95,0.57,,true"
    )


MARKDOWN = """\
# Certified accuracy

Certified accuracy (%) at l2 radius, with the two-sided 95 % Clopper-Pearson interval over images; \
sigma = 0.5, alpha = 0.76, n = 10,000 samples an image, failure probability 0.001 an image, 100 images.

| classifier           | certificate         |               > 0 |           >= 0.25 | mean radius |
| -------------------- | ------------------- | ----------------: | ----------------: | ----------: |
| robust (alpha = 1)   | exact               | 57.0 [46.7, 66.9] | 29.0 [20.3, 39.0] |       0.123 |
| mixed (alpha = 0.76) | smoothing (Thm 3.7) |   7.0 [2.8, 13.9] |    0.0 [0.0, 3.7] |       0.029 |

Clean accuracy (%):

| standard (g) | robust (h) | mixed |
| -----------: | ---------: | ----: |
|         95.0 |       57.0 |     - |

Notes:

- Accuracies, mean radii and lower ends of intervals are rounded down, upper ends up. \
An image counts in column > 0 when some radius above 0 is certified.
- Clean accuracies of the robust and the mixed classifier are plug-in estimates from noisy votes, \
not certificates.
- The class could not be established (abstained) on 1 image; such an image counts as not certified.
- exact: the largest radius that the two probability bounds allow (Neyman-Pearson).
- smoothing: Theorem 3.7.
- Run: data shapes\\_10; standard std\\&co; robust rob\\#1; bound clopper-pearson; goal fixed; \
selection samples 100; seed 7.
- alpha was chosen on 50% of the images
"""

LATEX = r"""% needs \usepackage{booktabs}
\begin{table}
\centering
\footnotesize
\setlength{\tabcolsep}{3pt}
\setlength{\belowcaptionskip}{6pt}
\renewcommand{\arraystretch}{1.5}
\caption{Certified accuracy (\%) at $\ell_2$ radius; $\sigma$ = 0.5, $\alpha$ = 0.76, @
n = 10,000 samples an image, failure probability 0.001 an image, 100 images. @
Subscripts and superscripts: ends of the two-sided 95\,\% Clopper--Pearson interval over images.}
\label{tab:certified-accuracy}
\begin{tabular}{l*{3}{r}}
\toprule
 & $>$ 0 & $\geq$ 0.25 & \shortstack{mean\\radius} \\
\midrule
\multicolumn{4}{l}{robust ($\alpha$ = 1)} \\
\quad exact & $57.0_{46.7}^{66.9}$ & $29.0_{20.3}^{39.0}$ & 0.123 \\
\midrule
\multicolumn{4}{l}{mixed ($\alpha$ = 0.76)} \\
\quad smoothing & $7.0_{2.8}^{13.9}$ & $0.0_{0.0}^{3.7}$ & 0.029 \\
\bottomrule
\end{tabular}
\par\medskip
\begin{tabular}{lrrr}
\toprule
 & standard ($g$) & robust ($h$) & mixed \\
\midrule
clean accuracy (\%) & 95.0 & 57.0 & -- \\
\bottomrule
\end{tabular}
\par\medskip
\begin{minipage}{\linewidth}
\scriptsize\raggedright
Accuracies, mean radii and lower ends of intervals are rounded down, upper ends up. @
An image counts in column $>$ 0 when some radius above 0 is certified.\par
Clean accuracies of the robust and the mixed classifier are plug-in estimates from noisy votes, @
not certificates.\par
The class could not be established (abstained) on 1 image; such an image counts as not certified.\par
exact: the largest radius that the two probability bounds allow (Neyman-Pearson).\par
smoothing: Theorem 3.7.\par
Run: data shapes\_10; standard std\&co; robust rob\#1; bound clopper-pearson; goal fixed; @
selection samples 100; seed 7.\par
alpha was chosen on 50\% of the images\par
\end{minipage}
\end{table}
""".replace("@\n", "")


@pytest.mark.parametrize(("name", "golden"), [("markdown", MARKDOWN), ("latex", LATEX)])
def test_golden(small: Summary, name: str, golden: str) -> None:
    assert render(small, name) == golden


@pytest.mark.parametrize("name", ["markdown", "latex"])
def test_a_partial_result_says_so_before_its_figures(small: Summary, name: str) -> None:
    partial = render(replace(small, complete=False, planned_images=5000), name)
    assert "partial" not in render(small, name).lower()
    assert "**Partial result: 100 of 5,000 planned images" in partial.replace(r"\textbf{", "**")
    assert partial.lower().index("partial") < partial.index("57.0")


@pytest.mark.parametrize("name", FORMATS)
def test_text_ends_with_one_line_end_and_stays_the_same(small: Summary, name: str) -> None:
    text = render(small, name)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert text == render(small, name)


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_without_figures_is_a_table_of_unknowns(name: str) -> None:
    nothing = CertifiedAccuracy("mixed", "exact", (math.nan,), ((math.nan, math.nan),), math.nan)
    summary = Summary(0.5, 0.76, 0, 0.001, (0.5,), CleanAccuracy(None, None, None), (nothing,))
    assert "nan" not in render(summary, name).lower()


def test_user_text_cannot_break_out_of_a_table(small: Summary) -> None:
    hostile = replace(small, notes=("a|b\n\n# c <x> \x1b[1m \udc80 \\end{table} 50% $",), data="d_{e}^f~g")
    markdown, latex = render(hostile, "markdown"), render(hostile, "latex")
    assert r"- a\|b\\n\\n\# c \<x\> \\x1b\[1m \\udc80 \\end{table} 50% \$" in markdown.splitlines()
    assert latex.count(r"\end{table}") == 1
    assert r"\textbackslash{}end\{table\} 50\% \$" in latex
    assert r"d\_\{e\}\textasciicircum{}f\textasciitilde{}g" in latex
    for text in (markdown, latex):
        text.encode()
        assert "\x1b" not in text


def test_sequential_samples_give_the_mean(small: Summary) -> None:
    text = render(replace(small, samples=100_000, mean_samples=8123.6), "markdown")
    assert "n at most 100,000 samples an image (8,124 on average)" in text


def test_an_unknown_certificate_keeps_its_name(small: Summary) -> None:
    row = replace(small.rows[0], certificate="new_one")
    summary = replace(small, rows=(row,))
    assert r"| new\_one " in render(summary, "markdown")
    assert r"\quad new\_one &" in render(summary, "latex")


def test_a_row_must_have_an_interval_for_each_accuracy(small: Summary) -> None:
    row = replace(small.rows[0], interval=((0.1, 0.2),))
    with pytest.raises(ValueError, match="zip"):
        render(replace(small, rows=(row,)), "markdown")


def test_tables_of_studies_are_rendered_too_and_nothing_else(small: Summary) -> None:
    table = Table("times", "Times", "", ("run", "time"), (("a", Quantity(1.25, 1, "s")),))
    for name in FORMATS:
        assert render(table, name) == formats.render(table, name)
    for other in ("text", None, [small], {"rows": ()}):
        with pytest.raises(ParameterError, match=r"is no table: give a result's \.summary or \.table"):
            render(other, "json")


def test_an_unknown_format_is_refused_by_name(small: Summary) -> None:
    with pytest.raises(ParameterError, match="format 'xml' is unknown: choose one of json, csv, markdown"):
        render(small, "xml")
