"""What a user asks of an empirical study: which attack, how strong, on how many images."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from certmix.attacks import ATTACKS
from certmix.errors import ParameterError
from certmix.runs.keywords import norm_name, plain_numbers
from certmix.sampling.precision import PRECISIONS
from certmix.text import as_given
from certmix.types import Dataset

__all__ = ["DEFAULT_EPS", "AttackRequest", "check_ball", "check_weight"]

DEFAULT_EPS = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}
"""The radius that the field reports most, by norm."""


@dataclass(frozen=True)
class AttackRequest:
    """The attack of a study, and the images it runs on.

    Parameters
    ----------
    attack
        A name in `certmix.attacks.ATTACKS`.
    norm, eps
        The ball; eps None takes the norm's entry in `DEFAULT_EPS`. Units of the input.
    steps, restarts
        Budget of iterative attacks (queries of ``square``); None takes the attack's own.
    images
        How many images, spread over the data set, or ``"all"``.
    seed
        Key of all random starts.
    batch_size
        Images attacked together.
    precision
        Arithmetic of the attack's passes; what it finds is judged in fp32.

    Raises
    ------
    ParameterError
        For any value out of range.
    """

    attack: str = "pgd"
    norm: str = "linf"
    eps: float | None = None
    steps: int | None = None
    restarts: int = 1
    images: int | str = 100
    seed: int = 0
    batch_size: int = 100
    precision: str = "fp32"

    def __post_init__(self) -> None:
        plain_numbers(self)
        object.__setattr__(self, "norm", norm_name(self.norm))
        if self.attack not in ATTACKS:
            raise ParameterError(f"attack {self.attack!r} is unknown: use one of {', '.join(ATTACKS)}")
        serving = ", ".join(name for name, attack in ATTACKS.items() if self.norm in attack.norms)
        if self.norm not in DEFAULT_EPS:
            raise ParameterError(f"norm {self.norm!r} is unknown: use one of {', '.join(DEFAULT_EPS)}")
        if self.norm not in ATTACKS[self.attack].norms:
            raise ParameterError(f"attack {self.attack} cannot serve norm {self.norm}: use one of {serving}")
        if self.eps is None:
            object.__setattr__(self, "eps", DEFAULT_EPS[self.norm])
        if not (self.radius >= 0 and math.isfinite(self.radius)):
            raise ParameterError(f"eps = {self.eps}: the radius of the ball must be a finite number >= 0")
        for name in ("steps", "restarts", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ParameterError(f"{name.replace('_', ' ')} = {value}: at least 1 is needed")
        if self.steps is not None and not self._budget:
            raise ParameterError(f"attack {self.attack} takes no --steps: leave it out")
        if self.images != "all" and (not isinstance(self.images, int) or self.images < 1):
            raise ParameterError(f"images = {self.images!r}: give a number of at least 1, or 'all'")
        if self.seed < 0:
            raise ParameterError(f"seed = {self.seed}: it must be at least 0")
        if self.precision not in PRECISIONS:
            raise ParameterError(
                f"precision {self.precision!r} is unknown: use one of {', '.join(PRECISIONS)}"
            )

    @property
    def radius(self) -> float:
        """The ball's radius, which is never None once the request is made."""
        assert self.eps is not None
        return self.eps

    @property
    def _budget(self) -> str | None:
        """The setting of the attack that ``steps`` sets."""
        settings = ATTACKS[self.attack].settings
        return next((name for name in ("steps", "queries") if name in settings), None)

    def settings(self) -> dict[str, Any]:
        """Return the keyword settings that the attack function takes."""
        chosen: dict[str, Any] = {"restarts": self.restarts}
        if self.steps is not None and self._budget is not None:
            chosen[self._budget] = self.steps
        return {name: value for name, value in chosen.items() if name in self._accepted}

    @property
    def _accepted(self) -> tuple[str, ...]:
        return (*ATTACKS[self.attack].settings, "restarts")

    def identity(self) -> dict[str, Any]:
        """Return the part that decides which points an attack finds."""
        names = ("attack", "norm", "eps", "steps", "restarts", "seed", "precision")
        return {name: getattr(self, name) for name in names}

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``run.json``."""
        return asdict(self)

    def words(self) -> str:
        """Return the attack in a few words, for headings.

        Examples
        --------
        >>> AttackRequest(steps=20).words()
        'pgd (20 steps), linf eps 8/255'
        """
        budget = "" if self.steps is None else f" ({self.steps} {self._budget})"
        more = "" if self.restarts == 1 else f" x {self.restarts} restarts"
        return f"{self.attack}{budget}{more}, {self.norm} eps {as_given(self.radius)}"


def check_ball(eps: float, norm: str, dataset: Dataset) -> str | None:
    """Refuse a ball that holds every input whatever its centre; return a warning where that is not known.

    Raises
    ------
    ParameterError
        If eps is larger than the distance of any two inputs in the data's range.
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
    limits = f"input range [{low:g}, {high:g}]"
    bound = f"the {limits}"
    if norm != "linf":
        bound = f"{largest:.4g}, the largest {norm} distance in {bound}"
    hint = f"did you mean {eps:g}/255?" if eps / 255 <= largest else f"give a radius below {largest:.4g}"
    raise ParameterError(f"eps = {eps:g} exceeds {bound}: {hint}")


def check_weight(alpha: float, low: float = 0.0) -> float:
    """Return one mixing weight, which must lie in [low, 1].

    Raises
    ------
    ParameterError
        If it does not.
    """
    if not low <= alpha <= 1.0:
        percent = max(low, 0.1) <= alpha / 100 <= 1.0
        hint = f"did you mean {alpha / 100:g}?" if percent else "choose such a weight, for example 0.76"
        raise ParameterError(f"alpha = {alpha:g}: the mixing weight must lie in [{low:g}, 1]: {hint}")
    return float(alpha)
