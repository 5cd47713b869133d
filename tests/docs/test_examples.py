"""Every example of the documentation: commands parse, Python runs, output is as shown.

Commands are parsed by click here (`test_commands_run.py` runs them), Python is run, in one namespace a page. `<!-- run -->` above a console
block runs it and compares what is shown; `<!-- file: NAME -->` above a block writes it to a file; `<!-- output -->`
above a block of text compares what Python printed since. `<!-- slow -->` does the same in the long suite, without
comparing digits, which depend on the machine. `<!-- not run: REASON -->` must be listed below.
"""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
from pathlib import Path

import click
import pytest
from doc_pages import DOCS, ROOT, Block, blocks, commands, matches, pages, parse
from doc_setups import SETUPS, SHORTER

from certmix.attacks import ATTACKS
from certmix.bounds import BOUNDS
from certmix.data import DATASETS
from certmix.radii import CERTIFICATES

PAGES = [page for page in pages() if page.exists()]

NOT_RUN = {
    ("scale.md", "needs a Dask cluster"),
    ("fronts.md", "needs the binary batches of CIFAR-10"),
    ("howto-onnx.md", "needs onnxscript"),
    ("nuts-studies.md", "a pattern, not a command"),
}
"""Examples that nothing checks: whoever adds one says why in its page, and here."""

OTHER_PROGRAMS = {
    "cp",
    "git",
    "kubectl",
    "mkdir",
    "pip",
    "pre-commit",
    "pytest",
    "python",
    "sbatch",
    "sqlite3",
}


def ids(value: Path | bool) -> str:
    return value.name if isinstance(value, Path) else "slow" if value else ""


def test_only_listed_examples_are_not_run():
    found = {
        (block.page, block.marker.removeprefix("not run: "))
        for page in PAGES
        for block in blocks(page)
        if block.marker.startswith("not run")
    }
    assert found == NOT_RUN


def test_markers_are_known_and_blocks_are_found():
    known = ("run", "output", "slow")
    everything = [block for page in PAGES for block in blocks(page)]
    for block in everything:
        if block.marker.split()[:1] not in (["file:"], ["not"]):
            assert block.marker in ("", *known), block.where
    assert sum(block.language == "console" for block in everything) > 40
    assert sum(block.language == "python" for block in everything) > 20


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_parse(page):
    for block in blocks(page):
        if block.language not in ("console", "bash") or block.marker.startswith("not run"):
            continue
        for command in commands(block):
            for words in command.parts():
                _check(words, block)


def _check(words: list[str], block: Block) -> None:
    if words[0] == "certmix":
        try:
            parse(words)
        except click.ClickException as error:
            pytest.fail(f"{block.where}: {' '.join(words)}: {error.format_message()}")
        except click.exceptions.Exit:  # --help, --version
            return
    else:
        assert words[0] in OTHER_PROGRAMS, f"{block.where}: {words[0]}"
        if words[0] == "python" and words[1].endswith(".py"):
            made = (
                [other.marker for other in blocks(Path(DOCS, block.page))]
                if (DOCS / block.page).exists()
                else []
            )
            given = f"/{words[1]}>`" in Path(DOCS, block.page).read_text() if made else False  # {download}
            assert (ROOT / words[1]).exists() or f"file: {words[1]}" in made or given, (block.where, words[1])


@pytest.mark.parametrize(
    "line, message",
    [
        ("certmix certfy --alpha 1", "No such command"),
        ("certmix certify --alpha 1 --sgma 2", "No such option"),
        ("certmix certify --alpha one", "not a number"),
        ("certmix nuts fitt", "No such command"),
        ("certmix report", "Missing argument"),
    ],
)
def test_wrong_commands_are_found(line, message):
    with pytest.raises(click.UsageError) as found:
        parse(line.split())
    assert message in found.value.format_message()


def test_the_array_and_the_ray_job_are_valid():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    array = DOCS / "examples" / "certify-array.sh"
    assert subprocess.run(["bash", "-n", array], capture_output=True).returncode == 0
    job = yaml.safe_load((DOCS / "examples" / "certify-rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    words = shlex.split(job["spec"]["entrypoint"])
    lines = re.sub(r"\$\{[^}]*\}", "1", array.read_text().replace("\\\n", " ")).splitlines()
    for line in (*lines, job["spec"]["entrypoint"]):
        if line.startswith("certmix "):
            parse(shlex.split(line))
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    (container,) = group["template"]["spec"]["containers"]
    gpus = float(words[words.index("--gpus-per-worker") + 1]) * int(words[words.index("--workers") + 1])
    assert gpus == group["replicas"] * int(container["resources"]["limits"]["nvidia.com/gpu"])
    volumes = {volume["name"] for volume in group["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_output_is_compared():
    assert matches("a 1.5\n...\nlast", "a 1.5 \nx\ny\nlast\n", figures=True)
    assert not matches("a 1.5\nlast", "a 1.6\nlast\n", figures=True)
    assert matches("a   1.5\nlast", "a 1.63\nlast\n", figures=False)
    assert not matches("a 1.5\nlast", "a 1.63\nmore\nlast\n", figures=False)


def runs(block: Block, slow: bool = False) -> bool:
    """Whether a block does anything when its page is run."""
    if block.marker.startswith("not run") or (block.marker == "slow" and not slow):
        return False
    return block.language == "python" or block.marker != ""


@pytest.fixture
def unchanged_tables():
    """Examples may add to the tables; other tests shall not see it."""
    tables = (ATTACKS, BOUNDS, CERTIFICATES, DATASETS)
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)


QUICK = [(page, False) for page in PAGES if any(map(runs, blocks(page)))]
LONG = [(page, True) for page in PAGES if any(block.marker == "slow" for block in blocks(page))]


@pytest.mark.parametrize(
    ("page", "slow"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.long) for case in LONG)], ids=ids
)
def test_page_runs(page, slow, problem, command, capsys, monkeypatch, unchanged_tables):
    names: dict[str, object] = {"__name__": "example"}
    SETUPS.get(page.name, lambda problem, names: None)(problem, names)
    capsys.readouterr()
    for block in (block for block in blocks(page) if runs(block, slow)):
        if block.marker.startswith("file: "):
            Path(block.marker.removeprefix("file: ")).write_text(block.text)
        elif block.language == "python":
            _execute(block, names)
        elif block.language == "text":
            printed = capsys.readouterr().out
            found = matches(block.text, printed, figures=block.marker != "slow")
            assert found, f"{block.where}: printed\n{printed}"
        else:
            _run(block, command, monkeypatch)


def _execute(block: Block, names: dict[str, object]) -> None:
    text = block.text
    for long, short in SHORTER.get(block.page, ()):
        text = text.replace(long, short)
    exec(compile("\n" * block.line + text, block.page, "exec"), names)


def _run(block: Block, command, monkeypatch) -> None:
    for shown in commands(block):
        for words in shown.parts():
            if words[0] == "python":
                monkeypatch.syspath_prepend(str(Path.cwd()))
                runpy.run_path(words[1])
            elif words[0] == "certmix":
                done = command(*words[1:])
                assert done.code == 0, f"{block.where}: {shown.line}: {done.err}"
        if shown.shown:
            found = matches("\n".join(shown.shown), done.out, figures=block.marker != "slow")
            assert found, f"{block.where}: {shown.line} printed\n{done.out}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_pages_named_by_messages_exist():
    sources = [*(ROOT / "certmix").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]
    named = {
        found
        for source in sources
        for found in re.findall(r"docs/([\w-]+\.md)(?:#([\w-]+))?", source.read_text())
    }
    assert sum(bool(anchor) for _, anchor in named) >= 5
    for page, anchor in named:
        assert (DOCS / page).exists(), page
        assert not anchor or anchor in _anchors(DOCS / page), (page, anchor)
