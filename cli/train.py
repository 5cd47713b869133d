"""`certmix train`: make the models that certmix ships, or your own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from certmix.sampling.devices import PRECISIONS

from .options import RADIUS, norm_type
from .unused import refuse_unused

EPILOG = """\b
Examples:
  certmix train gaussian --sigma 0.5 --data cifar-10-batches-bin --output models
  certmix train adversarial --norm l2 --eps 0.5 --data cifar-10-batches-bin
  certmix certify --sigma 0.5 --alpha 0.76 --robust models/cifar10-gaussian-0.50.json
"""

OF_RECIPES = {
    "noise_sigma": ("gaussian",), "consistency": ("gaussian",), "norm": ("adversarial",),
    "eps": ("adversarial", "interval"), "sharpen_alpha": ("interval",),
}  # fmt: skip
"""Options that only some recipes take."""


@click.command("train", epilog=EPILOG)
@click.argument("recipe", type=click.Choice(["standard", "gaussian", "adversarial", "interval"]))
@click.option(
    "--data", required=True, metavar="PATH", help="CIFAR-10/100 folder or other 8-bit colour images."
)
@click.option("--split", default=None, show_default="train", help="Which part of the data to train on.")
@click.option(
    "--evaluation",
    metavar="NAME|PATH",
    help="Where the card's accuracies come from.  [default: test split of --data, if it has splits]",
)
@click.option("--sigma", "noise_sigma", type=RADIUS, help="gaussian: noise level, in units of the input.")
@click.option("--consistency", type=float, help="gaussian: weight of the consistency term.")
@click.option("--norm", type=norm_type("linf", "l2"), help="adversarial: norm of the ball.")
@click.option(
    "--eps", type=RADIUS, help="adversarial, interval: radius of the ball.  [default: 8/255, 2/255]"
)
@click.option(
    "--sharpen-alpha", type=float,
    help="interval: mixing weight that logits are scaled for at the end; 0: none.  [default: 0.76]",
)  # fmt: skip
@click.option("--epochs", type=int, help="Passes over the data.")
@click.option("--batch-size", type=int, help="Images in one step.")
@click.option("--learning-rate", type=float, help="Peak learning rate.")
@click.option("--name", help="Name of the model.  [default: from data and recipe]")
@click.option(
    "--output", default="models", show_default=True, metavar="FOLDER", help="Where weights and card go."
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Initial weights, order, augmentation, noise."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option(
    "--precision",
    type=click.Choice(list(PRECISIONS)),
    default="fp32",
    show_default=True,
    help="Arithmetic (autocast).",
)
def command(
    recipe: str, data: str, split: str | None, evaluation: str | None, name: str | None, output: str,
    seed: int, device: str, precision: str, **changes: Any,
) -> None:  # fmt: skip
    """Train a model by a recipe.

    'standard', 'gaussian' (noise), 'adversarial' (PGD) or 'interval' (bounds
    that propagation verifies).

    Writes NAME.safetensors and NAME.json, a card with recipe, data, accuracy
    and checksum. An interrupted training goes on where its last epoch ended
    when the command is repeated.
    """
    for option, recipes in OF_RECIPES.items():
        if recipe not in recipes:
            refuse_unused([option], f"is for recipe {' and '.join(recipes)}")
    from certmix.data import load
    from certmix.sampling import resolve_device
    from certmix.training import make_recipe, train_to_folder

    from .progress import TrainBar, say

    settings = make_recipe(recipe, **changes)
    chosen = str(resolve_device(device))
    dataset = load(data, split, default_split="train")
    measured = load(evaluation or data)
    if measured.checksum == dataset.checksum:
        say(f"the card's accuracies will be of the images trained on, {data}: give others by --evaluation")
    with TrainBar() as bar:
        card = train_to_folder(
            settings, dataset, measured, Path(output), name=name, seed=seed,
            device=chosen, precision=precision, report=bar.update,
        )  # fmt: skip
    click.echo(f"{Path(output) / card.name}.safetensors")
    for what, value in card.accuracy.items():
        click.echo(f"{what}: {100 * value:.1f} %", err=True)
