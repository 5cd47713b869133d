"""Every command prints what ``tests/golden/texts`` holds; after a wanted change run ``python tests/golden/make.py``."""

from __future__ import annotations

import fcntl
import importlib.util
import json
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("golden_make", Path(__file__).with_name("make.py"))
assert SPEC is not None
assert SPEC.loader is not None
make = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make)


@pytest.fixture(scope="module")
def printed(tmp_path_factory, worker_id):
    """Return the texts, made by the first process that wants them."""
    place = tmp_path_factory.getbasetemp() / "golden.json"
    if worker_id != "master":
        place = place.parent.parent / "golden.json"
    with open(f"{place}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            place.write_text(json.dumps(dict(make.texts())))
        return json.loads(place.read_text())


@pytest.mark.parametrize("name", make.COMMANDS)
@pytest.mark.filterwarnings("default")
def test_commands_print_their_golden_texts(printed, name):
    if "{logs}" in make.COMMANDS[name].replace(make.LOG, "{logs}") and not make.LOGS.is_dir():
        pytest.skip("published logs are not here")
    assert printed[name] == (make.HERE / "texts" / f"{name}.txt").read_text()


def test_every_golden_text_is_of_a_command():
    assert {path.stem for path in (make.HERE / "texts").glob("*.txt")} == set(make.COMMANDS)
