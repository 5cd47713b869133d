"""Fills in pages that no toctree of index.md names, links to files outside docs, and tables of the code.

`{leftover-pages}` in index.md stands for the first, so that no page is orphaned, and `{limits-...}` for the
tables of certmix/assurance/limits.py.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

from certmix.assurance.limits import LIMITS, limits_table

MARK = "{leftover-pages}"
OUTSIDE = {"../benchmarks/README.md": "benchmarks.md", "../CONTRIBUTING.md": "contributing.md"}
TOCTREE = re.compile(r"```\{toctree\}\n(.*?)```", re.DOTALL)


def named(source: str, pages: set[str]) -> set[str]:
    """Return the pages that the toctrees of `source` name, themselves or by a pattern."""
    entries = [line.strip() for body in TOCTREE.findall(source) for line in body.splitlines()]
    patterns = [re.escape(entry).replace(r"\*", "[^/]*") for entry in entries if entry[:1] not in ("", ":")]
    return {page for page in pages for pattern in patterns if re.fullmatch(pattern, page)}


def fill(app: Sphinx, page: str, source: list[str]) -> None:
    for link, inside in OUTSIDE.items():
        source[0] = source[0].replace(f"({link}", f"({inside}")
    for about in LIMITS:
        source[0] = source[0].replace(f"{{limits-{about}}}", limits_table(about))
    if MARK in source[0]:
        top = {name for name in app.env.found_docs if "/" not in name}
        left = sorted(top - named(source[0], top) - {page})
        source[0] = source[0].replace(MARK, "\n".join(left))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
