"""What a user asks of `verify` and `falsify`.  No torch."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from certmix.certification.request.parts import checked_gate
from certmix.certification.request.proved import NORMS_OF
from certmix.radii import CERTIFICATES, check_alpha
from certmix.radii.counted import EXACT
from certmix.runs.settings import Count, Inputs, Option, Settings, Share
from certmix.runs.sources import RUN_CODE

Seed = Annotated[int, Meta(ge=0)]


class VerifyRequest(Settings, frozen=True):
    """How to verify a guarantee or a run; ParameterError for any value out of range.

    ``resample`` is how many are sampled again in depth, 0 for none, ``resample_samples`` how many of each.
    """

    runs: Annotated[
        str, Option("Folder of run folders: where a guarantee's samples are kept.", metavar="PATH")
    ] = "runs"
    resample: Annotated[
        Annotated[int, Meta(ge=0)],
        Option("Inputs sampled again in depth, and 20 times as many in a few samples; 0 for none."),
    ] = 5
    resample_samples: Annotated[Count, Option("Samples drawn again for each input in depth, on average.")] = (
        1000
    )
    new_seed: Annotated[
        Seed | None, Option("Chooses these inputs and their noise.", shown="drawn, and reported")
    ] = None
    error_rate: Annotated[
        Share, Option("Probability, at most, that sampling again rejects an honest run.", example="0.001")
    ] = 0.001
    budget: Annotated[
        Count | None,
        Option("Guarantees: the most samples to draw, with those drawn again.", shown="the file's"),
    ] = None
    proof: Annotated[
        str | None,
        Option(
            "Write the counts or votes behind the table and what follows, for a script (docs/proof.md) to "
            "check without certmix.",
            metavar="FILE",
        ),
    ] = None
    fresh: Annotated[bool, Option("Guarantees: delete the run in --runs and sample anew.")] = False
    batch_size: Annotated[Count | None, Option("Inputs in one forward pass.", shown="automatic")] = None
    device: str = "auto"
    run_code: Annotated[bool, Option(RUN_CODE)] = False


class FalsifyRequest(Settings, frozen=True):
    """Which certificates are attacked, how hard, and what counts as evidence; ParameterError.

    ``inputs`` may be ``"all"``; ``alpha``, ``gate`` and ``certificate`` None are the run's own.
    """

    inputs: Annotated[
        Inputs,
        Option(
            "Inputs of the run that are looked at, evenly spread; the certified ones are attacked.",
            metavar="N|all",
        ),
    ] = 25
    alpha: Annotated[
        float | None,
        Option("Mixing weight of the radii; 1 is h alone.", shown="the run's", check=check_alpha),
    ] = None
    certificate: Annotated[
        str | None, Option("Whose radii.", choices=(*CERTIFICATES, *NORMS_OF, EXACT), shown="the run's first")
    ] = None
    steps: Annotated[Count, Option("Steps of the search.")] = 20
    copies: Annotated[
        Annotated[int, Meta(ge=2)], Option("Noisy copies behind each gradient of a smoothed classifier.")
    ] = 32
    restarts: Annotated[Count, Option("Starts of each attack on a classifier without noise.")] = 4
    samples: Annotated[
        Annotated[int, Meta(ge=100)],
        Option("Fresh samples that decide at a point; hopeless points are given up earlier."),
    ] = 10_000
    error_rate: Annotated[
        Share, Option("Probability that honest certificates are called falsified.", example="0.01")
    ] = 0.01
    seed: Annotated[Seed, Option("Key of all noise.", shown="0; --replay draws one")] = 0
    run_code: Annotated[bool, Option(RUN_CODE)] = False
    gate: Annotated[
        float | None,
        Option(
            "Threshold of h's votes, for certificates of the run's counts behind another gate than its own.",
            shown="the run's",
            check=checked_gate,
        ),
    ] = None
