"""Signals end every command that runs long as Ctrl-C does, and streams that fail lose only what is printed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from certmix import signals, streams

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


def test_handlers_come_back_and_those_of_libraries_go():
    before = {number: signal.getsignal(number) for number in signals.ENDING}
    with signals.caught():
        with signals.kept():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        assert signal.getsignal(signal.SIGTERM) is signals._stop
        done = 0
        with suppress(KeyboardInterrupt):
            with signals.postponed():
                signal.raise_signal(signal.SIGHUP)
                done = 1
            done = 2
        signal.raise_signal(signal.SIGHUP)
    assert done == 1 and signals.exit_code() == 129
    assert {number: signal.getsignal(number) for number in signals.ENDING} == before


STUBBORN = """
import time
from certmix import signals
with signals.caught():
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("first", flush=True)
        {}
        print("last", flush=True)
"""


@pytest.mark.parametrize(("apart", "code"), [(True, 128 + signal.SIGHUP), (False, 0)])
def test_a_second_signal_ends_at_once_what_the_first_did_not(apart, code):
    busy = "time.sleep(60)" if apart else "time.sleep(0.5)"
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN.format(busy)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "first\n"
        if apart:
            time.sleep(signals.TOGETHER + 0.1)
        process.send_signal(signal.SIGHUP)
        rest = process.stdout.read()
        assert (process.wait(), rest) == (code, "" if apart else "last\n")


PRINTS = """
import sys
from certmix import streams
with streams.safe():
    print("a line" * 10000, flush=True)
    print("talk", file=sys.stderr)
    sys.exit({})
"""
CLOSED, FULL = "stdout was closed before all was printed", "Error: stdout did not take all that was printed ("


@pytest.mark.parametrize(("where", "code", "expected", "said"), [
    (">&-", 0, 0, CLOSED), (">&-", 1, 1, CLOSED), ("| true", 0, 0, CLOSED), ("| true", 1, 1, CLOSED),
    (">/dev/full", 0, 2, FULL), (">/dev/full", 1, 1, FULL), (">/dev/null", 1, 1, ""),
    ("2>&- >/dev/null", 0, 0, None), ("2>/dev/full >/dev/null", 1, 1, None),
])  # fmt: skip
def test_a_stream_that_fails_costs_what_is_printed_alone(where, code, expected, said):
    if "/dev/full" in where and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    program = PRINTS.format(code)
    done = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {where}; exit ${{PIPESTATUS[0]}}', sys.executable, program],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == expected, done.stderr
    if said is not None:
        lines = done.stderr.splitlines()
        assert lines[0] == "talk" and len(lines) == 1 + bool(said)
        assert not said or lines[1].startswith(said)


def test_streams_of_another_program_are_left_alone(capsys):
    own = sys.stdout
    code = None
    try:
        with streams.safe():
            assert sys.stdout is own
            sys.exit(3)
    except SystemExit as ended:
        code = ended.code
    assert code == 3
