"""Drawing samples of a sampled run again, and comparing counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from certmix.certification.request import CertifyRequest
from certmix.errors import RunError
from certmix.runs import ImageRecord
from certmix.sampling import Sampler, looks
from certmix.sampling.packing import Draw, Part
from certmix.types import IntArray
from certmix.verification.checks import CheckResult, Outcome
from certmix.verification.rederivation.counts import insane
from certmix.verification.rederivation.samples import stored_request
from certmix.verification.rederivation.sources import Faults, judged, unchecked
from certmix.verification.rederivation.stored import StoredRun, read_samples
from certmix.verification.rederivation.stored_values import is_whole
from certmix.verification.resampling.choice import SHORT, Piece, choose_images, choose_pieces, weights_of
from certmix.verification.resampling.draws import CLOSE, UNITS, Again, Bracket, measured
from certmix.verification.resampling.e_values import Sums, e_value

__all__ = ["resample_votes"]

CHECKS = ("same seed", "new seed")
TOGETHER = 64
"""Pieces whose images are in memory at a time."""
MOST_TIES = 0.2
"""Share of votes beyond which rounding would leave too much open."""
FEW = 6
"""Differences that say nothing, where few are possible; a vote that moves is two of them."""


def resample_votes(again: Again) -> list[CheckResult]:
    """Return the checks of a sampled run."""
    run = read_samples(again.run)
    request = stored_request(run)
    sane = [one for one in run.images.values() if not any(insane(one, request, run.classes))]
    chosen, lacking = choose_images(again, weights_of(sane, request))
    if not chosen:
        return [unchecked(check, lacking) for check in CHECKS]
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


def _sampler(again: Again, run: StoredRun, request: CertifyRequest, seed: int, places: int) -> Sampler:
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
