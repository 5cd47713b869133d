"""Every bound and radius once more, straight from its formula: no bound or radius code of the run.

Nothing is rounded outwards here.  What the run derives, which is, lies on the
safe side of these by no more than their own error, see `SLACK`.  Scores are
`ScoreStatistics`: whole numbers, sums, squares and 64 bins in steps of 2^-16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betaln, gammaln, ndtr, ndtri

from certmix.bounds import BOUNDS
from certmix.certification.request import CertifyRequest
from certmix.certification.stopping import Rule
from certmix.radii import CERTIFICATES
from certmix.runs import ImageRecord
from certmix.types import FloatArray, IntArray

if TYPE_CHECKING:
    from certmix.bounds.statistics import ScoreStatistics

SLACK = 1e-9
"""Relative difference to a published bound or radius that rounding may explain.

A binomial probability's logarithm is right to about 1e-15 max(k, 1) here, and
a tail's logarithm has a slope of about sqrt(k) against that of the proportion:
far below 1e-9 for n up to 10^7.  What the run gives away itself is 1e-12 of a
proportion.
"""

Pair = tuple[float, float]
_TIGHT = {"xtol": 1e-300, "rtol": 4 * 2.0**-52, "maxiter": 1000}

_LOOKS = [100]


def look(number: int) -> int:
    """Return the sample number of look 0, 1, 2, ...: 100, 200, ..., about a fifth more each time."""
    while len(_LOOKS) <= number:
        last = _LOOKS[-1]
        _LOOKS.append(max(last + 100, round(1.2 * last / 100) * 100))
    return _LOOKS[number]


def looks(maximum: int) -> list[int]:
    """Return all looks up to and including `maximum` samples."""
    return list(takewhile(lambda samples: samples <= maximum, map(look, count())))


def _weight(samples: int) -> float:
    return min(samples / 50_000, 50_000 / samples) ** 0.5


@lru_cache(maxsize=1)
def _total() -> float:
    """All weights: those up to 10^9 samples, and a geometric series above the rest."""
    head = [_weight(samples) for samples in looks(10**9)]
    return (math.fsum(head) + head[-1] / (math.sqrt(1.19) - 1)) * (1 + 1e-12)


def share(number: int) -> float:
    """Return the share of the failure probability that one look may spend."""
    return _weight(look(number)) / _total()


def _beyond_stirling(n: int) -> float:
    """Return log n! - log(sqrt(2 pi n) (n / e)^n)."""
    if n < 20:
        return float(gammaln(n + 1) - (n + 0.5) * math.log(n) + n - 0.5 * math.log(2 * math.pi))
    return (1 / 12 - (1 / 360 - (1 / 1260 - 1 / (1680 * n * n)) / (n * n)) / (n * n)) / n


def _log_probability(k: int, n: int, p: float) -> float:
    """Logarithm of P[X = k], X ~ Bin(n, p), for 0 < k < n.

    Stirling's formula and the divergence of k / n from p: logarithms of
    factorials, which are of the size n log n, would leave their rounding error.
    """
    excess = k - n * p if p < 0.5 else n * (1 - p) - (n - k)
    divergence = k * math.log1p(excess / (n * p)) + (n - k) * math.log1p(-excess / (n * (1 - p)))
    corrections = _beyond_stirling(n) - _beyond_stirling(k) - _beyond_stirling(n - k)
    return corrections - divergence - 0.5 * math.log(2 * math.pi * k * (n - k) / n)


def _log_tail(k: int, n: int, p: float) -> float:
    """Logarithm of P[X >= k], X ~ Bin(n, p): the terms from k on, relative to the first.

    Below p = k / n they fall like a normal density of at most sqrt(n) / 2
    deviation, so that 12 sqrt(n) of them leave out less than exp(-288).
    """
    terms = n - k if p > k / n else min(n - k, 100 + int(12 * math.sqrt(n)))
    j = np.arange(k, k + terms, dtype=np.float64)
    ratios = np.log(n - j) - np.log(j + 1) + math.log(p) - math.log1p(-p)
    steps = np.concatenate([[0.0], np.cumsum(ratios)])
    top = steps.max()
    return float(_log_probability(k, n, p) + top + math.log(np.exp(steps - top).sum()))


@lru_cache(maxsize=1 << 18)
def proportion_lower(k: int, n: int, failure_probability: float) -> float:
    """Return the p at which k or more of n have this probability (Clopper-Pearson); 0 for k = 0."""
    if k == 0:
        return 0.0
    wanted = math.log(failure_probability)
    if k == n:
        return math.exp(wanted / n)

    def excess(p: float) -> float:
        return _log_tail(k, n, p) - wanted

    low, high = math.exp(max(wanted - math.log(2) * n, -700.0)) * 1e-3, k / n
    if excess(high) <= 0:
        high = 1 - 2.0**-53
    return float(brentq(excess, low, high, **_TIGHT))


def proportion_upper(k: int, n: int, failure_probability: float) -> float:
    """Return the p at which k or fewer of n have this probability; 1 for k = n."""
    return 1.0 - proportion_lower(n - k, n, failure_probability)


def interval(k: int, n: int) -> tuple[float, float]:
    """Return the two-sided 95 % Clopper-Pearson interval."""
    return proportion_lower(k, n, 0.025), proportion_upper(k, n, 0.025)


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


def _clopper_pearson(counts: IntArray, selected: int, delta: float) -> Pair:
    """p takes all of delta, q = 1 - p."""
    p = proportion_lower(int(counts[selected]), int(counts.sum()), delta)
    return p, 1.0 - p


def _runner_up(counts: IntArray, selected: int) -> int:
    return int(np.delete(counts, selected).max())


def _two_sided(counts: IntArray, selected: int, delta: float) -> Pair:
    """Half of delta each; probabilities add up to 1."""
    n = int(counts.sum())
    p = proportion_lower(int(counts[selected]), n, delta / 2)
    q = proportion_upper(_runner_up(counts, selected), n, delta / 2)
    p = max(p, 1.0 - (len(counts) - 1) * q)
    return p, min(q, 1.0 - p)


def _mixture(counts: IntArray, selected: int, delta: float) -> Pair:
    n = int(counts.sum())
    p = uniform_lower(int(counts[selected]), n, delta / 2)
    q = 1.0 - uniform_lower(n - _runner_up(counts, selected), n, delta / 2)
    return p, min(q, 1.0 - p)


VOTE_BOUNDS: dict[str, Callable[[IntArray, int, float], Pair]] = {
    "clopper-pearson": _clopper_pearson,
    "clopper-pearson-two-sided": _two_sided,
    "beta-binomial": _mixture,
}
"""(votes (c,), selected class, failure probability) -> (p, q), by the name of the bound."""


STEPS, BINS = 65536, 64
ROW_SLACK = 2.0**-20
"""How far the scores of one sample may be from adding up to 1."""

_BETS = 4.0 * 2.0 ** (-0.5 * np.arange(28))
_NONE = np.empty(0)


class Values(NamedTuple):
    """What is kept of n values in [0, 1]: their sum, the sum of squares, and bins where there are any.

    ``counts`` and ``places`` (64,) are values in each bin and their mean place in it, 0 to 1.
    """

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


def _own(kept: ScoreStatistics) -> Values:
    """The selected class's scores."""
    y = kept.selected
    counts = kept.bin_counts[0].astype(np.float64)
    places = kept.bin_excess[0] / (np.maximum(counts, 1) * (STEPS // BINS))
    spread = int(kept.deviations[y]) / STEPS
    return Values(kept.samples, int(kept.totals[y]), int(kept.squares[y]), counts, places, spread)


def _against(kept: ScoreStatistics, rival: int) -> Values:
    """1 minus a rival's scores, so that a lower bound of their mean gives an upper bound of the rival's."""
    n, total, square = kept.samples, int(kept.totals[rival]), int(kept.squares[rival])
    counts = places = _NONE
    if rival in kept.rivals:
        row = 1 + kept.rivals.index(rival)
        counts = kept.bin_counts[row][::-1].astype(np.float64)
        places = 1.0 - kept.bin_excess[row][::-1] / (np.maximum(counts, 1) * (STEPS // BINS))
    flipped = n * STEPS**2 - 2 * STEPS * total + square
    return Values(n, n * STEPS - total, flipped, counts, places, int(kept.deviations[rival]) / STEPS)


def hoeffding(values: Values, delta: float) -> float:
    """mean - sqrt(ln(1/delta) / (2 n))."""
    return max(0.0, values.mean - math.sqrt(math.log(1 / delta) / (2 * values.n)))


@lru_cache(maxsize=1 << 16)
def _entropy(mean: float, n: int, delta: float) -> float:
    if mean <= 0.0:
        return 0.0
    if mean >= 1.0:
        return delta ** (1 / n)

    def excess(m: float) -> float:
        kl = mean * math.log(mean / m) + (1 - mean) * (math.log1p(-mean) - math.log1p(-m))
        return n * kl + math.log(delta)

    if excess(1e-300) <= 0:
        return 0.0
    return float(brentq(excess, 1e-300, mean, **_TIGHT))


def relative_entropy(values: Values, delta: float) -> float:
    """The largest m below the mean with n kl(mean, m) >= ln(1/delta)."""
    return _entropy(values.mean, values.n, delta)


def bernstein(values: Values, delta: float) -> float:
    """mean - sqrt(2 V ln(2/delta) / n) - 7 ln(2/delta) / (3 (n - 1)), V the unbiased variance."""
    n, log = values.n, math.log(2 / delta)
    variance = (n * values.square - values.total**2) / (n * (n - 1) * STEPS**2)
    return max(0.0, values.mean - math.sqrt(2 * variance * log / n) - 7 * log / (3 * (n - 1)))


def _capital(m: float, values: Values, weights: FloatArray) -> float:
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


def _weights(n: int, deviation: float) -> FloatArray:
    """Equal, or falling off around the bet that suits n values of this deviation."""
    if deviation == 0.0:
        return np.full(28, 1 / 28)
    best = math.sqrt(2 * math.log(1000) / n) / deviation
    place = min(max(2 * math.log2(4.0 / best), 0.0), 27.0)
    weights: FloatArray = 1 / (1 + (np.arange(28) - place) ** 2)
    return weights / weights.sum()


def betting(values: Values, delta: float, *, tuned: bool = False) -> float:
    """The largest m below the mean against which the capital reaches 1/delta, by halving."""
    weights = _weights(values.n, values.deviation if tuned else 0.0)
    low, high = 0.0, min(values.mean, 1.0)
    for _ in range(60):
        middle = 0.5 * (low + high)
        refuted = middle > 0 and _capital(middle, values, weights) >= math.log(1 / delta)
        low, high = (middle, high) if refuted else (low, middle)
    return low


def _score_pair(kept: ScoreStatistics, delta: float, *, lower: Callable[[Values, float], float]) -> Pair:
    """p and q at half of delta each; then what a sum of 1 gives, less `ROW_SLACK`."""
    rivals = [i for i in range(len(kept.totals)) if i != kept.selected]
    p = lower(_own(kept), delta / 2)
    q = max(1.0 - lower(_against(kept, i), delta / 2) for i in rivals)
    p = max(p, 1.0 - len(rivals) * q - ROW_SLACK)
    return p, min(q, 1.0 - p + ROW_SLACK)


SCORE_BOUNDS: dict[str, Callable[[ScoreStatistics, float], Pair]] = {
    "betting": partial(_score_pair, lower=betting),
    "betting-fixed": partial(_score_pair, lower=partial(betting, tuned=True)),
    "bernstein": partial(_score_pair, lower=bernstein),
    "relative-entropy": partial(_score_pair, lower=relative_entropy),
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
    found = []
    for k in range(layers):
        above = int(counts[(k + 1) * width :].sum()) * width * (STEPS // BINS)
        inside = sum(
            int(counts[k * width + i]) * i * (STEPS // BINS) + int(excess[k * width + i])
            for i in range(width)
        )
        found.append((above + inside) / (kept.samples * width * (STEPS // BINS)))
    return found


def bound_layers(kept: ScoreStatistics, delta: float) -> PlainLayers:
    """Half of delta for the class; half in equal parts for each followed rival and the rest."""
    n, layers = kept.samples, 16
    others = [i for i in range(len(kept.totals)) if i not in (kept.selected, *kept.rivals)]
    each = delta / 2 / max(1, len(kept.rivals) + bool(others))
    own = np.array([_entropy(mean, n, delta / 2 / layers) for mean in _layer_means(kept, 0, layers)])
    rivals = tuple(
        np.array(
            [1.0 - _entropy(1.0 - mean, n, each / layers) for mean in _layer_means(kept, 1 + row, layers)]
        )
        for row in range(len(kept.rivals))
    )
    means = [int(kept.totals[i]) / (n * STEPS) for i in others]
    return PlainLayers(own, rivals, 1.0 - _entropy(1.0 - max(means), n, each) if means else 0.0)


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


def _upper_quantile(x: float, complement: float) -> float:
    """Phi^-1(x), from 1 - x where x is nearer to 1."""
    return float(ndtri(x)) if x <= 0.5 else -float(ndtri(complement))


def smoothing_radius(p: float, q: float, sigma: float, alpha: float, slack: float = 0.0) -> float:
    """Theorem 3.7: sigma/2 (Phi^-1(alpha p) - Phi^-1(alpha q + 1 - alpha)), at the weight of mu + slack."""
    if not p > q:
        return 0.0
    alpha = alpha / (1 + alpha * slack)
    high = _upper_quantile(alpha * p, (1 - alpha) + alpha * (1 - p))
    low = _upper_quantile(alpha * q + (1 - alpha), alpha * (1 - q))
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


@dataclass(frozen=True)
class Derived:
    """Bounds of images (m,), the samples behind them, and who would still wait for samples.

    ``layers`` is empty unless the bound is one of distributions; p and q are 0 and 1 then.
    """

    p: FloatArray
    q: FloatArray
    layers: tuple[PlainLayers, ...]
    samples: IntArray
    waiting: NDArray[np.bool_]
    lost: FloatArray | float = 0.0

    def radii(self, certificate: str, sigma: float, alpha: float) -> FloatArray:
        """Return the radii (m,) of one certificate about the inputs, 0 where nothing is certified."""
        slack = slack_of(alpha)
        if self.layers:
            found = [layers_radius(image, sigma, alpha, slack) for image in self.layers]
        else:
            pairs = zip(self.p.tolist(), self.q.tolist(), strict=True)
            radius = CERTIFICATES[certificate].plain or RADII[certificate]
            found = [radius(p, q, sigma, alpha, slack) for p, q in pairs]
        return np.maximum(0.0, np.array(found) - self.lost)

    def established(self) -> NDArray[np.bool_]:
        """Return for which images (m,) a class is established at all: p > q."""
        if self.layers:
            return np.array([layers_radius(image, 1.0, 1.0) > 0 for image in self.layers])
        return self.p > self.q


def evidence(record: ImageRecord, request: CertifyRequest) -> Mapping[int, Any]:
    """Return what bounds are computed from, by number of samples: votes, or statistics of scores."""
    return record.estimation if request.scores == "hard" else record.scores


def derive(records: Sequence[ImageRecord], request: CertifyRequest) -> Derived:
    """Return the bounds that stored counts give under a request.

    Where sampling stops by itself, the study's own rule says at which look:
    any rule would do, since all looks' bounds hold together.  The bounds that
    it sees are the plain ones.
    """
    found = _walked(records, request) if request.goal != "fixed" else _after_all_samples(records, request)
    # Every mean under the drawn noise is within eps of that under the Gaussian.
    eps, lost = (np.array([getattr(r, name) for r in records]) for name in ("noise_error", "lost"))
    layers = tuple(
        PlainLayers(
            np.maximum(one.own - e, 0.0),
            tuple(np.minimum(rival + e, 1.0) for rival in one.rivals),
            min(one.rest + e, 1.0),
        )
        for one, e in zip(found.layers, eps.tolist(), strict=False)
    )
    p, q = np.maximum(found.p - eps, 0.0), np.minimum(found.q + eps, 1.0)
    return replace(found, p=p, q=q, layers=layers, lost=lost)


def _after_all_samples(records: Sequence[ImageRecord], request: CertifyRequest) -> Derived:
    found: list[Any] = [evidence(record, request).get(request.samples) for record in records]
    missing = np.array([counts is None for counts in found], bool)
    samples, images = np.where(missing, 0, request.samples).astype(np.int64), len(records)
    if missing.any() or BOUNDS[request.bound].distribution:
        delta = request.failure_probability
        layers = () if missing.any() else tuple(bound_layers(kept, delta) for kept in found)
        return Derived(np.zeros(images), np.ones(images), layers, samples, missing)
    pairs = [_bounds(*one, request, request.failure_probability) for one in zip(records, found, strict=True)]
    p, q = np.array(pairs, np.float64).reshape(images, 2).T
    return Derived(p, q, (), samples, missing)


def _bounds(record: ImageRecord, counts: Any, request: CertifyRequest, delta: float) -> Pair:
    own = BOUNDS[request.bound].plain  # of a bound that somebody has added
    if request.scores == "soft":
        return (own or SCORE_BOUNDS[request.bound])(counts, delta)
    return (own or VOTE_BOUNDS[request.bound])(counts, record.selected, delta)


def _walked(records: Sequence[ImageRecord], request: CertifyRequest) -> Derived:
    """Look after look: the best bounds so far, until the rule is content or counts are missing."""
    images, rule, uniform = len(records), Rule(request), BOUNDS[request.bound].time_uniform
    p, q, samples = np.zeros(images), np.ones(images), np.zeros(images, np.int64)
    active = np.array([record.selected == record.label for record in records], bool)
    kept = [evidence(record, request) for record in records]
    for number, n in enumerate(looks(request.samples)):
        rows = np.array([i for i in np.flatnonzero(active).tolist() if n in kept[i]], np.int64)
        if not len(rows):
            break
        delta = request.failure_probability * (1.0 if uniform else share(number))
        found = [(records[i], kept[i][n]) for i in rows.tolist()]
        pairs = [_bounds(record, counts, request, delta) for record, counts in found]
        p[rows] = np.maximum(p[rows], [pair[0] for pair in pairs])
        q[rows] = np.minimum(q[rows], [pair[1] for pair in pairs])
        samples[rows], spread = n, None
        if request.scores == "hard":
            mean = np.array([counts[record.selected] / counts.sum() for record, counts in found])
        else:
            mean = np.array([one.totals[one.selected] / (one.samples * STEPS) for _, one in found])
            square = np.array([one.squares[one.selected] / (one.samples * STEPS**2) for _, one in found])
            spread = np.sqrt(np.maximum(square - mean**2, 1e-6))
        active[rows] = rule.goes_on(number, mean, spread, p[rows], q[rows])
    return Derived(p, q, (), samples, active)
