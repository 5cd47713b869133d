"""The examples of README.md and docs: blocks with the markers above them, and what they say they print."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from certmix_cli.main import cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(
    r"(?:^<!-- (?P<marker>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
NUMBER = re.compile(r"\d[\d,.]*")


@dataclass(frozen=True)
class Block:
    """A fenced block; `marker` is the comment on the line above it."""

    page: str
    line: int
    language: str
    text: str
    marker: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A line after a prompt, continuation lines joined, and the lines shown below it."""

    line: str
    shown: tuple[str, ...]

    def parts(self) -> Iterator[list[str]]:
        """Yield the words of each command in the line: && and | divide, # and > end it."""
        for part in re.split(r"&&|\|(?=\s)", re.split(r"\s#\s|\s>\s", self.line)[0]):
            words = shlex.split(part)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words = words[1:]
            yield words


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(
            page.name, text[: found.start()].count("\n") + 1, found["language"], found["text"],
            found["marker"] or "",
        )
        for found in BLOCK.finditer(text)
    ]  # fmt: skip


def commands(block: Block) -> list[Command]:
    """Return the commands of a console block; of a bash block every line is one."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "bash":
        return [Command(line, ()) for line in lines if line and not line.startswith("#")]
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    ends = [*starts[1:], len(lines)]
    return [Command(lines[a][2:], tuple(lines[a + 1 : b])) for a, b in zip(starts, ends, strict=True)]


def parse(words: list[str]) -> None:
    """Let click read a command line without running it; whatever is wrong with it raises."""
    at: click.Command = cli
    context = at.make_context("certmix", words[1:])
    while isinstance(at, click.Group):
        rest = [*context._protected_args, *context.args]
        name, found, rest = at.resolve_command(context, rest)
        assert found is not None
        at = found
        context = at.make_context(name, rest, parent=context)


def matches(shown: str, printed: str, *, figures: bool) -> bool:
    """Whether output is as shown; a line `...` stands for any lines, and figures may be let vary."""
    if not figures:
        shown, printed = (re.sub(r" {2,}", " ", NUMBER.sub("#", text)) for text in (shown, printed))
    wanted = [
        r"(?:[^\n]*\n)*" if line == "..." else re.escape(line.rstrip()) + r"\n"
        for line in shown.strip("\n").splitlines()
    ]
    text = "".join(line.rstrip() + "\n" for line in printed.strip("\n").splitlines())
    return re.fullmatch("".join(wanted), text) is not None
