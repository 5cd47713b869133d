"""Data sets: a name or a path in, inputs in [0, 1] with labels and a checksum out."""

from certmix.data.access import load_arrays, restrict, spread, stack
from certmix.data.loading import DATASETS, load, parse_input_range

__all__ = ["DATASETS", "load", "load_arrays", "parse_input_range", "restrict", "spread", "stack"]
