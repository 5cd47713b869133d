"""A certification by samples of every input.  No torch."""

from __future__ import annotations

import math
from typing import Annotated, Any

from certmix.bounds import BOUNDS, bound_behind_gate, bounds_of
from certmix.certification.request.noisy import NORMS_OF_NOISE, Noisy
from certmix.certification.request.parts import (
    PENDING,
    Alpha,
    Radii,
    Row,
    Sampled,
    StandardTemperature,
    check_seed,
    checked_gate,
    meanings,
    usual_radii,
    whole_radii,
)
from certmix.errors import ParameterError, check_choice
from certmix.models.temperature import check_temperature
from certmix.radii import CERTIFICATES, SMOOTHINGS, check_alpha
from certmix.radii.smoothings import GAUSSIAN
from certmix.runs.settings import DERIVED, Count, Option, Positive, Share, norm_name
from certmix.sampling.devices import AUTO, SAMPLED
from certmix.sampling.schedule import look, looks, share
from certmix.text import as_given

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
SCORES = {"hard": "the base model's answers are counted", "soft": "the softmax of its logits is averaged"}
"""What is averaged over noisy copies, by name."""
_NOISES = meanings({name: kind.meaning for name, kind in SMOOTHINGS.items()})
_SCALES = meanings({name: kind.scale for name, kind in SMOOTHINGS.items() if name != GAUSSIAN})

OPTION_OF: dict[str, tuple[str, tuple[Any, ...]]] = {
    "score_temperature": ("scores", ("soft",)),
    "gate": ("scores", ("hard", None)),
    "tuned": ("scores", ("hard", None)),
    "relative_precision": ("goal", ("radius",)),
    "settle": ("goal", ("radii", "radius", None)),
}
"""Settings that have an effect with some values of another setting alone; None where that is as usual."""
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
            f"When an input has enough samples: {meanings(GOALS)}.",
            choices=GOALS,
        ),
    ] = "radii"
    settle: Annotated[
        str,
        Option(
            f"Rows that decide when an input has enough: {meanings(SETTLES)}.",
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
