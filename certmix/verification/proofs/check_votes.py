"""Check what `certmix verify RUN --proof FILE` wrote of splitting or bands: ``python check_votes.py FILE``.

docs/proof.md says what it proves.  Whole numbers and fractions to the end; it needs Python alone.
"""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

LEVELS = 20  # of an answer: 20 class + level, level / 20 at or below the largest probability


def least_margin(noise: str, votes: list[int], own: int, width: int, size: int) -> int:
    """The least n_y - n_i that a change of this size can leave, over all rivals i and all its places."""
    n, rivals = len(votes), {*votes, -2} - {own, -1}  # -1 abstains; -2 is a class without votes
    if noise == "splitting":  # of k levels in all: k votes at most
        return votes.count(own) - max(votes.count(rival) for rival in rivals) - 2 * size
    found = []
    for left in range(n - size + 1 if size else 1):
        met = {(column - k) % n for column in range(left, left + size) for k in range(width)}
        kept = Counter(vote for band, vote in enumerate(votes) if band not in met)
        found.append(kept[own] - max(kept[rival] for rival in rivals) - len(met))
    return min(found)


def size_of(noise: str, radius: float) -> int:
    """The largest size within a radius: columns of a patch, or levels, k / 255 being a float."""
    if not 0 <= radius < 2**30:
        return sys.maxsize
    return int(Fraction(radius) * (255 if noise == "splitting" else 1) + Fraction(1, 2**30))


def fails(proof: Any) -> Iterator[tuple[int | None, str]]:
    """Yield what is wrong with a proof: the index of the input, or None, and what."""
    kept = json.dumps({name: part for name, part in proof.items() if name != "digest"}, sort_keys=True)
    if hashlib.sha256(kept.encode()).hexdigest() != proof["digest"]:
        yield None, "the file was changed"
    noise, scale, level = proof["noise"], proof["scale"], proof["level"]
    if noise not in ("splitting", "bands") or not 0 <= level < LEVELS:
        yield None, f"no such votes: {noise}, level {level}"
        return
    counts = [[0] * len(row["columns"]) for row in proof["rows"]]
    for one in proof["inputs"]:
        n, own = len(one["answers"]), one["selected"]
        usual = max(1, round(510 * scale)) if noise == "splitting" else proof["columns"]
        width = 1 if noise == "splitting" else int(scale)
        if not (n and n == usual and min(one["answers"]) >= 0 and 1 <= width <= n and width in (1, scale)):
            yield one["index"], f"{n} answers are not those of {noise} at scale {scale}"
            continue
        votes = [answer // LEVELS if answer % LEVELS >= level else -1 for answer in one["answers"]]
        for row, radius, count in zip(proof["rows"], one["radii"], counts, strict=True):
            alpha, size = Fraction(repr(row["alpha"])), size_of(noise, radius)
            mu = 1 / alpha - 1 + Fraction(alpha < 1, 2**22)  # for the rounding of a mix in float64
            possible = own >= 0 and radius > 0 and size <= n and 0 < alpha <= 1
            if radius and not (possible and least_margin(noise, votes, own, width, size) > mu * n):
                yield one["index"], f"radius {radius} of {row['certificate']}, alpha {row['alpha']}"
            if radius and own == one["label"]:
                count[:] = [k + (radius >= column) for k, column in zip(count, row["columns"], strict=True)]
    for row, count in zip(proof["rows"], counts, strict=True):
        if row["certified"] != count:
            yield None, f"{row['classifier']}, {row['certificate']}: certifies {count}"


if __name__ == "__main__":
    faults = [f"{index}: {text}" for index, text in fails(json.load(open(sys.argv[1], "rb")))]  # noqa: SIM115
    sys.exit("\n".join(faults) or print("proved"))
