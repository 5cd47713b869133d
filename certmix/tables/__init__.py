"""From a summary to what people and programs read: tables, plots, files.

A table is one renderer in `FORMATS`, of signature ``(Summary) -> str``.
Figures come in finished; nothing here estimates or certifies.
"""

from certmix.tables.files import write_products
from certmix.tables.plots import plot_certified_accuracy
from certmix.tables.tables import FORMATS, render
from certmix.tables.terminal import print_terminal, terminal_table
from certmix.text import ceil_digits, floor_digits

__all__ = [
    "FORMATS",
    "ceil_digits",
    "floor_digits",
    "plot_certified_accuracy",
    "print_terminal",
    "render",
    "terminal_table",
    "write_products",
]
