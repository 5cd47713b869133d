"""What a run is of: data, models, identity, inputs, and what ``run.json`` says of it."""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from certmix.certification.request.population import Population
from certmix.certification.request.proved import GivenConstant, Margin
from certmix.certification.request.reading import KINDS, Request
from certmix.certification.request.sampled import CertifyRequest
from certmix.certification.request.shard import Shard
from certmix.data import spread
from certmix.data.scales import refuse_scale
from certmix.errors import ModelError, RunError
from certmix.models.checks import chance_warning, resolve_robust
from certmix.models.spec import LoadedModel
from certmix.models.zoo import zoo_card, zoo_names
from certmix.runs import Identity, Run, StudyIdentity, read_run
from certmix.runs.cells import Progress
from certmix.runs.engine import Engine
from certmix.runs.sources import Loaded, Sources, load_models, load_sources
from certmix.sampling.devices import AUTO, SAMPLED, Passes
from certmix.sampling.enumerated import Views
from certmix.sampling.law import noise_described, noise_error
from certmix.sampling.noise import noise_fingerprint
from certmix.types import Dataset, IntArray

PLOTTER = "matplotlib"
PACKAGES = ("torch", "numpy", "scipy", "numba", PLOTTER)
_version = cache(metadata.version)  # which reads a whole description


@dataclass(frozen=True)
class Recipe:
    """What the steps of a certification share; `sources` is what other processes load `loaded` from."""

    request: Any
    sources: Sources
    loaded: Loaded
    passes: Passes
    engine: Engine
    say: Callable[[str], None]
    shard: Shard | None = None

    @cached_property
    def everyone(self) -> IntArray:
        """Positions of all inputs that were asked for."""
        return spread(len(self.loaded.dataset), self.request.inputs)

    @cached_property
    def positions(self) -> IntArray:
        """Positions of this run's share of them."""
        return self.everyone if self.shard is None else self.shard.of_positions(self.everyone)

    def watched(self, progress: Callable[[Progress], None] | None) -> Callable[[Progress], None] | None:
        """Return what takes progress."""
        return progress

    def near_chance(self, model: LoadedModel, right: int, total: int, where: str = "") -> None:
        """Point out a model whose accuracy is near chance."""
        if warning := chance_warning(model.name, right, total, self.loaded.dataset.classes, where):
            self.say(warning)

    def noise(self, run: Run, coordinates: int) -> dict[str, Any]:
        """Return what ``run.json`` says of the noise; RunError where a run that is there has other noise."""
        smoothing = self.request.smoothing
        noise = {  # eps is how far a probability may be from that under the noise that is meant
            **noise_described(smoothing), "coordinates": coordinates,
            "eps": noise_error(smoothing, coordinates), "bits": "Philox4x32-10",
            "fingerprint": self.engine.ask(partial(noise_fingerprint, smoothing)),
        }  # fmt: skip
        began = run.described().get("noise", {}).get("fingerprint", noise["fingerprint"])
        if began != noise["fingerprint"]:
            raise RunError(
                f"noise made here has the fingerprint {noise['fingerprint']}, that of the run {began}: go on "
                "where it was begun, or name another --output"
            )
        return noise

    def described(self, **more: Any) -> dict[str, Any]:
        """Return what ``run.json`` says."""
        passes = self.passes
        asked = self.request.as_dict()
        about = description(asked, self.loaded, self.sources, passes.device, passes.batch_size)
        shard = {} if self.shard is None else {"shard": self.shard.as_dict()}
        return {**about, "certified": True, "engine": self.engine.described, **shard, **more}


def robust_of(request: Request | Population, sources: Sources) -> str | nn.Module:
    """Return the robust model, a shipped one where none is named; ModelError if there is none."""
    robust = sources.robust
    if robust is not None:
        return robust
    if not isinstance(request, Margin | GivenConstant):
        return resolve_robust(None, request.smoothing)
    if isinstance(request, GivenConstant):
        raise ModelError("no model of known Lipschitz constant is shipped: name yours with --robust")
    for name in zoo_names():
        if zoo_card(name).recipe.get("name") == "interval":
            return name
    raise ModelError(
        "no model trained for bound propagation is shipped: train one (certmix train interval) and name it "
        "with --robust; others, such as cifar10-adversarial-linf, can be named but have radii near 0"
    )


def views_of(request: Request | Population) -> Views | None:
    """Return what the robust model of a request is shown, None where that is the input itself."""
    return None if isinstance(request, Margin | GivenConstant) else Views.of_noise(request.smoothing)


def load(
    request: Request | Population, sources: Sources, device: torch.device, say: Callable[[str], None]
) -> Loaded:
    """Load data and models and check that they fit together; warnings go to `say`."""
    if isinstance(request, Margin | GivenConstant):
        loaded = load_models(sources, robust_of(request, sources), device, say)
    else:
        loaded = load_sources(sources, request.smoothing, device, say)
    if not isinstance(request, CertifyRequest | Population):
        refuse_scale(loaded.dataset, f"certificate {request.certificate}")
    return loaded


def dimension_of(request: CertifyRequest | Population, dataset: Dataset) -> int:
    """Return how many values an input has, or pixels, where these are what a kind of smoothing hides."""
    return request.smoothing.size_of(dataset.read(0).shape if len(dataset) else (1,))


def about_data(request: Any, dataset: Dataset) -> Any:
    """Return a request about the inputs of a data set: of their dimension, and number, where these count."""
    if isinstance(request, CertifyRequest | Population):
        request = request.of_dimension(dimension_of(request, dataset))
    return request.of_inputs(len(dataset)) if isinstance(request, CertifyRequest) else request


def identity_of(request: Request | Population, loaded: Loaded) -> Identity | StudyIdentity:
    """Return what a request's numbers depend on: it names the run folder."""
    data, robust = loaded.dataset, loaded.robust
    if isinstance(request, CertifyRequest):
        return Identity(
            data.name, data.checksum, robust.name, robust.checksum, request.sigma, request.seed,
            request.selection_samples, request.precision, request.kept, noise=request.noise,
            scale=request.scale,
        )  # fmt: skip
    parts = {"data_checksum": data.checksum, "robust_checksum": robust.checksum, **request.identity()}
    label = "-".join([data.name, robust.name, *map(str, request.identity().values())][:4])
    return StudyIdentity(study_of(request), label, parts)


def study_of(request: Request | Population) -> str:
    """Return the study that a request's runs are of."""
    return next(study for study, kind in KINDS.items() if type(request) is kind)


def in_one_precision(
    request: Request | Population,
    loaded: Loaded,
    native: Callable[[], str],
    folder_of: Callable[[Identity | StudyIdentity], Path] | None,
) -> Any:
    """Return a request that names its arithmetic.

    For ``auto`` that is what a run of the request which is there already was begun in, else `native()`, of
    the device that draws: no run mixes two.  `folder_of` says where a run of an identity would lie, None of
    runs that begin anew.
    """
    if not isinstance(request, CertifyRequest | Population) or request.precision != AUTO:
        return request
    asked = {name: request.replace(precision=name) for name in SAMPLED}
    held = []
    for name, one in asked.items():
        with suppress(RunError):  # no run, or one that is refused when it is opened
            folder = None if folder_of is None else folder_of(identity_of(one, loaded))
            known = folder is not None and read_run(folder)["identity"].get("precision")
            held += [name] if known == name else []
    return asked[held[0] if len(held) == 1 or (held and native() not in held) else native()]


def description(
    request: dict[str, Any], loaded: Loaded, sources: Sources, device: torch.device, batch_size: int | None
) -> dict[str, Any]:
    """Return request, sources, data, models, device and versions as plain data; nothing is certified."""
    data, machine = loaded.dataset, platform.processor() or platform.machine()
    return {
        "request": request,
        "sources": sources.as_dict(),
        "data": {
            "name": data.name, "split": data.split, "checksum": data.checksum, "inputs": len(data),
            "class_names": list(data.class_names), "input_range": data.input_range, "settings": data.settings,
        },
        "models": {
            role: None
            if one is None
            else {"name": one.name, "spec": one.spec, "checksum": one.checksum, "parts": dict(one.parts)}
            for role, one in loaded.models.items()
        },
        "certified": False,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else machine,
        "batch_size": batch_size,
        "threads": torch.get_num_threads(),
        "versions": {"certmix": _version("certmix"), "python": platform.python_version()}
        | {name: _version(name) for name in PACKAGES},
    }  # fmt: skip
