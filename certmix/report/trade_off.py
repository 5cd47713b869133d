"""The trade-off between clean and certified accuracy over alpha: values and tables."""

from __future__ import annotations
