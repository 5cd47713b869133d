"""From figures to what people and programs read: tables, plots, files.

Figures come in finished; nothing here estimates or certifies.
"""

from certmix.tables.curves import plot_certified_accuracy, write_products
from certmix.tables.formats import FORMATS, print_table, render, write_files
from certmix.tables.table import Quantity, Share, Table
from certmix.text import ceil_digits, floor_digits

__all__ = [
    "FORMATS",
    "Quantity",
    "Share",
    "Table",
    "ceil_digits",
    "floor_digits",
    "plot_certified_accuracy",
    "print_table",
    "render",
    "write_files",
    "write_products",
]
