"""What a guarantee says: data, two models, a certificate, and what must hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from certmix.certification.deterministic_request import DeterministicRequest
from certmix.certification.request import CertifyRequest
from certmix.verification.guarantee.requirements import Requirement

__all__ = ["DataClaim", "Guarantee", "ModelClaim"]


@dataclass(frozen=True)
class DataClaim:
    """The data of a guarantee, as the file names them."""

    name: str = "cifar10-sample"
    split: str = "test"
    input_range: tuple[float, float] | None = (0.0, 1.0)
    resize: int | None = None
    crop: int | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class ModelClaim:
    """One model of a guarantee; a pinned one must have this checksum."""

    model: str
    weights: str | None = None
    normalize: str | None = None
    checksum: str | None = None
    pin: bool = False
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Guarantee:
    """What a guarantee file says.

    Parameters
    ----------
    requirements
        What must hold.
    data, standard, robust
        As the file names them; ``standard`` None leaves g out.
    request
        How it is certified; one certificate.
    path
        The file; paths in it are relative to its folder.
    lines
        Requirement -> line in the file, where known.
    """

    requirements: tuple[Requirement, ...]
    data: DataClaim
    standard: ModelClaim | None
    robust: ModelClaim
    request: CertifyRequest | DeterministicRequest
    path: Path = field(default=Path("guarantee.toml"), compare=False)
    lines: Mapping[Requirement, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def sampled(self) -> bool:
        """Whether the certificate draws samples."""
        return isinstance(self.request, CertifyRequest)

    @property
    def asked(self) -> CertifyRequest | DeterministicRequest:
        """The request with the radii of all requirements among its columns, so that these are settled."""
        wanted = {r.radius for r in self.requirements if r.radius is not None}
        columns = tuple(sorted({*(self.request.radii or ()), *wanted}))
        return self.request.replace(radii=columns)
