"""Sampling some inputs of a run again: with its own seed, and with one it cannot have known."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from certmix.bounds.statistics import BIN_STEPS, BINS, SCALE
from certmix.calling import call_model
from certmix.certification.evaluate import evaluate
from certmix.certification.proved_table import stored_outcomes
from certmix.certification.request.population import Population
from certmix.certification.request.proved import DeterministicRequest, Enumerated, Margin
from certmix.certification.request.sampled import CertifyRequest
from certmix.errors import ParameterError, RunError
from certmix.margins.propagation import margin_lower
from certmix.radii import margin_slack_of
from certmix.radii.constant import constant_radius
from certmix.runs import InputRecord
from certmix.sampling import Sampler, looks, resolve_device
from certmix.sampling.ballots import LEVELS, Ballots
from certmix.sampling.devices import full_float32
from certmix.sampling.enumerated import Shown
from certmix.sampling.noise import noise_fingerprint
from certmix.sampling.packing import Draw, Part
from certmix.sampling.rows import ballots_of
from certmix.types import Dataset, FloatArray, IntArray
from certmix.verification.checks import SAMPLED_AGAIN, CheckResult, Faults, Outcome, judged, unchecked
from certmix.verification.proofs.population import draw_again
from certmix.verification.request import VerifyRequest
from certmix.verification.stored import Run, impossible, is_whole, load, opened, reload

WIDE, SHORT = 20, 100  # for each input sampled again in depth so many are in so few samples
TOGETHER = 64  # pieces whose inputs are in memory at a time
MOST_TIES = 0.2  # share of votes beyond which rounding would leave too much open
FEW = 6  # differences that say nothing, where few are possible; a vote that moves is two of them
# Part of the usual lead of the largest logit by which rounding may change a lead: the shipped model's are off
# by at most 3e-6, 2e-3 (TF32) and 0.05 of it (docs/verify.md).
CLOSE = {"fp32": 1e-4, "tf32": 5e-3, "fp16": 5e-3, "bf16": 0.1}
CLOSE_LOGITS = 1e-4  # difference, relative to the largest, that another device or batch may explain
UNITS = {"votes": 1, "sure": 1, "totals": SCALE, "squares": SCALE**2, "tails": 1}
"""What is counted, and the most that one sample adds to it."""
FOLLOWED = 5  # classes whose votes are told apart by how sure they are
TILTS = (0.03, 0.1, 0.3, 1.0, 3.0)  # rates to wager on sums at, for differences from a percent up

Bracket = dict[str, IntArray]
"""Name in `UNITS` -> int64 (3, quantities): what samples add up to at least, here, and at most."""


class Again(NamedTuple):
    """What is computed again: inputs by index, with their places in the data set, as a request asks."""

    run: Run
    dataset: Dataset
    places: dict[int, int]
    module: nn.Module
    device: torch.device
    asked: VerifyRequest
    new_seed: int
    report: Callable[[int, int], object]

    def input(self, index: int) -> Tensor:
        """Return an input."""
        return torch.from_numpy(self.dataset.read(self.places[index]))


def resample(
    run: Path | Run,
    asked: VerifyRequest,
    *,
    dataset: Dataset | None = None,
    models: Mapping[str, nn.Module] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> list[CheckResult]:
    """Compare some inputs' counts with samples drawn anew; `progress` gets (done, in all).

    Noise is the same on every machine: with the run's own seed counts must be equal, but for votes that
    rounding may change.  With a new seed they must be of one distribution, by an exact test that allows for
    the look at which the run stopped.  Runs without samples have logits and radii computed again.  An honest
    run fails with probability at most `asked.error_rate`.

    `asked.resample` are drawn in depth, with `asked.resample_samples` of each on average besides those of
    the selection, and `WIDE` times as many in a few samples.  `dataset` and `models` are those of a run of
    Python objects.
    """
    if asked.resample == 0:
        return []
    stored, chosen = load(run), resolve_device(asked.device)
    request, described = stored.request, stored.description
    seed = secrets.randbits(48) if asked.new_seed is None else asked.new_seed
    if seed == described["request"].get("seed"):
        raise ParameterError(f"new seed = {seed}: give one that is not the run's own")
    data, loaded, problems = reload(stored.folder, described, dataset, models, chosen, asked.run_code)
    sampled, robust = isinstance(request, CertifyRequest | Population), loaded["robust"]
    checks = SAMPLED_AGAIN[:2] if sampled else SAMPLED_AGAIN[2:]
    lacking = [text for name, text in problems.items() if name in ("data", "robust")]
    if lacking or data is None or robust is None:
        return [unchecked(check, " ".join(lacking) or "no robust model is named") for check in checks]
    if isinstance(request, Population):
        report = progress or (lambda done, total: None)
        how = data, robust.module, chosen, asked, CLOSE[request.precision], report
        return draw_again(stored, request, *how)
    if isinstance(request, CertifyRequest):
        bad = [row for row, _ in impossible(stored.records, request, stored.classes)]
        weights = weights_of(stored.records.take(np.delete(np.arange(len(stored.records)), bad)), request)
    else:
        weights = dict.fromkeys(stored.proved_inputs, 1.0)
    places = {int(index): place for place, index in enumerate(data.indices)}
    weights = {index: weight for index, weight in weights.items() if index in places}
    if not weights:
        return [unchecked(check, "no stored input is in the data set") for check in checks]
    picked = {index: places[index] for index in choose_inputs(weights, WIDE * asked.resample, seed)}
    report = progress or (lambda done, total: None)
    again = Again(stored, data, picked, robust.module, chosen, asked, seed, report)
    if isinstance(request, CertifyRequest):
        return _votes_again(again, request)
    return [_radii_again(again, request)]


def most_drawn_again(asked: VerifyRequest, request: CertifyRequest) -> int:
    """Return the most samples that `resample` draws, but for what fills batches where rows depend on them."""
    inputs, samples = asked.resample, asked.resample_samples
    depth = inputs * (request.selection_samples + samples) + 2 * samples
    return (depth + (WIDE - 1) * inputs * SHORT + inputs * samples + SHORT) * (inputs > 0)


def choose_inputs(weights: Mapping[int, float], count: int, seed: int) -> list[int]:
    """Return at most `count` inputs in an order by a seed, in which large weights come early more often."""
    known = sorted(weights)
    weight, rng = np.array([weights[index] for index in known]), np.random.default_rng(seed)
    picked = rng.choice(len(known), min(count, len(known)), replace=False, p=weight / weight.sum())
    return [known[k] for k in picked.tolist()]


@full_float32()
def _radii_again(again: Again, request: DeterministicRequest) -> CheckResult:
    """Every radius of the chosen inputs must be verified, or be what fresh logits give but for rounding."""
    if isinstance(request, Enumerated):
        return _cases_again(again, request)
    indices, faults = np.array(list(again.places)[: again.asked.resample], np.int64), Faults()
    labels = again.dataset.labels[[again.places[index] for index in indices.tolist()]]
    with closing(opened(again.run.folder)) as store:
        found = stored_outcomes(request, store, indices, labels, None)
    inputs = torch.stack([again.input(index) for index in indices.tolist()])
    if not isinstance(request, Margin):
        with torch.inference_mode():
            logits = call_model(again.module, inputs.to(again.device)).double().cpu().numpy()
    for done, (alpha, radii) in enumerate(zip(request.weights(), found.radii, strict=True), 1):
        claimed, told = np.flatnonzero(radii.radius > 0), []
        if not isinstance(request, Margin):
            fresh = constant_radius(logits, alpha, *request.given, margin_slack=margin_slack_of(alpha))[0]
            for at, (radius, expected, z) in enumerate(
                zip(radii.radius.tolist(), fresh.tolist(), logits, strict=True)
            ):
                rounding = 4 * CLOSE_LOGITS * (1 + float(np.abs(z).max())) / request.lipschitz_constant
                if abs(radius - expected) > rounding:
                    told.append((at, f"radius {radius!r}, fresh logits give {expected!r}"))
        elif len(claimed):
            margins = margin_lower(
                again.module, inputs[torch.from_numpy(claimed)], found.robust[claimed], request.norm,
                radii.radius[claimed], method=request.bound_method, input_range=again.dataset.input_range,
                arithmetic=request.arithmetic,
                chunk=10,
            )  # fmt: skip
            mu = (1 - alpha) / alpha + margin_slack_of(alpha)
            for at, margin in zip(claimed.tolist(), margins.tolist(), strict=True):
                if not (margin > 0 and margin >= mu * (1 - 1e-9)):
                    text = f"radius {radii.radius[at].item()!r} is not verified"
                    told.append((at, f"{text}, the margin there is {margin:.6g}"))
        faults += [(int(indices[at]), f"input {indices[at]}, alpha {alpha:g}: {text}") for at, text in told]
        again.report(done, len(found.radii))
    how = "verified by bound propagation" if isinstance(request, Margin) else "what fresh logits give"
    about = f"of {len(indices)} inputs, chosen by seed {again.new_seed}"
    return judged(SAMPLED_AGAIN[2], faults, f"all radii {about}, are {how}")


def _cases_again(again: Again, request: Enumerated) -> CheckResult:
    """Every answer of the chosen inputs must be what the model says of that case again, but for rounding."""
    indices, faults, shown = list(again.places)[: again.asked.resample], Faults(), again.module
    assert isinstance(shown, Shown)
    together = again.run.description.get("batch_size")
    if together is not None and not (is_whole(together) and 1 <= together < 1 << 20):
        raise RunError(f"{again.run.folder}: batch size {together!r} is none: restore the run")
    moved = 0
    for done, index in enumerate(indices, 1):
        logits = shown.logits(again.input(index).to(again.device), together)
        stored, fresh = again.run.cells[request.cell][index], ballots_of(logits).cpu().numpy()
        classes = stored.astype(np.int64) // LEVELS
        values = logits.double().cpu().numpy()
        lead = values.max(1) - values[np.arange(len(values)), classes.clip(0, values.shape[1] - 1)]
        near = lead <= 4 * CLOSE_LOGITS * (1 + np.abs(values).max())
        sure = np.exp(-np.log(np.exp(values - values.max(1, keepdims=True)).sum(1)))
        level = np.abs(sure * LEVELS - (stored % LEVELS) - 0.5) <= 0.5 + LEVELS * 1e-3
        wrong = np.flatnonzero(~(near & level))
        if len(wrong):
            told = f"{len(wrong)} of {len(stored)} answers are not what the model gives again"
            faults.append((index, f"input {index}: {told}"))
        moved += int((stored != fresh).sum())
        again.report(done, len(indices))
    about = f"of {len(indices)} inputs, chosen by seed {again.new_seed}: {moved} differ within rounding"
    return judged(SAMPLED_AGAIN[2], faults, f"the answers to all cases {about}")


# Sampled runs: which samples are drawn again.


def weights_of(records: Sequence[InputRecord], request: CertifyRequest) -> dict[int, float]:
    """Return a weight for each input, sigma / (distance + sigma / 4), the distance to the column below.

    There a few votes decide a figure.  The distance is at most sigma, as for inputs that count nowhere.
    """
    if not records:
        return {}
    found, columns = (
        evaluate(records, {}, request, len(records), every_look=True).outcomes,
        [0.0, *request.radii],
    )
    scale = request.radii[-1] or request.smoothing.scale if request.sigma is None else request.sigma
    distance = np.full(len(found.indices), scale)
    for row, certified in zip(request.rows(), found.radii, strict=True):
        radii = np.where(found.answers(row.classifier)[0] == found.labels, certified.radius, 0.0)[:, None]
        above = np.where((radii > 0) & (radii >= columns), radii - columns, scale)
        distance = np.minimum(distance, above.min(1))
    weights = 1 / (distance / scale + 0.25)
    return dict(zip(found.indices.tolist(), weights.tolist(), strict=True))


@dataclass(frozen=True)
class Piece:
    """Samples begin..end - 1 of an input, within `stretch`, whose counts are stored."""

    record: InputRecord
    stream: str
    stretch: tuple[int, int]
    begin: int
    end: int

    @property
    def left(self) -> int:
        """Samples of the stretch that are not drawn."""
        return self.stretch[1] - self.stretch[0] - (self.end - self.begin)

    @property
    def order(self) -> IntArray:
        """The classes (c,), the selected one first, then as the selection has them."""
        return np.argsort(-self.record.selection, kind="stable")

    def stored(self, soft: bool) -> dict[str, IntArray]:
        """Return what the run stores of the stretch, by the names in `UNITS`."""
        record, order, (a, b) = self.record, self.order, self.stretch
        if self.stream == "selection":
            if soft or record.selection_ballots is None:
                return {"totals" if soft else "votes": record.selection[order]}
            return {"votes": record.selection[order], "sure": sure_votes(record.selection_ballots, order)}
        votes = record.estimation[b] - record.estimation.get(a, np.zeros_like(record.selection))
        if not soft:
            sure = sure_votes(record.ballots[b], order)
            return {
                "votes": votes[order],
                "sure": sure - sure_votes(record.ballots[a], order) if a in record.ballots else sure,
            }
        first, last = record.scores[a], record.scores[b]
        sums = {name: (getattr(last, name) - getattr(first, name))[order] for name in ("totals", "squares")}
        bins = (last.bin_counts - first.bin_counts)[:, ::-1].cumsum(1)[:, ::-1]
        return {"votes": votes[order], **sums, "tails": bins[:, 1:].ravel()}


def sure_votes(ballots: Ballots, order: IntArray) -> IntArray:
    """Return how many votes have each level or more, level 0 left out: int64 (kinds * levels,).

    Kinds are the first `FOLLOWED` classes in `order`, and all others together.
    """
    table = np.zeros((len(order), LEVELS), np.int64)
    table[ballots.codes // LEVELS, ballots.codes % LEVELS] = ballots.counts
    table = table[order]
    table = np.concatenate([table[:FOLLOWED], table[FOLLOWED:].sum(0, keepdims=True)])
    return table[:, ::-1].cumsum(1)[:, ::-1][:, 1:].ravel()


def choose_pieces(
    again: Again, request: CertifyRequest, records: Sequence[InputRecord], unit: int
) -> list[Piece]:
    """Return what is drawn again of inputs, in whole `unit`s of samples.

    Of each up to `SHORT` samples, of the selection or of a stretch between two looks: half of the time each
    is as likely, else a long one is likelier.  Of those in depth instead the selection, and long stretches,
    whole up to twice the samples of an input, within a budget that they share.
    """

    def piece(stretch: tuple[str, int, int], most: int) -> None:
        stream, a, b = stretch
        number = min(b - a, -(-most // unit) * unit)
        begin = a + unit * int(rng.integers((b - a - number) // unit + 1))
        pieces.append(Piece(record, stream, (a, b), begin, begin + number))

    pieces: list[Piece] = []
    samples, budget = again.asked.resample_samples, again.asked.resample * again.asked.resample_samples
    soft = request.scores == "soft"
    for number, record in enumerate(records):
        rng = np.random.default_rng([again.new_seed, record.index])
        ends = [
            0,
            *sorted(
                n for n in (record.scores if soft else record.estimation) if n > 0 and n in record.estimation
            ),
        ]
        kept = [("selection", 0, request.selection_samples)]
        kept += [("estimation", a, b) for a, b in pairwise(ends)]
        lengths = np.array([b - a for _, a, b in kept], float)
        order = rng.choice(len(kept), len(kept), replace=False, p=lengths / lengths.sum()).tolist()
        if number >= again.asked.resample:
            at = int(rng.integers(len(kept))) if rng.random() < 0.5 else order[0]
            piece(kept[at], SHORT)
            continue
        piece(kept[0], request.selection_samples)
        spent = 0
        for at in order:
            if at > 0 and spent < min(samples, budget):
                piece(kept[at], 2 * samples)
                spent += pieces[-1].end - pieces[-1].begin
        budget -= spent
    return pieces


def measured(
    logits: Tensor, order: IntArray, lead: float, followed: list[int], temperature: float | None
) -> tuple[Bracket, int]:
    """Return what logits (n, c) add up to whichever way rounding goes, and how many votes it may change.

    A class may get a vote if its logit is within `lead` of the largest.  Soft scores, of logits divided by
    `temperature`, then change by at most lead / (4 temperature), by the mean value theorem.
    """
    near = (logits >= logits.amax(1, keepdim=True) - lead).numpy()
    ties, here = near.sum(1) > 1, np.bincount(logits.argmax(1).numpy(), minlength=near.shape[1])
    found = {"votes": np.stack([near[~ties].sum(0), here, near.sum(0)])[:, order]}
    if temperature is None:
        # A probability changes by at most lead / 4, by the mean value theorem.
        cast, off = ballots_of(logits).numpy(), lead / 4 + 1e-6
        likely = logits.softmax(1).amax(1).numpy()
        ends_of = np.floor(LEVELS * np.stack([likely - off, likely + off]).clip(0, 1 - 1e-9))
        levels = np.arange(1, LEVELS)
        sides = []
        for classes, level in (
            (near & ~ties[:, None], ends_of[0]),
            (np.eye(near.shape[1], dtype=bool)[cast // LEVELS], cast % LEVELS),
            (near, ends_of[1]),
        ):
            held = classes[:, order]
            kinds = np.concatenate([held[:, :FOLLOWED], held[:, FOLLOWED:].any(1, keepdims=True)], 1)
            sides.append((kinds.T.astype(np.int64) @ (level[:, None] >= levels)).ravel())
        return {**found, "sure": np.stack(sides)}, int(ties.sum())
    scores, off = (logits / temperature).softmax(1).numpy() * SCALE, SCALE * lead / (4 * temperature)
    ends = np.stack([np.floor(scores - off), np.rint(scores), np.ceil(scores + off)])
    steps = ends.clip(0, SCALE).astype(np.int64)
    tails = steps[:, :, followed, None] >= BIN_STEPS * np.arange(1, BINS)
    found |= {"totals": steps.sum(1)[:, order], "squares": (steps**2).sum(1)[:, order]}
    return {**found, "tails": tails.sum(1).reshape(3, -1)}, int(ties.sum())


def _votes_again(again: Again, request: CertifyRequest) -> list[CheckResult]:
    """Return the checks of a sampled run."""
    run, soft = again.run, request.scores == "soft"
    records = run.records.of_inputs(list(again.places))
    unit = max(1, *(record.places for record in records))
    # Where h is the average over the places of a batch, samples are drawn in such batches.
    size = unit if unit > 1 else run.description.get("batch_size")
    if size is not None and not (is_whole(size) and 1 <= size < 1 << 20):
        raise RunError(f"{run.folder}: batch size {size!r} is none: restore the run")
    noises = {noise_fingerprint(request.smoothing, device) for device in ("cpu", again.device)}
    if len(noises) > 1:
        raise RunError(f"{again.device} makes other noise than a CPU ({', '.join(noises)}): use --device cpu")
    by_run, by_new = (
        Sampler(
            again.module, run.classes, request.smoothing, seed, device=again.device,
            precision=request.precision, batch_size=size, scale=again.dataset.scale,
        )
        for seed in (request.seed, again.new_seed)
    )  # fmt: skip

    inputs, samples = again.asked.resample, again.asked.resample_samples
    few, count = max(1, inputs * samples // SHORT), -(-min(SHORT, samples) // unit) * unit
    new = [Piece(record, "estimation", (0, count), 0, count) for record in records[:few]]
    fresh: list[Ballots | None] = [None] * len(new)
    leads = []
    for number, _, logits in _logits(again, by_new, new):
        cast, before = Ballots.of(ballots_of(logits).numpy()), fresh[number]
        fresh[number] = cast if before is None else before + cast
        leads.append(-logits.topk(2, 1).values.diff(dim=1).numpy().ravel())
    usual = float(np.median(np.concatenate(leads)))  # by so much a vote is won

    pieces = choose_pieces(again, request, records, unit)
    brackets: list[Bracket] = [{} for _ in pieces]
    ties, temperature = 0, request.score_temperature if soft else None
    for number, part, logits in _logits(again, by_run, pieces):
        record, kept = pieces[number].record, brackets[number]
        followed = [record.selected, *record.scores[0].rivals] if soft else []
        lead = usual * CLOSE[request.precision]
        found, tied = measured(logits, pieces[number].order, lead, followed, temperature)
        ties += tied
        brackets[number] = {name: kept.get(name, 0) + ends for name, ends in found.items()}
        if part.last:
            again.report(number + 1, len(pieces))
    return [
        _same_seed(again, pieces, brackets, ties, soft, by_run.places),
        _new_seed(again, request, new, fresh),
    ]


def _logits(again: Again, sampler: Sampler, pieces: list[Piece]) -> Iterator[tuple[int, Part, Tensor]]:
    """Yield the logits of pieces, few inputs at a time, and whose they are."""
    for begin in range(0, len(pieces), TOGETHER):
        draws = [
            Draw(again.input(one.record.index), one.record.index, (one.end,), one.begin, one.stream)
            for one in pieces[begin : begin + TOGETHER]
        ]
        for part, logits in sampler.logits(draws):
            yield begin + part.draw, part, logits


def _same_seed(
    again: Again, pieces: list[Piece], brackets: list[Bracket], ties: int, soft: bool, places: int
) -> CheckResult:
    """Stored counts against those of the run's own seed: noise is the same on every machine.

    A stretch that is drawn whole has the stored counts, but for a quarter of what rounding may change.  Of a
    longer one the part that is drawn must be like the rest: each order of its samples is equally likely.
    """
    faults: Faults = []
    parts: list[Sums] = []
    moved, allowed = Counter[str](), Counter({name: FEW * unit for name, unit in UNITS.items()})
    allowed["sure"] *= LEVELS  # a vote that moves leaves as many sums of its old class, and joins of its new
    for piece, bracket in zip(pieces, brackets, strict=True):
        for name, told in piece.stored(soft).items():
            (low, here, high), unit = bracket[name], UNITS[name]
            if np.any(told < low) or np.any(told > high + piece.left * unit):
                index, (a, b) = piece.record.index, piece.stretch
                text = f"{name} of {piece.stream} samples {a:,} to {b:,} are not what its seed gives"
                faults.append((index, f"input {index}: {text}"))
            if piece.left:
                count = piece.end - piece.begin
                ends = [(here + (end - here) / 4) / unit for end in (low, high)]
                parts.append(Sums(name, count, told / (count + piece.left) / unit, *ends))
            else:
                moved[name] += int(np.abs(told - here).sum())
                allowed[name] += int((high - low).sum()) // 4
    samples = sum(piece.end - piece.begin for piece in pieces)
    whole = sum(not piece.left for piece in pieces)
    inputs = len({piece.record.index for piece in pieces})
    refuted, found = 2 / again.asked.error_rate, e_value(parts)
    about = (
        f"{inputs} inputs chosen by seed {again.new_seed}, {samples:,} samples: {whole} stretches whole, "
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
    again: Again, request: CertifyRequest, pieces: list[Piece], fresh: list[Ballots | None]
) -> CheckResult:
    """Counts of a stretch against the ballots of a seed that the run cannot have known.

    Which stretch does not depend on how far the run went: that it was drawn depends on earlier samples alone.
    """
    ends = [0, *sorted({*looks(request.samples), request.samples})]
    rng = np.random.default_rng(again.new_seed)
    parts: list[Sums] = []
    for piece, cast in zip(pieces, fresh, strict=True):
        at, record = int(rng.integers(len(ends) - 1)), piece.record
        stretch = (ends[at], ends[at + 1])
        if cast is None or stretch[1] not in record.estimation:
            continue
        if at == 0 or stretch[0] in record.estimation:
            count, order = int(cast.counts.sum()), piece.order
            drawn = {"votes": cast.votes(len(order))[order], "sure": sure_votes(cast, order)}
            told = Piece(record, "estimation", stretch, *stretch).stored(request.scores == "soft")
            for name in drawn.keys() & told.keys():
                new = drawn[name].astype(float)
                mean = (told[name] + new) / (count + stretch[1] - stretch[0])
                parts.append(Sums(name, count, mean, new, new))
    refuted, found = 2 / again.asked.error_rate, e_value(parts)
    outcome, are = (Outcome.FAILS, "are not") if found >= refuted else (Outcome.HOLDS, "may be")
    about = f"{len(parts)} inputs, new samples of seed {again.new_seed}"
    about += f" (e-value {found:.2g}, refuted from {refuted:g})"
    return CheckResult("new seed", outcome, f"votes {are} of one distribution: {about}")


class Sums(NamedTuple):
    """Sums (q,), between `low` and `high`, of quantities in [0, 1] with these means over all samples."""

    name: str
    samples: int
    mean: FloatArray
    low: FloatArray
    high: FloatArray


def e_value(parts: Sequence[Sums]) -> float:
    """Return at least 1/a with probability at most a, if each part is taken at random from all its samples.

    A sum S of n values in [0, 1] without replacement, of mean m, has E[exp(-t S)] <= (1 - m + m exp(-t))^n
    (Hoeffding 1963, Theorem 4, and the chord of exp).  The quotients multiply over parts of one name, and are
    averaged over quantities and over `TILTS`, which have both signs.  Half of the result is the mean of the
    parts' own values, which finds a few that are unlike.
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
