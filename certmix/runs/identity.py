"""The identity of a run: everything its samples depend on, and nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from certmix.files import digest_of

CERTIFY = "certify"


def command_of(study: str) -> str:
    """Return the command that makes the runs of a study, as it is typed.

    Examples
    --------
    >>> command_of("certify-margin"), command_of("nuts-fit"), command_of("mix-sweep")
    ('certmix certify --certificate margin', 'certmix nuts fit', 'certmix mix-sweep')
    """
    if study == "nuts-certified":
        return "certmix nuts fit --certified"
    for prefix, words in (("certify-", "certify --certificate "), ("nuts-", "nuts ")):
        if study.startswith(prefix):
            return f"certmix {words}{study.removeprefix(prefix)}"
    return f"certmix {study}"


NOISE_VERSION = 2
"""Raised when the same key would draw other noise."""


@dataclass(frozen=True)
class Identity:
    """What decides which samples are drawn.

    Not part of it: alpha, certificates, radii, failure probability, the
    standard classifier, and which images are asked for.

    Parameters
    ----------
    data, data_checksum
        Name of the data set and the checksum of its contents and preprocessing.
    robust, robust_checksum
        Name of the base classifier h and the checksum of its weights.
    sigma, seed, selection_samples, precision
        Noise level, key of all noise, samples that choose the class, arithmetic.
    noise_version
        Version of the noise generation.
    scores
        ``hard``, or ``soft`` with its temperature: what is kept of a sample.
    """

    data: str
    data_checksum: str
    robust: str
    robust_checksum: str
    sigma: float
    seed: int
    selection_samples: int
    precision: str
    scores: str = "hard"
    noise_version: int = NOISE_VERSION

    @property
    def study(self) -> str:
        """The command that makes such runs."""
        return CERTIFY

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``run.json``."""
        return asdict(self)

    def digest(self) -> str:
        """Return 8 hex digits that name this identity (data and model by checksum, not by name)."""
        parts = {k: v for k, v in self.as_dict().items() if k not in ("data", "robust")}
        return digest_of(parts)[:8]

    def folder_name(self) -> str:
        """Return a readable and unique folder name."""
        words = f"{self.data}-{self.robust}-sigma{self.sigma:g}-seed{self.seed}"
        return f"{_file_name(words)}-{self.digest()}"

    def differences(self, stored: dict[str, Any]) -> list[str]:
        """Return one phrase for each part in which a stored identity differs."""
        return _differences(stored, self.as_dict(), ("data", "robust"))


@dataclass(frozen=True)
class StudyIdentity:
    """What the records of an empirical study depend on, and nothing else.

    Parameters
    ----------
    study
        The command that makes such runs.
    label
        Readable words for the folder's name.
    parts
        Plain data (JSON): checksums of data and models, attack, seed.
    """

    study: str
    label: str
    parts: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``run.json``."""
        return {"study": self.study, **json.loads(json.dumps(self.parts))}

    def folder_name(self) -> str:
        """Return a readable and unique folder name."""
        return f"{self.study}-{_file_name(self.label)}-{digest_of(self.as_dict())[:8]}"

    def differences(self, stored: dict[str, Any]) -> list[str]:
        """Return one phrase for each part in which a stored identity differs."""
        return _differences(stored, self.as_dict(), ())


def _differences(stored: dict[str, Any], own: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    return [
        f"{part} is {_short(stored.get(part))} there, {_short(own[part])} asked"
        for part in own
        if part not in names and stored.get(part) != own[part]
    ]


def _file_name(words: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", words)


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text[:12] + "..." if len(text) >= 64 else text
