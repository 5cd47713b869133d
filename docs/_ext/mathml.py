"""Formulas as MathML, made by docutils: nothing to download, nothing to run in the reader's browser."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

BIG = re.compile(r"\\([bB]ig)\s*([(\[)\]])")
SHORT_FRACTION = re.compile(r"(\\[td]?frac)(\w)(\w)")
TAG = re.compile(r"\\tag\{([^}]*)\}")
FENCE = re.compile(r'<mo(?: class="mathopen")?>([|‖{}])</mo>')
"""Signs that browsers stretch, each by itself: one with an index then sits lower than its partner."""
CLOSE = ' lspace="0" rspace="0"'
AFTER, BEFORE = re.compile(r"[.,;:!?)\]]+"), re.compile(r"[(\[]+$")


def convert(source: str, *, block: bool) -> str:
    r"""Return MathML; `\big(` is written as `\bigl(` and `\frac1K` with braces, which docutils asks for."""
    source = BIG.sub(lambda found: f"\\{found[1]}{'l' if found[2] in '([' else 'r'}{found[2]}", source)
    source = SHORT_FRACTION.sub(r"\1{\2}{\3}", source).replace(r"\dots", r"\ldots")
    found = str(tex2mathml(" ".join(source.split()), as_block=block))
    return FENCE.sub(rf'<mo stretchy="false"{CLOSE * (chr(92) + "rvert" in source)}>\1</mo>', found)


def written(node: nodes.math | nodes.math_block, source: str) -> str:
    """Return MathML, or the source itself with a warning that names its page."""
    try:
        return convert(source, block=isinstance(node, nodes.math_block))
    except MathError as error:
        logger.warning("formula %r: %s", source, error, location=node)
        return f"<code>{escape(source)}</code>"


def visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(written(node, node.astext()))
    raise nodes.SkipNode


def visit_block(self: HTML5Translator, node: nodes.math_block) -> None:
    source = node.astext()
    tag = TAG.search(source)
    number = f'<span class="eqno">({tag[1]})</span>' if tag else ""
    self.body.append(f'<div class="math">{number}{written(node, TAG.sub("", source))}</div>')
    raise nodes.SkipNode


def keep_to_punctuation(app: Sphinx, doctree: nodes.document) -> None:
    """Put a formula and the marks beside it into one span: browsers would begin a line with a full stop."""
    for formula in list(doctree.findall(nodes.math)):
        parent, at = formula.parent, formula.parent.index(formula)
        before, after = (parent[k] if 0 <= k < len(parent) else None for k in (at - 1, at + 1))
        lead = BEFORE.search(before) if isinstance(before, nodes.Text) else None
        tail = AFTER.match(after) if isinstance(after, nodes.Text) else None
        span = nodes.inline("", "", classes=["unbroken"])
        parent.replace(formula, span)
        span += [nodes.Text(lead[0] if lead else ""), formula, nodes.Text(tail[0] if tail else "")]
        if tail:
            parent.replace(after, nodes.Text(after[tail.end() :]))
        if lead:
            parent.replace(before, nodes.Text(before[: lead.start()]))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", keep_to_punctuation)
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
