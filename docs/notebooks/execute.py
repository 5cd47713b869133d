"""Execute the notebooks and store what they show: `python docs/notebooks/execute.py [NAME.ipynb ...]`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def executed(path: Path) -> nbformat.NotebookNode:
    """Return the notebook with its outputs, executed in an empty folder; an error in a cell raises."""
    book = nbformat.read(path, as_version=4)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the figures then depend less on the machine
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            book, timeout=600, record_timing=False, resources={"metadata": {"path": folder}}
        ).execute()
    book.metadata["language_info"] = {"name": "python"}
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [made for made in cell.outputs if not _cleared(made)]
    return book


def _cleared(output: nbformat.NotebookNode) -> bool:
    """Whether this is what a finished progress bar leaves."""
    return output.output_type == "display_data" and output.data.get("text/html") == ""


if __name__ == "__main__":
    for path in [HERE / name for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        nbformat.write(executed(path), path)
        print(path.name)
