"""Which kind of request a user's options make.  No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from certmix.certification.request.noisy import ENUMERATED
from certmix.certification.request.population import Population
from certmix.certification.request.proved import Enumerated, GivenConstant, Margin, draws_no_samples
from certmix.certification.request.sampled import OPTION_OF, CertifyRequest
from certmix.errors import ParameterError
from certmix.radii import CERTIFICATES, norms_of
from certmix.runs.settings import Settings, divide, norm_name
from certmix.tables.words import PATCH

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
    if "alpha" not in asked:
        raise ParameterError("--goal population needs --alpha: add it, such as 0.76")
    return Population(**{"sigma": None, **asked})
