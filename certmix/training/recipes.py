"""What each training recipe is set to.  No torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from certmix.errors import ParameterError, check_choice
from certmix.models.zoo import ZOO_FOLDER, Card, zoo_card
from certmix.radii.smoothings import GAUSSIAN, Smoothing
from certmix.runs.settings import Count, Option, Positive, Settings, Share, norm_name
from certmix.runs.sources import model_or_none

NotNegative = Annotated[float, Meta(ge=0)]
_OWN = "the recipe's"
SEEN_BY = {"denoiser": "denoiser", "bands": "band", "ablation": "masked"}
"""Architectures that only one recipe, or kind of noise, trains."""


class Recipe(Settings, frozen=True):
    """Settings of one training run; every field goes into the card; ParameterError for values out of range.

    The optimiser has Nesterov momentum 0.9, and a linear warm-up over the first tenth, then a cosine to zero;
    what is saved are weights averaged with `ema_decay` a step.  Images are shifted at random by up to
    `translate` pixels, and mirrored.  `architecture` names one of `certmix.models.architectures`.

    gaussian (of any kind of `noise`), splitting, bands: `noise_copies` noisy copies of each image, and
    weights of the `consistency` and `entropy` terms (Jeong and Shin, 2020).
    adversarial: `attack_steps` steps of PGD in the ball.
    interval: `eps` grows from 0 over the share `ramp` of the training, and so long `regulariser` weighs the
    terms that keep bounds tight and ReLUs balanced (Shi et al., 2021).  denoiser, by AdamW: squared error of
    pixels times `pixel_weight`, and cross-entropy of the frozen `classifier` on what it returns (Salman et
    al., 2020).
    """

    name: str
    architecture: str
    epochs: Annotated[Count, Option("Passes over the data.", shown=_OWN)]
    batch_size: Annotated[int, Meta(ge=2), Option("Images in one step.", shown=_OWN)] = 256
    learning_rate: Annotated[Positive, Option("Peak learning rate.", shown=_OWN)] = 0.2
    weight_decay: NotNegative = 5e-4
    label_smoothing: NotNegative = 0.0
    translate: int = 2
    ema_decay: Share = 0.998
    noise_sigma: Annotated[
        NotNegative,
        Option("gaussian, denoiser: noise level, in units of the input.", flag="sigma", shown="0.5"),
    ] = 0.0
    noise: Annotated[
        Literal["gaussian", "laplace", "uniform", "ablation"],
        Option("gaussian: the kind of noise; all but 'gaussian' itself take --scale and no --sigma."),
    ] = "gaussian"
    scale: Annotated[
        NotNegative,
        Option(
            "laplace, uniform: b and lambda, in units of the input; ablation: pixels that are shown; "
            "splitting: lambda; bands: columns that are shown.",
            shown="splitting 0.5, bands 4",
        ),
    ] = 0.0
    noise_copies: Count = 2
    consistency: Annotated[
        NotNegative,
        Option("gaussian, splitting, bands: weight of the consistency term.", shown="5; 5; 0"),
    ] = 0.0
    entropy: NotNegative = 0.0
    norm: Annotated[Literal["linf", "l2"], Option("adversarial: norm of the ball.", read=norm_name)] = "linf"
    eps: Annotated[
        NotNegative, Option("adversarial, interval: radius of the ball.", shown="8/255, 2/255")
    ] = 0.0
    attack_steps: int = 0
    ramp: NotNegative = 0.0
    regulariser: NotNegative = 0.0
    start: Annotated[
        str | None,
        Option(
            "A shipped model, or a card, to go on from; a denoiser takes the layers that they share.",
            metavar="MODEL",
        ),
    ] = None
    sharpen_alpha: Annotated[
        float, Option("interval: mixing weight that logits are scaled for at the end; 0: none.", shown="0.76")
    ] = 0.0

    classifier: Annotated[
        str | None,
        Option(
            "denoiser: the classifier that it is trained for, or 'none': on pixels alone.",
            metavar="MODEL",
            shown="cifar10-standard",
            parse=model_or_none,
        ),
    ] = None
    pixel_weight: NotNegative = 0.0

    def check(self) -> None:
        """Refuse a recipe that lacks what it trains for, or has what is for another."""
        if self.kind == GAUSSIAN and not self.noise_sigma > 0:
            raise ParameterError(f"sigma = {self.noise_sigma}: the {self.name} recipe needs sigma > 0")
        if self.noise != GAUSSIAN and (self.name != GAUSSIAN or self.noise_sigma):
            raise ParameterError(
                f"noise = {self.noise}: it is of the gaussian recipe, and takes a scale in the place of sigma"
            )
        if self.kind not in ("", GAUSSIAN):
            Smoothing(self.kind, self.scale)
        elif self.scale:
            raise ParameterError(
                f"scale = {self.scale}: it is of other noise than gaussian: add --noise, or leave it out"
            )
        for what, architecture in SEEN_BY.items():
            if (what in (self.name, self.kind)) != (self.architecture == architecture):
                begun = f", that of {self.start}" if self.start else ""
                raise ParameterError(
                    f"architecture = {self.architecture}{begun}: {what}, and it alone, trains a "
                    f"{architecture} net: give another"
                )
        if self.name == "interval" and self.norm != "linf":
            raise ParameterError(f"norm = {self.norm}: the interval recipe trains for linf: leave it out")
        if self.sharpen_alpha and (self.name != "interval" or not 0.5 < self.sharpen_alpha <= 1):
            raise ParameterError(
                f"sharpen alpha = {self.sharpen_alpha}: "
                "give a mixing weight in (1/2, 1], to the interval recipe"
            )

    @property
    def kind(self) -> str:
        """The kind of smoothing that the model is trained for, "" for none."""
        if self.name in ("splitting", "bands"):
            return self.name
        return self.noise if self.name == GAUSSIAN else GAUSSIAN if self.name == "denoiser" else ""

    def at(self, progress: float) -> Recipe:
        """Return the settings at a point of the training, 0 <= progress < 1: eps on its way up.

        The first fifth of the ramp has eps = 0; the regulariser fades as eps grows.
        """
        if self.ramp <= 0:
            return self
        grown = min(1.0, max(0.0, (progress / self.ramp - 0.2) / 0.8))
        return self.replace(eps=grown * self.eps, regulariser=(1 - grown) * self.regulariser)


RECIPES = {
    "standard": Recipe(
        "standard", "conv", epochs=16, learning_rate=0.3, label_smoothing=0.1, ema_decay=0.995
    ),
    "gaussian": Recipe(
        "gaussian", "residual", epochs=24, batch_size=128, weight_decay=2e-4,
        noise_sigma=0.5, consistency=5.0, entropy=0.5,
    ),
    "splitting": Recipe(
        "splitting", "residual", epochs=24, batch_size=128, weight_decay=2e-4, scale=0.5, consistency=5.0,
        entropy=0.5,
    ),
    "bands": Recipe("bands", "band", epochs=24, batch_size=128, scale=4.0, noise_copies=1),
    "adversarial": Recipe(
        "adversarial", "conv", epochs=16, eps=8 / 255, attack_steps=2,
    ),
    "interval": Recipe(
        "interval", "interval", epochs=30, batch_size=128, learning_rate=0.1, weight_decay=1e-4,
        eps=2 / 255, ramp=0.5, regulariser=0.5, sharpen_alpha=0.76,
    ),
    "denoiser": Recipe(
        "denoiser", "denoiser", epochs=2, batch_size=16, learning_rate=1.5e-3, weight_decay=1e-3,
        ema_decay=0.98, noise_sigma=0.5, classifier="cifar10-standard", pixel_weight=20.0,
    ),
}  # fmt: skip


def make_recipe(name: str, **changes: Any) -> Recipe:
    """Return a recipe with some settings changed; ParameterError if there is none, or a value will not do."""
    check_choice("recipe", name, RECIPES)
    recipe = RECIPES[name]
    if changes.get("noise", GAUSSIAN) != GAUSSIAN and name == GAUSSIAN:
        own = SEEN_BY.get(str(changes["noise"]), recipe.architecture)
        changes = {"noise_sigma": 0.0, "architecture": own, **changes}
    recipe = recipe.replace(**changes)
    if recipe.start is not None and name != "denoiser":
        recipe = recipe.replace(architecture=start_card(recipe.start)[0].architecture)
    if name in ("adversarial", "interval") and not recipe.eps > 0:
        raise ParameterError(f"eps = {recipe.eps}: the {name} recipe needs eps > 0")
    return recipe


def start_card(start: str) -> tuple[Card, Path]:
    """Return the card of the model that a recipe goes on from, and its folder."""
    path = Path(os.path.expanduser(start))
    folder = path.parent if path.suffix == ".json" else ZOO_FOLDER
    return zoo_card(path.name.removesuffix(".json"), folder), folder
