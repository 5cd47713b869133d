"""Specs that hold others, or a path: a classifier behind a denoiser, a diffusion model.

No torch: also what only moves paths reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from certmix.errors import ParameterError
from certmix.models.kinds import is_program, split_spec

DENOISED, DIFFUSERS = "denoised:", "diffusers:"


def denoised_spec(denoiser: str, classifier: str) -> str:
    """Return the spec of a classifier behind a denoiser; ParameterError where it could not be read back."""
    if "," in denoiser:
        raise ParameterError(f"denoiser = {denoiser!r}: no comma may be in it: give the file another name")
    return f"{DENOISED}{denoiser},{classifier}"


def denoised_parts(spec: str) -> tuple[str, str] | None:
    """Return the specs of denoiser and classifier, None of another spec.

    >>> denoised_parts("denoised:cifar10-denoiser-0.50,net.py:net")
    ('cifar10-denoiser-0.50', 'net.py:net')
    """
    denoiser, _, classifier = spec.removeprefix(DENOISED).partition(",")
    return (denoiser, classifier) if spec.startswith(DENOISED) and denoiser and classifier else None


def diffusers_parts(spec: str) -> tuple[str, str] | None:
    """Return the folder of a diffusion model and the noise level after it, as written; None of other specs.

    >>> diffusers_parts("diffusers:models/ddpm@0.5"), diffusers_parts("diffusers:models/ddpm")
    (('models/ddpm', '0.5'), ('models/ddpm', ''))
    """
    if not spec.startswith(DIFFUSERS):
        return None
    rest = spec.removeprefix(DIFFUSERS)
    folder, _, level = rest.rpartition("@")
    try:
        float(level)
    except ValueError:
        return rest, ""
    return (folder, level) if folder else (rest, "")


def at_sigma(spec: str, sigma: float) -> str:
    """Return a spec in which a diffusion model has a noise level: its own, or `sigma`."""
    if both := denoised_parts(spec):
        return denoised_spec(*(at_sigma(one, sigma) for one in both))
    known = diffusers_parts(spec)
    return spec if known is None or known[1] else f"{spec}@{float(sigma)!r}"


def is_code(spec: str) -> bool:
    """Whether loading a spec runs code that it names, or a mix may name: not of shipped names and cards.

    >>> is_code("denoised:cifar10-denoiser-0.50,net.py:net"), is_code("models/net.json")
    (True, False)
    """
    if both := denoised_parts(spec):
        return any(map(is_code, both))
    path = split_spec(spec)[1]
    return ":" in spec or (path is not None and (is_program(path) or path.endswith(".py")))


def paths_changed(spec: str, change: Callable[[str], str], folder: str | Path = ".") -> str:
    """Return a spec with the paths in it changed; see `split_spec` for `folder`."""
    if both := denoised_parts(spec):
        return DENOISED + ",".join(paths_changed(one, change, folder) for one in both)
    if known := diffusers_parts(spec):
        return f"{DIFFUSERS}{change(known[0])}{'@' if known[1] else ''}{known[1]}"
    before, path, after = split_spec(spec, folder)
    return spec if path is None else f"{before}{change(path)}{after}"
