"""A tuned mix: gate, temperature of g and alpha, and the inputs that they were chosen on.  No torch."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from certmix.certification.request.parts import Sampled, checked_gate
from certmix.certification.request.sampled import NO_ROW, CertifyRequest
from certmix.data import load
from certmix.errors import CertmixError, ParameterError, RunError, brief
from certmix.files import TEXT, digest_of, read_file, remedy_of
from certmix.models.checks import is_trained_for
from certmix.radii import check_alpha
from certmix.runs.settings import Count, Option, Positive, Settings, Share
from certmix.runs.sources import Loaded
from certmix.sampling.devices import AUTO, PRECISIONS
from certmix.text import as_given
from certmix.types import Dataset, IntArray

__all__ = ["TuneRequest", "Tuned", "read_tuned", "resolve_tuned"]

DIGITS = 16
"""Hexadecimal digits of each input's SHA-256 that a file keeps."""


class TuneRequest(Settings, frozen=True):
    """What to choose gate, temperature of g and alpha for, and on what."""

    sigma: Annotated[Positive, Option("Noise level; --robust is h's base.", example="0.5")]
    at_radius: Annotated[
        Annotated[float, Meta(ge=0)],
        Option("The l2 radius at which inputs are to be certified; 0 stands for any above 0.", example="0.5"),
    ]
    clean_accuracy: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Option("Least clean accuracy of the mix, from 0 to 1.", example="0.85", shown="the front's knee"),
    ] = None
    lose: Annotated[
        Annotated[float, Meta(ge=0, le=100)] | None,
        Option("Points of clean accuracy that the mix may lose against g.", metavar="POINTS", example="5"),
    ] = None
    inputs: Sampled = "all"
    noisy_samples: Annotated[Annotated[int, Meta(ge=2)], Option("Noisy copies of each input.")] = 200
    samples: Annotated[Count, Option("Estimation samples that are planned for.")] = 10_000
    failure_probability: Annotated[
        Share, Option("Probability, planned for, that one input's certificate is wrong.")
    ] = 0.001
    grid: Annotated[
        str | None,
        Option("Transforms of MixedNUTS that are compared: s=0.05:5:8,p=1:4:8,c=-1.1:0:8, or none."),
    ] = None
    seed: Annotated[int, Option("Key of all noise.")] = 0
    precision: Annotated[str, Option("Arithmetic of forward passes.", choices=PRECISIONS)] = "fp32"
    batch_size: Annotated[Count | None, Option("Inputs in one forward pass.")] = None

    def check(self) -> None:
        """Refuse two wishes at once."""
        if self.clean_accuracy is not None and self.lose is not None:
            raise ParameterError("clean accuracy and lose both say how accurate the mix must be: give one")

    def identity(self) -> dict[str, Any]:
        """Return the part that decides which noisy logits are drawn."""
        names = ("sigma", "noisy_samples", "seed", "precision")
        return {name: getattr(self, name) for name in names}


class Tuned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file of ``certmix tune`` holds: the choice, and of what data and models it was made.

    `standard` and `robust` are checksums, `inputs` the first `DIGITS` digits of the SHA-256 of each input's
    float32 bytes.
    """

    sigma: Annotated[float, Meta(gt=0)]
    gate: float
    standard_temperature: Annotated[float, Meta(ge=0)]
    alpha: float
    at_radius: Annotated[float, Meta(ge=0)]
    standard: str
    robust: str
    data: str
    data_checksum: str
    inputs: tuple[str, ...]

    def __post_init__(self) -> None:
        checked_gate(self.gate)
        check_alpha(self.alpha)

    @property
    def text(self) -> str:
        """The choice as ``--tuned`` takes it."""
        return ",".join(map(as_given, (self.gate, self.standard_temperature, self.alpha)))

    def toml(self) -> str:
        """Return the file's content."""
        plain = msgspec.structs.asdict(self)
        inputs = [f"    {json.dumps(one)},\n" for one in plain.pop("inputs")]
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in plain.items()]
        told = "# Chosen by certmix tune on these inputs, on which nothing may be reported.\n"
        return "".join([told, *lines, "inputs = [\n", *inputs, "]\n"])


def read_tuned(path: str | Path) -> Tuned:
    """Return what a file of ``certmix tune`` holds; RunError if it is none."""
    try:
        return msgspec.convert(tomllib.loads(read_file(Path(path), TEXT).decode()), Tuned)
    except (CertmixError, OSError, ValueError) as error:  # also what msgspec and tomllib raise
        told = brief(error, 150)
        remedy = remedy_of(error, "name one, or give TAU,T,ALPHA or none")
        raise RunError(f"{path} is no file of certmix tune ({told}): {remedy}") from None


def input_digests(dataset: Dataset, positions: IntArray) -> tuple[str, ...]:
    """Return the first digits of the checksum of each input."""
    return tuple(digest_of(dataset.read(at).tobytes())[:DIGITS] for at in positions.tolist())


def resolve_tuned(
    request: CertifyRequest, loaded: Loaded, positions: IntArray, say: Callable[[str], None]
) -> CertifyRequest:
    """Return a request whose further row is there in numbers, if there is to be one.

    ``auto`` takes the plan of the shipped models where g and h are these.  Inputs that were tuned on are
    refused; where the shipped plan was, the row is left out, and `say` says so.
    """
    asked, robust, standard = request.tuned, loaded.robust, loaded.standard
    if asked == NO_ROW or len(asked.split(",")) == 3 or request.scores != "hard":
        return request
    if asked != AUTO:
        tuned = read_tuned(asked)
        if tuned.sigma != request.sigma:
            raise ParameterError(
                f"{asked} was tuned for sigma {tuned.sigma:g}, not {request.sigma:g}: tune again"
            )
        names = {"standard": standard, "robust": robust}
        for role, model in names.items():
            if model is None or model.checksum != getattr(tuned, role):
                say(f"{asked} was tuned for another {role} model: certificates stand, but tune again")
        held = set(tuned.inputs)
        again = sum(digest in held for digest in input_digests(loaded.dataset, positions))
        if again:
            raise ParameterError(
                f"{asked} was tuned on {again:,} of the {len(positions):,} inputs: name others with "
                "--data, or tune on inputs of which nothing is reported"
            )
        return request.replace(tuned=tuned.text)
    plan = None if robust.card is None or robust.spec != robust.card.name else robust.card.tuned
    if plan is None or standard is None or standard.spec != plan.standard:
        return request
    if not is_trained_for(robust.trained_for, request.smoothing):  # nor tuned
        return request
    there = load(plan.data)
    held = set(input_digests(there, np.arange(len(there))))
    if loaded.dataset.read(0).shape == there.read(0).shape:
        again = sum(digest in held for digest in input_digests(loaded.dataset, positions))
        if again:
            say(
                f"the shipped models' gated row was tuned on {again:,} of these inputs, so it is left out: "
                "certify others for it"
            )
            return request
    return request.replace(tuned=",".join(map(as_given, (plan.gate, plan.standard_temperature, plan.alpha))))
