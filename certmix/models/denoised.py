"""A classifier behind a denoiser: one deterministic function of a noisy input, the base of a smoothed h.

Whatever holds for a base classifier holds for it (Salman et al., Denoised Smoothing, NeurIPS 2020; Carlini et
al., ICLR 2023, for one step of a diffusion model).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from certmix.calling import name_of
from certmix.errors import ModelError
from certmix.files import TEXT, parse_json, refuse_special_in
from certmix.models.composed import DIFFUSERS, diffusers_parts
from certmix.models.foreign import Foreign, made_by, module_sources, optional
from certmix.models.zoo import read_bytes

SCHEDULERS = ("DDPMScheduler", "DDIMScheduler")
"""Their training schedule and prediction types are alike; one step asks for no more of them."""


class Denoised(nn.Module):
    """The classifier's logits of what the denoiser returns."""

    def __init__(self, denoiser: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.denoiser, self.classifier = denoiser, classifier

    def forward(self, inputs: Tensor) -> Any:
        denoised = self.denoiser(inputs)
        if not isinstance(denoised, Tensor) or denoised.shape != inputs.shape:
            found = tuple(denoised.shape) if isinstance(denoised, Tensor) else type(denoised).__name__
            raise ModelError(
                f"{name_of(self.denoiser)} returns {found} for inputs {tuple(inputs.shape)}: a denoiser "
                "returns the inputs' own shape"
            )
        return self.classifier(denoised)


class OneStep(nn.Module):
    """A diffusion model as a denoiser of images in [0, 1]: one prediction of the image, nothing drawn.

    `network` maps (x_t, t) to what `prediction` says, ``epsilon``, ``v_prediction`` or ``sample``, of images
    in [-1, 1], with x_t = sqrt(a) x_0 + sqrt(1 - a) noise and a = `share`, the product of 1 - beta up to step
    t; of twice the channels the first half.  The image is clipped to +-`clip`, None for not at all.
    """

    def __init__(
        self,
        network: nn.Module,
        timestep: int,
        share: float,
        prediction: str = "epsilon",
        clip: float | None = 1.0,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.timestep, self.share, self.prediction = network, timestep, share, prediction
        self.clip, self.shape = clip, shape

    def extra_repr(self) -> str:
        """Return what its state does not hold, for its identity."""
        return f"timestep={self.timestep}, share={self.share}, {self.prediction}, clip={self.clip}"

    def forward(self, images: Tensor) -> Tensor:
        if self.shape is not None and tuple(images.shape[1:]) != self.shape:
            raise ModelError(
                f"the diffusion model was trained on images {self.shape}, inputs are "
                f"{tuple(images.shape[1:])}: take one that was trained on such images, or images of its size "
                "(--resize and --crop)"
            )
        noisy = math.sqrt(self.share) * (2 * images - 1)
        found = self.network(noisy, self.timestep)
        found = found[0] if isinstance(found, tuple) else getattr(found, "sample", found)
        found = found[:, : images.shape[1]]
        if self.prediction == "epsilon":
            found = (noisy - math.sqrt(1 - self.share) * found) / math.sqrt(self.share)
        elif self.prediction == "v_prediction":
            found = math.sqrt(self.share) * noisy - math.sqrt(1 - self.share) * found
        if self.clip is not None:
            found = found.clamp(-self.clip, self.clip)
        return (found + 1) / 2


def nearest_step(shares: Tensor, sigma: float) -> int:
    """Return the step t whose noise is nearest to `sigma` of images in [0, 1]: (1 - a_t) / a_t = (2 sigma)^2.

    `shares` are the a_t, falling.
    """
    levels = ((1 - shares.double()) / shares.double()).sqrt() / 2
    return int((levels.log() - math.log(sigma)).abs().argmin())


def noise_of(share: float) -> float:
    """Return the noise level, of images in [0, 1], that a step with this a_t denoises."""
    return math.sqrt((1 - share) / share) / 2


def from_diffusers(spec: str) -> Foreign:
    """Load a `UNet2DModel` and its scheduler from a folder, ``diffusers:FOLDER@SIGMA``, as a `OneStep`."""
    folder, level = diffusers_parts(spec) or ("", "")
    place, sigma = Path(folder).expanduser(), float(level or "nan")
    if not 0 < sigma < math.inf:
        raise ModelError(
            f"{spec}: the noise level decides the step of a diffusion model: write {DIFFUSERS}{folder}@0.5"
        )
    network, schedule = (
        _folder(place, *names) for names in (("unet", "config.json"), ("scheduler", "scheduler_config.json"))
    )
    told, known = (
        _config(path, name) for path, name in ((network, "config.json"), (schedule, "scheduler_config.json"))
    )
    size, channels = _check_network(place, told), told.get("in_channels", 3)
    _check_schedule(place, known)
    diffusers = optional("diffusers", "diffusers")
    with made_by(spec, "give a folder that save_pretrained wrote, of network and scheduler"):
        refuse_special_in(network)
        refuse_special_in(schedule)
        unet = diffusers.UNet2DModel.from_pretrained(
            network, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
        )
        shares = getattr(diffusers, known["_class_name"]).from_pretrained(schedule).alphas_cumprod
    t = nearest_step(shares, sigma)
    share = float(shares[t])
    reached = noise_of(share)
    ends = sorted(noise_of(float(one)) for one in (shares[0], shares[-1]))
    if not 0.9 * sigma <= reached <= 1.1 * sigma:
        raise ModelError(
            f"{spec}: its schedule denoises noise levels {ends[0]:.3g} to {ends[1]:.3g} of images in [0, 1], "
            f"the nearest to {sigma:g} is {reached:.3g}: use another sigma, or the schedule of its training"
        )
    clip = float(known.get("clip_sample_range", 1.0)) if known.get("clip_sample", True) else None
    prediction = known.get("prediction_type", "epsilon")
    module = OneStep(unet, t, share, prediction, clip, None if size is None else (channels, *size))
    clipped = "not clipped" if clip is None else f"clipped to +-{clip:g}"
    note = (
        f"denoises sigma = {sigma:g} in one step: images in [0, 1] are taken to [-1, 1], where "
        f"the noise is {2 * sigma:g}; step {t} of {len(shares)} (noise {2 * reached:.4g}), inputs times "
        f"{math.sqrt(share):.4g}, {prediction} predicted, the image {clipped}"
    )
    identity = json.dumps([getattr(diffusers, "__version__", ""), told, known, sigma, t], sort_keys=True)
    sources = module_sources("diffusers")
    return Foreign(
        module, f"{place.name}@{sigma:g}", f"diffusers\0{identity}".encode(), input_range=(0.0, 1.0),
        sources=sources, doubt="" if sources else "the source of diffusers cannot be had",
        noise_sigma=sigma, notes=(note,),
    )  # fmt: skip


def _folder(place: Path, inner: str, file: str) -> Path:
    """Return the folder that holds a configuration: `place`, or `inner` in it, as pipelines have it."""
    return place / inner if (place / inner / file).is_file() else place


def _config(folder: Path, name: str) -> dict[str, Any]:
    """Return a configuration; ModelError if there is none."""
    remedy = "give a folder with unet/ and scheduler/, or with config.json and scheduler_config.json"
    try:
        found = parse_json(read_bytes(folder / name, remedy, TEXT))
    except ValueError as error:
        raise ModelError(f"{folder / name} is no JSON ({error}): {remedy}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{folder / name} is no JSON object: {remedy}")
    return found


def _check_network(place: Path, told: dict[str, Any]) -> tuple[int, int] | None:
    """Refuse what is no unconditional model of images in [-1, 1]; return its height and width, if told."""
    kind, inputs = told.get("_class_name"), told.get("in_channels", 3)
    why = ""
    if kind != "UNet2DModel":
        why = f"its network is a {kind}: give a UNet2DModel, which denoises images without a text or latents"
    elif told.get("class_embed_type") is not None or told.get("num_class_embeds") is not None:
        why = "it is class-conditional, and no class is known of a noisy input: give an unconditional one"
    elif told.get("center_input_sample"):
        why = "it takes images in [0, 1] (center_input_sample): give one of images in [-1, 1]"
    elif told.get("time_embedding_type", "positional") != "positional":
        why = (
            f"its time embedding is {told['time_embedding_type']}, of another noise process: "
            "give one that was trained with DDPM or DDIM"
        )
    elif told.get("out_channels", 3) not in (inputs, 2 * inputs):
        why = f"{inputs} channels go in and {told.get('out_channels', 3)} out: give a model of images"
    if why:
        raise ModelError(f"{DIFFUSERS}{place}: {why}")
    size = told.get("sample_size")
    return None if size is None else (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _check_schedule(place: Path, known: dict[str, Any]) -> None:
    """Refuse schedules whose steps do not mean what `OneStep` takes them for."""
    kind, prediction = known.get("_class_name"), known.get("prediction_type", "epsilon")
    why = ""
    if kind not in SCHEDULERS:
        why = f"its scheduler is a {kind}: give the {' or '.join(SCHEDULERS)} that it was trained with"
    elif prediction not in ("epsilon", "v_prediction", "sample"):
        why = f"it predicts {prediction!r}: epsilon, v_prediction and sample are known"
    elif known.get("thresholding"):
        why = "it thresholds dynamically, which one step does not: set thresholding to false in its scheduler"
    elif known.get("clip_sample", True) and not float(known.get("clip_sample_range", 1.0)) > 0:
        why = f"clip_sample_range = {known['clip_sample_range']}: give a number > 0"
    if why:
        raise ModelError(f"{DIFFUSERS}{place}: {why}")
