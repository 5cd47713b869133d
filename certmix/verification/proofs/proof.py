"""The proof of a run: each published figure with the counts and inequalities that it rests on, as plain data.

`check_proof.py` decides the inequalities, `check_votes.py` those of votes on all cases; they share no code
with what made the figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from certmix.bounds import BOUNDS, beta_binomial, betting, clopper_pearson
from certmix.bounds.bound import LayerBounds
from certmix.bounds.layers import LAYERS, bound_layers, layer_means
from certmix.bounds.means import own_values, rival_values
from certmix.bounds.statistics import BIN_STEPS, BINS, SCALE, ScoreStatistics
from certmix.certification.evaluate import Evaluation, Outcomes, View
from certmix.certification.request.proved import Enumerated, Margin
from certmix.certification.request.reading import Request
from certmix.certification.request.sampled import CertifyRequest
from certmix.errors import ParameterError
from certmix.files import digest_of
from certmix.radii import CERTIFICATES, Smoothing
from certmix.runs.records import Records, pieces
from certmix.sampling.schedule import looks, share
from certmix.types import CertifiedAccuracy, FloatArray, IntArray
from certmix.verification.proofs.check_proof import CURVES, FORMULAS, NOISES
from certmix.verification.proofs.check_votes import LEVELS

FORMAT, VOTES_FORMAT = "certmix-proof 2", "certmix-votes-proof 1"
Claim = dict[str, Any]
Claims = tuple[list[Claim], list[list[Claim]]]
"""Of one input behind a gate: of the class's mean, or of its layers, and of the rivals' groups."""
Bounded = tuple[float, Any]
_KINDS: dict[str, ModuleType] = {
    "clopper-pearson": clopper_pearson,
    "clopper-pearson-two-sided": clopper_pearson,
    "beta-binomial": beta_binomial,
}


def noise_of(smoothing: Smoothing) -> dict[str, Any]:
    """Return what a proof says of the noise."""
    return {
        "noise": smoothing.kind, "scale": smoothing.scale, "norm": smoothing.norm,
        "dimension": smoothing.dimension or 1,
    }  # fmt: skip


INEQUALITIES = {
    "clopper-pearson": "P[Bin(n, m) >= k] < delta",
    "clopper-pearson-two-sided": "P[Bin(n, m) >= k] < delta",
    "beta-binomial": "B(k + 1/2, n - k + 1/2) / pi > m^k (1 - m)^(n - k) / delta, and m < k / n",
    "hoeffding": "m < a - sqrt(ln(1/delta) / (2 n))",
    "relative-entropy": "n kl(a, m) > ln(1/delta), and m < a",
    "bernstein": "m < a - sqrt(2 V ln(2/delta) / n) - 7 ln(2/delta) / (3 (n - 1))",
    "betting": "sum_j w_j prod_t (1 + b_j (x_t - m)) > 1 / delta, bounded from below; and m < a",
    "betting-fixed": "as betting, with weights around the bet that suits the selection samples",
    "layers": "as relative-entropy, of the mean of each layer clip(16 x - k, 0, 1)",
    "exact": "Phi(Phi^-1(p - eps) - t) - Phi(Phi^-1(q + eps) + t) > mu",
    "smoothing": "Phi(Phi^-1((p - eps) / (1 + mu)) - 2 t) > (q + eps + mu) / (1 + mu)",
    "lipschitz": "p - q - 2 eps - mu > t sqrt(2 / pi)",
    "lipschitz-paper": "p - q - 2 eps - mu > t sqrt(8 / pi)",
    "laplace": "F(F^-1(p - eps) - t) - 1 + F(F^-1(1 - q - eps) - t) > mu, F the law of Laplace noise",
    "slope": "p - q - 2 eps - mu > t s, s the slope, the sum of two Lipschitz constants",
    "box": "p - q - 2 eps - mu > 2 (1 - (1 - t / 2)^D)",
    "subsets": "p - q - mu > 2 (1 - C(D - t, k) / C(D, k))",
    **{
        f"{name}, layers": f"L(t) - min(max_i U_i(t), 1 - L(t) + 2^-20) > mu, of layers moved as in {name}"
        for name in CURVES
    },
    "constant of logits": "ln((1 - mu) / (max_j o_j + mu sum_j o_j)) > sqrt(2) t, o_j = exp(z_j - z_y)",
    "constant of each-logit": "ln((1 - mu) / (max_j o_j + mu sum_j o_j)) > 2 t, o_j = exp(z_j - z_y)",
    "constant of probabilities": "(1 - max_j o_j) / (1 + sum_j o_j) - mu > 2 t, o_j = exp(z_j - z_y)",
}
"""What is decided, by the name of a bound or certificate: m lies below the mean a of n values x_t, or
1 - m above it; and the margin exceeds mu = (1 - alpha) / alpha (+ 2^-22) at distance sigma t."""


def proof_of(
    request: Request,
    classes: int,
    found: Outcomes,
    tables: Sequence[CertifiedAccuracy],
    numbers: Evaluation | FloatArray | IntArray | None,
) -> dict[str, Any]:
    """Return the proof of a table as plain data for JSON, see docs/proof.md.

    Parameters
    ----------
    request, classes
        Of the run.
    found, tables
        Classes and radii of the inputs, and the table's rows.
    numbers
        What they rest on: the evaluation of a sampled run, the answers (m, n) to all cases, or the logits
        (m, c) of a given constant; None of propagated margins, of which there is none.

    ParameterError if a bound or certificate has no inequality that could be decided.
    """
    if numbers is None:
        raise ParameterError(
            "certificate margin is proved by bound propagation, which certmix verify does again: "
            "runs of other certificates have a file"
        )
    radii = np.stack([each.radius for each in found.radii]).T.tolist()
    common = zip(found.indices.tolist(), found.labels.tolist(), radii, strict=True)
    inputs = [{"index": index, "label": label, "radii": own} for index, label, own in common]
    about, formulas = dict[str, Any](), dict[str, str]()
    if isinstance(request, Enumerated):
        assert isinstance(numbers, np.ndarray)
        seen = zip(inputs, found.robust.tolist(), numbers.tolist(), strict=True)
        votes = {
            "format": VOTES_FORMAT, "noise": request.noise, "scale": request.scale,
            "columns": numbers.shape[1] if request.noise == "bands" else None,
            "level": round(request.gate * LEVELS), "rows": _rows(request, tables, len(inputs)),
            "inputs": [one | {"selected": own, "answers": answers} for one, own, answers in seen],
        }  # fmt: skip
        return votes | {"digest": digest_of(votes)}
    if isinstance(request, CertifyRequest):
        assert isinstance(numbers, Evaluation)
        smoothing = request.smoothing
        about = noise_of(smoothing)
        if smoothing.sigma is None:
            formulas = {"exact": NOISES[smoothing.kind][smoothing.curve], "lipschitz": "slope"}
        delta, shares = request.of_one_input, _shares(request)
        views = list(numbers.views)
        layered = ", layers" if BOUNDS[request.bound].distribution else ""
        rests_on: Iterable[Claim] = _inputs(numbers, request)
        names = {*map(request.bound_at, request.gates)}
    else:
        assert isinstance(numbers, np.ndarray)
        assert not isinstance(request, Margin)
        over, under = request.given[0].as_integer_ratio()
        about, delta, shares, views = {"sigma": f"{under}/{over}"}, 1.0, {}, [0.0]
        rests_on, names, layered = (
            _of_logits(np.asarray(numbers, np.float64)),
            set(),
            f"constant of {request.given[1]}",
        )
    rows = _rows(request, tables, len(inputs))
    for row, of in zip(rows, request.rows(), strict=True):
        name, row["view"] = of.certificate, views.index(of.gate)
        row["certificate"] = formulas.get(name, name) + layered if names else layered
    names |= {str(row["certificate"]) for row in rows}
    for name in names:
        if name not in INEQUALITIES and _formula(name) is None:
            raise ParameterError(f"{name} has no formula= by which it could be proved (docs/extending.md)")
    proof = {
        "format": FORMAT, "failure_probability": delta, "classes": classes, "shares": shares,
        "inequalities": {name: INEQUALITIES.get(name, "an added one") for name in sorted(names)},
        **about, "rows": rows, "inputs": [one | more for one, more in zip(inputs, rests_on, strict=True)],
    }  # fmt: skip
    return proof | {"digest": digest_of(proof)}


def _rows(request: Request, tables: Sequence[CertifiedAccuracy], inputs: int) -> list[dict[str, Any]]:
    return [
        {
            "classifier": row.classifier, "alpha": row.alpha, "certificate": row.certificate,
            "columns": list(request.radii),
            "certified": [round(part * inputs) for part in table.certified_accuracy],
        }
        for row, table in zip(request.rows(), tables, strict=True)
    ]  # fmt: skip


def formulas_of(proof: dict[str, Any]) -> dict[str, Any]:
    """Return by name the formulas that decide a proof: the script's, and those of added bounds."""
    return FORMULAS | {name: _formula(name) for name in proof["inequalities"] if name not in INEQUALITIES}


def _formula(name: str) -> Any:
    add = BOUNDS.get(name) or CERTIFICATES.get(name)
    return None if add is None else add.formula


def _of_logits(logits: FloatArray) -> Iterator[Claim]:
    for z in logits.tolist():
        y = z.index(max(z))
        view = {"gate": 0.0, "selected": y, "own": [], "rivals": [], "logits": [z.pop(y), *z]}
        yield {"noise_error": 0.0, "lost": 0.0, "views": [view]}


def _inputs(found: Evaluation, request: CertifyRequest) -> Iterator[Claim]:
    records = Records.of(found.records)
    claimed = [(gate, view, _claims(records, request, gate, view)) for gate, view in found.views.items()]
    about = zip(records.noise_error.tolist(), records.lost.tolist(), strict=True)
    for k, (error, lost) in enumerate(about):
        yield {
            "checksum": records.checksum_of(k), "noise_error": error, "lost": lost,
            "views": [
                {"gate": gate, "selected": int(view.selected[k]), "own": of[k][0], "rivals": of[k][1]}
                for gate, view, of in claimed
            ],
        }  # fmt: skip


def _shares(request: CertifyRequest) -> dict[str, float]:
    """What part of the failure probability each look may spend; ``any`` is of bounds at all looks at once."""
    if request.goal == "fixed":
        return {str(request.samples): 1.0}
    if BOUNDS[request.bound].time_uniform:
        return {"any": 1.0}
    return {str(n): share(k) for k, n in enumerate(looks(request.samples))}


def _claims(records: Records, request: CertifyRequest, gate: float, view: View) -> list[Claims]:
    """What inputs' bounds rest on behind a gate: the best of their looks, of the class and of its rivals."""
    name, behind, fixed = request.bound_at(gate), records.behind(gate), request.goal == "fixed"
    bound, hard = BOUNDS[name], request.scores == "hard"
    last = np.zeros(len(records), np.int64) if view.standing is None else view.standing.look
    about: Claim = {"bound": name, "samples": 0, "votes": 0}  # nothing was seen
    own: list[Bounded] = [(0.0, [about | {"at": 0.0}])] * len(records)
    rivals: list[Bounded] = [(1.0, [])] * len(records)
    for number, n in enumerate([request.samples] if fixed else looks(request.samples)):
        if (look := (behind.votes if hard else behind.scores).get(n)) is None:
            break
        about = {"bound": name, "samples": n}
        delta = request.of_one_input * (1.0 if fixed or bound.time_uniform else share(number))
        for part in pieces(look.rows[last[look.rows] >= number], records.selection.shape[1]):
            seen, selected = look.of(part), behind.selected[part]
            found = _of_votes(seen, selected, delta, about, gate) if hard else _of_scores(seen, delta, about)
            for row, first, others in zip(part.tolist(), *zip(*found, strict=True), strict=True):
                own[row] = max(own[row], first, key=_bound_of)
                rivals[row] = min(rivals[row], others, key=_bound_of)
    return [(first[1], others[1]) for first, others in zip(own, rivals, strict=True)]


def _bound_of(found: Bounded) -> float:
    return found[0]


def _of_votes(
    counts: IntArray, selected: IntArray, delta: float, about: Claim, gate: float
) -> Iterator[tuple[Bounded, Bounded]]:
    """Yield p, q and their claims from votes (k, c), or (k, c + 1) behind a gate."""
    bound, n, rows = BOUNDS[about["bound"]], about["samples"], np.arange(len(counts))
    kind, chosen, others = _KINDS.get(bound.name), selected >= 0, np.array(counts[:, :-1] if gate else counts)
    own = np.where(chosen, others[rows, selected], 0)
    others[rows[chosen], selected[chosen]] = -1
    against = n - others.max(1)
    if kind is not None:
        one, each = len(bound.parts) == 1, delta / len(bound.parts)
        lower, upper = kind.lower_bound(own, n, each), kind.upper_bound(n - against, n, each)
        alone = np.full(len(rows), one)
    else:  # somebody's own: what it issues, each at half, or p alone
        compute = bound.behind_gate if gate else bound.compute
        assert compute is not None
        lower, upper = compute(counts, np.maximum(selected, 0), delta)
        lower, upper = np.where(chosen, lower, 0.0), np.where(chosen, upper, 1.0)
        alone = upper >= 1.0 - lower
    columns = (own, lower, against, upper, alone)
    for k, p, rest, q, by_itself in zip(*(part.tolist() for part in columns), strict=True):
        first = p, [about | {"votes": k, "at": p}]
        yield first, (1.0, []) if by_itself else (q, [[about | {"votes": rest, "at": q}]])


def _of_scores(
    inputs: Sequence[ScoreStatistics], delta: float, about: Claim
) -> Iterator[tuple[Bounded, Bounded]]:
    """Yield p, q and their claims from soft scores; of layers, which have no p and q, 1 and 0."""
    bound = BOUNDS[about["bound"]]
    for input in inputs:
        if bound.distribution:
            yield _of_layers(input, bound_layers([input], delta), about)
            continue
        lower, of_mean = (bound.compute.keywords[key] for key in ("lower", "of_mean"))
        p, least = lower(own_values(input), delta / 2, 1.0), 1.0
        rivals = sorted(input.others().tolist(), key=lambda i: -int(input.totals[i]))[
            : 1 if of_mean else None
        ]
        for rival in rivals:
            least = min(least, lower(rival_values(input, rival), delta / 2, least))
        against = [[seen_of(input, rival, about) | {"at": 1.0 - least}] for rival in rivals]
        yield (p, [seen_of(input, input.selected, about) | {"at": p}]), (1.0 - least, against)


def seen_of(input: ScoreStatistics, label: int, about: Claim) -> Claim:
    """Return what is known of the selected class's scores, or of 1 less a rival's, in whole steps."""
    n, total, square = input.samples, int(input.totals[label]), int(input.squares[label])
    followed, bins = [input.selected, *input.rivals], list[list[int]]()
    if label in followed:
        row = followed.index(label)
        count, excess = input.bin_counts[row].astype(np.int64), input.bin_excess[row].astype(np.int64)
        bins = [count.tolist(), excess.tolist()]
    if label != input.selected:
        total, square = n * SCALE - total, n * SCALE**2 - 2 * SCALE * total + square
        if bins:
            bins = [count[::-1].tolist(), (count * BIN_STEPS - excess)[::-1].tolist()]
    known: Claim = about | {"total": total, "square": square}
    if about["bound"] in ("betting", "betting-fixed"):
        tuned = about["bound"] == "betting-fixed"
        weights = betting.weights(n, int(input.deviations[label]) / SCALE if tuned else 0.0)
        known |= {"bins": bins, "weights": weights.tolist()}
    return known


def _of_layers(input: ScoreStatistics, found: LayerBounds, about: Claim) -> tuple[Bounded, Bounded]:
    """The claims of layers; all rest on one look, so that the values to choose by do not matter."""
    n, scale = input.samples, BIN_STEPS * (BINS // LAYERS)

    def claims(row: int, at: FloatArray) -> list[Claim]:
        totals = [round(mean * n * scale) for mean in layer_means(input, row, LAYERS).tolist()]
        totals = totals if row == 0 else [n * scale - total for total in totals]
        known = about | {"scale": scale}
        return [known | {"total": t, "at": x} for t, x in zip(totals, at.tolist(), strict=True)]

    rivals = [claims(1 + k, at) for k, at in enumerate(found.rival_upper[0])]
    if len(others := input.others(followed=False)):
        most = int(input.totals[others].max())
        rivals.append([about | {"total": n * SCALE - most, "at": float(found.rest_upper[0])}])
    return (1.0, claims(0, found.own_lower[0])), (0.0, rivals)
