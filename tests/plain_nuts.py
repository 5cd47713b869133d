"""MixedNUTS written out: the tests' oracle on logits (m, c)."""

import numpy as np
from scipy.special import erf


def softmax(z):
    odds = np.exp(z - np.max(z, -1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def layer_norm(z, top_k=None):
    """As published: unbiased variance of the k largest, plus 1e-8."""
    kept = np.sort(z, -1)[..., -(top_k or np.shape(z)[-1]) :]
    return (z - kept.mean(-1, keepdims=True)) / np.sqrt(kept.var(-1, ddof=1, keepdims=True) + 1e-8)


def transformed(z, s, p, c, top_k=None):
    """Equation 4, with GELU."""
    z = layer_norm(np.asarray(z, float), top_k) + c
    z = z * 0.5 * (1 + erf(z / np.sqrt(2)))
    return s * np.abs(z) ** p * np.sign(z)


def margins(z, labels=None):
    """Definition 2.1: probability of the label, or of the prediction, less the largest other."""
    shares = softmax(np.asarray(z, float))
    rows, labels = np.arange(len(shares)), shares.argmax(-1) if labels is None else labels
    own = shares[rows, labels].copy()
    shares[rows, labels] = -1.0
    return own - shares.max(-1)
