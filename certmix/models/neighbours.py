"""The code that a model rests on: its own file, and what that imports from its folder or package."""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from pathlib import Path

__all__ = ["is_installed", "module_sources", "sources_of"]

_SUFFIXES = (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES, ".pyc")
_VAST = {"certmix", "torch"}
"""Packages of which a model's code is not thought to be a part."""
_OPEN = {"spec_from_file_location", "run_path", "run_module", "SourceFileLoader", "iter_modules"}
"""Calls that import what cannot be read off the source."""


def sources_of(name: str, file: Path, source: bytes, folder: Path) -> dict[str, bytes]:
    """Return the bytes of a module's file and of all that it imports of the user's own, by name of the file.

    Imports are read off the source, wherever they stand in it, and followed through `folder` and those
    folders of ``sys.path`` that hold no library.  A file that imports by a computed name brings all of
    its package, or all of its folder.

    Parameters
    ----------
    name
        The module's dotted name; relative imports start from it.
    file, source
        Its file, and what that holds.
    folder
        Where its top-level name lies.

    Examples
    --------
    >>> list(sources_of("nets", Path("nets.py"), b"import json", Path("no-such-folder")))
    ['nets.py']
    """
    folders = [folder, *_own_folders()]
    found: dict[Path, bytes] = {}
    waiting = [(name, file, source)]
    while waiting:
        name, file, source = waiting.pop()
        if file in found:
            continue
        found[file] = source
        base = name if file.stem == "__init__" else name.rpartition(".")[0]
        for wanted in _imports(source, base):
            waiting += _located(wanted, folders) if wanted else _all_of(base, file, folders)
    return _labelled(found, folders)


def module_sources(name: str) -> dict[str, bytes]:
    """Return the same of an imported module, nothing where its file cannot be had.

    Of an installed package it is all Python files, of torch the module's own.
    """
    top, module = (sys.modules.get(one) for one in (name.partition(".")[0], name))
    file = Path(getattr(module, "__file__", None) or "")
    if not file.is_file():
        return {}
    file, source = file.resolve(), file.read_bytes()
    places = [Path(place).resolve() for place in getattr(top, "__path__", ())] or [file]
    if not is_installed(places[0]):
        return sources_of(name, file, source, places[0].parent)
    if name.partition(".")[0] in _VAST or places == [file]:
        return {file.name: source}
    files = [path for place in places for path in sorted(place.rglob("*.py"))]
    return _labelled({path: path.read_bytes() for path in (file, *files)}, [place.parent for place in places])


def is_installed(path: Path) -> bool:
    """Whether a path belongs to Python or to its packages."""
    places = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values()}
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts) or any(
        path.is_relative_to(Path(place).resolve()) for place in places
    )


def _own_folders() -> list[Path]:
    """Return the folders of ``sys.path`` that hold neither Python nor installed packages."""
    folders = [Path(entry or ".").resolve() for entry in sys.path]
    return [folder for folder in folders if folder.is_dir() and not is_installed(folder)]


def _imports(source: bytes, base: str) -> Iterator[str]:
    """Yield the dotted names that a source may import, "" where one is computed; `base` is its package."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError):  # an extension, or a file of another Python
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = _absolute(node.level, node.module or "", base)
            yield parent
            yield from (f"{parent}.{one.name}" for one in node.names)
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "__import__"):
                first = node.args[0] if node.args else None
                told = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
                level = len(told) - len(told.lstrip("."))
                yield _absolute(level, told.lstrip("."), base) if told else ""
            elif called in _OPEN:
                yield ""


def _absolute(level: int, name: str, base: str) -> str:
    """Return what a relative import of some level names, seen from a package."""
    if not level:
        return name
    parts = base.split(".")
    return ".".join(part for part in (*parts[: len(parts) - level + 1], name) if part)


def _located(name: str, folders: list[Path]) -> Iterator[tuple[str, Path, bytes]]:
    """Yield a dotted name and the packages around it, with the files of those that lie in the folders."""
    parts = name.split(".")
    if parts[0] in _VAST:
        return
    for folder in folders:
        found = [
            (".".join(parts[:k]), path)
            for k in range(1, len(parts) + 1)
            if (path := _file(folder.joinpath(*parts[:k]))) is not None
        ]
        if found:
            yield from ((known, path, path.read_bytes()) for known, path in found)
            return


def _file(path: Path) -> Path | None:
    """Return the file of a module without its suffix, or of a package's ``__init__``."""
    for start in (path / "__init__", path):
        for suffix in _SUFFIXES:
            if (file := start.with_name(start.name + suffix)).is_file():
                return file
    return None


def _all_of(base: str, file: Path, folders: list[Path]) -> Iterator[tuple[str, Path, bytes]]:
    """Yield all Python files of a file's top-level package; of its folder where it is in none."""
    if not base:
        yield from ((path.stem, path, path.read_bytes()) for path in sorted(file.parent.glob("*.py")))
        return
    top = next(
        (folder for folder in folders if file.is_relative_to(folder / base.partition(".")[0])), file.parent
    )
    for path in sorted((top / base.partition(".")[0]).rglob("*.py")):
        parts = path.relative_to(top).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path, path.read_bytes()


def _labelled(found: dict[Path, bytes], folders: list[Path]) -> dict[str, bytes]:
    """Return what files hold by their paths within the folder that they were found from."""
    labelled: dict[str, bytes] = {}
    for path, source in found.items():
        inside = [folder for folder in folders if path.is_relative_to(folder)]
        label = path.relative_to(inside[0]).as_posix() if inside else path.name
        while label in labelled:
            label += " (another)"
        labelled[label] = source
    return labelled
