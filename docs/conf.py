"""How the documentation is built: `sphinx-build -W --keep-going -n docs OUTPUT`, without a network."""

from __future__ import annotations

import importlib
import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "certmix"
author = "The certmix developers"
version = release = installed_version("certmix")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinx_copybutton",
    "mathml",
    "commands",
    "leftover_pages",
]
exclude_patterns = ["_build", "_ext"]

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # stored outputs are shown: docs/notebooks/execute.py

html_theme = "furo"
html_title = f"certmix {version}"
html_static_path = ["_static"]
html_css_files = ["certmix.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_math_renderer = "mathml"
pygments_style = "friendly"
pygments_dark_style = "monokai"
highlight_language = "text"
smartquotes = False

copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
copybutton_line_continuation_character = "\\"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_use_type_comments = False
autodoc_type_aliases = {name: name for name in ("ArrayLike", "FloatArray", "IntArray", "NDArray", "Pair")}
default_role = "literal"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
python_use_unqualified_type_names = True
# classes in signatures: those of other libraries are documented elsewhere, inner ones nowhere; nor ranges
nitpick_ignore_regex = [
    ("py:class", ".*"),
    ("py:obj", r"typing\.Annotated.*"),
]  # ranges of settings: no targets
suppress_warnings = ["ref.python"]  # several modules have a class of a name, such as Progress

LITERAL = re.compile(r"(``?[^`]*``?)")
ALIAS = re.compile(r"TypeAliasForwardRef\('(\w+)'\)")
MARKUP = re.compile(r"\||(?<=[(, ])\*(?=\w+\))")


def resolve_lazy_names() -> None:
    """Load the names that packages import on first use, for autodoc looks at modules as they stand."""
    for page in (HERE / "api").glob("*.md"):
        for name in re.findall(r"automodule:: (\S+)", page.read_text()):
            module = importlib.import_module(name)
            for public in getattr(module, "__all__", ()):
                setattr(module, public, getattr(module, public))


def plain_docstring(app: Sphinx, kind: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Take |x| for an absolute value and (n, *shape) for a shape, as docstrings mean them."""
    for number, line in enumerate(lines):
        parts = LITERAL.split(line)
        parts[::2] = [MARKUP.sub(r"\\\g<0>", part) for part in parts[::2]]
        lines[number] = "".join(parts)


def plain_signature(
    app: Sphinx, kind: str, name: str, value: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Write aliases by their names inside other types, too."""
    return ALIAS.sub(r"\1", signature or "") or signature, ALIAS.sub(r"\1", returned or "") or returned


def without_long_values(app: Sphinx, doctree: nodes.document) -> None:
    """Leave out the value of a table: it is not written to be read."""
    for annotation in list(doctree.findall(addnodes.desc_annotation)):
        text = annotation.astext().strip()
        if text.startswith("=") and len(text) > 40:
            annotation.parent.remove(annotation)


def setup(app: Sphinx) -> None:
    resolve_lazy_names()
    app.connect("doctree-read", without_long_values)
    app.connect("autodoc-process-signature", plain_signature)
    app.connect("autodoc-process-docstring", plain_docstring, priority=400)  # before numpydoc
