"""The option that several stored sources share: a noise level for each."""

from __future__ import annotations

from collections.abc import Sequence

import click

from certmix.errors import ParameterError

from .options import NUMBERS

__all__ = ["of_source", "sigma_option"]
