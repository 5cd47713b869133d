"""Sampling some images of a run again: with its own seed, and with one it cannot have known."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from certmix.bounds.statistics import BIN_STEPS, BINS, SCALE
from certmix.calling import call_model
from certmix.certification.deterministic_request import DeterministicRequest, GivenConstant, Margin
from certmix.certification.proved_table import stored_outcomes
from certmix.certification.request import CertifyRequest
from certmix.errors import ParameterError, RunError
from certmix.margins.propagation import margin_lower
from certmix.runs import ImageRecord
from certmix.sampling import Sampler, looks, resolve_device
from certmix.sampling.packing import Draw, Part
from certmix.types import Dataset, FloatArray, IntArray
from certmix.verification import plain
from certmix.verification.checks import SAMPLED_AGAIN, CheckResult, Faults, Outcome, judged, unchecked
from certmix.verification.numbers import insane
from certmix.verification.stored import Reloaded, Run, is_whole, load, opened, proved_images, reload

WIDE = 20
"""For each image that is sampled again in depth so many are in a few samples."""
SHORT = 100
"""Samples of these."""
TOGETHER = 64
"""Pieces whose images are in memory at a time."""
MOST_TIES = 0.2
"""Share of votes beyond which rounding would leave too much open."""
FEW = 6
"""Differences that say nothing, where few are possible; a vote that moves is two of them."""
CLOSE = {"fp32": 1e-4, "tf32": 5e-3, "fp16": 5e-3, "bf16": 0.1}
"""Part of the usual lead of the largest logit by which rounding may change a lead.

Of the shipped model's leads no one is off by more than 3e-6, 2e-3 (TF32, which GPUs
convolve fp32 with) and 0.05 of it (docs/verify.md).
"""
CLOSE_LOGITS = 1e-4
"""Difference of logits, relative to the largest, that another device or batch may explain."""
UNITS = {"votes": 1, "totals": SCALE, "squares": SCALE**2, "tails": 1}
"""What is counted, and the most that one sample adds to it."""
TILTS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Rates at which sums are wagered on, for differences from a percent up."""

Bracket = dict[str, IntArray]
"""Name in `UNITS` -> int64 (3, quantities): what samples add up to at least, here, and at most."""


@dataclass(frozen=True)
class Again:
    """What to sample again, with what; see `resample`."""

    run: Run
    reloaded: Reloaded
    device: torch.device
    images: int
    samples: int
    new_seed: int
    error_rate: float
    progress: Callable[[int, int], None] | None

    def report(self, done: int, total: int) -> None:
        """Tell the progress."""
        if self.progress is not None:
            self.progress(done, total)

    def input(self, position: int) -> Tensor:
        """Return an input of the data set."""
        assert self.reloaded.dataset is not None
        return torch.from_numpy(self.reloaded.dataset.read(position))

    @property
    def module(self) -> nn.Module:
        """The robust model."""
        model = self.reloaded.models["robust"]
        assert model is not None
        return model.module


def resample(
    run: Path,
    *,
    images: int = 10,
    samples: int = 1000,
    new_seed: int | None = None,
    error_rate: float = 1e-3,
    device: str = "auto",
    dataset: Dataset | None = None,
    models: Mapping[str, nn.Module] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[CheckResult]:
    """Compare some images' counts with samples drawn anew.

    The images are a random subset, in which those are more likely whose radii
    lie little above a column of the table.  Noise is the same on every
    machine: with the run's own seed counts must be equal, but for votes that
    rounding may change.  With a new seed they must be of one distribution, by
    an exact test that allows for the look at which the run stopped.  Runs
    without samples have their logits computed, and their radii propagated, again.

    Parameters
    ----------
    run
        Folder of a run of ``certmix certify``, sampled or not.  It is only read.
    images
        How many images are sampled in depth; `WIDE` times as many in a few samples.
    samples
        Samples drawn in depth for an image with the run's seed, on average, besides the selection samples.
    new_seed
        Chooses the images and keys the new noise; None takes one from the
        operating system.  It is reported, and gives the same result again.
    error_rate
        Probability with which, at most, an honest run fails.
    device
        As for `certmix.certify`.
    dataset, models
        As for `certmix.verification.rederive.rederive`.
    progress
        Called with (draws done, draws in all).

    Returns
    -------
    list[CheckResult]
        One a check, under names that do not change between runs.

    Raises
    ------
    CertmixError
        If the folder cannot be read, is of another study, or a parameter is out of range.
    """
    if images < 1 or samples < 1:
        raise ParameterError(f"images = {images}, samples = {samples}: at least 1 of each is needed")
    if not 0 < error_rate < 1:
        raise ParameterError(
            f"error rate = {error_rate}: it must lie strictly between 0 and 1, such as 0.001"
        )
    stored, chosen = load(Path(run)), resolve_device(device)
    seed = secrets.randbits(48) if new_seed is None else new_seed
    if seed < 0 or seed == stored.description["request"].get("seed"):
        raise ParameterError(f"new seed = {seed}: give one of at least 0 that is not the run's own")
    reloaded = reload(stored.description, dataset, models, chosen)
    again = Again(stored, reloaded, chosen, images, samples, seed, error_rate, progress)
    if isinstance(stored.request, CertifyRequest):
        return _resample_votes(again, stored.request)
    return [_radii_again(again, stored.request)]


def choose_images(again: Again, weights: Mapping[int, float]) -> tuple[dict[int, int], str]:
    """Return index -> position of `WIDE` times the images asked for, as the new seed orders them.

    Where there is none the second value says what is lacking; else it is empty.
    Images with a large weight come early more often.
    """
    dataset, problems = again.reloaded.dataset, again.reloaded.problems
    lacking = [text for name, text in problems.items() if name in ("data", "robust")]
    if lacking or dataset is None or again.reloaded.models["robust"] is None:
        return {}, " ".join(lacking) or "no robust model is named"
    places = {int(index): k for k, index in enumerate(dataset.indices)}
    known = sorted(index for index in weights if index in places)
    if not known:
        return {}, "no stored image is in the data set"
    weight = np.array([weights[index] for index in known])
    count, rng = min(WIDE * again.images, len(known)), np.random.default_rng(again.new_seed)
    picked = rng.choice(len(known), count, replace=False, p=weight / weight.sum())
    return {known[k]: places[known[k]] for k in picked.tolist()}, ""


# Runs without samples.


def _radii_again(again: Again, request: DeterministicRequest) -> CheckResult:
    """Every radius of the chosen images must be verified, or follow from the fresh logits."""
    run, check, dataset = again.run, SAMPLED_AGAIN[-1], again.reloaded.dataset
    chosen, lacking = choose_images(again, dict.fromkeys(proved_images(run, request), 1.0))
    if not chosen or dataset is None:
        return unchecked(check, lacking)
    chosen = dict(list(chosen.items())[: again.images])
    indices, positions = np.array(list(chosen), np.int64), list(chosen.values())
    with closing(opened(run.folder)) as store:
        found = stored_outcomes(request, store, indices, dataset.labels[positions], None)
    inputs, faults = torch.stack([again.input(position) for position in positions]), Faults()
    for done, (alpha, radii) in enumerate(zip(request.weights(), found.radii, strict=True), 1):
        if isinstance(request, Margin):
            told = _unverified(again, request, alpha, radii.radius, inputs, found.robust)
        else:
            told = _differing(again, request, alpha, radii.radius, inputs)
        for at, text in told:
            faults.append((int(indices[at]), f"image {indices[at]}, alpha {alpha:g}: {text}"))
        again.report(done, len(found.radii))
    how = "verified by bound propagation" if isinstance(request, Margin) else "what fresh logits give"
    about = f"of {len(chosen)} images, chosen by seed {again.new_seed}"
    return judged(check, faults, f"all radii {about}, are {how}")


def _differing(
    again: Again, request: GivenConstant, alpha: float, radii: FloatArray, inputs: Tensor
) -> Iterator[tuple[int, str]]:
    """Radii that fresh logits, which rounding may change a little, do not give."""
    constant, what = request.given
    with torch.inference_mode():
        logits = call_model(again.module, inputs.to(again.device)).double().cpu().numpy()
    for at, (radius, z) in enumerate(zip(radii.tolist(), logits, strict=True)):
        expected = plain.constant_radius(z, alpha, constant, what, plain.slack_of(alpha))
        if abs(radius - expected) > 4 * CLOSE_LOGITS * (1 + float(np.abs(z).max())) / constant:
            yield at, f"radius {radius!r}, fresh logits give {expected!r}"


def _unverified(
    again: Again, request: Margin, alpha: float, radii: FloatArray, inputs: Tensor,
    predicted: IntArray,
) -> Iterator[tuple[int, str]]:  # fmt: skip
    """Radii that bound propagation does not verify."""
    claimed = np.flatnonzero(radii > 0)
    if not len(claimed):
        return
    assert again.reloaded.dataset is not None
    margins = margin_lower(
        again.module, inputs[torch.from_numpy(claimed)], predicted[claimed], request.norm, radii[claimed],
        method=request.bound_method, input_range=again.reloaded.dataset.input_range, chunk=10,
    )  # fmt: skip
    mu = (1 - alpha) / alpha + plain.slack_of(alpha)
    for at, margin in zip(claimed.tolist(), margins.tolist(), strict=True):
        if not (margin > 0 and margin >= mu * (1 - 1e-9)):
            yield at, f"radius {radii[at].item()!r} is not verified, the margin there is {margin:.6g}"


# Sampled runs: which samples are drawn again.


def weights_of(records: Sequence[ImageRecord], request: CertifyRequest) -> dict[int, float]:
    """Return a weight for each image: large where its radius lies little above a column of the table.

    There a few votes decide a figure.  It is sigma / (distance + sigma / 4),
    with at most sigma as the distance, as for images that count nowhere.
    """
    if not records:
        return {}
    derived, columns = plain.derive(records, request), np.array([0.0, *request.radii])
    counted = np.array([record.selected == record.label for record in records])
    distance = np.full(len(records), request.sigma)
    for certificate, alpha in [("exact", 1.0), *((name, request.alpha) for name in request.certificates)]:
        radii = np.where(counted, derived.radii(certificate, request.sigma, alpha), 0.0)[:, None]
        above = np.where((radii > 0) & (radii >= columns), radii - columns, request.sigma)
        distance = np.minimum(distance, above.min(1))
    weights = 1 / (distance / request.sigma + 0.25)
    return dict(zip((record.index for record in records), weights.tolist(), strict=True))


@dataclass(frozen=True)
class Piece:
    """Samples begin..end - 1 of an image, within `stretch`, whose counts are stored."""

    record: ImageRecord
    stream: str
    stretch: tuple[int, int]
    begin: int
    end: int

    @property
    def left(self) -> int:
        """Samples of the stretch that are not drawn."""
        return self.stretch[1] - self.stretch[0] - (self.end - self.begin)


def choose_pieces(
    again: Again, request: CertifyRequest, records: Sequence[ImageRecord], unit: int
) -> list[Piece]:
    """Return what is drawn again of images, in whole `unit`s of samples.

    Of each image up to `SHORT` samples: of the selection or of a stretch between
    two looks, half of the time each is as likely, half of the time a long one
    is likelier.  Of the first ``again.images`` instead the selection, and long
    stretches, whole up to twice ``again.samples``, until as many are drawn; they
    share ``again.images * again.samples``.
    """
    pieces: list[Piece] = []
    budget = again.images * again.samples
    for number, record in enumerate(records):
        rng = np.random.default_rng([again.new_seed, record.index])
        ends = [0, *sorted(n for n in plain.evidence(record, request) if n > 0 and n in record.estimation)]
        kept = [("selection", 0, request.selection_samples)]
        kept += [("estimation", a, b) for a, b in pairwise(ends)]
        lengths = np.array([b - a for _, a, b in kept], float)
        order = rng.choice(len(kept), len(kept), replace=False, p=lengths / lengths.sum()).tolist()
        if number >= again.images:
            at = int(rng.integers(len(kept))) if rng.random() < 0.5 else order[0]
            pieces.append(_piece(record, kept[at], SHORT, unit, rng))
            continue
        pieces.append(_piece(record, kept[0], request.selection_samples, unit, rng))
        spent = 0
        for at in order:
            if at > 0 and spent < min(again.samples, budget):
                pieces.append(_piece(record, kept[at], 2 * again.samples, unit, rng))
                spent += pieces[-1].end - pieces[-1].begin
        budget -= spent
    return pieces


def _piece(
    record: ImageRecord, stretch: tuple[str, int, int], most: int, unit: int, rng: np.random.Generator
) -> Piece:
    """Return a random piece of a stretch, of `most` samples rounded up to whole units."""
    stream, a, b = stretch
    count = min(b - a, -(-most // unit) * unit)
    begin = a + unit * int(rng.integers((b - a - count) // unit + 1))
    return Piece(record, stream, (a, b), begin, begin + count)


def measured(
    logits: Tensor, order: IntArray, lead: float, followed: list[int], temperature: float | None
) -> tuple[Bracket, int]:
    """Return what samples add up to whichever way rounding goes, and how many votes it may change.

    A class may get a vote if its logit is within `lead` of the largest.  Scores
    then change by at most lead / (4 temperature), by the mean value theorem.

    Parameters
    ----------
    logits
        float64 (n, c).
    order
        (c,) classes in the order in which quantities are wanted.
    lead
        By how much rounding may change the difference of two logits.
    followed
        Classes whose scores have bins.
    temperature
        Divides the logits of soft scores; None for votes alone.
    """
    near = (logits >= logits.amax(1, keepdim=True) - lead).numpy()
    ties, here = near.sum(1) > 1, np.bincount(logits.argmax(1).numpy(), minlength=near.shape[1])
    found = {"votes": np.stack([near[~ties].sum(0), here, near.sum(0)])[:, order]}
    if temperature is None:
        return found, int(ties.sum())
    scores, off = (logits / temperature).softmax(1).numpy() * SCALE, SCALE * lead / (4 * temperature)
    ends = np.stack([np.floor(scores - off), np.rint(scores), np.ceil(scores + off)])
    steps = ends.clip(0, SCALE).astype(np.int64)
    tails = steps[:, :, followed, None] >= BIN_STEPS * np.arange(1, BINS)
    found |= {"totals": steps.sum(1)[:, order], "squares": (steps**2).sum(1)[:, order]}
    return {**found, "tails": tails.sum(1).reshape(3, -1)}, int(ties.sum())


def _resample_votes(again: Again, request: CertifyRequest) -> list[CheckResult]:
    """Return the checks of a sampled run."""
    run = again.run
    sane = [one for one in run.images.values() if not any(insane(one, request, run.classes))]
    chosen, lacking = choose_images(again, weights_of(sane, request))
    if not chosen:
        return [unchecked(check, lacking) for check in SAMPLED_AGAIN[:2]]
    records = [run.images[index] for index in chosen]
    unit = max(1, *(record.places for record in records))
    by_run, by_new = (_sampler(again, run, request, seed, unit) for seed in (request.seed, again.new_seed))
    few = max(1, again.images * again.samples // SHORT)
    fresh, lead = _fresh(again, by_new, records[:few], chosen, unit)
    devices = {again.device.type, *(record.device.partition(":")[0] for record in records)}
    arithmetic = "tf32" if request.precision == "fp32" and "cuda" in devices else request.precision
    pieces = choose_pieces(again, request, records, unit)
    brackets, ties = _redrawn(again, by_run, request, pieces, chosen, lead * CLOSE[arithmetic])
    return [
        _same_seed(again, request, pieces, brackets, ties, by_run.places),
        _new_seed(again, request, fresh),
    ]


def _sampler(again: Again, run: Run, request: CertifyRequest, seed: int, places: int) -> Sampler:
    """Return what draws with a seed; where h is the average over the places of a batch, in such batches."""
    model, size = again.reloaded.models["robust"], run.description.get("batch_size")
    size = places if places > 1 else size
    if size is not None and not (is_whole(size) and 1 <= size < 1 << 20):
        raise RunError(f"{run.folder}: batch size {size!r} is none: restore the run")
    assert model is not None
    return Sampler(
        model.module, run.classes, request.sigma, seed, device=again.device, precision=request.precision,
        batch_size=size,
    )  # fmt: skip


def _logits(
    again: Again, sampler: Sampler, pieces: list[Piece], places: dict[int, int]
) -> Iterator[tuple[int, Part, Tensor]]:
    """Yield the logits of pieces of images (index to position), few images at a time, and whose they are."""
    dataset = again.reloaded.dataset
    assert dataset is not None
    for begin in range(0, len(pieces), TOGETHER):
        draws = []
        for one in pieces[begin : begin + TOGETHER]:
            image = torch.from_numpy(dataset.read(places[one.record.index]))
            draws.append(Draw(image, one.record.index, (one.end,), one.begin, one.stream))
        for part, logits in sampler.logits(draws):
            yield begin + part.draw, part, logits


def _fresh(
    again: Again, sampler: Sampler, records: list[ImageRecord], places: dict[int, int], unit: int
) -> tuple[list[tuple[ImageRecord, IntArray]], float]:
    """Return votes (c,) of the sampler's seed for each image, and by how much a vote is usually won."""
    count = -(-min(SHORT, again.samples) // unit) * unit
    pieces = [Piece(record, "estimation", (0, count), 0, count) for record in records]
    votes = [np.zeros(sampler.classes, np.int64) for _ in records]
    leads = []
    for number, _, logits in _logits(again, sampler, pieces, places):
        votes[number] += np.bincount(logits.argmax(1).numpy(), minlength=sampler.classes)
        leads.append(-logits.topk(2, 1).values.diff(dim=1).numpy().ravel())
    return list(zip(records, votes, strict=True)), float(np.median(np.concatenate(leads)))


def _redrawn(
    again: Again, sampler: Sampler, request: CertifyRequest, pieces: list[Piece], places: dict[int, int],
    lead: float,
) -> tuple[list[Bracket], int]:  # fmt: skip
    """Return the bracket of each piece, and how many votes rounding may change."""
    brackets: list[Bracket] = [{} for _ in pieces]
    ties, temperature = 0, request.temperature if request.scores == "soft" else None
    for number, part, logits in _logits(again, sampler, pieces, places):
        record, kept = pieces[number].record, brackets[number]
        followed = [record.selected, *record.scores[0].rivals] if request.scores == "soft" else []
        found, tied = measured(logits, _order(record), lead, followed, temperature)
        ties += tied
        brackets[number] = {name: kept.get(name, 0) + ends for name, ends in found.items()}
        if part.last:
            again.report(number + 1, len(pieces))
    return brackets, ties


def _order(record: ImageRecord) -> IntArray:
    """Return the classes (c,), the selected one first, then as the selection has them."""
    return np.argsort(-record.selection, kind="stable")


def _told(piece: Piece, soft: bool) -> dict[str, IntArray]:
    """Return what the run stores of a piece's stretch, by the names in `UNITS`."""
    record, order, (a, b) = piece.record, _order(piece.record), piece.stretch
    if piece.stream == "selection":
        return {"totals" if soft else "votes": record.selection[order]}
    votes = record.estimation[b] - record.estimation.get(a, np.zeros_like(record.selection))
    if not soft:
        return {"votes": votes[order]}
    first, last = record.scores[a], record.scores[b]
    sums = {name: (getattr(last, name) - getattr(first, name))[order] for name in ("totals", "squares")}
    bins = (last.bin_counts - first.bin_counts)[:, ::-1].cumsum(1)[:, ::-1]
    return {"votes": votes[order], **sums, "tails": bins[:, 1:].ravel()}


def _same_seed(
    again: Again,
    request: CertifyRequest,
    pieces: list[Piece],
    brackets: list[Bracket],
    ties: int,
    places: int,
) -> CheckResult:
    """Stored counts against those of the run's own seed: noise is the same on every machine.

    A stretch that is drawn whole has the stored counts, but for what rounding
    may change, of which it changes no more than a quarter in all.  Of a longer
    one the part that is drawn must be like the rest: whatever made the run
    stop, each order of its samples is equally likely.
    """
    faults: Faults = []
    parts: list[Sums] = []
    moved, allowed = Counter[str](), Counter({name: FEW * unit for name, unit in UNITS.items()})
    for piece, bracket in zip(pieces, brackets, strict=True):
        for name, told in _told(piece, request.scores == "soft").items():
            (low, here, high), unit = bracket[name], UNITS[name]
            if np.any(told < low) or np.any(told > high + piece.left * unit):
                index, (a, b) = piece.record.index, piece.stretch
                text = f"{name} of {piece.stream} samples {a:,} to {b:,} are not what its seed gives"
                faults.append((index, f"image {index}: {text}"))
            if piece.left:
                ends = here + (low - here) / 4, here + (high - here) / 4
                count = piece.end - piece.begin
                parts.append(
                    Sums(name, count, told / (count + piece.left) / unit, *(end / unit for end in ends))
                )
            else:
                moved[name] += int(np.abs(told - here).sum())
                allowed[name] += int((high - low).sum()) // 4
    samples = sum(piece.end - piece.begin for piece in pieces)
    whole = sum(not piece.left for piece in pieces)
    images = len({piece.record.index for piece in pieces})
    refuted, found = 2 / again.error_rate, e_value(parts)
    about = (
        f"{images} images chosen by seed {again.new_seed}, {samples:,} samples: {whole} stretches whole, "
        f"{len(pieces) - whole} in part (e-value {found:.2g}, refuted from {refuted:g}); "
        f"rounding may change {ties:,} votes, {moved['votes'] // 2:,} differ"
    )
    if faults:
        return judged("same seed", faults, about)
    if found >= refuted or any(moved[name] > allowed[name] for name in UNITS):
        return CheckResult("same seed", Outcome.FAILS, f"counts are not what their seeds give: {about}")
    if any(piece.record.places < places for piece in pieces):
        return unchecked("same seed", "a row's logits depend on its place in a batch here, not so in the run")
    if ties > MOST_TIES * samples:
        return unchecked("same seed", f"rounding may change too many votes: {about}")
    return CheckResult("same seed", Outcome.HOLDS, f"counts are what their seeds give: {about}")


def _new_seed(
    again: Again, request: CertifyRequest, fresh: list[tuple[ImageRecord, IntArray]]
) -> CheckResult:
    """Counts of a stretch against those of a seed that the run cannot have known.

    Which stretch is settled without looking at how far the run went: whether it
    was drawn at all depends on earlier samples alone.
    """
    ends, rng = (
        [0, *sorted({*looks(request.samples), request.samples})],
        np.random.default_rng(again.new_seed),
    )
    parts: list[Sums] = []
    for record, votes in fresh:
        at = int(rng.integers(len(ends) - 1))
        stretch, count = (ends[at], ends[at + 1]), int(votes.sum())
        if stretch[1] in record.estimation and (at == 0 or stretch[0] in record.estimation):
            told = _told(Piece(record, "estimation", stretch, *stretch), soft=False)["votes"]
            new = votes[_order(record)].astype(float)
            parts.append(Sums("votes", count, (told + new) / (count + stretch[1] - stretch[0]), new, new))
    refuted, found = 2 / again.error_rate, e_value(parts)
    about = f"{len(parts)} images, new samples of seed {again.new_seed}"
    about += f" (e-value {found:.2g}, refuted from {refuted:g})"
    if found >= refuted:
        return CheckResult("new seed", Outcome.FAILS, f"votes are not of one distribution: {about}")
    return CheckResult("new seed", Outcome.HOLDS, f"votes may be of one distribution: {about}")


# Are some samples like all those that they were taken from?


@dataclass(frozen=True)
class Sums:
    """Sums of some of many samples, whose means are known.

    Parameters
    ----------
    name
        What is summed: others of this name are held together.
    samples
        How many the sums are of.
    mean
        (q,): means over all samples of quantities in [0, 1].
    low, high
        (q,): between these lie the sums.
    """

    name: str
    samples: int
    mean: FloatArray
    low: FloatArray
    high: FloatArray


def e_value(parts: Sequence[Sums]) -> float:
    """Return at least 1/a with probability at most a, if each part is taken at random from all its samples.

    A sum S of n values in [0, 1] without replacement, of mean m, has
    E[exp(-t S)] <= (1 - m + m exp(-t))^n (Hoeffding 1963, Theorem 4, and the
    chord of exp).  The quotients multiply over parts, and are averaged over
    quantities and over `TILTS`, which have both signs.  Half of the result is
    the mean of the parts' own values, which finds a few that are unlike.

    Examples
    --------
    >>> def of(votes):
    ...     return e_value([Sums("votes", 100, np.array([0.9]), np.array([votes]), np.array([votes]))])
    >>> of(90) < 1, of(70) > 1e4
    (True, True)
    """
    logs: dict[str, list[FloatArray]] = {}
    tilts = np.array([*TILTS, *(-tilt for tilt in TILTS)])[:, None]
    for part in parts:
        sums = np.where(tilts > 0, part.high, part.low)
        chord = np.log1p(part.mean.clip(0.0, 1.0) * np.expm1(-tilts))
        logs.setdefault(part.name, []).append(-tilts * sums - part.samples * chord)
    if not logs:
        return 1.0
    together = np.concatenate([np.sum(rows, 0).ravel() for rows in logs.values()])
    alone = [np.exp(np.minimum(row, 700.0)).mean() for rows in logs.values() for row in rows]
    return float(np.exp(np.minimum(together, 700.0)).mean() + np.mean(alone)) / 2
