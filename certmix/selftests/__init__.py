"""The papers' guarantees held against the installed package: the property tests that `certmix selftest` runs.

Ordinary pytest modules, one a suite; ``pytest --pyargs certmix.selftests`` runs them as well.
"""

from __future__ import annotations

__all__ = ["SUITES"]

SUITES = {
    "arithmetic": "float64 and its libraries are what all proofs of rounding count on",
    "margin-lemma": "Lemma 3.2: a margin of (1 - alpha) / alpha decides, whatever g says",
    "lipschitz": "Theorem 3.5: radii from Lipschitz constants",
    "radii": "every certificate: sound against half-spaces, ordered, rounded down",
    "votes": "bounds of votes, once and at repeated looks: coverage by enumeration",
    "scores": "bounds of mean scores and of layers: coverage by enumeration",
    "propagation": "bounds propagated through networks: nothing in the ball falls below",
    "sampling": "noise and votes: true probabilities lie within their bounds",
}
"""Suites by name, and what each shows; ``votes`` is the module ``test_votes``."""
