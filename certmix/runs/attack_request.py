"""What a user asks of an empirical study: which attack, how strong, on how many inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from certmix.errors import ParameterError, check_number
from certmix.runs.settings import DERIVED, Count, Inputs, Option, Settings, divide, norm_name
from certmix.sampling.devices import PRECISIONS
from certmix.text import as_given
from certmix.types import Dataset

DEFAULT_EPS = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}
"""The radius that the field reports most, by norm."""


def _attacks() -> dict[str, Any]:
    from certmix.attacks import ATTACKS  # imports torch, which help and refusals can do without

    return ATTACKS


class AttackRequest(Settings, frozen=True):
    """The attack of a study, and the inputs it runs on; ParameterError for any value out of range."""

    attack: Annotated[
        str,
        Option(
            "fgsm, pgd, apgd-ce, apgd-dlr, apgd-targeted, square (gradient-free) or autoattack.",
            choices=_attacks,
        ),
    ] = "pgd"
    norm: Annotated[str, Option("Norm of the ball.", choices=DEFAULT_EPS, read=norm_name)] = "linf"
    eps: Annotated[
        Annotated[float, Meta(ge=0)],
        Option("Radius of the ball.", shown="8/255 for linf, 0.5 for l2, 12 for l1"),
    ] = DERIVED
    steps: Annotated[Count | None, Option("Steps of iterative attacks, queries of square.")] = None
    restarts: Annotated[Count, Option("Random restarts.")] = 1
    inputs: Annotated[Inputs, Option("How many inputs, spread over the data.", metavar="N|all")] = 100
    seed: Annotated[int, Meta(ge=0), Option("Key of all random starts.")] = 0
    batch_size: Annotated[Count, Option("Inputs attacked together.")] = 100
    precision: Annotated[
        str, Option("Arithmetic of the attack; what it finds is judged in fp32.", choices=PRECISIONS)
    ] = "fp32"

    def usual(self, name: str) -> Any:
        """Return the radius that the field reports most in the norm."""
        return DEFAULT_EPS[self.norm]

    def check(self) -> None:
        """Refuse norms that the attack does not serve, and steps that it does not take."""
        if self.norm not in _attacks()[self.attack].norms:
            serving = ", ".join(name for name, attack in _attacks().items() if self.norm in attack.norms)
            raise ParameterError(f"attack {self.attack} cannot serve norm {self.norm}: use one of {serving}")
        if self.steps is not None and not self._budget:
            raise ParameterError(f"attack {self.attack} takes no --steps: leave it out")

    @property
    def _budget(self) -> str:
        """The setting of the attack that ``steps`` sets, "" for none."""
        settings = _attacks()[self.attack].settings
        return next((name for name in ("steps", "queries") if name in settings), "")

    def settings(self) -> dict[str, Any]:
        """Return the keyword settings that the attack function takes."""
        return {"restarts": self.restarts} | ({} if self.steps is None else {self._budget: self.steps})

    def identity(self) -> dict[str, Any]:
        """Return the part that decides which points an attack finds."""
        names = ("attack", "norm", "eps", "steps", "restarts", "seed", "precision")
        return {name: getattr(self, name) for name in names}

    def words(self) -> str:
        """Return the attack in a few words: pgd (20 steps), linf eps 8/255."""
        budget = "" if self.steps is None else f" ({self.steps} {self._budget})"
        more = "" if self.restarts == 1 else f" x {self.restarts} restarts"
        return f"{self.attack}{budget}{more}, {self.norm} eps {as_given(self.eps)}"


def asked_attack(given: dict[str, Any], usual: Mapping[str, Any]) -> AttackRequest:
    """Take an attack from what was given; `usual` are the study's own defaults, steps where any are taken."""
    (asked,) = divide(given, AttackRequest)
    own = _attacks().get(asked.get("attack", "pgd"))
    takes_steps = own is not None and "steps" in own.settings
    return AttackRequest(**{k: v for k, v in usual.items() if k != "steps" or takes_steps} | asked)


def check_ball(eps: float, norm: str, dataset: Dataset) -> str | None:
    """Refuse a ball that holds every input whatever its centre; return a warning where that is not known.

    ParameterError if eps is larger than the distance of any two inputs in the data's range.
    """
    if dataset.input_range is None:
        if norm == "linf" and eps > 1:
            return f"eps = {eps:g} and the data name no input range: did you mean {eps:g}/255?"
        return None
    low, high = dataset.input_range
    inputs = dataset.read(0).size
    largest = (high - low) * {"linf": 1.0, "l2": math.sqrt(inputs), "l1": float(inputs)}[norm]
    if eps <= largest * (1 + 1e-9):
        return None
    bound = f"the input range [{low:g}, {high:g}]"
    if norm != "linf":
        bound = f"{largest:.4g}, the largest {norm} distance in {bound}"
    hint = f"did you mean {eps:g}/255?" if eps / 255 <= largest else f"give a radius below {largest:.4g}"
    raise ParameterError(f"eps = {eps:g} exceeds {bound}: {hint}")


def check_weight(alpha: float, low: float = 0.0) -> float:
    """Return one mixing weight, which must lie in [low, 1]: ParameterError."""
    check_number("alpha", alpha)
    if not low <= alpha <= 1.0:
        percent = max(low, 0.1) <= alpha / 100 <= 1.0
        hint = f"did you mean {alpha / 100:g}?" if percent else "choose such a weight, for example 0.76"
        raise ParameterError(f"alpha = {alpha:g}: the mixing weight must lie in [{low:g}, 1]: {hint}")
    return float(alpha)
