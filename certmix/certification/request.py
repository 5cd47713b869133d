"""What a user asks of `certmix certify`, with noise and without, validated once.  No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from numbers import Real
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from certmix.bounds import BOUNDS, bound_behind_gate, bounds_of
from certmix.errors import ParameterError, check_choice, check_number
from certmix.models.temperature import check_temperature
from certmix.radii import CERTIFICATES, SMOOTHINGS, Smoothing, check_alpha, norms_of
from certmix.radii._checks import CONSTANTS_OF, Cases
from certmix.radii.counted import EXACT, THEOREM, cases_of, largest_radius
from certmix.radii.smoothings import GAUSSIAN
from certmix.runs.folder import NOISE_VERSION
from certmix.runs.settings import (
    DERIVED,
    Count,
    Inputs,
    Option,
    Positive,
    Settings,
    Share,
    divide,
    norm_name,
)
from certmix.sampling.ballots import LEVELS, level_of
from certmix.sampling.devices import AUTO, SAMPLED
from certmix.sampling.schedule import look, looks, share
from certmix.tables.words import DETERMINISTIC, PATCH
from certmix.text import as_given
from certmix.types import IntArray

__all__ = ["CertifyRequest", "GivenConstant", "Margin", "Shard"]

DEFAULT_RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
GOALS = {
    "radii": "until the radii of the table are settled, or more samples are not worth it",
    "radius": "until the radius is known to a relative precision",
    "fixed": "all of --samples for every input",
    "population": "a share of all inputs at --at-radius is shown, of no one input (docs/population.md)",
}
"""When an input has been sampled enough, by name."""
SETTLES = {
    "exact": "h alone, and the mix by its exact certificate",
    "all": "every row, also of theorems that more samples help little",
}
"""Rows whose columns, or radii, sampling settles, by name."""
_GOALS = "; ".join(f"{name}: {meaning}" for name, meaning in GOALS.items())

NORMS = ("l2", "linf", "l1")
NORMS_OF = {"margin": ("linf", "l2"), "lipschitz-constant": NORMS}
"""Norms that certificates without samples can give radii in."""
NORMS_OF_NOISE = tuple(dict.fromkeys(norm for name in SMOOTHINGS for norm in norms_of(name)))
_NOISES = "; ".join(f"{name}: {kind.meaning}" for name, kind in SMOOTHINGS.items())
_SCALES = "; ".join(f"{name}: {kind.scale}" for name, kind in SMOOTHINGS.items() if name != GAUSSIAN)
ENUMERATED = tuple(name for name, kind in SMOOTHINGS.items() if kind.cases is not None)
"""Kinds that go through every case of an input."""
PENDING = (0.0, 5e-324)
"""Columns that stand for the usual ones until the dimension of inputs is known."""

SCORES = {"hard": "the base model's answers are counted", "soft": "the softmax of its logits is averaged"}
"""What is averaged over noisy copies, by name."""

OPTION_OF: dict[str, tuple[str, tuple[Any, ...]]] = {
    "score_temperature": ("scores", ("soft",)),
    "gate": ("scores", ("hard", None)),
    "tuned": ("scores", ("hard", None)),
    "relative_precision": ("goal", ("radius",)),
    "settle": ("goal", ("radii", "radius", None)),
}
"""Settings that have an effect with some values of another setting alone; None where that is as usual."""


def usual_radii(largest: float) -> tuple[float, ...]:
    """Return about seven round numbers, from 0 to the largest radius there can be.

    Examples
    --------
    >>> usual_radii(1.53)
    (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    >>> usual_radii(0.77)
    (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    """
    power = 10.0 ** (math.floor(math.log10(largest)) - 1)
    steps = [k * power for k in (50, 25, 20, 10, 5, 2.5, 2)]
    step = min(steps, key=lambda step: abs(math.floor(largest / step) - 6))
    return tuple(float(f"{k * step:.9g}") for k in range(math.floor(largest / step) + 1))


def whole_radii(largest: float) -> tuple[float, ...]:
    """Return about seven whole numbers, from 1 to the largest radius there can be.

    Examples
    --------
    >>> whole_radii(9)
    (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
    """
    step = max(1, math.ceil(largest / 10))
    return tuple(float(k) for k in range(1, max(1, int(largest)) + 1) if step == 1 or k % step == 0 or k == 1)


def checked_radii(radii: Iterable[float]) -> tuple[float, ...]:
    """Return the radii of a table as floats, finite numbers of at least 0 that increase; ParameterError."""
    given = tuple(radii)
    if not given or any(not (isinstance(r, Real) and r >= 0 and math.isfinite(r)) for r in given):
        raise ParameterError(f"radii = {list(given)}: give at least one finite radius >= 0")
    if any(b <= a for a, b in pairwise(given)):
        raise ParameterError(f"radii = {list(given)}: they must increase")
    return tuple(map(float, given))


Alpha = Annotated[float, Option("Mixing weight of the robust classifier, 0.5 to 1.", check=check_alpha)]
Sampled = Annotated[Inputs, Option("How many inputs, spread over the data.", metavar="N|all")]

StandardTemperature = Annotated[
    float,
    Option(
        "Divides g's logits; 0 takes its most probable class alone.", example="0.5", check=check_temperature
    ),
]  # fmt: skip

Radii = Annotated[
    tuple[float, ...],
    Option(
        "Columns of the table.", check=checked_radii,
        shown="0 to the largest that --samples can certify; 0 to 8/255 in linf",
    ),
]  # fmt: skip


class Row(NamedTuple):
    """A row of the table: ``robust`` is h alone, ``mixed`` its mix at `alpha`, ``gated`` the tuned mix.

    h counts votes behind `gate`, and g is at `temperature`, the standard one.
    """

    classifier: str
    certificate: str
    alpha: float
    gate: float = 0.0
    temperature: float = 1.0


def checked_gate(gate: float) -> float:
    """Return a gate as a quotient of whole numbers, so that equal ones are equal."""
    return level_of(gate) / LEVELS


NO_ROW = "none"


def _checked_tuned(text: str) -> str:
    """Return a file's name, ``auto`` or ``none`` as it is, and TAU,T,ALPHA in one spelling."""
    parts = text.split(",")
    if len(parts) != 3:
        return text
    try:
        gate, temperature, alpha = map(float, parts)
    except ValueError:
        return text
    checked = checked_gate(gate), check_temperature(temperature), check_alpha(alpha)
    return ",".join(map(as_given, checked))


def check_seed(seed: int) -> None:
    """Refuse what is no key of noise."""
    if not 0 <= seed < 2**64:
        raise ParameterError(f"seed = {seed}: it must be a whole number from 0 to 2^64 - 1")


class Noisy(Settings, frozen=True):
    """What requests with noise share: its kind, how much of it there is, and the norm of radii."""

    @property
    def smoothing(self) -> Smoothing:
        """The noise, and the norm of the radii."""
        made: Any = self  # its kinds have these fields
        level = made.scale if made.sigma is None else made.sigma
        if made.noise in ENUMERATED:
            raise ParameterError(
                f"noise = {made.noise}: it is not sampled: all of its cases are gone through"
            )
        if made.noise == GAUSSIAN and level is None:
            raise ParameterError("no noise level: give --sigma (0.25, 0.5, 1)")
        if level is None:
            told = f"{made.noise} noise needs a scale, {SMOOTHINGS[made.noise].scale}"
            raise ParameterError(f"{told}: give --scale")
        return Smoothing(made.noise, level, norm_name(made.norm) or "", made.dimension)

    def of_dimension(self, dimension: int) -> Any:
        """Return the request about inputs of so many values, or pixels, as far as radii depend on it."""
        given: Any = self
        if given.dimension not in (None, dimension):
            raise ParameterError(
                f"dimension = {given.dimension}: inputs of the data have {dimension}: leave it out"
            )
        if not self.smoothing.needs_dimension or given.dimension is not None:
            return self
        derived = {"radii": DERIVED} if getattr(self, "radii", None) == PENDING else {}
        return self.replace(dimension=dimension, **derived)

    def check_noise(self) -> None:
        """Refuse a level of other noise; the scale of Gaussian noise becomes its sigma."""
        made: Any = self
        if made.noise != GAUSSIAN and made.sigma is not None:
            told = f"sigma = {made.sigma:g}: it is the level of gaussian noise"
            raise ParameterError(f"{told}: give --scale for {made.noise} noise, or leave --noise out")
        if made.noise == GAUSSIAN and made.scale is not None:
            if made.sigma not in (None, made.scale):
                told = f"sigma = {made.sigma:g} and scale = {made.scale:g} differ"
                raise ParameterError(f"{told}: leave --scale out")
            msgspec.structs.force_setattr(self, "sigma", made.scale)
            msgspec.structs.force_setattr(self, "scale", None)


class CertifyRequest(Noisy, frozen=True):
    """All that a certification run is asked for, apart from data and models.

    Raises
    ------
    ParameterError
        For any value out of range.
    """

    sigma: Annotated[
        Positive | None,
        Option(
            "Level of Gaussian noise, in units of the input (0.25, 0.5, 32/255); not for margin and "
            "lipschitz-constant.",
            example="0.5",
        ),
    ]
    alpha: Alpha
    inputs: Sampled = 100
    samples: Annotated[Count, Option("Most estimation samples of an input.")] = 10_000
    selection_samples: Annotated[Count, Option("Samples that choose the class.")] = 100
    goal: Annotated[
        str,
        Option(
            f"When an input has enough samples: {_GOALS}.",
            choices=GOALS,
        ),
    ] = "radii"
    settle: Annotated[
        str,
        Option(
            "Rows that decide when an input has enough: "
            + "; ".join(f"{name}: {meaning}" for name, meaning in SETTLES.items())
            + ".",
            choices=SETTLES,
        ),
    ] = "exact"
    relative_precision: Annotated[Share, Option("How near --goal radius comes.", example="0.1")] = 0.1
    failure_probability: Annotated[
        Share, Option("Probability that one input's certificate is wrong.", example="0.001")
    ] = 0.001
    scores: Annotated[str, Option("Count the model's answers, or average its softmax.", choices=SCORES)] = (
        "hard"
    )
    score_temperature: Annotated[Positive, Option("Divides the logits of soft scores.")] = 1.0
    gate: Annotated[
        float,
        Option(
            "Count a noisy copy's answer only if its largest softmax probability is at least this: in "
            "steps of 0.05; 0 counts all.",
            example="0.6",
            check=checked_gate,
        ),
    ] = 0.0
    standard_temperature: StandardTemperature = 1.0
    tuned: Annotated[
        str,
        Option(
            "A further row's gate, temperature of g and alpha, chosen on other inputs: a file of certmix "
            "tune, or these three. auto: those of the shipped models, where g and h are these.",
            metavar="FILE|TAU,T,ALPHA|none",
            check=_checked_tuned,
        ),
    ] = AUTO
    bound: Annotated[
        str,
        Option(
            "From samples to probabilities.",
            choices=BOUNDS,
            shown="clopper-pearson; betting for soft scores",
        ),
    ] = DERIVED
    certificates: Annotated[
        tuple[str, ...],
        Option(
            "From probabilities to radii; repeatable. margin and lipschitz-constant draw no samples.",
            choices=CERTIFICATES,
            flag="certificate",
            shown="all that sample",
        ),
    ] = DERIVED
    radii: Radii = DERIVED
    seed: Annotated[int, Option("Key of all noise.")] = 0
    precision: Annotated[
        str,
        Option(
            "Arithmetic of forward passes (autocast; tf32 on CUDA devices). auto: bf16 where the device "
            "computes it natively, else fp32; a run that is there goes on in its own.",
            choices=(AUTO, *SAMPLED),
        ),
    ] = AUTO
    noise: Annotated[str, Option(f"What h is smoothed by: {_NOISES}.", choices=SMOOTHINGS)] = GAUSSIAN
    scale: Annotated[
        Positive | None, Option(f"How much noise, of kinds other than gaussian: {_SCALES}.", example="0.5")
    ] = None
    norm: Annotated[
        str,
        Option(
            "Norm of the radii; of noise its own, or one that they are converted to.",
            choices=NORMS_OF_NOISE,
            shown="that of the noise; l2; linf for margin",
            read=norm_name,
        ),
    ] = DERIVED
    dimension: Annotated[
        Count | None,
        Option(
            "Values of an input (ablation: pixels), which radii of some noises and norms depend on.",
            shown="as the data",
        ),
    ] = None
    all_at_once: Annotated[
        bool,
        Option("The failure probability is that of all inputs' certificates together: each has its share."),
    ] = False

    @property
    def of_one_input(self) -> float:
        """The failure probability of one input's certificate: its share, where all of them share one."""
        if not self.all_at_once:
            return self.failure_probability
        if self.inputs == "all":
            raise ParameterError("all_at_once is of a number of inputs: give inputs, such as inputs = 100")
        return math.nextafter(self.failure_probability / int(self.inputs), 0.0)

    def of_inputs(self, there: int) -> CertifyRequest:
        """Return the request that names how many of so many inputs share the failure probability."""
        if not self.all_at_once or (self.inputs != "all" and int(self.inputs) <= there):
            return self
        return self.replace(inputs=there)

    def usual(self, name: str) -> Any:
        """Return the first bound of what is averaged; columns up to where samples that all agree reach."""
        if name == "bound":
            return next(iter(bounds_of(self.scores)))
        if name == "norm":
            return next(iter(SMOOTHINGS[self.noise].certificates))
        smoothing = self.smoothing
        if name == "certificates":
            return tuple(smoothing.certificates)
        if smoothing.needs_dimension and smoothing.dimension is None:
            return PENDING
        steps = looks(self.samples)
        sequential = self.goal != "fixed" and len(steps) > 0
        delta = self.failure_probability if self.inputs == "all" else self.of_one_input
        spent = delta * (share(len(steps) - 1) if sequential else 1.0)
        p = min(spent ** (1 / (steps[-1] if sequential else self.samples)), 1 - 2.0**-53)
        reach = float(smoothing.radius("exact", p, 1.0 - p, 1.0)[0])
        if smoothing.entry.whole:
            return whole_radii(reach)
        least = smoothing.scale if (self.noise, smoothing.norm) == (GAUSSIAN, "l2") else 0.0
        return usual_radii(max(reach, least) or smoothing.scale)

    def check(self) -> None:
        """Refuse what does not fit together: noise and its level, bounds and scores, samples and looks."""
        self.check_noise()
        smoothing = self.smoothing
        for name in self.certificates:
            check_choice(f"certificate of {self.noise} noise", name, smoothing.certificates)
        if self.noise != GAUSSIAN and self.tuned not in (AUTO, NO_ROW) and len(self.tuned.split(",")) != 3:
            told = f"tuned = {self.tuned}: such files are for gaussian noise"
            raise ParameterError(f"{told}: give TAU,T,ALPHA")
        if self.goal == "population":
            raise ParameterError(
                "goal = population: a request of its own, certmix.certify or certmix certify"
            )
        known = bounds_of(self.scores)
        check_choice(f"bound for {self.scores} scores", self.bound, known)
        if self.goal != "fixed" and self.samples < look(0):
            raise ParameterError(
                f"samples = {self.samples}: sequential sampling looks first at {look(0)} samples; "
                f"raise --samples or use --goal fixed"
            )
        if self.gated:
            if self.scores != "hard":
                raise ParameterError(f"gate = {self.gate}: it is for votes, --scores hard")
            bound_behind_gate(self.bound)
        check_seed(self.seed)
        if BOUNDS[self.bound].distribution and (self.goal != "fixed" or self.certificates != ("exact",)):
            raise ParameterError(
                f"bound {self.bound!r} bounds distributions, not means: use it with --goal fixed and "
                "--certificate exact alone"
            )

    def rows(self) -> list[Row]:
        """Return the rows of the table: the robust classifier alone comes first, the tuned mix last."""
        mixed = [
            Row("mixed", name, self.alpha, self.gate, self.standard_temperature) for name in self.certificates
        ]
        found = [Row("robust", "exact", 1.0, self.gate), *mixed]
        numbers = self.tuned.split(",")
        if len(numbers) == 3 and "exact" in self.certificates:
            gate, temperature, alpha = map(float, numbers)
            found.append(Row("gated", "exact", alpha, gate, temperature))
        return found

    def deciding(self) -> list[Row]:
        """Return the rows that decide when an input has enough; the first of the mix where none is exact."""
        alone, *mixed = self.rows()
        exact = [row for row in mixed if row.certificate == "exact"] or mixed[:1]
        return [alone, *(mixed if self.settle == "all" else exact)]

    @property
    def gates(self) -> tuple[float, ...]:
        """The gates of all rows, that of h alone first."""
        return tuple(dict.fromkeys(row.gate for row in self.rows()))

    @property
    def gates_told(self) -> str:
        """The gates of all rows, as text."""
        return ", ".join(f"{gate:g}" for gate in sorted(self.gates))

    @property
    def gated(self) -> bool:
        """Whether any row counts votes behind a gate, which takes ballots."""
        return self.gates != (0.0,)

    def bound_at(self, gate: float) -> str:
        """Return the bound of votes behind a gate."""
        return bound_behind_gate(self.bound) if gate else self.bound

    @property
    def kept(self) -> str:
        """What is kept of a sample, for a run's identity: votes and what a gate asks of them, or scores."""
        return (
            "hard, with the largest probability"
            if self.scores == "hard"
            else f"soft, temperature {float(self.score_temperature)!r}"
        )


RADII_OF = {"l2": DEFAULT_RADII, "linf": (0.0, 1 / 255, 2 / 255, 4 / 255, 8 / 255), "l1": DEFAULT_RADII}
"""Columns of the table by norm."""

MAX_RADIUS = {"linf": 32 / 255, "l2": 4.0}
"""Largest radius that bound propagation tries, by norm."""

BOUND_METHODS = ("interval", "crown-ibp", "crown")
"""The methods of `certmix.margins.propagation`, in order of cost."""

_CONSTANTS = "; ".join(f"{name}: {meaning}" for name, meaning in CONSTANTS_OF.items())


def draws_no_samples(
    certificates: Sequence[str], norm: str | None, sigma: float | None, noise: str | None = None
) -> bool:
    """Return whether these certificates draw no samples; ParameterError unless they, norm and noise fit.

    `sigma` is the level of noise of any kind, and `noise` its kind.
    """
    norm = norm_name(norm)
    for name in certificates:
        if name not in (*CERTIFICATES, *NORMS_OF):
            known = ", ".join((*CERTIFICATES, *NORMS_OF))
            raise ParameterError(f"certificate {name!r} is unknown: use one of {known}")
    alone = [name for name in certificates if name in DETERMINISTIC]
    if alone and len(certificates) > 1:
        raise ParameterError(
            f"certificates {', '.join(certificates)}: {alone[0]} draws no samples and cannot share a run "
            "with others: ask for it alone"
        )
    if alone and norm not in (None, *NORMS_OF[alone[0]]):
        norms = " or ".join(NORMS_OF[alone[0]])
        raise ParameterError(f"certificate {alone[0]} gives radii in {norms}, not {norm}: use another norm")
    if noise is not None:
        check_choice("noise", noise, SMOOTHINGS)
    if alone and (sigma, noise) != (None, None):
        told = f"noise = {noise}" if sigma is None else f"sigma = {sigma}"
        raise ParameterError(
            f"{told}: certificate {alone[0]} takes the robust classifier as it is, without noise: "
            "leave --sigma, --noise and --scale out, or use --certificate exact"
        )
    kind = noise or GAUSSIAN
    if not alone and norm not in (None, *norms_of(kind)):
        norms, told = " or ".join(norms_of(kind)), f"norm {norm}: {kind} noise gives radii in"
        raise ParameterError(f"{told} {norms}: use one of these, or another --noise or --certificate")
    if not alone and sigma is None and kind == GAUSSIAN:
        raise ParameterError(
            f"no noise level for certificate {certificates[0] if certificates else 'exact'}: give --sigma "
            "(0.25, 0.5, 1), or use --certificate margin or lipschitz-constant, which need none"
        )
    return bool(alone)


class Proved(Settings, frozen=True):
    """What certifications without samples share, apart from data and models."""

    alpha: Alpha

    def weights(self) -> tuple[float, ...]:
        """Return the alphas of the rows: h alone first, then the mix."""
        return (1.0, self.alpha)

    def rows(self) -> list[Row]:
        """Return the rows of the table."""
        made: Any = self  # its kinds have these fields
        mixed = Row("mixed", made.certificate, self.alpha, temperature=made.standard_temperature)
        return [Row("robust", made.certificate, 1.0), mixed]


class Margin(Proved, frozen=True):
    """Bound propagation through the robust classifier as it is."""

    certificate: Annotated[Literal["margin"], Option("")] = "margin"
    norm: Annotated[
        Literal["linf", "l2"],
        Option("Norm of the radii.", shown="l2; linf for margin", choices=NORMS_OF["margin"], read=norm_name),
    ] = "linf"
    inputs: Sampled = 100
    radii: Radii = DERIVED
    bound_method: Annotated[
        str, Option("margin: how bounds are propagated, from cheap to dear.", choices=BOUND_METHODS)
    ] = "crown-ibp"
    arithmetic: Annotated[
        Literal["float32", "exact"],
        Option("margin: what is proved, of h as it runs or as its weights define it."),
    ] = "float32"
    max_radius: Annotated[
        Positive, Option("margin: largest radius that is tried.", shown="32/255 in linf, 4 in l2")
    ] = DERIVED
    standard_temperature: StandardTemperature = 1.0

    def usual(self, name: str) -> Any:
        """Return the columns, and the largest radius, of the norm."""
        return RADII_OF[self.norm] if name == "radii" else MAX_RADIUS[self.norm]

    def check(self) -> None:
        """Refuse columns that no radius reaches."""
        if self.radii[-1] > self.max_radius:
            raise ParameterError(
                f"radius {self.radii[-1]:g} lies beyond the largest that is tried, {self.max_radius:g}: "
                "raise --max-radius, or ask for smaller --radii"
            )

    @property
    def tolerance(self) -> float:
        """How far below a radius that was refused a verified one may lie."""
        return self.max_radius / 1024

    def identity(self) -> dict[str, Any]:
        """Return what stored figures depend on besides data and h, whatever alpha and columns are."""
        return {
            "norm": self.norm, "method": self.bound_method, "arithmetic": self.arithmetic,
            "max_radius": self.max_radius,
        }  # fmt: skip


class GivenConstant(Proved, frozen=True):
    """A robust classifier of known Lipschitz constant."""

    certificate: Annotated[Literal["lipschitz-constant"], Option("")] = "lipschitz-constant"
    norm: Annotated[str, Option("Norm of the radii.", choices=NORMS, read=norm_name)] = "l2"
    inputs: Sampled = 100
    radii: Radii = DERIVED
    lipschitz_constant: Annotated[
        Positive, Option("lipschitz-constant: an upper bound of h's, which you vouch for.")
    ] = DERIVED
    constant_of: Annotated[
        str,
        Option(
            f"lipschitz-constant: what it is a constant of. {_CONSTANTS}.",
            choices=CONSTANTS_OF,
            shown="logits",
        ),
    ] = "logits"
    standard_temperature: StandardTemperature = 1.0

    def usual(self, name: str) -> Any:
        """Return the columns of the norm; there is no usual constant."""
        if name == "radii":
            return RADII_OF[self.norm]
        raise ParameterError(
            "certificate lipschitz-constant needs the constant: give --lipschitz-constant, an upper bound"
        )

    @property
    def given(self) -> tuple[float, str]:
        """The Lipschitz constant, and what it is of."""
        return self.lipschitz_constant, self.constant_of

    def identity(self) -> dict[str, Any]:
        """Return nothing: logits alone are stored, whatever the constant."""
        return {}


class Enumerated(Proved, frozen=True):
    """A robust classifier by votes on all cases of an input: no samples, and no failure probability."""

    certificate: Annotated[Literal["enumerated"], Option("")] = "enumerated"
    noise: Annotated[str, Option("Kind of smoothing.", choices=ENUMERATED)] = DERIVED
    scale: Annotated[Positive, Option("splitting: lambda; bands: columns.")] = DERIVED
    inputs: Sampled = 100
    patch: Annotated[Count, Option("bands: the largest patch of the table, in pixels a side.")] = 5
    radii: Radii = DERIVED
    gate: Annotated[float, Option("Least largest probability of a vote that counts.", check=checked_gate)] = (
        0.0
    )
    standard_temperature: StandardTemperature = 1.0

    def usual(self, name: str) -> Any:
        """Return the scale of the shipped models, and columns up to what votes that all agree reach."""
        if name == "noise":
            raise ParameterError(f"no kind of smoothing is named: give --noise {' or '.join(ENUMERATED)}")
        if name == "scale":
            return self.cases.scale
        if self.norm == PATCH:
            return tuple(map(float, range(1, self.patch + 1)))
        unit, votes = self.cases.per_unit, self.cases.count(self.scale, ())
        most = largest_radius(self.noise, self.scale, votes, 1.0) * unit
        return tuple(radius / unit for radius in usual_radii(max(most, 1.0)))

    def check(self) -> None:
        """Refuse patches that are no whole number of pixels, and such settings of another kind."""
        kind = SMOOTHINGS[self.noise]
        if kind.whole and not all(radius.is_integer() and radius > 0 for radius in self.radii):
            told = f"radii = {list(self.radii)}: of {self.noise} they are whole numbers of pixels"
            raise ParameterError(f"{told}: give 1, 2, 5")
        if kind.whole and not self.scale.is_integer():
            told = f"scale = {self.scale:g}: of {self.noise} it is {kind.scale}"
            raise ParameterError(f"{told}: give a whole number such as {kind.cases.scale:g}")

    def refuse_wider(self, columns: int) -> None:
        """Refuse patches that do not lie within images of so many columns: ParameterError."""
        if self.norm == PATCH and (widest := max(self.radii, default=0)) > columns:
            raise ParameterError(
                f"a patch of {widest:g} columns does not lie within images of {columns}: "
                f"give --patch {columns} or less"
            )

    @property
    def cases(self) -> Cases:
        """What its kind has of which no case is left out."""
        return cases_of(self.noise)

    @property
    def smoothing(self) -> Smoothing:
        """Its kind, and how much of it."""
        return Smoothing(self.noise, self.scale)

    @property
    def norm(self) -> str:
        """The norm of the radii."""
        return norms_of(self.noise)[0]

    @property
    def cell(self) -> str:
        """The cell of the ballots of all cases."""
        return f"ballots, {self.noise}, scale {self.scale!r}"

    def rows(self) -> list[Row]:
        """Return the rows of the table, h alone first."""
        mixed = (EXACT, THEOREM)
        return [
            Row("robust", EXACT, 1.0, self.gate),
            *(Row("mixed", name, self.alpha, self.gate, self.standard_temperature) for name in mixed),
        ]

    def identity(self) -> dict[str, Any]:
        """Return what the votes depend on besides data and h, whatever alpha, gate and columns are."""
        return {"noise": self.noise, "scale": self.scale}


POPULATIONS = {
    "data": "the data set, any input of which may be drawn again",
    "distribution": "what the inputs of the data set are independent draws of, each taken once",
}
"""What a claim is about, by name."""


class Population(Noisy, frozen=True):
    """A claim about a population: the share of its inputs that are right and certified at one radius."""

    sigma: Annotated[Positive | None, Option("", example="0.5")]
    alpha: Alpha
    at_radius: Annotated[
        Positive, Option("--goal population: the radius of the claim.", metavar="R", example="0.5")
    ]
    at_least: Annotated[
        Share | None,
        Option(
            "--goal population: the share to be shown; sampling ends as soon as it is, or cannot be.",
            metavar="SHARE",
            example="0.3",
        ),
    ] = None
    goal: Annotated[Literal["population"], Option("")] = "population"
    population: Annotated[
        str,
        Option(
            "--goal population: whose share. "
            + "; ".join(f"{name}: {meaning}" for name, meaning in POPULATIONS.items())
            + ".",
            choices=POPULATIONS,
        ),
    ] = "data"
    inputs: Sampled = "all"
    samples: Annotated[Count, Option("")] = 1000
    failure_probability: Annotated[Share, Option("", example="0.001")] = 0.001
    seed: Annotated[int, Option("")] = 0
    precision: Annotated[str, Option("", choices=(AUTO, *SAMPLED))] = AUTO
    noise: Annotated[str, Option("", choices=SMOOTHINGS)] = GAUSSIAN
    scale: Annotated[Positive | None, Option("", example="0.5")] = None
    norm: Annotated[str, Option("", choices=NORMS_OF_NOISE, read=norm_name)] = DERIVED
    dimension: Count | None = None

    def usual(self, name: str) -> Any:
        """Return the norm of the noise."""
        return norms_of(self.noise)[0]

    def check(self) -> None:
        """Refuse a mix of which nothing can be certified, seeds that are none, and parts of whole radii."""
        if self.noise in ENUMERATED:
            told = f"noise = {self.noise}: every case of it is gone through, and none drawn"
            raise ParameterError(f"{told}: leave --goal population out")
        self.check_noise()
        check_seed(self.seed)
        if self.smoothing.entry.whole and not self.at_radius.is_integer():
            told = f"at radius = {self.at_radius:g}: of {self.noise} noise it is a whole number"
            raise ParameterError(f"{told}: give 1, 2, 5")
        if self.alpha == 0.5:
            raise ParameterError(
                "alpha = 0.5: nothing is certified of a mix that ties everywhere: raise --alpha"
            )

    @classmethod
    def only(cls) -> set[str]:
        """Return the options of no other request."""
        return {"at_radius", "at_least", "population"}

    def identity(self) -> dict[str, Any]:
        """Return what is fixed beforehand, besides data and h: votes and their bound depend on it."""
        left = ("at_least", "goal", "inputs", "sigma", "noise", "scale")
        level = ("sigma",) if self.scale is None else ("noise", "scale")
        names = [*level, *(name for name in self.__struct_fields__ if name not in left)]
        return {name: getattr(self, name) for name in names} | {
            "noise_version": NOISE_VERSION, "rule_version": 2,
        }  # fmt: skip

    def draws(self, inputs: int) -> int:
        """Return the most inputs that are drawn of a data set of so many."""
        asked = inputs if self.inputs == "all" else int(self.inputs)
        return asked if self.population == "data" else min(asked, inputs)


DeterministicRequest = Margin | GivenConstant | Enumerated
Request = CertifyRequest | Margin | GivenConstant | Enumerated
KINDS: dict[str, type[Settings]] = {
    "certify": CertifyRequest,
    "certify-margin": Margin,
    "certify-lipschitz-constant": GivenConstant,
    "certify-enumerated": Enumerated,
    "certify-population": Population,
}
"""What is asked of a run, by its study."""


def request_of(given: dict[str, Any], refuse: Callable[[Iterable[str], str], None]) -> Any:
    """Take from `given` what a request is made of; `refuse` gets names that would have no effect, and why."""
    if given.get("goal") == "population":
        return _population_of(given, refuse)
    named = given.get("certificates", tuple(CERTIFICATES))
    certificates = (named,) if isinstance(named, str) else tuple(named)
    kind: Any = CertifyRequest
    level = given["scale"] if given.get("sigma") is None and "scale" in given else given.get("sigma")
    what = f"certificate {(*certificates, 'exact')[0]}"
    if (noise := str(given.get("noise"))) in ENUMERATED:
        kind, what, (norm,) = Enumerated, f"{noise}, of which every case is gone through", norms_of(noise)
        if norm_name(given.pop("norm", None)) not in (None, norm):
            raise ParameterError(f"{noise} gives radii in {norm} alone: leave --norm out")
        refuse(["compiled", "feature_scale"], f"is not for {what}")
        refuse(["patch"] * (norm != PATCH), "is for --noise bands")
        refuse(["patch"] * ("radii" in given), "is the last of the columns, which --radii names, or")
    elif draws_no_samples(certificates, given.get("norm"), level, given.get("noise")):
        kind = Margin if certificates[0] == "margin" else GivenConstant
        del given["certificates"]
        refuse(["compiled", "shard", "feature_scale"], f"is not for certificate {certificates[0]}")
    else:
        given.setdefault("sigma", None)
        for name, (other, values) in OPTION_OF.items():
            if given.get(other) not in values:
                refuse([name], f"is for --{other} {' or '.join(filter(None, values))}")
    (asked,) = divide(given, kind)
    others = {name for other in KINDS.values() for name in other.__struct_fields__}
    refuse(sorted(Population.only() & given.keys()), "is for --goal population")
    refuse(sorted(others & given.keys()), f"is not for {what}")
    made: Request = kind(**asked)
    return made


def _population_of(given: dict[str, Any], refuse: Callable[[Iterable[str], str], None]) -> Population:
    (asked,) = divide(given, Population)
    others = {name for kind in KINDS.values() for name in kind.__struct_fields__}
    refuse(sorted(others & given.keys()), "is not for --goal population")
    refuse(["shard", "compiled"], "is not for --goal population")
    of_g = [name for name in given if name.startswith("standard")]
    refuse(of_g, "is not for --goal population, whose claim holds whatever g is")
    if "at_radius" not in asked:
        raise ParameterError("--goal population needs --at-radius: add it, such as 0.5")
    return Population(**{"sigma": None, **asked})


ROBUST, LABEL = "robust logits", "label"
"""Cells of the robust model's clean logits, and of the labels."""


def standard_logits(checksum: str) -> str:
    """Return the cell of the standard model's logits: it is no part of the run's identity."""
    return f"standard logits {checksum}"


def margin_cell(alpha: float) -> str:
    """Return the cell of (radius, status, evaluations) at one alpha."""
    return f"margin, alpha {alpha!r}"


def column_cell(alpha: float, radius: float) -> str:
    """Return the cell that says whether a column just beyond an input's radius was verified, 1 or 0."""
    return f"margin, alpha {alpha!r}, at {radius!r}"


def needed_cells(request: DeterministicRequest) -> list[str]:
    """Return the cells that follow from the robust model, but for columns near a radius."""
    if isinstance(request, Enumerated):
        return [request.cell]
    margins = [margin_cell(alpha) for alpha in request.weights()] if request.certificate == "margin" else []
    return [ROBUST, *margins]


def check_batch_size(batch_size: int | None) -> int | None:
    """Return the number of inputs in a batch, which must hold some; None leaves it to the device."""
    if batch_size is not None:
        check_number("batch size", batch_size)
    if batch_size is not None and batch_size < 1:
        raise ParameterError(f"batch size = {batch_size}: at least 1 is needed, or leave it out")
    return None if batch_size is None else int(batch_size)


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
