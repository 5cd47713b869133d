"""Drawing samples of a sampled run again, and comparing counts."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from certmix.studies.request import CertifyRequest
from certmix.verification.checks import CheckResult, Outcome
from certmix.verification.rederivation.samples import stored_request
from certmix.verification.rederivation.sources import Faults, judged, unchecked
from certmix.verification.rederivation.stored import StoredRun, read_samples
from certmix.verification.resampling.draws import Again, Drawn, chosen_images, draw_again
from certmix.verification.resampling.two_sample import LOOKS, judge_images, votes_p_value

__all__ = ["resample_votes"]

CHECKS = ("same seed", "new seed", "standard outputs again")
CLOSE = 1e-4
"""Difference of probabilities that another device or version may explain."""


def resample_votes(again: Again) -> list[CheckResult]:
    """Return the checks of a sampled run."""
    run = read_samples(again.run)
    request, model = stored_request(run), again.reloaded.models["robust"]
    lacking = [text for name, text in again.reloaded.problems.items() if name in ("data", "robust")]
    if lacking or again.reloaded.dataset is None or model is None:
        return [unchecked(check, " ".join(lacking) or "no robust model is named") for check in CHECKS]
    chosen = chosen_images(again, run.images)
    if not chosen:
        return [unchecked(check, "no stored image is in the data set") for check in CHECKS]
    differ = _surroundings(run.description, request, again.device)
    drawn = []
    for done, (index, position) in enumerate(chosen.items(), 1):
        drawn.append(draw_again(again, run, request, index, position))
        again.report(done, len(chosen))
    tests = 2 if differ else 1
    return [
        _same_seed(again, drawn, differ, again.error_rate / tests),
        _new_seed(again, run, request, drawn, again.error_rate / tests),
        _standard_outputs(again, run, chosen),
    ]


def _surroundings(description: dict[str, Any], request: CertifyRequest, device: torch.device) -> list[str]:
    """Return in what this machine differs from the run's, of what equal counts depend on."""
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    own = {
        "device": device.type, "device_name": name, "torch": version("torch"),
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    stored = {**description["versions"], **{k: description.get(k) for k in ("device_name", "threads")}}
    stored["device"] = str(description["device"]).partition(":")[0]
    return [
        f"{key} {stored.get(key)} there, {value} here"
        for key, value in own.items()
        if stored.get(key) != value
    ]


def _same_seed(again: Again, drawn: list[Drawn], differ: list[str], error_rate: float) -> CheckResult:
    """Counts of the run's own seed: equal in equal surroundings, else of one distribution."""
    seen = sum(one.after - one.before for one in drawn)
    about = f"{len(drawn)} images chosen by seed {again.new_seed}, selection and {seen:,} estimation samples"
    if not differ:
        faults: Faults = [
            (
                one.record.index,
                f"image {one.record.index}: {one.moved} counts are not what its seed gives ({about})",
            )
            for one in drawn
            if one.moved
        ]
        return judged("same seed", faults, f"counts are equal: {about}")
    p_values = []
    for one in drawn:
        nothing = np.zeros_like(one.stretch)
        told = one.record.estimation.get(one.after, nothing) - one.record.estimation.get(one.before, nothing)
        p_values.append(min(1.0, LOOKS * votes_p_value(told, one.stretch, one.record.selected)))
    return _judged_statistically(
        "same seed",
        again,
        drawn,
        p_values,
        error_rate,
        f"{about}; not compared one by one ({'; '.join(differ)})",
    )


def _new_seed(
    again: Again, run: StoredRun, request: CertifyRequest, drawn: list[Drawn], error_rate: float
) -> CheckResult:
    """Counts of all classes against those of a seed that the run cannot have known.

    A run that stopped by itself is tested at the look where it did; whatever
    made it stop there, each of the possible looks has its share of the error.
    """
    fixed = run.meta.get("fixed_samples")
    p_values = []
    for one in drawn:
        record, found = one.record, [1.0]
        if record.estimation:
            times = 2 * (1 if fixed == str(record.drawn) else LOOKS)
            found.append(times * votes_p_value(record.estimation[record.drawn], one.fresh, record.selected))
        if request.scores == "hard":
            found.append(2 * votes_p_value(record.selection, one.fresh))
        elif one.fresh_bins is not None and record.drawn in record.scores and record.drawn > 0:
            times = 2 * (1 if fixed == str(record.drawn) else LOOKS)
            found.append(times * votes_p_value(record.scores[record.drawn].bin_counts[0], one.fresh_bins))
        p_values.append(min(found))
    about = f"{len(drawn)} images and {again.samples:,} new samples each, seed {again.new_seed}"
    return _judged_statistically("new seed", again, drawn, p_values, error_rate, about)


def _judged_statistically(
    check: str, again: Again, drawn: list[Drawn], p_values: list[float], error_rate: float, about: str
) -> CheckResult:
    verdict = judge_images(p_values, error_rate)
    told = (
        f"{about}; exact tests of all classes' votes, least p {verdict.least:.2g}, all together "
        f"{verdict.together:.2g}, family-wise error rate {error_rate:g}"
    )
    if not verdict.fails:
        return CheckResult(check, Outcome.HOLDS, f"votes may be of one distribution: {told}")
    concerned = [drawn[k].record.index for k in verdict.images]
    return CheckResult.about(check, Outcome.FAILS, f"votes are not of one distribution: {told}", concerned)


def _standard_outputs(again: Again, run: StoredRun, chosen: dict[int, int]) -> CheckResult:
    """Stored outputs of the standard model, which clean accuracies rest on, computed again."""
    check, model, dataset = CHECKS[2], again.reloaded.models["standard"], again.reloaded.dataset
    if "standard" in again.reloaded.problems:
        return unchecked(check, again.reloaded.problems["standard"])
    if model is None or dataset is None:
        return CheckResult(check, Outcome.HOLDS, "the run was made without a standard model")
    stored, faults = run.standard.get(model.checksum, {}), []
    for index, position in chosen.items():
        with torch.inference_mode():
            logits = model.module(torch.from_numpy(dataset.read(position))[None].to(again.device))
            fresh = logits.double().softmax(1)[0].cpu().numpy()
        if index in stored and np.abs(stored[index][0] - fresh).max() > CLOSE:
            faults.append((index, f"image {index}: stored outputs of {model.name} are not what it gives"))
    return judged(check, faults, f"outputs of {model.name} agree within {CLOSE:g} on {len(chosen)} images")
