"""`certmix train`, `models`: make the models that certmix ships, or your own; list what is shipped."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import click
from msgspec import to_builtins

from certmix.errors import ModelError
from certmix.progress import bar
from certmix.radii.smoothings import GAUSSIAN
from certmix.sampling.devices import PRECISIONS
from certmix.training.recipes import RECIPES, Recipe, make_recipe

from .options import DEVICE, options, refuse_unused
from .progress import out, say

EPILOG = """\b
Examples:
  certmix train gaussian --sigma 0.5 --data cifar-10-batches-bin --output models
  certmix train gaussian --noise ablation --scale 75 --data cifar-10-batches-bin
  certmix train adversarial --norm l2 --eps 0.5 --data cifar-10-batches-bin
  certmix train denoiser --sigma 0.5 --classifier mymodel.py:net --data cifar-10-batches-bin
  certmix certify --sigma 0.5 --alpha 0.76 --robust models/cifar10-gaussian-0.50.json
"""

OF_RECIPES = {
    "noise_sigma": ("gaussian", "denoiser"), "classifier": ("denoiser",),
    "consistency": ("gaussian", "splitting", "bands"), "scale": ("gaussian", "splitting", "bands"),
    "noise": ("gaussian",),
    "norm": ("adversarial",), "eps": ("adversarial", "interval"), "sharpen_alpha": ("interval",),
}  # fmt: skip
"""Options that only some recipes take."""


@click.command("train", epilog=EPILOG)
@click.argument("recipe", type=click.Choice(list(RECIPES)))
@click.option(
    "--data", required=True, metavar="PATH", help="CIFAR-10/100 folder or other 8-bit colour images."
)
@click.option("--split", default=None, show_default="train", help="Which part of the data to train on.")
@click.option(
    "--evaluation", metavar="NAME|PATH",
    help="Where the card's accuracies come from.  [default: test split of --data, if it has splits]",
)  # fmt: skip
@options(Recipe)
@click.option("--name", help="Name of the model.  [default: from data and recipe]")
@click.option("--output", default="models", metavar="FOLDER", help="Where weights and card go.")
@click.option("--seed", type=int, default=0, help="Initial weights, order, augmentation, noise.")
@DEVICE
@click.option(
    "--precision", type=click.Choice(list(PRECISIONS)), default="fp32", help="Arithmetic (autocast)."
)
def train(
    recipe: str, data: str, split: str | None, evaluation: str | None, name: str | None, output: str,
    seed: int, device: str, precision: str, **changes: Any,
) -> None:  # fmt: skip
    """Train a model by a recipe.

    'standard', 'gaussian' (noise of a kind), 'splitting' or 'bands' (what kinds of
    smoothing show that go through every case), 'adversarial' (PGD), 'interval'
    (bounds that propagation verifies) or 'denoiser' (goes in front of a
    classifier).

    Writes NAME.safetensors and NAME.json, a card with recipe, data, accuracy
    and checksum. An interrupted training goes on where its last epoch ended
    when the command is repeated.
    """
    for option, recipes in OF_RECIPES.items():
        if recipe not in recipes:
            refuse_unused([option], f"is for recipe {' and '.join(recipes)}")
    if recipe == GAUSSIAN and changes.get("noise", GAUSSIAN) == GAUSSIAN:
        refuse_unused(["scale"], "is of other noise: add --noise, or")
    elif recipe == GAUSSIAN:
        refuse_unused(["noise_sigma"], "is of gaussian noise: give --scale, or")
    from certmix.data import load
    from certmix.sampling import resolve_device
    from certmix.training import train_to_folder

    settings = make_recipe(recipe, **changes)
    chosen = str(resolve_device(device))
    dataset = load(data, split, default_split="train")
    measured = load(evaluation or data)
    if measured.checksum == dataset.checksum:
        say(f"the card's accuracies will be of the inputs trained on, {data}: give others by --evaluation")
    with bar() as show:

        def report(progress: Any) -> None:
            done = (progress.epoch - 1) * progress.batches + progress.batch
            status = f"epoch {progress.epoch}/{progress.epochs}, loss {progress.loss:.3f}"
            show(done, progress.epochs * progress.batches, status)

        card = train_to_folder(
            settings, dataset, measured, Path(output), name=name, seed=seed,
            device=chosen, precision=precision, report=report,
        )  # fmt: skip
    out(f"{Path(output) / card.name}.safetensors")
    for what, value in card.accuracy.items():
        click.echo(f"{what}: {100 * value:.1f} %", err=True)


@click.command("models")
@click.argument("name", required=False)
def models(name: str | None) -> None:
    """List the shipped models, or print the card of one as JSON."""
    from certmix.models.zoo import zoo_card, zoo_names

    if name is not None:
        if name not in zoo_names():
            near = difflib.get_close_matches(name, zoo_names(), 1)
            hint = f"did you mean {near[0]}? The names are" if near else "use one of"
            raise ModelError(f"no model called {name!a} is shipped: {hint} {', '.join(zoo_names())}")
        out(json.dumps(to_builtins(zoo_card(name)), indent=2))
        return
    for shipped in zoo_names():
        card = zoo_card(shipped)
        figures = ", ".join(f"{what} {100 * value:.1f} %" for what, value in card.accuracy.items())
        out(f"{shipped:28s} {figures}")
