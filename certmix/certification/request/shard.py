"""A share of the inputs.  No torch."""

from __future__ import annotations

import re

from certmix.errors import ParameterError
from certmix.runs.settings import Settings
from certmix.types import IntArray


class Shard(Settings, frozen=True):
    """Share `number` (1, 2, ...) of `of`: every of-th input, beginning with the number-th.

    Raises
    ------
    ParameterError
        If the number is not one of 1..of.

    Examples
    --------
    >>> import numpy as np
    >>> Shard.parse("2/3").of_positions(np.arange(8))
    array([1, 4, 7])
    """

    number: int
    of: int

    def check(self) -> None:
        """Refuse a share that there is not."""
        if not 1 <= self.number <= self.of:
            raise ParameterError(
                f"shard {self}: shards are numbered from 1 to {max(self.of, 1)}; "
                "of a scheduler that counts from 0, add 1"
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard of a text such as ``2/8``."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if not found:
            raise ParameterError(f"shard {text!r}: write for example 2/8, the second of eight shares")
        return cls(int(found[1]), int(found[2]))

    def of_positions(self, positions: IntArray) -> IntArray:
        """Return this share of the positions of all inputs; ParameterError if they are fewer than shards."""
        if len(positions) < self.of:
            raise ParameterError(
                f"shard {self}: there are {len(positions)} inputs only; use {len(positions)} shards at most"
            )
        return positions[self.number - 1 :: self.of]
