"""What no certificate says, and what to do about it: rows of docs/limits.md, and boxes to sign.  No torch."""

from __future__ import annotations

import re
from typing import NamedTuple

SAMPLED, MARGIN, CONSTANT, ENUMERATED = "sampled", "margin", "lipschitz-constant", "enumerated"
POPULATION = "population"
KINDS = (SAMPLED, MARGIN, CONSTANT, ENUMERATED, POPULATION)
"""How a run certifies: from samples, by bound propagation, from a constant that was given, from all cases; or
what it claims of a population."""


class Limit(NamedTuple):
    """One thing that is not guaranteed, why, and the remedy, as Markdown with links from docs/.

    `of` are the ways to certify that it is a limit of.
    """

    what: str
    why: str
    remedy: str = ""
    of: tuple[str, ...] = KINDS


LIMITS: dict[str, tuple[Limit, ...]] = {
    "input": (
        Limit(
            "other norms",
            "a radius is of the norm that its table names, and converted ones are small: an l2 ball of "
            r"radius $r$ holds the linf ball of radius $r/\sqrt d$",
            "[other noise](norms.md) for l1, l0 and linf; without samples "
            "[`margin`, `lipschitz-constant`](margin-certificates.md)",
        ),
        Limit(
            "other changes: rotation, blur, weather, patches",
            "they are no small distances",
            "[`--noise bands`](bands.md) for patches, [`ablation`](ablation.md) for a few pixels; nothing "
            "for the others",
        ),
        Limit(
            "that the class is right",
            "a certificate says that it does not change",
            "certified *accuracy* counts inputs that are right as well, by their labels",
        ),
        Limit(
            "points that only $g$ gets right",
            "where $h$ is wrong or unsure nothing is proved of the mix; its clean accuracy there rests on "
            "$g$, which may be attacked",
            "read clean and certified accuracy together",
        ),
        Limit(
            "the class in use",
            "the certificate is about the exact average $h$; a deployed mix estimates it from samples",
            "`SmoothedClassifier.predict` and `SmoothedMixture.predict` abstain unless their own votes "
            "establish the class",
            (SAMPLED, POPULATION),
        ),
        Limit(
            "images of other than 8-bit values",
            "`--noise splitting` and `bands` speak of images of 256 levels, changed to such images",
            "[`laplace`, `uniform`, `ablation`](norms.md), with samples, for any real input",
            (ENUMERATED,),
        ),
    ),
    "figures": (
        Limit(
            "any one input of a claim about a population",
            "at least this share of the population is certified; which inputs, is not said",
            "certificates of inputs, without [`--goal population`](population.md)",
            (POPULATION,),
        ),
        Limit(
            "all inputs at once",
            "the failure probability is one input's: of 10,000 at 0.001, ten certificates may be wrong",
            "`--all-at-once`: the failure probability is that of all together",
            (SAMPLED,),
        ),
        Limit(
            "true robust accuracy at the lower end",
            "the interval is over inputs; certificates may be wrong besides",
            "lower bounds of a [guarantee](guarantee-file.md) give it up; of a table subtract it",
            (SAMPLED,),
        ),
        Limit(
            "other data than these",
            "the interval covers sampling from the same distribution, not a shift of it",
            "data of your own use",
        ),
        Limit(
            "adaptive choices",
            r"$\alpha$, radii, certificate and $g$ may be chosen after seeing the samples: certificates "
            "stand, but *accuracies* become optimistic. Bound, failure probability and a fixed $n$ may not: "
            "where they are not those a run began with, the table says so or is refused",
            "a [tuning split](howto-compromise.md); another `--seed`, not `--fresh` or `--output`, which "
            "[draw the same samples again](runs.md#what-decides-which-samples-are-drawn)",
        ),
        Limit(
            "seeds tried until it passes",
            "each try has its own failure probability",
            "fix the seed beforehand",
            (SAMPLED, POPULATION),
        ),
    ),
    "machine": (
        Limit(
            "another machine's arithmetic",
            "$h$ is the network as this machine runs it; another device, version or batch size may answer "
            "near ties otherwise. Bound propagation speaks of float32 with sums in any order, or of exact "
            "arithmetic",
            "[`certmix reproduce`](runs.md#reproducing), [`certmix verify`](verify.md) on the machine that "
            "serves",
        ),
        Limit(
            "random bits",
            "Philox's are taken to be independent and uniform; nothing else is "
            "[assumed of the noise](noise.md)",
            "",
            (SAMPLED, POPULATION),
        ),
        Limit(
            "rows of a batch",
            "that a row's answer depends neither on its place nor on other rows is "
            "[checked on one batch](noise.md#rows-of-a-batch), not on all",
            "a batch size that divides 100",
            (SAMPLED, POPULATION),
        ),
        Limit(
            "code that bounds cannot see",
            "bound propagation reads layers from a trace, refuses what a trace does not show, and "
            "[compares](propagation.md#what-runs-is-what-is-bounded) logits; code written to deceive it is "
            "not found out",
            "read the forward pass of a model that is not yours",
            (MARGIN,),
        ),
        Limit(
            "a model that reads files nobody declared",
            "a change shows in its [logits of a few inputs](models.md#the-model-of-a-run), or not at all",
            "`--robust-file`, `--standard-file`",
        ),
        Limit(
            "a Lipschitz constant that you state",
            "certmix refutes false ones where it can, and proves none",
            "[`certmix lipschitz --check`](local-lipschitz.md#a-claimed-constant-on-trial)",
            (CONSTANT,),
        ),
        Limit(
            "trust terms, mixed logits",
            "Lemma 3.2 needs one weight and probabilities",
            "[mixing](mixing.md) says which mixes are certified",
        ),
    ),
}
"""What they are about -> limits, in the order of the page."""


def limits_table(about: str) -> str:
    """Return the limits about one thing as a table of the documentation."""
    rows = [f"| {one.what} | {one.why} | {one.remedy}{' ' * bool(one.remedy)}|" for one in LIMITS[about]]
    return "\n".join(["| not guaranteed | why | what to do |", "| --- | --- | --- |", *rows])


def limits_of(how: str) -> list[Limit]:
    """Return the limits of runs that certify in this way, all for another; links and TeX in plain words."""

    def spelt(text: str) -> str:
        text = re.sub(r"\[([^]]*)\]\(([\w-]+\.md)[^)]*\)", r"\1 (docs/\2)", text)
        return text.replace(r"\sqrt d", "sqrt(d)").replace("$", "").replace("\\", "")

    every = (one for several in LIMITS.values() for one in several if how in one.of or how not in KINDS)
    return [Limit(spelt(one.what), spelt(one.why), spelt(one.remedy), one.of) for one in every]
