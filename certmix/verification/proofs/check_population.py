"""Check a claim that `certmix verify RUN --proof FILE` wrote: ``python check_population.py FILE``.

It needs check_proof.py beside it, or certmix; docs/population.md says what it proves.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

from flint import arb, arb_poly, ctx, fmpq

try:
    from certmix.verification.proofs.check_proof import FORMULAS, noise_of
except ImportError:
    from check_proof import FORMULAS, noise_of  # type: ignore[no-redef]

BETS, RISKED, STEPS = 14, Fraction(99, 100), 1024
BITS = 64, 128, 256, 512, 1024
LIMITS = {
    "alpha": (0.5, 1), "radius": (0, sys.float_info.max), "scale": (2.0**-80, 2.0**80), "eps": (0, 1),
    "dimension": (1, 2**40), "failure_probability": (0, 1), "lower_bound": (0, 1),
}  # fmt: skip


def ball(x: Any) -> arb:
    return arb(fmpq(*Fraction(x).as_integer_ratio()))


def margin(proof: Any, rule: Any) -> arb:
    """Above 0: inputs of probability p - eps or more are certified at the radius."""
    alpha, p = Fraction(proof["alpha"]), ball(Fraction(rule["p"]) - Fraction(proof["eps"]))
    exact, of, unit, root = noise_of(proof)
    t = ball(Fraction(proof["radius"]) * root / unit + Fraction(rule["steps"], STEPS))
    mu = ball(1 / alpha - 1 + Fraction(alpha < 1, 2**22))
    found: arb = FORMULAS[exact](of, mu, t, p, 1 - p)
    return found


def balances(rule: Any) -> Iterator[arb]:
    """Not below 0: at probability p, and so at lower ones, the score at a look has a mean of at most 0."""
    p, law, before = ball(rule["p"]), arb_poly([1]), 0
    for n, stop, band, accept, cost in rule["looks"]:
        law, before = law * arb_poly([1 - p, p]) ** (n - before), n
        chances = [law[k] for k in range(n + 1)]
        yield ball(cost) * sum(chances[band:accept], arb(0)) - sum(chances[accept:], arb(0))
        law = arb_poly([chance if stop <= k < accept else arb(0) for k, chance in enumerate(chances)])


def score(looks: Any, votes: Any) -> Fraction:
    """The score of votes at each look; ValueError if they cannot have come about."""
    total = Fraction(0)
    for number, ((n, stop, band, accept, cost), k) in enumerate(zip(looks, votes, strict=False)):
        before = (looks[number - 1][0], votes[number - 1]) if number else (0, 0)
        if not 0 <= k - before[1] <= n - before[0]:
            raise ValueError("votes that cannot be")
        total += 1 if k >= accept else -Fraction(cost) if k >= band else 0
        if ended := number + 1 == len(looks) or not stop <= k < accept:
            break
    if not ended or len(votes) != number + 1:
        raise ValueError("looks that are lacking, or too many")
    return total


def capital(proof: Any, scores: Any) -> arb:
    """Above 0: the bets have won enough to refute the share that is claimed, and every smaller one."""
    m, logs = Fraction(proof["lower_bound"]), []
    for j in range(BETS):
        total = arb(0)
        for rule, counts in zip(proof["rules"], scores, strict=True):
            lowest = sum((Fraction(look[4]) for look in rule["looks"]), Fraction(0))
            bet = (arb(2) ** (-arb(j) / 2)).min(ball(RISKED / (m + lowest)))
            total += sum((n * (1 + bet * ball(x - m)).log() for x, n in counts.items()), arb(0))
        logs.append(total.exp())
    return sum(logs, arb(0)) * ball(proof["failure_probability"]) / BETS - 1


def certain(values: Any) -> bool:
    """Whether all balls of a function without arguments lie at or above 0, at some precision."""
    for bits in BITS:
        with ctx.workprec(bits):
            found = list(values())
            if all(x >= 0 for x in found):
                return True
            if any(x < 0 for x in found):
                return False
    return False


def fails(proof: Any) -> Iterator[str]:
    """Yield what is wrong with a proof."""
    kept = json.dumps({name: part for name, part in proof.items() if name != "digest"}, sort_keys=True)
    if hashlib.sha256(kept.encode()).hexdigest() != proof["digest"]:
        yield "the file was changed"
    for name, (least, most) in LIMITS.items():
        if not least <= proof[name] <= most:
            yield f"{name} = {proof[name]} is not from {least} to {most}"
            return
    scores: list[dict[Fraction, int]] = [{} for _ in proof["rules"]]
    for number, rule in enumerate(proof["rules"]):
        accepts = any(accept <= n for n, _, _, accept, _ in rule["looks"])
        can_be = 0 <= rule["p"] <= 1 and rule["steps"] >= 0
        if not can_be or (accepts and not certain(lambda rule=rule: [margin(proof, rule)])):
            yield f"p = {rule['p']} is not certified at the radius (rule {number})"
        rising = all(a[0] < b[0] for a, b in pairwise([(0,), *rule["looks"]]))
        ordered = all(
            0 <= stop < accept and 0 <= band <= accept for _, stop, band, accept, _ in rule["looks"]
        )
        if not (rising and ordered and min(look[4] for look in rule["looks"]) >= 0):
            yield f"its looks are none (rule {number})"
        elif not certain(lambda rule=rule: balances(rule)):
            yield f"at p = {rule['p']} a score may have a mean above 0 (rule {number})"
    for number, (of, *votes) in enumerate(proof["draws"]):
        try:
            found = score(proof["rules"][of]["looks"], votes)
            scores[of][found] = scores[of].get(found, 0) + 1
        except ValueError as error:
            yield f"draw {number} has {error}"
    if proof["lower_bound"] > 0 and not certain(lambda: [capital(proof, scores)]):
        yield f"a share of {proof['lower_bound']} is not proved by the scores"


if __name__ == "__main__":
    faults = list(fails(json.load(open(sys.argv[1], "rb"))))  # noqa: SIM115
    sys.exit("\n".join(faults) or print("proved"))
