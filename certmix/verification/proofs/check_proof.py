"""Check what `certmix verify RUN --proof FILE` wrote: ``python check_proof.py FILE``; see docs/proof.md."""

import hashlib
import json
import sys
from fractions import Fraction
from functools import cache, partial, reduce
from itertools import pairwise
from math import comb, isqrt
from typing import Any

from flint import arb, ctx, fmpq

SCALE, BINS, EVERY_LOOK = 65536, 64, ("beta-binomial", "betting")  # steps of scores, bins; time-uniform


@cache
def proved(formula: Any, seen: str, *numbers: Fraction) -> bool:  # above 0, for certain
    for bits in (64, 128, 256, 512, 1024, 2048, 4096):
        with ctx.workprec(bits):
            exact = [arb(fmpq(*x.as_integer_ratio())) for x in numbers]
            if (value := formula(json.loads(seen), *exact)) > 0 or value <= 0:
                return bool(value > 0)
    return False


def mean(e: Any) -> arb:
    return arb(fmpq(e["total"], e["samples"] * e.get("scale", SCALE)))


def binomial(e: Any, delta: arb, m: arb) -> arb:
    n, k = e["samples"], e["votes"]
    choose = (arb(n + 1).lgamma() - arb(k + 1).lgamma() - arb(n - k + 1).lgamma()).exp()
    total = term = choose * m**k * (1 - m) ** (n - k)
    for j in range(k, n):
        step = m / (1 - m) * (n - j) / (j + 1)  # it falls: what is left lies below a geometric series
        if j % 16 == 0 and step < 0.99 and term * 2.0**50 < total * (1 - step):
            return delta - total - arb(0).union(term * step / (1 - step))
        total += (term := term * step)
    return delta - total


def martingale(e: Any, delta: arb, m: arb) -> arb:
    n, k, half = e["samples"], e["votes"], arb(0.5)
    evidence = (half + k).lgamma() + (half + n - k).lgamma() - arb(n + 1).lgamma() - arb.pi().log()
    return (evidence - k * m.log() - (n - k) * (1 - m).log() + delta.log()).min(k - n * m)


def entropy(e: Any, delta: arb, m: arb) -> arb:
    a, n, all_ones = mean(e), e["samples"], e["total"] == e["samples"] * e.get("scale", SCALE)
    kl = a * (a / m).log() + (0 if all_ones else (1 - a) * ((1 - a) / (1 - m)).log())
    return (n * kl + delta.log()).min(a - m)


def bernstein(e: Any, delta: arb, m: arb) -> arb:
    n, log = e["samples"], (2 / delta).log()
    variance = arb(fmpq(n * e["square"] - e["total"] ** 2, n * (n - 1) * SCALE**2))
    return mean(e) - (2 * variance * log / n).sqrt() - 7 * log / (3 * (n - 1)) - m


def betting(e: Any, delta: arb, m: arb) -> arb:
    n, total, capital = e["samples"], arb(fmpq(e["total"], SCALE)), arb(0)
    second = arb(fmpq(e["square"], SCALE**2)) - 2 * m * total + n * m * m
    for j, weight in enumerate(e["weights"]):
        bet = (arb(2) ** (2 - arb(j) / 2)).min(arb(0.99) / m)
        log = bet * (total - n * m) + ((1 - bet * m).log() + bet * m) * second / (m * m)
        if e["bins"]:
            ends = [(1 + bet * (arb(fmpq(i, BINS)) - m)).log() for i in range(BINS + 1)]
            chords = zip(*e["bins"], pairwise(ends), strict=True)
            log = log.max(sum(c * low + (high - low) * fmpq(x * BINS, SCALE) for c, x, (low, high) in chords))
        capital += weight * log.exp()
    return ((capital / sum(map(arb, e["weights"]))).log() + delta.log()).min(mean(e) - m)


def moved(p: arb, t: arb) -> arb:  # F(F^-1(p) + t), F normal
    return ((2 * p).erfcinv() - t / arb(2).sqrt()).erfc() / 2 if p > 0 else arb(0)


CURVES: dict[str, Any] = {  # of p and t: the least that a mean p of values in [0, 1] becomes at distance t
    "exact": lambda _, p, t: moved(p, -t),
    "slope": lambda of, p, t: (p - t * fmpq(*of["slope"]) / 2).max(arb(0)),
    "laplace": lambda _, p, t: p / t.exp() if not p >= 0.5 else (
        1 / (4 * r) if (r := (1 - p) * t.exp()) > 0.5 else 1 - r),
    "box": lambda of, p, t: (p - 1 + (1 - t / 2).max(arb(0)) ** of["D"]).max(arb(0)),
    "subsets": lambda of, p, t: (p - 1 + arb(
        fmpq(comb(of["D"] - int(t.unique_fmpz()), of["k"]), comb(of["D"], of["k"])))).max(arb(0)),
}  # fmt: skip


def layers(least: Any, of: Any, mu: arb, t: arb, *means: arb) -> arb:
    ends = pairwise(sum(of["groups"][:k]) for k in range(len(of["groups"]) + 1))
    moves = [lambda p: least(of, p, t), lambda p: 1 - least(of, 1 - p, t)]  # down, up
    own, *rivals = [sum(map(moves[a > 0], means[a:b]), arb(0)) / (b - a) for a, b in ends]
    return own - reduce(arb.max, rivals).min(1 - own + arb(2) ** -20) - mu


def constant(of: str, _: Any, mu: arb, t: arb, *z: arb) -> arb:
    most, every = reduce(arb.max, odds := [(x - z[0]).exp() for x in z[1:]]), sum(odds)
    logits = ((1 - mu) / (most + mu * every)).log() - (arb(2).sqrt() if of == "logits" else 2) * t
    return (1 - most) / (1 + every) - mu - 2 * t if of == "probabilities" else logits


FORMULAS: dict[str, Any] = {  # above 0: m < mean of e but for delta; margin > mu up to sigma t
    "clopper-pearson": binomial, "clopper-pearson-two-sided": binomial, "beta-binomial": martingale,
    "betting": betting, "betting-fixed": betting, "bernstein": bernstein, "relative-entropy": entropy,
    "layers": entropy, "hoeffding": lambda e, d, m: mean(e) - (-d.log() / (2 * e["samples"])).sqrt() - m,
    "exact": lambda _, mu, t, p, q: moved(p, -t) - moved(q, t) - mu,
    "smoothing": lambda _, mu, t, p, q: moved(p / (1 + mu), -2 * t) - (q + mu) / (1 + mu),
    "lipschitz": lambda _, mu, t, p, q: p - q - mu - t * (2 / arb.pi()).sqrt(),
    "lipschitz-paper": lambda _, mu, t, p, q: p - q - mu - t * (8 / arb.pi()).sqrt(),
    "slope": lambda of, mu, t, p, q: p - q - mu - t * fmpq(*of["slope"]),
    **{name: lambda of, mu, t, p, q, least=CURVES[name]: least(of, p, t) - 1 + least(of, 1 - q, t) - mu
       for name in ("laplace", "box", "subsets")},
    **{f"{name}, layers": partial(layers, least) for name, least in CURVES.items()},
    **{f"constant of {of}": partial(constant, of) for of in ("logits", "each-logit", "probabilities")},
}  # fmt: skip


NOISES: dict[str, Any] = {  # formulas of exact certificates by the norm of their radii, the noise's own first
    "gaussian": {"l2": "exact"}, "laplace": {"l1": "laplace"},
    "uniform": {"l1": "slope", "linf": "box"}, "ablation": {"l0": "subsets"},
}  # fmt: skip
THEOREMS = {"gaussian": {"smoothing", "lipschitz", "lipschitz-paper"}}  # of other noise: a slope
POWERS = {("l2", "l1"): 0, ("l1", "l2"): 1, ("l2", "linf"): 1, ("l1", "linf"): 2}  # of D, in the stretch


def noise_of(proof: Any) -> Any:  # exact formula, the numbers it takes, unit, root of the stretch or more
    noise, norm, d, scale = proof["noise"], proof["norm"], proof["dimension"], Fraction(proof["scale"])
    curve, whole = norm if norm in NOISES[noise] else next(iter(NOISES[noise])), noise == "ablation"
    stretch, k = 1 if norm == curve else d ** POWERS[curve, norm], int(scale) if whole else 0
    of = {"D": d, "k": k, "slope": [2 * k, d] if whole else [d if curve == "linf" else 1, 1]}
    root = Fraction(isqrt((stretch << 200) - 1) + 1, 1 << 100)
    return NOISES[noise][curve], of, Fraction(1) if whole else scale, root


def impossible(proof: Any) -> Any:  # what no run could hold
    ranges: Any = [(row["alpha"], 0.5, 1) for row in proof["rows"]]
    ranges += [(Fraction(x), 0, 1) for x in (proof["failure_probability"], *proof["shares"].values())]
    if "noise" in proof:
        ranges += [(proof["scale"], 2.0**-80, 2.0**80), (proof["dimension"], 1, 2**40)]
    for one in proof["inputs"]:
        ranges += [(one["noise_error"], 0, 1), (one["lost"], 0, sys.float_info.max)]
        for e in (e for view in one["views"] for group in (view["own"], *view["rivals"]) for e in group):
            most, n = e["samples"] * e.get("scale", SCALE), e["samples"]
            ranges += [
                (e["at"], 0, 1),
                (n, 0, 2**53),
                (e.get("votes", 0), 0, n),
                (e.get("total", 0), 0, most),
            ]
            ranges += [(weight, 0, 2.0**80) for weight in e.get("weights", [])]
    return next((f"{x} is not from {a} to {b}" for x, a, b in ranges if not a <= x <= b), "")


def fails(proof: Any, formulas: Any = FORMULAS, most: float = sys.float_info.max) -> Any:  # index, what
    kept = json.dumps({name: part for name, part in proof.items() if name != "digest"}, sort_keys=True)
    if hashlib.sha256(kept.encode()).hexdigest() != proof["digest"]:
        yield None, "the file was changed"
    if wrong := impossible(proof):
        yield None, wrong
        return
    plain = "noise" not in proof  # of a constant, sigma is its inverse
    exact, of, sigma, root = ("", {}, Fraction(proof["sigma"]), 1) if plain else noise_of(proof)
    usual = {exact, f"{exact}, layers", *THEOREMS.get(proof.get("noise"), {"slope"})}
    budget = Fraction(proof["failure_probability"])
    shares = {samples: Fraction(share) for samples, share in proof["shares"].items()}
    if sum(shares.values()) > 1:
        yield None, "looks may spend more than the failure probability"
    counts = [[0] * len(row["columns"]) for row in proof["rows"]]
    for name in {row["certificate"] for row in proof["rows"]} & FORMULAS.keys():
        if not (name in usual if exact else name.startswith("constant of ")):
            yield None, f"{name} is no certificate of {proof.get('noise', 'a constant')}"
    for one in proof["inputs"]:
        eps, on = Fraction(one["noise_error"]), []
        for view in one["views"]:
            groups = [view["own"], *view["rivals"]]
            among = min(2, len(groups)) * (max(1, len(groups) - 1) if len(groups[0]) > 1 else 1)
            for e, k in ((e, k) for k, group in enumerate(groups) for e in group):
                at, parts = Fraction(e["at"]), len(groups[k]) * (among if k else min(2, len(groups)))
                look = "any" if "any" in shares and e["bound"] in EVERY_LOOK else str(e["samples"])
                below, delta = abs((k > 0) - at), budget * shares.get(look, Fraction(0)) / parts
                if below and not (delta and proved(formulas[e["bound"]], json.dumps(e), delta, below)):
                    yield one["index"], f"{e['at']} is not proved by {e}"
            p, *q = [[Fraction(e["at"]) for e in group] for group in groups]
            if len(p) == 1:  # of means: one rival of all is the true runner-up, and a sum of 1 says more
                off, top = Fraction("total" in groups[0][0], 2**20), max([x for (x,) in q] or [Fraction(1)])
                p = [max(p[0], Fraction(0) if view["gate"] else 1 - (proof["classes"] - 1) * top - off)]
                q = [[min(top, 1 - p[0] + off)]]
            means = [*(at - eps for at in p), *(at + eps for group in q for at in group)]
            sizes = json.dumps(of | {"groups": [len(p), *map(len, q)]})
            on.append((sizes, means or [*map(Fraction, view["logits"])]))
        for row, radius, count in zip(proof["rows"], one["radii"], counts, strict=True):
            alpha, t = Fraction(row["alpha"]), Fraction(min(most, radius)) * root + Fraction(one["lost"])
            mu, (sizes, means) = 1 / alpha - 1 + Fraction(alpha < 1, 2**22), on[row["view"]]
            seen = formulas[row["certificate"]], sizes, mu, t / sigma, *means
            if radius and not (radius <= most and proved(*seen)):
                yield one["index"], f"radius {radius} of {row['certificate']}, alpha {row['alpha']}"
            if radius and one["views"][row["view"]]["selected"] == one["label"]:
                count[:] = [n + (radius >= column) for n, column in zip(count, row["columns"], strict=True)]
    differ = (pair for pair in zip(proof["rows"], counts, strict=True) if pair[0]["certified"] != pair[1])
    yield from ((None, f"{row['classifier']}, {row['certificate']}: certifies {n}") for row, n in differ)


if __name__ == "__main__":
    sys.exit("\n".join(f"{i}: {x}" for i, x in fails(json.load(open(sys.argv[1], "rb")))) or print("proved"))  # noqa: SIM115
