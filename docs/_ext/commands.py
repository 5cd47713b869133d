"""The directive `{commands}`: a section for each command, written from click's own definitions."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import click
from certmix_cli.main import cli
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

VERBATIM = "\b"


def blocks(text: str | None) -> Iterator[nodes.Element]:
    r"""Yield the paragraphs of a help text; those marked with `\b` as they stand."""
    for block in inspect.cleandoc(text or "").split("\n\n"):
        if block.startswith(VERBATIM):
            heading, _, rest = block.removeprefix(VERBATIM).strip("\n").partition("\n")
            yield nodes.paragraph("", heading)
            code = inspect.cleandoc(rest)
            yield nodes.literal_block(code, code, language="text")
        elif block:
            yield nodes.paragraph("", " ".join(block.split()))


def options(command: click.Command, context: click.Context) -> nodes.definition_list:
    """Return the options as `--help` writes them."""
    listed = nodes.definition_list(classes=["options"])
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or parameter.name == "help":
            continue
        term = nodes.term("", "", nodes.literal("", record[0]))
        text = nodes.definition("", nodes.paragraph("", " ".join(record[1].split())))
        listed += nodes.definition_list_item("", term, text)
    return listed


def section(command: click.Command, parent: click.Context | None, name: str) -> nodes.section:
    """Return the section of a command, with those of its subcommands inside."""
    context = click.Context(command, info_name=name, parent=parent, max_content_width=100)
    path = context.command_path
    found = nodes.section(ids=[path.replace(" ", "-")], names=[path])
    found += nodes.title("", "", nodes.literal("", path))
    found.extend(blocks(command.help))
    usage = command.get_usage(context)
    found += nodes.literal_block(usage, usage, language="text")
    found += options(command, context)
    found.extend(blocks(command.epilog))
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found += section(command.get_command(context, child), context, child)
    return found


class Commands(Directive):
    """A section for each command, in the order of `certmix --help`."""

    def run(self) -> list[nodes.Node]:
        whole = section(cli, None, "certmix")
        for part in whole.findall(nodes.section):
            self.state.document.note_explicit_target(part)
        return [part for part in whole.children if isinstance(part, nodes.section)]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
