"""Check an installed wheel from outside the repository: `python installed.py REPOSITORY`.

Run by continuous integration with the interpreter that certmix is installed in.
"""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from importlib.metadata import files
from pathlib import Path


def main(repository: Path) -> None:
    """Compare the wheel's contents with the repository's folders."""
    for name in ("cli", "tests", "benchmarks"):
        assert importlib.util.find_spec(name) is None, f"a top-level {name} is importable"
    import certmix

    home = Path(certmix.__file__).parent
    assert repository not in home.parents, f"certmix was imported from the repository: {home}"
    wheel = {str(path) for path in files("certmix") or []}
    packages = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    for package in packages:
        assert f"{package.replace('.', '/')}/__init__.py" in wheel, f"{package} is missing from the wheel"
    for pattern in (
        "certmix/models/zoo/*.safetensors",
        "certmix/models/zoo/*.json",
        "certmix/data/*.png",
        "certmix/*/*.j2",
    ):
        for path in repository.glob(pattern):
            assert str(path.relative_to(repository)) in wheel, f"{path.name} is missing from the wheel"
    assert not any(path.startswith(("tests/", "cli/", "benchmarks/")) for path in wheel)
    print(f"wheel: {len(wheel)} files in {len(packages)} packages")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
