"""What ``run.json`` says of a run besides its identity."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import torch

from certmix.certification.evaluate import unanimous
from certmix.certification.request import CertifyRequest
from certmix.models.spec import LoadedModel
from certmix.runs.sources import Loaded, Sources
from certmix.sampling.devices import Passes
from certmix.sampling.grid import Grid
from certmix.sampling.law import noise_error, noise_law

PACKAGES = ("torch", "numpy", "scipy", "numba")


def description(request: CertifyRequest, loaded: Loaded, sources: Sources, passes: Passes) -> dict[str, Any]:
    """Return request, sources, checksums, failure budget, device and versions as plain data."""
    return {
        "request": request.as_dict(),
        "sources": sources.as_dict(),
        "data": _data(loaded),
        "models": _models({"robust": loaded.robust, "standard": loaded.standard}),
        "failure_budget": {
            "failure_probability": request.failure_probability,
            "bound": request.bound,
            "split": unanimous(request, loaded.dataset.classes).split,
            "looks": "certmix.sampling.schedule" if request.goal != "fixed" else None,
            "holds_for": "one image's certificate",
        },
        "noise": _noise(request.sigma, loaded),
        **_machine(passes.device, passes.batch_size),
        "compiled": passes.compiled,
    }


def _noise(sigma: float, loaded: Loaded) -> dict[str, Any]:
    """What is drawn, and how far a probability may be from that under the Gaussian, eps."""
    coordinates = int(loaded.dataset.read(0).size) if len(loaded.dataset) else 0
    law, grid = noise_law(sigma), Grid.of(sigma)
    return {
        "law": "Gaussian, rounded to multiples of a step",
        "steps_per_unit": grid.per_unit,
        "clip": "none: values beyond the largest have their probability in eps",
        "largest": law.reach / grid.per_unit,
        "coordinates": coordinates,
        "total_variation_a_coordinate": law.total_variation,
        "eps": noise_error(sigma, coordinates),
        "bits": "Philox4x32-10",
    }


def surroundings(
    request: dict[str, Any], loaded: Loaded, sources: Sources, device: torch.device, batch_size: int
) -> dict[str, Any]:
    """Return the same of an empirical study, which has no failure budget: nothing in it is certified."""
    return {
        "request": request,
        "sources": sources.as_dict(),
        "data": _data(loaded),
        "models": _models({"robust": loaded.robust, "standard": loaded.standard}),
        "certified": False,
        **_machine(device, batch_size),
    }


def _data(loaded: Loaded) -> dict[str, Any]:
    data = loaded.dataset
    return {
        "name": data.name,
        "split": data.split,
        "checksum": data.checksum,
        "inputs": len(data),
        "class_names": list(data.class_names),
        "input_range": data.input_range,
        "settings": data.settings,
    }


def _models(models: dict[str, LoadedModel | None]) -> dict[str, Any]:
    return {
        role: None
        if m is None
        else {"name": m.name, "spec": m.spec, "checksum": m.checksum, "parts": dict(m.parts)}
        for role, m in models.items()
    }


def _machine(device: torch.device, batch_size: int | None) -> dict[str, Any]:
    return {
        "device": str(device),
        "device_name": _device_name(device),
        "batch_size": batch_size,
        "threads": torch.get_num_threads(),
        "versions": {"certmix": version("certmix"), "python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()
