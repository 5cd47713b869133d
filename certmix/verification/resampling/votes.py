"""Drawing samples of a sampled run again, and comparing counts."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from certmix.models.calling import call_model
from certmix.records import ImageRecord
from certmix.sampling.compiling import CompileError, is_compilable
from certmix.sampling.passes import PARTLY
from certmix.studies.request import CertifyRequest
from certmix.verification.checks import CheckResult, Outcome
from certmix.verification.rederivation.samples import stored_request
from certmix.verification.rederivation.sources import Faults, judged, unchecked
from certmix.verification.rederivation.stored import StoredRun, read_samples
from certmix.verification.resampling.choice import choose_images
from certmix.verification.resampling.draws import Again, Drawn, draw_again, samplers
from certmix.verification.resampling.two_sample import LOOKS, judge_images, votes_p_value

__all__ = ["resample_votes"]

CHECKS = ("same seed", "new seed", "standard outputs again")
CLOSE = 1e-4
"""Difference of probabilities that another device or version may explain."""
MOVED, MOVED_SHARE = 3, 0.005
"""Votes, and share of samples, of an image and of all, that rounding may move on one type of device."""


def resample_votes(again: Again) -> list[CheckResult]:
    """Return the checks of a sampled run."""
    run = read_samples(again.run)
    request = stored_request(run)
    chosen, lacking = choose_images(again, run.images)
    if not chosen:
        return [unchecked(check, lacking) for check in CHECKS]
    differ = _surroundings(run.description, again.device)
    drawn = None
    if (how := run.description.get("compiled")) is True and is_compilable(again.device):
        with suppress(CompileError):
            drawn = _drawn(again, run, request, chosen, compiled=True)
    if drawn is None:
        differ += [f"{'partly ' if how == PARTLY else ''}compiled there, not here"] if how else []
        drawn = _drawn(again, run, request, chosen, compiled=False)
    elsewhere = _elsewhere(again, run, drawn, differ)
    tests = 2 if differ or elsewhere else 1
    return [
        _same_seed(again, drawn, differ, elsewhere, again.error_rate / tests),
        _new_seed(again, run, request, drawn, again.error_rate / tests),
        _standard_outputs(again, run, chosen),
    ]


def _drawn(
    again: Again, run: StoredRun, request: CertifyRequest, chosen: dict[int, int], *, compiled: bool
) -> list[Drawn]:
    """Draw the chosen images (index to position) anew."""
    drawn, by = [], samplers(again, run, request, compiled)
    for done, (index, position) in enumerate(chosen.items(), 1):
        drawn.append(draw_again(again, run, request, by, index, position))
        again.report(done, len(chosen))
    return drawn


def _surroundings(description: dict[str, Any], device: torch.device) -> list[str]:
    """Return in what this machine differs from the run's, of what a network's rounding depends on."""
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    own = {"device_name": name, "torch": version("torch"), "threads": torch.get_num_threads()}
    stored = {**description["versions"], **{k: description.get(k) for k in ("device_name", "threads")}}
    return [
        f"{key} {stored.get(key)} there, {value} here"
        for key, value in own.items()
        if stored.get(key) != value
    ]


def _kind(record: ImageRecord) -> str:
    """Return the type of the device that drew an image's newest samples."""
    return record.device.partition(":")[0]


def _elsewhere(again: Again, run: StoredRun, drawn: list[Drawn], differ: list[str]) -> set[int]:
    """Return which images (positions) were drawn on another type of device, whose noise is another.

    A record names the device of its newest samples only.  In a run of several
    types of device, an image whose counts moved may have been begun on another.
    """
    mixed = len({_kind(record) for record in run.images.values()}) > 1
    return {
        k
        for k, one in enumerate(drawn)
        if _kind(one.record) != again.device.type
        or (mixed and one.moved > (MOVED_SHARE * one.redrawn if differ else 0))
    }


def _allowed(redrawn: int, differ: list[str]) -> float:
    """Return how many votes of an image, or of all, may move on one type of device: noise is the same."""
    return MOVED + MOVED_SHARE * redrawn if differ else 0


def _same_seed(
    again: Again, drawn: list[Drawn], differ: list[str], elsewhere: set[int], error_rate: float
) -> CheckResult:
    """Counts of the run's own seed.

    On the type of device that drew an image they are equal in equal
    surroundings, else nearly so; of one distribution they must be anywhere.
    """
    about = _same_about(again, drawn)
    faults: Faults = []
    for k, one in enumerate(drawn):
        if k not in elsewhere and one.moved > (most := _allowed(one.redrawn, differ)):
            limit = f", where rounding may move {most:g} ({'; '.join(differ)})" if differ else ""
            text = f"{one.moved} counts are not what its seed gives{limit} ({about})"
            faults.append((one.record.index, f"image {one.record.index}: {text}"))
    here = [one for k, one in enumerate(drawn) if k not in elsewhere]
    moved, most = sum(one.moved for one in here), _allowed(sum(one.redrawn for one in here), differ)
    if moved > most and not faults:
        text = f"{moved} counts of {len(here)} images are not what their seed gives, where rounding may move"
        text = f"{text} {most:g} of all ({'; '.join(differ)}; {about})"
        faults = [(one.record.index, text) for one in here if one.moved]
    if faults:
        return judged("same seed", faults, about)
    if not differ and not elsewhere:
        return judged("same seed", faults, f"counts are equal: {about}")
    if here:
        how = f"differ by {moved} votes in all ({'; '.join(differ)})" if differ else "are equal"
        about += f"; counts of {len(here)} images {how}"
    if elsewhere:
        kinds = ", ".join(sorted({_kind(drawn[k].record) for k in elsewhere}))
        about += (
            f"; {len(elsewhere)} images were sampled on another type of device ({kinds} at the end there, "
            f"{again.device.type} here), where noise differs: not compared one by one"
        )
    p_values = [min(1.0, LOOKS * votes_p_value(one.told, one.stretch, one.record.selected)) for one in drawn]
    return _judged_statistically("same seed", again, drawn, p_values, error_rate, about)


def _same_about(again: Again, drawn: list[Drawn]) -> str:
    """Return what was drawn with the run's seed, and which counts were not."""
    seen = sum(one.after - one.before for one in drawn)
    last, stored = max(one.after for one in drawn), max(one.record.drawn for one in drawn)
    about = f"{len(drawn)} images chosen by seed {again.new_seed}, selection and {seen:,} estimation samples"
    if last == 0:
        return f"{about}; all estimation counts rest on the new-seed test"
    reach = f"{about} in one stretch an image, up to look {last:,}"
    return reach if last >= stored else f"{reach}; counts after look {last:,} rest on the new-seed test"


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
    stored: dict[int, Any] = run.standard.get(model.checksum, {})
    faults: Faults = []
    compared = [index for index in chosen if index in stored]
    for index in compared:
        with torch.inference_mode():
            inputs = torch.from_numpy(dataset.read(chosen[index]))[None].to(again.device)
            fresh = call_model(model.module, inputs, model.name).double().softmax(1)[0].cpu().numpy()
        kept = stored[index][0]
        if kept.shape != fresh.shape or not np.abs(kept - fresh).max() <= CLOSE:
            faults.append((index, f"image {index}: stored outputs of {model.name} are not what it gives"))
    good = f"outputs of {model.name} agree within {CLOSE:g} on {len(compared)} images"
    if not faults and len(compared) < len(chosen):
        return unchecked(check, f"{good}, and are not stored for {len(chosen) - len(compared)} more")
    return judged(check, faults, good)
