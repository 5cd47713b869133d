"""What the mix costs: parameters, floating-point operations, and what the transform adds."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from certmix.data import stack
from certmix.errors import ModelError, RunError
from certmix.models.spec import LoadedModel
from certmix.nuts.folder import load_nuts
from certmix.runs.sources import Sources, load_data
from certmix.studies.nuts_studies.inputs import FitCache, Inputs, Product
from certmix.tables.table import Quantity, Table

__all__ = ["count_elements", "count_flops", "study"]

NUMBERS = 4  # s, p, c and alpha


def study(inputs: Inputs) -> Product:
    """Count parameters and operations for one input.

    References
    ----------
    Appendix C.2 and Table 5 of Bai, Zhou, Patel, Sojoudi, "MixedNUTS", TMLR 2024.
    """
    fit = inputs.fit
    nuts = load_nuts(fit.folder)
    images = _image(fit, nuts.robust)
    pair = (nuts.standard, nuts.robust)
    parameters = [sum(p.numel() for p in one.module.parameters()) for one in pair]
    flops = [count_flops(one.module, images) for one in pair]
    with torch.no_grad():
        logits = [one.module(images) for one in pair]
    mixture = nuts.mixture
    added = count_elements(lambda: mixture.mix(*logits))
    total = sum(flops) + added
    rows: list[tuple[Any, ...]] = [
        (f"standard (g): {pair[0].name}", parameters[0], *_figures(flops[0], flops[1])),
        (f"robust (h): {pair[1].name}", parameters[1], *_figures(flops[1], flops[1])),
        ("transform and mixing", NUMBERS, *_figures(added, flops[1])),
        ("MixedNUTS", sum(parameters) + NUMBERS, *_figures(total, flops[1])),
    ]
    shape = " x ".join(map(str, images.shape[1:]))
    table = Table(
        name="nuts-cost",
        title="Parameters and floating-point operations of the mix, for one input",
        settings=f"input {shape}, {logits[1].shape[1]} classes",
        headings=("part", "parameters", "FLOPs (10^6)", "relative to h (%)"),
        rows=tuple(rows),
        notes=(
            "FLOPs of g and h: matrix products and convolutions as torch counts them, 2 a multiply-add; "
            "normalisations and activations are left out.",
            "Transform and mixing: numbers that its operators read or write, the larger of the two. "
            "It has no learned parameter but s, p, c and alpha.",
            f"Models: of {fit.folder.name}.",
        ),
        extra={"flops": {"standard": flops[0], "robust": flops[1], "mixing": added}},
    )
    return Product(table)


def _figures(flops: int, robust: int) -> tuple[Quantity, Quantity]:
    """Return operations in millions, and in percent of the robust model's; None where torch saw none."""
    digits = 6 if flops < 10**5 else 3 if flops < 10**8 else 1
    relative = 100 * flops / robust if robust and flops else None
    return (
        Quantity(flops / 1e6 if flops else None, digits),
        Quantity(relative, 5 if relative is not None and relative < 0.1 else 1),
    )


def count_flops(model: nn.Module, inputs: Tensor) -> int:
    """Return the operations of matrix products and convolutions in one pass, 2 a multiply-add.

    Examples
    --------
    >>> count_flops(nn.Linear(8, 3, bias=False), torch.zeros(1, 8))
    48
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), warnings.catch_warnings(), counter:
        warnings.simplefilter("ignore")
        model(inputs)
    return int(counter.get_total_flops())


class _Elements(TorchDispatchMode):
    """Adds up, operator by operator, the larger of the numbers read and written."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not getattr(func, "is_view", False):
            sizes = [one.numel() for one in tree_leaves((args, kwargs, out)) if isinstance(one, Tensor)]
            self.total += max(sizes, default=0)
        return out


def count_elements(compute: Any) -> int:
    """Return how many numbers the operators of a computation handle, views aside.

    Examples
    --------
    >>> count_elements(lambda: torch.zeros(5).exp().sum())  # makes 5, maps 5, adds 5
    15
    """
    with torch.no_grad(), _Elements() as counter:
        compute()
    return counter.total


def _image(fit: FitCache, robust: LoadedModel) -> Tensor:
    """Return an input (1, ...) of the shape that the models take: the card's, or the data's."""
    card = robust.card
    if card is not None:
        return torch.zeros(1, *card.input_shape)
    try:
        dataset = load_data(Sources.from_dict(fit.run["sources"]))
        return torch.from_numpy(stack(dataset, [0]))
    except (KeyError, TypeError, RunError) as error:
        raise ModelError(f"{fit.folder}: the shape of its inputs is unknown ({error}): fit again") from None
