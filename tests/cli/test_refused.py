"""Commands that are refused, or stopped, leave a finished run folder byte for byte as it was."""

from __future__ import annotations

import json
import shutil
import signal
from itertools import cycle
from pathlib import Path

import pytest

from certmix.certification import proved
from certmix.certification import run as sampled_run
from certmix.runs import Store

NETS = '''

def steep():
    net = linear()
    with torch.no_grad():
        net.weight.mul_(3.0)
    return net


class Fails(nn.Module):
    """Good for the few inputs that loading tries, and for no more than that."""

    def __init__(self):
        super().__init__()
        self.net = linear()

    def forward(self, x):
        logits = self.net(x)
        return logits if len(x) < 3 else logits * float("nan")


class Odd(nn.Module):
    def forward(self, x):
        return torch.fft.fft(torch.cat([x, x[:, :1]], 1)).real
'''
SAMPLED = ("--sigma", 0.25, "--alpha", 0.76, "--inputs", 4, "--samples", 300)
PLAIN = ("--certificate", "lipschitz-constant", "--alpha", 0.76, "--inputs", 4)
ATTACK = ("--inputs", 4, "--steps", 2, "--eps", 0.05)
GRID = "s=0.5:8:2,p=1:3:2,c=-1:0:2"
MADE = {
    "certify": ("certify", *SAMPLED),
    "fixed": ("certify", *SAMPLED, "--goal", "fixed"),
    "shard": ("certify", *SAMPLED, "--shard", "1/2"),
    "constant": ("certify", *PLAIN, "--lipschitz-constant", 20),
    "margin": ("certify", "--certificate", "margin", "--alpha", 0.76, "--inputs", 4),
    "attack": ("attack", *ATTACK),
    "mix-sweep": ("mix-sweep", "--alphas", "0.5,1", *ATTACK),
    "compare-trust": ("compare-trust", "--norm", "linf", *ATTACK),
    "confidence": ("confidence", *ATTACK),
    "lipschitz": ("lipschitz", *ATTACK),
    "fit": ("nuts", "fit", "--beta", 0.9, "--grid", GRID, "--inputs", 6, "--steps", 2, "--eps", 0.05),
    "evaluate": ("nuts", "evaluate", "fit", "--run-code", "--queries", 5, "--sweep-inputs", 2, *ATTACK),
    "proved": (
        "nuts", "fit", "--certified", "--at-radius", 0.1, "--sigma", 0.25, "--inputs", 5,
        "--noisy-samples", 20, "--certify-inputs", 4, "--samples", 100, "--grid", GRID,
    ),
}  # fmt: skip
"""Name of the folder -> the command that makes it; data and models are added."""

REFUSED = [
    ("certify", ("--batch-size", 0), "batch size = 0"),
    ("certify", ("--goal", "fixed"), "sampled sequentially"),
    ("certify", ("--shard", "1/2"), "a shard needs a folder of its own"),
    ("certify", ("--seed", 5), "holds another run"),
    ("certify", ("--robust", "nets.py:Fails"), "not finite"),
    ("certify", ("--robust", "nets.py:Fails", "--fresh"), "not finite"),
    ("certify", ("--standard", "nets.py:two_classes"), "2 classes apart, the data have 3"),
    ("certify", ("--split", "train"), "train"),
    ("fixed", ("--samples", 400), "planned for exactly 300"),
    ("shard", ("--shard", "2/2"), "holds shard 1/2"),
    ("constant", ("--lipschitz-constant", 0.1), "is steeper than that"),
    ("constant", ("--lipschitz-constant", 0.1, "--fresh"), "is steeper than that"),
    ("constant", ("--radii", "-1"), "radii"),
    ("margin", ("--robust", "nets.py:Odd", "--fresh"), "cannot"),
    ("margin", ("--max-radius", 0), "max radius"),
    ("attack", ("--batch-size", 0), "batch size = 0"),
    ("attack", ("--eps", -1), "eps"),
    ("attack", ("--input-range", "none", "--fresh"), "input range"),
    ("mix-sweep", ("--alphas", "7"), "alpha"),
    ("mix-sweep", ("--attack", "autoattack", "--steps", 2), "autoattack"),
    ("compare-trust", ("--trust", "none-such"), "none-such"),
    ("confidence", ("--restarts", 0), "restarts"),
    ("confidence", ("--standard", "none"), "--standard"),
    ("lipschitz", ("--alpha", 0.2), "alpha"),
    ("fit", ("--beta", 93), "beta = 93"),
    ("fit", ("--grid", "s=1:2:0"), "grid"),
    ("fit", ("--standard-temperature", -1), "temperature"),
    ("fit", ("--r-d", 7), "r d = 7"),
    ("fit", ("--beta", 1, "--grid", "s=1,p=1,c=-2"), "misclassifies too many"),
    ("evaluate", ("--r-d-sweep", 7), "r_d = 7"),
    ("evaluate", ("--queries", 0), "queries = 0"),
    ("proved", ("--samples", 150), "planned for exactly 100"),
    ("proved", ("--clean-accuracy-floor", 3), "floor"),
]


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return every file below a folder with its bytes, and every folder with None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def arguments(folder: Path, name: str, *more: object) -> list[object]:
    """Return a command of `MADE`, as it makes or repeats its folder."""
    command = MADE[name]
    given = [
        str(folder / word) if isinstance(word, str) and word.startswith("nets.py:") else word for word in more
    ]
    nets, written = folder / "nets.py", {word for word in given if isinstance(word, str)}
    models = []
    for role in ("robust", *(() if name in ("attack", "lipschitz") else ("standard",))):
        if f"--{role}" not in written and name != "evaluate":
            models += [f"--{role}", f"{nets}:{'steep' if role == 'standard' else 'linear'}"]
    return [*command, "--data", folder / "points.npz", *models, "--output", folder / name, *given]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where finished runs lie once they were made."""
    return tmp_path_factory.mktemp("finished")


@pytest.fixture
def finished(command, problem, kept, monkeypatch):
    """Return a function that makes a finished run of a name in `MADE`, once, and returns a copy's folder."""
    for file in ("nets.py", "points.npz"):
        if not (kept / file).exists():
            text = (problem.folder / file).read_bytes()
            (kept / file).write_bytes(text + NETS.encode() if file == "nets.py" else text)

    def make(name: str) -> Path:
        if not (kept / name).exists():
            if name == "evaluate":
                make("fit")
            monkeypatch.chdir(kept)
            done = command(*arguments(kept, name))
            assert done.code == 0, done.err
            monkeypatch.chdir(problem.folder)
        return kept / name

    return make


def restored(folder: Path, before: dict[str, bytes | None]) -> None:
    """Make a finished run what it was, so that one test's fault is not another's."""
    if contents(folder) == before:
        return
    shutil.rmtree(folder)
    for name, content in before.items():
        if content is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


@pytest.mark.parametrize(("name", "more", "message"), REFUSED, ids=lambda value: str(value)[:60])
def test_a_refused_command_changes_nothing(command, finished, kept, monkeypatch, name, more, message):
    folder = finished(name)
    before = contents(folder)
    monkeypatch.chdir(kept)
    done = command(*arguments(kept, name, *more))
    after = contents(folder)
    restored(folder, before)
    assert done.code == 2, done.err
    assert message in done.err
    assert sum(line.startswith("Error: ") for line in done.err.splitlines()) == 1
    assert [file for file in {*before, *after} if before.get(file) != after.get(file)] == []


def stopping(monkeypatch, after: int) -> None:
    """Let Ctrl-C come once so many inputs were kept, also where a shell in the background ignores it."""
    write = Store.write_all
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def stop(store, cells):
        write(store, cells)
        if len(store.inputs()) >= after:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Store, "write_all", stop)


def test_an_interrupted_command_keeps_the_finished_one_verifiable(command, finished, monkeypatch):
    folder = finished("certify")
    before = contents(folder)
    with monkeypatch.context() as patch:
        stopping(patch, 5)
        more = ("--inputs", 9, "--batch-size", 100, "--alpha", 0.9, "--samples", 3000)
        stopped = command(*arguments(folder.parent, "certify", *more))
    kept = contents(folder)
    checked, repeated = command("verify", "--run-code", folder), command("reproduce", "--run-code", folder)
    proposed = command("guarantee", "init", folder, "--output", "-")
    whole = command(*arguments(folder.parent, "certify", *more, "--format", "json"))
    later = command("verify", "--run-code", folder)
    restored(folder, before)
    assert stopped.code == 130
    assert "PARTIAL" in stopped.out.upper()
    assert stopped.err.splitlines()[-1] == "Interrupted; repeat the command to go on where it stopped."
    assert {file for file in kept if before.get(file) != kept[file]} == {"numbers.sqlite"}
    assert (checked.code, repeated.code, proposed.code, later.code) == (0, 0, 0, 0), checked.out + later.out
    assert json.loads(whole.out)["inputs"] == 9


def test_a_command_that_is_killed_leaves_the_finished_description(command, finished, monkeypatch):
    folder = finished("certify")
    before = contents(folder)

    def killed(*_, **__):
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(sampled_run, "fill", killed)
        command(*arguments(folder.parent, "certify", "--alpha", 0.9))
    after = contents(folder)
    restored(folder, before)
    assert after == before


def test_more_inputs_that_are_stopped_leave_the_first_verifiable(command, finished, monkeypatch):
    folder = finished("constant")
    before = contents(folder)
    logits, calls = proved._logits, []

    def stop(*given):
        calls.append(given)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return logits(*given)

    with monkeypatch.context() as patch:
        patch.setattr(proved, "_logits", stop)
        stopped = command(*arguments(folder.parent, "constant", "--inputs", 9, "--batch-size", 3))
    kept, checked = contents(folder), command("verify", "--run-code", folder)
    whole = command(*arguments(folder.parent, "constant", "--inputs", 9))
    later = command("verify", "--run-code", folder)
    restored(folder, before)
    assert (stopped.code, whole.code) == (130, 0)
    assert {file for file in kept if before.get(file) != kept[file]} == {"numbers.sqlite"}
    assert (checked.code, later.code) == (0, 0), checked.out + later.out


def test_fresh_replaces_a_run_once_another_has_begun(command, problem):
    folder = problem.folder / "run"
    command("certify", *problem.options, "--inputs", 3, "--samples", 300, "--output", folder)
    stale = contents(folder)
    more = ("--inputs", 2, "--samples", 300, "--seed", 4, "--fresh", "--output", folder)
    done = command("certify", *problem.options, *more)
    assert done.code == 0, done.err
    assert json.loads((folder / "run.json").read_text())["identity"]["seed"] == 4
    assert not (folder / ".earlier").exists()
    assert set(stale) - set(contents(folder)) == {name for name in stale if "inputs3" in name}


def test_a_shard_resumes_in_its_own_folder_and_a_whole_run_is_kept_out(command, finished):
    folder = finished("shard")
    before = contents(folder)
    again = command(*arguments(folder.parent, "shard"))
    whole = command(*[word for word in arguments(folder.parent, "shard") if word not in ("--shard", "1/2")])
    after = contents(folder)
    restored(folder, before)
    assert again.code == 0, again.err
    assert whole.code == 2
    assert "holds shard 1/2: repeat --shard 1/2, name another --output for the whole run" in whole.err
    assert {**after, "run.json": b""} == {**before, "run.json": b""}


def test_a_whole_run_that_is_unfinished_takes_no_shard(command, problem, monkeypatch):
    more = ("--inputs", 8, "--samples", 300, "--batch-size", 100, "--output", "run")
    given = ("certify", *problem.options, *more)
    with monkeypatch.context() as patch:
        stopping(patch, 2)
        assert command(*given).code == 130
    done = command(*given, "--shard", "1/2")
    assert done.code == 2
    assert "run holds a whole run: a shard needs a folder of its own" in done.err


@pytest.fixture
def killed(command, problem, monkeypatch):
    """Return the folder of a run that was killed while it sampled the second of eight inputs."""

    def end(*_, **__):
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        stopping(patch, 2)
        patch.setattr(sampled_run, "publish", end)
        command(
            "certify", *problem.options, "--inputs", 8, "--samples", 300, "--batch-size", 100, "--output", "run"
        )  # fmt: skip
    return problem.folder / "run"


def test_an_unfinished_run_is_named_as_such_everywhere(command, killed):
    told = f"{killed} is unfinished (1 of 8 inputs): repeat its command (certmix certify --sigma 0.25 "
    for words in (("reproduce", killed), ("guarantee", "init", killed)):
        done = command(*words)
        assert done.code == 2
        assert done.err.startswith(f"Error: {told}"), done.err
    checked = command("verify", "--run-code", killed, "--format", "json")
    (check,) = json.loads(checked.out)["checks"]
    assert (checked.code, check["check"], check["outcome"]) == (2, "complete run", "unchecked")
    assert check["message"].startswith(told)
    assert told in " ".join(command("trade-off", killed, "--plot", "none").out.split())
    assert told in command("falsify", "--run-code", killed, "--inputs", 1, "--samples", 300).err


def test_the_command_that_is_named_goes_on(command, killed):
    import shlex

    told = command("reproduce", "--run-code", killed).err
    words = shlex.split(told.partition("repeat its command (")[2].rpartition(") to go on")[0])
    done = command(*words[1:], "--format", "json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["inputs"] == 8
    assert command("reproduce", "--run-code", killed).code == 0


def test_a_shard_is_named_as_such(command, finished):
    folder = finished("shard")
    told = f"{folder} is shard 1 of 2: merge it with the others (certmix merge)"
    assert f"Error: {told}" in command("reproduce", "--run-code", folder).err
    assert f"Error: {told}" in command("guarantee", "init", folder).err
    assert (
        "inputs: partial: 2 of 4 inputs; finish or merge the run"
        in command("verify", "--run-code", folder).out
    )


@pytest.mark.parametrize(
    "name", ["attack", "mix-sweep", "compare-trust", "confidence", "lipschitz", "fit", "evaluate"]
)
def test_interrupted_studies_exit_130_and_say_that_they_go_on(command, finished, kept, monkeypatch, name):
    def stop(*_):
        raise KeyboardInterrupt

    finished("fit")
    monkeypatch.chdir(kept)
    monkeypatch.setattr("certmix.runs.cells.Cells._compute", stop)
    done = command(*arguments(kept, name)[:-2], "--output", kept / f"{name}-stopped")
    assert done.code == 130
    assert done.out == ""
    assert done.err.splitlines()[-1].endswith("; repeat the command to go on where it stopped.")


@pytest.mark.parametrize("name", ["attack", "mix-sweep", "lipschitz", "evaluate"])
def test_a_study_of_more_inputs_that_is_stopped_leaves_the_finished_one(
    command, finished, kept, monkeypatch, name
):
    from certmix.runs.cells import Cells

    folder = finished(name)
    before, compute, inputs = contents(folder), Cells._compute, []

    def stop(self, cell, part, held):
        inputs.extend(part.positions)
        if set(inputs) != set(part.positions):
            raise KeyboardInterrupt
        return compute(self, cell, part, held)

    monkeypatch.chdir(kept)
    with monkeypatch.context() as patch:
        patch.setattr(Cells, "_compute", stop)
        done = command(*arguments(kept, name, "--inputs", 9, "--batch-size", 3))
    after = contents(folder)
    restored(folder, before)
    assert done.code == 130, done.err
    assert "PARTIAL" in done.out
    assert {file for file in after if before.get(file) != after[file]} == {"numbers.sqlite"}


def test_an_interrupted_certified_fit_keeps_the_mix(command, finished, kept, monkeypatch):
    folder = finished("proved")
    before = contents(folder)

    monkeypatch.chdir(kept)
    with monkeypatch.context() as patch:
        patch.setattr(sampled_run, "fill", lambda *given, **named: False)
        done = command(*arguments(kept, "proved", "--at-radius", 0.2, "--clamp", "relu"))
    after = contents(folder)
    restored(folder, before)
    assert done.code == 130
    assert "Interrupted before all inputs were certified; repeat the command" in done.err
    assert (after["nuts.json"], after["run.json"]) == (before["nuts.json"], before["run.json"])


# signals

LONG = [name for name in MADE if name != "fixed"]
QUICK = ("certify", "shard", "attack", "fit")
SENT = dict(zip(LONG, cycle([signal.SIGTERM, signal.SIGHUP]), strict=False))
GOES_ON = "repeat the command to go on where it stopped."


def sent_with_write(monkeypatch, number: int, which: int = 2) -> None:
    """Let a signal arrive when a run has kept so much."""
    write, written = Store.write_all, []

    def stop(store, cells):
        cells = list(cells)
        write(store, cells)
        written.extend(cells[:1])
        if len(written) == which:
            signal.raise_signal(number)

    monkeypatch.setattr(Store, "write_all", stop)


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in LONG],
)
def test_a_command_that_is_stopped_says_so_and_goes_on(command, finished, kept, monkeypatch, name):
    if name == "evaluate":
        finished("fit")
    finished(name)
    monkeypatch.chdir(kept)
    folder = kept / f"stopped-{name}"
    given = [*arguments(kept, name, "--batch-size", 1), "--output", folder]
    with monkeypatch.context() as patch:
        sent_with_write(patch, SENT[name])
        done = command(*given)
    assert done.code == 128 + SENT[name], done.err
    last = done.err.splitlines()[-1]
    assert f"({SENT[name].name}); {GOES_ON}" in last, done.err
    assert "Traceback" not in done.err and (not done.out or "PARTIAL" in done.out)
    assert not (folder / "lock.held").exists() and not (folder / "numbers.sqlite-wal").exists()
    again = command(*given)
    assert again.code == 0, again.err


def test_fresh_that_is_stopped_says_how_to_go_on(command, finished, monkeypatch):
    folder = finished("certify")
    before = contents(folder)
    for which, stays in ((1, True), (3, False)):
        with monkeypatch.context() as patch:
            sent_with_write(patch, signal.SIGTERM, which)
            done = command(*arguments(folder.parent, "certify", "--seed", 7, "--batch-size", 100, "--fresh"))
        assert done.code == 143
        assert "without --fresh to go on, or with it if an earlier run still lies there" in done.err
        assert (contents(folder) == before) is stays
        assert (f"{folder} keeps its earlier run" in done.err) is stays
    described = json.loads((folder / "run.json").read_text())
    again = command(*arguments(folder.parent, "certify", "--seed", 7, "--batch-size", 100))
    restored(folder, before)
    assert described["identity"]["seed"] == 7 and again.code == 0


def test_verify_and_falsify_end_as_well(command, finished, monkeypatch):
    from certmix.verification import resample
    from certmix.verification.falsify import attack

    folder = finished("certify")

    def stop(*given, **named):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(resample, "Sampler", stop)
    monkeypatch.setattr(attack, "attack_claim", stop)
    for words in (
        ("verify", folder, "--run-code"),
        ("falsify", folder, "--run-code", "--inputs", 1, "--samples", 300),
    ):
        done = command(*words)
        assert done.code == 143, done.err
        assert "Interrupted (SIGTERM)" in done.err.splitlines()[-1] and "Traceback" not in done.err


def test_what_is_ignored_stays_ignored(command, finished, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        sent_with_write(monkeypatch, signal.SIGINT)
        folder = finished("certify")
        done = command(*arguments(folder.parent, "certify", "--seed", 3), "--output", "other")
        assert done.code == 0, done.err
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
