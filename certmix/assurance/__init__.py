"""What was certified and verified, in forms that outlive the tool; loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from certmix.lazy import lazily

if TYPE_CHECKING:
    from certmix.assurance.pack import Evidence, write_evidence

__all__ = ["Evidence", "write_evidence"]

__getattr__ = lazily(__name__, dict.fromkeys(__all__, "pack"))
