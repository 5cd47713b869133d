"""Training the shipped models: recipes, objectives, one loop, a card for each result."""

from certmix.training.loop import Progress, train
from certmix.training.recipes import RECIPES, Recipe, make_recipe
from certmix.training.run import measure, train_to_folder

__all__ = ["RECIPES", "Progress", "Recipe", "make_recipe", "measure", "train", "train_to_folder"]
