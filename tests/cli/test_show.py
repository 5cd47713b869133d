"""`certmix show`: the table that certify printed, from the numbers alone."""

import pytest

FEW = ("--inputs", 5, "--sigma", 0.25, "--samples", 300)
KINDS = {
    "sampled": FEW,
    "fixed": (*FEW, "--goal", "fixed"),
    "soft": (*FEW, "--scores", "soft"),
    "shard": (*FEW, "--shard", "2/2"),
    "margin": ("--certificate", "margin", "--norm", "linf", "--max-radius", 0.5),
    "constant": ("--certificate", "lipschitz-constant", "--lipschitz-constant", 40, "--norm", "l2"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_table_that_certify_printed(command, problem, kind):
    more = ("--alpha", 0.76, *KINDS[kind], "--output", "run", "--format", "json")
    made, shown = command("certify", *problem.options[:6], *more), command("show", "run", "--format", "json")
    assert (made.code, shown.code, shown.out) == (0, 0, made.out), made.err + shown.err


def test_a_study_is_shown_as_it_was_printed(command, problem):
    more = (*problem.options[:6], "--inputs", 5, "--steps", 2, "--output", "run", "--format", "csv")
    made = command("confidence", *more)
    shown = command("show", "run", "--format", "csv")
    assert (made.code, shown.code, shown.out) == (0, 0, made.out), made.err + shown.err


@pytest.mark.parametrize("kind", ["sampled", "margin"])
def test_plots_are_drawn_again_in_another_format(command, problem, tmp_path, kind):
    made = command(
        "certify", *problem.options[:6], "--alpha", 0.76, *KINDS[kind], "--output", tmp_path / "run"
    )
    shown = command("show", tmp_path / "run", "--plot-format", "pdf")
    assert (made.code, shown.code, shown.out) == (0, 0, made.out), made.err + shown.err
    names = {path.stem for path in (tmp_path / "run").glob("*.svg")}
    assert {path.stem for path in (tmp_path / "run").glob("*.pdf")} == names and "certified-accuracy" in names
    assert ("front" in names) == ("probabilities" in names) == (kind == "sampled")
    assert all(f"{name}.pdf" in shown.err for name in names)
