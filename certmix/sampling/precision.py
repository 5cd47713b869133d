"""The arithmetic of forward passes, by name.  Imports no torch."""

__all__ = ["PRECISIONS"]

PRECISIONS = {"fp32": None, "bf16": "bfloat16", "fp16": "float16"}
"""Name -> torch dtype of autocast, None for none."""
