"""Every command prints what ``tests/golden/texts`` holds; after a wanted change run ``python tests/golden/make.py``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("golden_make", Path(__file__).with_name("make.py"))
assert SPEC is not None
assert SPEC.loader is not None
make = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make)


@pytest.mark.filterwarnings("default")
def test_commands_print_their_golden_texts():
    """All in one test: a command goes on from the folders of those before it."""
    held = {name: (make.HERE / "texts" / f"{name}.txt").read_text() for name in make.COMMANDS}
    printed = dict(make.texts())
    if not make.LOGS.is_dir():  # published logs are not here
        for name, command in make.COMMANDS.items():
            if "{logs}" in command:
                del held[name], printed[name]
    other = [name for name in held if printed[name] != held[name]]
    assert {name: printed[name] for name in other} == {name: held[name] for name in other}
    assert len(printed) > 60


def test_every_golden_text_is_of_a_command():
    assert {path.stem for path in (make.HERE / "texts").glob("*.txt")} == set(make.COMMANDS)
