"""`certmix show`: the table that certify printed, from the numbers alone."""

import pytest

KINDS = {
    "sampled": ("--samples", 300, "--images", 5),
    "fixed": ("--samples", 300, "--images", 5, "--goal", "fixed"),
    "shard": ("--samples", 300, "--images", 5, "--shard", "2/2"),
    "margin": ("--certificate", "margin", "--norm", "linf", "--max-radius", 0.5, "--images", 4),
    "constant": (
        "--certificate",
        "lipschitz-constant",
        "--lipschitz-constant",
        40,
        "--norm",
        "l2",
        "--images",
        4,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_table_that_certify_printed(command, problem, kind):
    options = [
        *problem.options[:6],
        *(problem.options[8:] if "--certificate" in KINDS[kind] else problem.options[6:]),
    ]
    made = command("certify", *options, *KINDS[kind], "--output", "run", "--format", "json")
    shown = command("show", "run", "--format", "json")
    assert (made.code, shown.code, shown.out) == (0, 0, made.out), made.err + shown.err


def test_what_is_no_run_of_certify_is_refused(command, problem):
    told = command("show", "nothing")
    assert (told.code, told.out) == (2, "") and "holds no run.json" in told.err


def test_a_study_is_shown_as_it_was_printed(command, problem):
    models = problem.options[: problem.options.index("--sigma")]
    more = ("--images", 5, "--steps", 2, "--output", "run", "--format", "csv")
    made = command("confidence", *models, *more)
    shown = command("show", "run", "--format", "csv")
    assert (made.code, shown.code, shown.out) == (0, 0, made.out), made.err + shown.err
