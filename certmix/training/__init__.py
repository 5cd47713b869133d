"""Training the shipped models: recipes, objectives, one loop, a card for each result; torch on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from certmix.lazy import lazily
from certmix.training.recipes import RECIPES, Recipe, make_recipe

if TYPE_CHECKING:
    from certmix.training.loop import Progress, train
    from certmix.training.run import measure, train_to_folder

__all__ = ["RECIPES", "Progress", "Recipe", "make_recipe", "measure", "train", "train_to_folder"]

__getattr__ = lazily(
    __name__, {"Progress": "loop", "train": "loop", "measure": "run", "train_to_folder": "run"}
)
