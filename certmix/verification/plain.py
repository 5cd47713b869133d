"""Every bound and radius once more, straight from its formula: no bound or radius code of the run.

Nothing is rounded outwards here.  What the run derives, which is, lies on the safe side of these by no more
than their own error, see `SLACK`.  Scores are in steps of 2^-16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache, partial
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betainc, betaln, ndtr, ndtri

from certmix.bounds import BOUNDS
from certmix.certification.request import CertifyRequest
from certmix.certification.stopping import Rule, Standing
from certmix.errors import RunError
from certmix.radii import CERTIFICATES
from certmix.runs import ImageRecord
from certmix.runs.records import Look, Records, pieces
from certmix.types import FloatArray, IntArray

if TYPE_CHECKING:
    from certmix.bounds.statistics import ScoreStatistics

# Relative difference to a published bound or radius that rounding may explain: scipy's binomial tails are
# right to about 1e-13 sqrt(n), and the logarithm of one has a slope of about sqrt(k) against that of the
# proportion, far below 1e-9 for n up to 10^7.  The run gives 1e-12 of a proportion away.
SLACK = 1e-9
Pair = tuple[float, float]
_TIGHT = {"xtol": 1e-300, "rtol": 4 * 2.0**-52, "maxiter": 1000}


@cache
def look(number: int) -> int:
    """Return the sample number of look 0, 1, 2, ...: 100, 200, ..., about a fifth more each time."""
    last = look(number - 1) if number else 0
    return max(last + 100, round(1.2 * last / 100) * 100)


def looks(maximum: int) -> list[int]:
    """Return all looks up to and including `maximum` samples."""
    return list(takewhile(lambda samples: samples <= maximum, map(look, count())))


def _weight(samples: int) -> float:
    return min(samples / 50_000, 50_000 / samples) ** 0.5


@cache
def _total() -> float:
    """All weights: those up to 10^9 samples, and a geometric series above the rest."""
    head = [_weight(samples) for samples in looks(10**9)]
    return (math.fsum(head) + head[-1] / (math.sqrt(1.19) - 1)) * (1 + 1e-12)


def share(number: int) -> float:
    """Return the share of the failure probability that one look may spend."""
    return _weight(look(number)) / _total()


@lru_cache(maxsize=1 << 18)
def proportion_lower(k: int, n: int, failure_probability: float) -> float:
    """Return the p at which k or more of n have this probability (Clopper-Pearson); 0 for k = 0."""
    if k == 0:
        return 0.0
    if k == n:
        return math.exp(math.log(failure_probability) / n)
    return float(brentq(lambda p: betainc(k, n - k + 1, p) - failure_probability, 0.0, 1.0, **_TIGHT))


def interval(k: int, n: int) -> Pair:
    """Return the two-sided 95 % Clopper-Pearson interval."""
    return proportion_lower(k, n, 0.025), 1.0 - proportion_lower(n - k, n, 0.025)


@lru_cache(maxsize=1 << 18)
def uniform_lower(k: int, n: int, failure_probability: float) -> float:
    """Return the p below k / n at which the mixture martingale reaches 1 / failure probability."""
    if k == 0:
        return 0.0
    wanted = -math.log(failure_probability)

    def excess(p: float) -> float:
        evidence = betaln(0.5 + k, 0.5 + n - k) - math.log(math.pi)
        missed = (n - k) * math.log1p(-p) if k < n else 0.0
        return float(evidence) - k * math.log(p) - missed - wanted

    return k / n if excess(k / n) >= 0 else float(brentq(excess, 1e-300, k / n, **_TIGHT))


def _one_sided(counts: IntArray, selected: int, delta: float) -> Pair:
    """p takes all of delta, q = 1 - p."""
    p = proportion_lower(int(counts[selected]), int(counts.sum()), delta)
    return p, 1.0 - p


def _both(
    counts: IntArray,
    selected: int,
    delta: float,
    *,
    lower: Callable[[int, int, float], float],
    total: bool = False,
    gated: bool = False,
) -> Pair:
    """Half of delta for the class and for its runner-up; `total`: p gains, as probabilities add up to 1.

    Where votes are `gated`, the last count is of those that abstained.
    """
    n, own, rivals = int(counts.sum()), int(counts[selected]), np.delete(counts, selected)
    runner_up = int((rivals[:-1] if gated else rivals).max())
    p, q = lower(own, n, delta / 2), 1.0 - lower(n - runner_up, n, delta / 2)
    p = max(p, 1.0 - (len(counts) - 1) * q) if total else p
    return p, min(q, 1.0 - p)


VOTE_BOUNDS: dict[str, Callable[[IntArray, int, float], Pair]] = {
    "clopper-pearson": _one_sided,
    "clopper-pearson-two-sided": partial(_both, lower=proportion_lower, total=True),
    "beta-binomial": partial(_both, lower=uniform_lower),
}
"""(votes (c,), selected class, failure probability) -> (p, q), by the name of the bound."""
GATED_BOUNDS: dict[str, Callable[[IntArray, int, float], Pair]] = {
    "clopper-pearson": partial(_both, lower=proportion_lower, gated=True),
    "clopper-pearson-two-sided": partial(_both, lower=proportion_lower, gated=True),
    "beta-binomial": partial(_both, lower=uniform_lower, gated=True),
}
"""The same of votes (c + 1,) behind a gate."""


STEPS, BINS = 65536, 64
ROW_SLACK = 2.0**-20  # how far the scores of one sample may be from adding up to 1
_BETS = 4.0 * 2.0 ** (-0.5 * np.arange(28))


class Values(NamedTuple):
    """n values in [0, 1]: sum, sum of squares, and, if any, (64,) values in a bin and mean places in it."""

    n: int
    total: int
    square: int
    counts: FloatArray
    places: FloatArray
    deviation: float

    @property
    def mean(self) -> float:
        """Their average."""
        return self.total / (self.n * STEPS)


def _values(kept: ScoreStatistics, i: int) -> Values:
    """The selected class's scores, or 1 minus a rival's: then a lower bound of their mean is an upper one."""
    n, total, square = kept.samples, int(kept.totals[i]), int(kept.squares[i])
    followed = [kept.selected, *kept.rivals]
    counts = places = np.empty(0)
    if i in followed:
        row = followed.index(i)
        counts = kept.bin_counts[row].astype(np.float64)
        places = kept.bin_excess[row] / (np.maximum(counts, 1) * (STEPS // BINS))
    if i != kept.selected:
        total, square = n * STEPS - total, n * STEPS**2 - 2 * STEPS * total + square
        counts, places = counts[::-1], 1.0 - places[::-1]
    return Values(n, total, square, counts, places, int(kept.deviations[i]) / STEPS)


def hoeffding(values: Values, delta: float) -> float:
    """mean - sqrt(ln(1/delta) / (2 n))."""
    return max(0.0, values.mean - math.sqrt(math.log(1 / delta) / (2 * values.n)))


@lru_cache(maxsize=1 << 16)
def _entropy(mean: float, n: int, delta: float) -> float:
    """The largest m below the mean with n kl(mean, m) >= ln(1/delta)."""
    if mean <= 0.0 or mean >= 1.0:
        return delta ** (1 / n) if mean > 0 else 0.0

    def excess(m: float) -> float:
        kl = mean * math.log(mean / m) + (1 - mean) * (math.log1p(-mean) - math.log1p(-m))
        return n * kl + math.log(delta)

    return 0.0 if excess(1e-300) <= 0 else float(brentq(excess, 1e-300, mean, **_TIGHT))


def bernstein(values: Values, delta: float) -> float:
    """mean - sqrt(2 V ln(2/delta) / n) - 7 ln(2/delta) / (3 (n - 1)), V the unbiased variance."""
    n, log = values.n, math.log(2 / delta)
    variance = (n * values.square - values.total**2) / (n * (n - 1) * STEPS**2)
    return max(0.0, values.mean - math.sqrt(2 * variance * log / n) - 7 * log / (3 * (n - 1)))


def _log_capital(m: float, values: Values, weights: FloatArray) -> float:
    """Logarithm of a lower bound of sum_j w_j prod_t (1 + lambda_j (x_t - m))."""
    bets = np.minimum(_BETS, 0.99 / m)
    b, n, total = bets * m, values.n, values.total / STEPS
    second = max(values.square / STEPS**2 - 2 * m * total + n * m * m, 0.0) / (m * m)
    logs = bets * (total - n * m) + second * (np.log1p(-b) + b)
    if len(values.counts):
        edges = np.log1p(bets[:, None] * (np.arange(BINS + 1) / BINS - m))
        chords = edges[:, :-1] + np.diff(edges, axis=1) * values.places
        logs = np.maximum(logs, chords @ values.counts)
    return float(logs.max() + math.log(weights @ np.exp(logs - logs.max())))


def betting(values: Values, delta: float, *, tuned: bool = False) -> float:
    """The largest m below the mean against which the capital reaches 1/delta, by halving."""
    weights = np.ones(28)
    if tuned and values.deviation:  # less and less away from the bet that suits n values of this deviation
        best = math.sqrt(2 * math.log(1000) / values.n) / values.deviation
        place = min(max(2 * math.log2(4.0 / best), 0.0), 27.0)
        weights = 1 / (1 + (np.arange(28) - place) ** 2)
    weights = weights / weights.sum()
    low, high = 0.0, min(values.mean, 1.0)
    for _ in range(60):
        middle = 0.5 * (low + high)
        refuted = middle > 0 and _log_capital(middle, values, weights) >= math.log(1 / delta)
        low, high = (middle, high) if refuted else (low, middle)
    return low


def _score_pair(kept: ScoreStatistics, delta: float, *, lower: Callable[[Values, float], float]) -> Pair:
    """p and q at half of delta each; then what a sum of 1 gives, less `ROW_SLACK`."""
    rivals = [i for i in range(len(kept.totals)) if i != kept.selected]
    p = lower(_values(kept, kept.selected), delta / 2)
    q = max(1.0 - lower(_values(kept, i), delta / 2) for i in rivals)
    p = max(p, 1.0 - len(rivals) * q - ROW_SLACK)
    return p, min(q, 1.0 - p + ROW_SLACK)


SCORE_BOUNDS: dict[str, Callable[[ScoreStatistics, float], Pair]] = {
    "betting": partial(_score_pair, lower=betting),
    "betting-fixed": partial(_score_pair, lower=partial(betting, tuned=True)),
    "bernstein": partial(_score_pair, lower=bernstein),
    "relative-entropy": partial(_score_pair, lower=lambda v, delta: _entropy(v.mean, v.n, delta)),
    "hoeffding": partial(_score_pair, lower=hoeffding),
}
"""(statistics, failure probability) -> (p, q), by the name of the bound."""


class PlainLayers(NamedTuple):
    """Bounds of the means of K layers of scores: the class (K,), each followed rival (K,), the rest."""

    own: FloatArray
    rivals: tuple[FloatArray, ...]
    rest: float


def _layer_means(kept: ScoreStatistics, row: int, layers: int) -> list[float]:
    """Means of clip(K score - k, 0, 1): 1 above the layer, the place within it, 0 below."""
    counts, excess, width = kept.bin_counts[row], kept.bin_excess[row], BINS // layers
    step, found = STEPS // BINS, []
    for k in range(layers):
        above = int(counts[(k + 1) * width :].sum()) * width * step
        own = range(k * width, (k + 1) * width)
        inside = sum(int(counts[i]) * (i - k * width) * step + int(excess[i]) for i in own)
        found.append((above + inside) / (kept.samples * width * step))
    return found


def bound_layers(kept: ScoreStatistics, delta: float, eps: float = 0.0) -> PlainLayers:
    """Half of delta for the class; half in equal parts for each followed rival and the rest; wider by eps."""
    n, layers = kept.samples, 16
    others = [i for i in range(len(kept.totals)) if i not in (kept.selected, *kept.rivals)]
    each = delta / 2 / max(1, len(kept.rivals) + bool(others))
    own = np.array([_entropy(mean, n, delta / 2 / layers) for mean in _layer_means(kept, 0, layers)])
    means = [_layer_means(kept, 1 + row, layers) for row in range(len(kept.rivals))]
    rivals = tuple(np.array([1.0 - _entropy(1.0 - m, n, each / layers) for m in one]) for one in means)
    largest = max((int(kept.totals[i]) for i in others), default=0) / (n * STEPS)
    rest = 1.0 - _entropy(1.0 - largest, n, each) if others else 0.0
    wider = tuple(np.minimum(rival + eps, 1.0) for rival in rivals)
    return PlainLayers(np.maximum(own - eps, 0.0), wider, min(rest + eps, 1.0))


def slack_of(alpha: float) -> float:
    """What the margin of a published mix exceeds the threshold by: 2^-22, none for h alone."""
    return 0.0 if alpha == 1 else 2.0**-22


def exact_radius(p: float, q: float, sigma: float, alpha: float, slack: float = 0.0) -> float:
    """Sigma times the root t of Phi(Phi^-1(p) - t) - Phi(Phi^-1(q) + t) = (1 - alpha)/alpha + slack."""
    mu, rest = (1 - alpha) / alpha + slack, (2 * alpha - 1) / alpha - slack
    if not p - q > mu or rest <= 0:
        return 0.0
    a, b = float(ndtri(p)), float(ndtri(q))
    if mu == 0:
        return sigma * (a - b) / 2

    def excess(t: float) -> float:
        """Left side less right side, with 1 - Phi(x) = Phi(-x) where that keeps digits."""
        if a - t > 0 and b + t > 0:
            return float(ndtr(-b - t) - ndtr(t - a)) - mu
        if a - t > 0:
            return rest - float(ndtr(t - a)) - float(ndtr(b + t))
        return float(ndtr(a - t) - ndtr(b + t)) - mu

    top = 1.0
    while excess(top) > 0:
        top *= 2
        if top > 1e4:
            return math.inf
    return 0.0 if excess(0.0) <= 0 else sigma * float(brentq(excess, 0.0, top, **_TIGHT))


def _quantile(x: float, complement: float) -> float:
    """Phi^-1(x), from 1 - x where x is nearer to 1."""
    return float(ndtri(x)) if x <= 0.5 else -float(ndtri(complement))


def smoothing_radius(p: float, q: float, sigma: float, alpha: float, slack: float = 0.0) -> float:
    """Theorem 3.7: sigma/2 (Phi^-1(alpha p) - Phi^-1(alpha q + 1 - alpha)), at the weight of mu + slack."""
    if not p > q:
        return 0.0
    alpha = alpha / (1 + alpha * slack)
    high = _quantile(alpha * p, (1 - alpha) + alpha * (1 - p))
    low = _quantile(alpha * q + (1 - alpha), alpha * (1 - q))
    return max(0.0, sigma / 2 * (high - low)) if high > low else 0.0


def lipschitz_radius(
    p: float, q: float, sigma: float, alpha: float, slack: float = 0.0, *, unit: float
) -> float:
    """Theorem 3.5: (alpha (p - q - slack) + alpha - 1) / (2 alpha L), with L = unit / sigma."""
    return max(0.0, (alpha * (p - q - slack) + alpha - 1) / (2 * alpha * unit / sigma))


RADII: dict[str, Callable[..., float]] = {
    "exact": exact_radius,
    "smoothing": smoothing_radius,
    "lipschitz": partial(lipschitz_radius, unit=1 / math.sqrt(2 * math.pi)),
    "lipschitz-paper": partial(lipschitz_radius, unit=math.sqrt(2 / math.pi)),
}
"""(p, q, sigma, alpha, slack) -> l2 radius, by the name of the certificate."""


def layers_radius(layers: PlainLayers, sigma: float, alpha: float, slack: float = 0.0) -> float:
    """Sigma times the t up to which L(t) - min(max_i U_i(t), 1 - L(t)) exceeds (1 - alpha)/alpha + slack."""
    own, rest = ndtri(layers.own), float(ndtri(layers.rest))
    rivals = [ndtri(rival) for rival in layers.rivals]

    def excess(t: float) -> float:
        lower = float(ndtr(own - t).mean())
        upper = max([float(ndtr(rest + t)), *(float(ndtr(rival + t).mean()) for rival in rivals)])
        return lower - min(upper, 1.0 - lower + ROW_SLACK) - (1 - alpha) / alpha - slack

    if excess(0.0) <= 0:
        return 0.0
    return sigma * float(brentq(excess, 0.0, 64.0, **_TIGHT)) if excess(64.0) < 0 else 64.0 * sigma


def softmax_margin(logits: FloatArray) -> float:
    """Return h_y - max_i h_i of softmax(logits (c,)), y the largest."""
    ordered = np.sort(np.exp(logits - logits.max()))[::-1] / np.exp(logits - logits.max()).sum()
    return float(ordered[0] - ordered[1])


def constant_radius(
    logits: FloatArray, alpha: float, constant: float, constant_of: str, slack: float = 0.0
) -> float:
    """Radius from clean logits (c,) and a Lipschitz constant; see docs/margin-certificates.md.

    Of probabilities min_i (h_y - h_i - mu) / (2 L); of logits
    log((1 - mu) / (e^-l + mu sum_j e^-l_j)) / (s L), with l_j = z_y - z_j, l the least, s = sqrt 2 or 2.
    """
    mu = (1 - alpha) / alpha + slack
    if constant_of == "probabilities":
        return max(0.0, (softmax_margin(logits) - mu) / (2 * constant))
    gaps = np.delete(logits.max() - logits, logits.argmax())
    if mu >= 1:
        return 0.0
    least = float(gaps.min())
    spread = math.log1p(mu * float(np.exp(least - gaps).sum()))
    steepness = math.sqrt(2) if constant_of == "logits" else 2.0
    return max(0.0, (math.log1p(-mu) + least - spread) / (steepness * constant))


class Derived(NamedTuple):
    """Classes of images (m,), -1 for none, their bounds, those of distributions in ``layers``, samples, who
    waits for more, what radii lose."""

    selected: IntArray
    p: FloatArray
    q: FloatArray
    layers: tuple[PlainLayers, ...]
    samples: IntArray
    waiting: NDArray[np.bool_]
    lost: FloatArray

    def radii(self, certificate: str, sigma: float, alpha: float) -> FloatArray:
        """Return the radii (m,) of one certificate about the inputs, 0 where nothing is certified."""
        slack = slack_of(alpha)
        if self.layers:
            found = [layers_radius(image, sigma, alpha, slack) for image in self.layers]
        else:
            pairs = list(zip(self.p.tolist(), self.q.tolist(), strict=True))
            radius = CERTIFICATES[certificate].plain or RADII[certificate]
            known = {pair: radius(*pair, sigma, alpha, slack) for pair in set(pairs)}  # many are alike
            found = [known[pair] for pair in pairs]
        return np.maximum(0.0, np.array(found) - self.lost)

    def established(self) -> NDArray[np.bool_]:
        """Return for which images (m,) a class is established at all: p > q."""
        if self.layers:
            return np.array([layers_radius(image, 1.0, 1.0) > 0 for image in self.layers])
        return self.p > self.q


def evidence(record: ImageRecord, request: CertifyRequest) -> Mapping[int, Any]:
    """Return what bounds are computed from, by number of samples: votes, or statistics of scores."""
    return record.estimation if request.scores == "hard" else record.scores


def votes_behind(codes: IntArray, counts: IntArray, classes: int, gate: float) -> IntArray:
    """Return votes (c + 1,) of ballots, 20 class + level: those of level / 20 >= gate, then the rest."""
    found = [0] * (classes + 1)
    for code, number in zip(codes.tolist(), counts.tolist(), strict=True):
        of, level = divmod(code, 20)
        found[of if level >= 20 * gate - 1e-6 else classes] += number
    return np.array(found, np.int64)


def shares_behind(records: Records, gate: float) -> FloatArray:
    """Return the shares (m, c) of the selection samples' votes behind a gate."""
    votes = records.selection
    if gate and records.chosen is not None:
        cast = [records.chosen[row] for row in range(len(records))]
        behind = [votes_behind(one.codes, one.counts, votes.shape[1], gate) for one in cast]
        return np.array([one[:-1] / one.sum() for one in behind], np.float64)
    return np.asarray(votes / votes.sum(1, keepdims=True), np.float64)


def sharpened(probabilities: FloatArray, temperature: float) -> FloatArray:
    """Return softmax(log probabilities / temperature), one-hot at temperature 0, row by row (m, c)."""
    rows = []
    for row in probabilities:
        if temperature == 0:
            rows.append(np.arange(len(row)) == np.argmax(row))
            continue
        powers = (row / row.max()) ** (1 / temperature)
        rows.append(powers / powers.sum())
    return np.array(rows, np.float64) if temperature != 1 else probabilities


class _Seen(NamedTuple):
    """Behind one gate: the classes (m,) that selections chose, -1 for none, and what bounds come from."""

    selected: IntArray
    looks: Mapping[int, Look]
    gate: float
    classes: int

    def of(self, samples: int, rows: IntArray) -> Any:
        """Return votes (k, c) or (k, c + 1), or a list of statistics, of images that have this look."""
        found = self.looks[samples].of(rows)
        if not self.gate:
            return found
        return np.array([votes_behind(one.codes, one.counts, self.classes, self.gate) for one in found])


def _behind(records: Records, request: CertifyRequest, gate: float) -> _Seen:
    chosen, classes = records.selection, records.selection.shape[1]
    if gate == 0:
        looks = records.votes if request.scores == "hard" else records.scores
        return _Seen(chosen.argmax(1), looks, gate, classes)
    if records.chosen is None:
        told = "has no ballots, from which votes behind a gate are counted"
        raise RunError(f"input {records.indices[0]} {told}")
    shares = shares_behind(records, gate)
    selected = np.where(shares.any(1), shares.argmax(1), -1)
    return _Seen(selected, records.ballots, gate, classes)


def derive(records: Iterable[ImageRecord], request: CertifyRequest) -> dict[float, Derived]:
    """Return the bounds that stored counts give behind each gate of a request: the best of all looks due.

    Where sampling stops by itself, the run's own rule says at which look, from the plain bounds: any rule
    would do, since all looks' bounds hold together.
    """
    records, fixed = Records.of(records), request.goal == "fixed"
    rule, images = None if fixed else Rule(request), len(records)
    labels, samples = records.labels, np.zeros(images, np.int64)
    # Every mean under the drawn noise is within eps of that under the Gaussian.
    eps, lost = records.noise_error, records.lost
    seen = {gate: _behind(records, request, gate) for gate in request.gates}
    p, q = ({gate: np.full(images, value) for gate in seen} for value in (0.0, 1.0))
    waiting = np.any([fixed | (one.selected == labels) for one in seen.values()], axis=0)
    layers = list[PlainLayers]()
    first = next(iter(seen.values()))
    for number, n in enumerate([request.samples] if fixed else looks(request.samples)):
        look = first.looks.get(n)
        rows = look.rows[waiting[look.rows]] if look is not None else np.zeros(0, np.int64)
        if not len(rows):
            break
        samples[rows], waiting[rows] = n, False
        for some in pieces(rows, records.selection.shape[1]):
            for k, (gate, one) in enumerate(seen.items()):
                chosen, found = one.selected[some], one.of(n, some)
                bound = BOUNDS[request.bound_at(gate)]
                delta = request.failure_probability * (1.0 if fixed or bound.time_uniform else share(number))
                if bound.distribution:
                    each = zip(found, eps[some].tolist(), strict=True) if len(rows) == images else ()
                    layers += [bound_layers(kept, delta, e) for kept, e in each]
                    continue
                pairs = _pairs(found, chosen, request, delta, gate)
                p[gate][some] = np.maximum(p[gate][some], pairs[0])
                q[gate][some] = np.minimum(q[gate][some], pairs[1])
                if rule is not None and number + 1 < len(rule.looks):
                    at = _standing(found, chosen, number, gate > 0)
                    goes_on = rule.parts[k].goes_on(number, at, p[gate][some], q[gate][some])
                    waiting[some] |= goes_on & (chosen == labels[some])
    return {
        gate: Derived(
            one.selected, np.maximum(p[gate] - eps, 0.0), np.minimum(q[gate] + eps, 1.0), tuple(layers),
            samples, waiting, lost,
        )
        for gate, one in seen.items()
    }  # fmt: skip


def _pairs(
    found: Any, chosen: IntArray, request: CertifyRequest, delta: float, gate: float
) -> tuple[FloatArray, FloatArray]:
    """Return p and q (k,) of what images gave, from the formula of the request's bound."""
    bound, every = BOUNDS[request.bound_at(gate)], zip(found, chosen.tolist(), strict=True)
    if request.scores == "hard":
        table = GATED_BOUNDS if gate else VOTE_BOUNDS
        # The first is of a bound that somebody has added.
        given = partial(bound.plain, gated=True) if bound.plain and gate else bound.plain
        own = given or table[request.bound]
        pairs = [own(votes, y, delta) if y >= 0 else (0.0, 1.0) for votes, y in every]
    else:
        own = bound.plain or SCORE_BOUNDS[request.bound]
        pairs = [own(one, delta) for one, _ in every]
    p, q = np.array(pairs, np.float64).T
    return p, q


def _standing(found: Any, chosen: IntArray, number: int, gated: bool) -> Standing:
    """Return the means that the stopping rule looks at."""
    if isinstance(found, np.ndarray):
        rows, total = np.arange(len(found)), found.sum(1)
        mean = np.where(chosen >= 0, found[rows, chosen] / total, 0.0)
        others = found[:, :-1].copy() if gated else found.copy()
        others[rows, chosen] = -1
        rival, spread = others.max(1) / total, np.full(len(found), np.nan)
    else:
        pairs = list(zip(found, chosen.tolist(), strict=True))
        mean = np.array([one.totals[y] / (one.samples * STEPS) for one, y in pairs])
        square = np.array([one.squares[y] / (one.samples * STEPS**2) for one, y in pairs])
        rival, spread = 1 - mean, np.sqrt(np.maximum(square - mean**2, 1e-6))
    return Standing(np.full(len(found), number), mean, spread, rival)
