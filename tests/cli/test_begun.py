"""Runs in which nothing is finished, or that forgot what they were asked for, in the hands of every reader."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest

OPTIONS = {
    "votes": (),
    "fixed": ("--goal", "fixed"),
    "soft": ("--scores", "soft"),
    "layers": ("--scores", "soft", "--bound", "layers", "--goal", "fixed", "--certificate", "exact"),
    "constant": ("--certificate", "lipschitz-constant", "--lipschitz-constant", 7, "--norm", "l2"),
}  # fmt: skip
UNFINISHED = "DELETE FROM cells WHERE cell LIKE 'votes@%' OR cell LIKE 'scores@%' OR cell LIKE 'ballots@%'"
EMPTY = "DELETE FROM cells"
READERS = {
    "show": ("show", "run"),
    "recertify": ("recertify", "run"),
    "audit": ("audit", "run"),
    "report": ("report", "run", "--output", "page.html"),
    "trade-off": ("trade-off", "run", "--plot", "none"),
    "verify": ("verify", "run", "--run-code"),
    "evidence": ("evidence", "run", "--output", "kit"),
    "reproduce": ("reproduce", "run", "--run-code"),
    "falsify": ("falsify", "run", "--run-code"),
    "plan": ("plan", "--like", "run"),
    "guarantee": ("guarantee", "init", "run", "--output", "guarantee.toml"),
}
OF_THE_PLAN = ("show", "audit", "report", "verify", "evidence", "reproduce")
"""Readers that want to know what was asked for."""


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Where finished runs lie once they were made."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def altered(command, problem, made):
    """Return what makes a run of a kind, with a statement done to its database."""

    def alter(kind: str, statement: str) -> None:
        if not (folder := made / kind).exists():
            words = list(problem.options)
            if kind == "constant":
                at = words.index("--sigma")
                del words[at : at + 2]
            else:
                words += ["--samples", "300"]
            done = command("certify", *words, "--inputs", 5, *OPTIONS[kind], "--output", folder)
            assert done.code == 0, done.err
        shutil.copytree(folder, problem.folder / "run")
        with closing(sqlite3.connect(problem.folder / "run" / "numbers.sqlite")) as database, database:
            assert database.execute(statement).rowcount > 0

    return alter


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("kind", "statement"),
    [(kind, UNFINISHED) for kind in OPTIONS if kind != "constant"] + [("votes", EMPTY), ("constant", EMPTY)],
    ids=[*(kind for kind in OPTIONS if kind != "constant"), "votes-empty", "constant-empty"],
)
def test_nothing_is_finished(command, altered, kind, statement, reader):
    altered(kind, statement)
    done = command(*READERS[reader])
    assert done.code in (0, 1, 2)
    assert "itself failed" not in done.err and "Traceback" not in done.err


@pytest.mark.parametrize("planned", ["[]", "[0,1,2]", "[0,1,2,3,4,5]"])
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["votes", "constant"])
def test_what_was_asked_for_is_another_number_of_inputs(command, altered, kind, reader, planned):
    altered(kind, f"UPDATE facts SET value = '{planned}' WHERE key = 'planned inputs 5'")
    done = command(*READERS[reader])
    assert "itself failed" not in done.err and "Traceback" not in done.err
    if reader in OF_THE_PLAN:
        assert done.code == 2
        many = planned.count(",") + (planned != "[]")
        if (kind, reader) != ("constant", "audit"):
            assert f"does not say which inputs were asked for ({many} of 5 inputs)" in flat(
                done.out + done.err
            )
