"""From a summary to what people and programs read: tables, plots, files.

A table is one renderer in `FORMATS`, of signature ``(Summary) -> str``.
Figures come in finished; nothing here estimates or certifies.
"""

from certmix.report.files import write_products
from certmix.report.plots import plot_certified_accuracy
from certmix.report.rounding import ceil_digits, floor_digits
from certmix.report.tables import FORMATS, render
from certmix.report.terminal import print_terminal, terminal_table

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
