"""What is refused, how it is said, and the shapes that come back."""

import math

import numpy as np
import pytest

from certmix.errors import CertmixError, ParameterError
from certmix.radii import CERTIFICATES, certify_radii, lipschitz_radius
from certmix.types import ConfidenceBounds

NAMES = sorted(CERTIFICATES)
USUAL = {"p": 0.9, "q": 0.05, "sigma": 0.5, "alpha": 0.76}
NAN, INF = math.nan, math.inf


def bounds(p=0.9, q=0.05):
    return ConfidenceBounds(np.array([p]), np.array([q]), 0.001, "clopper-pearson", {"p": 0.001})


@pytest.mark.parametrize("change, told", [
    *(({"alpha": a}, ("alpha", str(a), "1/2 <= alpha <= 1")) for a in (0.4999999, 0.0, -1.0, 1.0000001, NAN, INF)),
    ({"alpha": 76.0}, ("alpha = 76.0", "did you mean 0.76?")),
    *(({"sigma": s}, ("sigma", str(s), "positive")) for s in (0.0, -0.25, NAN, INF)),
    *(({"sigma": s}, ("sigma", str(s), "other units")) for s in (1e308, 1.5e-323)),
    *(({"p": [0.8, p]}, ("p_lower", str(p), "[0, 1]")) for p in (NAN, 1.5, -0.1, INF)),
    *(({"q": [0.1, q]}, ("q_upper", str(q), "[0, 1]")) for q in (NAN, 1.5, -1e-9)),
])  # fmt: skip
@pytest.mark.parametrize("name", NAMES)
def test_values_out_of_range_are_refused_in_one_line(name, change, told):
    given = {**USUAL, **change}
    with pytest.raises(ParameterError) as caught:
        CERTIFICATES[name].radius(*given.values())
    text = str(caught.value)
    assert "\n" not in text and isinstance(caught.value, CertmixError)
    assert all(word in text for word in told), text
    p, q = (np.ravel(given[key])[-1] for key in "pq")
    with pytest.raises(ParameterError):  # what the certificates check, certify_radii checks
        certify_radii(bounds(p, q), sigma=given["sigma"], alpha=given["alpha"], certificate=name)


def test_unknown_certificate():
    with pytest.raises(ParameterError, match="exakt.*" + ".*".join(CERTIFICATES)):
        certify_radii(bounds(), sigma=0.5, alpha=0.76, certificate="exakt")


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_what_is_left_alone(name):
    rule = CERTIFICATES[name].radius
    assert rule([0.9, 0.8], [[0.05], [0.01], [0.0]], 0.5, 0.76).shape == (3, 2)
    assert rule([0.9, 0.8], 0.05, 0.5, 0.76).shape == (2,)
    assert rule([], [], 0.5, 0.76).shape == (0,)
    assert rule(np.ones((4, 2))[::2, ::-1] * 0.9, 0.05, 0.5, 0.76).dtype == np.float64
    assert np.shape(rule(0.9, 0.05, 0.5, 0.76)) == ()
    p, q = np.array([0.9, 0.4]), np.array([0.05, 0.6])
    for values in (p, q):
        values.setflags(write=False)
    rule(p, q, 0.5, 0.76)
    with pytest.raises(ValueError):
        rule([0.9, 0.8, 0.7], [0.1, 0.2], 0.5, 0.76)


def test_table_entries_describe_themselves():
    assert next(iter(CERTIFICATES)) == "exact"
    for name, rule in CERTIFICATES.items():
        assert (rule.name, rule.norm) == (name, "l2")
        assert rule.label and rule.meaning


@pytest.mark.parametrize("p, q, alpha, own, others, told", [
    *(([0.9], [[0.05]], alpha, 1.0, 1.0, "alpha") for alpha in (0.4, 1.1, NAN)),
    *(([p], [[0.05, q]], 0.76, 1.0, 1.0, "probabilities")
      for p, q in ((1.5, 0.1), (0.9, NAN), (NAN, 0.1), (0.9, -0.1))),
    *(([0.9], [[0.05, 0.02]], 0.75, own, others, f"Lipschitz constant {found}") for own, others, found in (
        (-1.0, 1.0, "-1.0"), (1.0, [1.0, -1e-9], "-1e-09"), (NAN, 1.0, "nan"), (1.0, [NAN, 1], "nan"),
    )),
    ([0.9], [[0.05, 0.02]], 0.75, 1.0, [1.0, 2.0, 3.0], "broadcast"),
    # never a radius computed from another input's rivals, or from memory beyond the array:
    ([0.9, 0.9, 0.9], [[0.05, 0.03]], 0.75, 1.0, 1.0, "give .m,."),  # one row of rivals for three inputs
    (0.9, [[0.05], [0.3], [0.01]], 0.75, 1.0, 1.0, "give .m,."),  # three rows for one
    ([0.9, 0.8], [0.05, 0.3, 0.01, 0.02], 0.75, 1.0, 1.0, "give .m,."),  # four columns or two inputs?
    ([0.9, 0.8], [0.05, 0.3, 0.01], 0.75, 1.0, 1.0, "give .m,."),
    ([0.9], np.zeros((1, 0)), 0.75, 1.0, 1.0, "give .m,."),  # nobody to beat
    ([0.9], np.zeros((1, 2, 2)), 0.75, 1.0, 1.0, "give .m,."),
])  # fmt: skip
def test_rows_and_constants_that_make_no_sense_are_refused(p, q, alpha, own, others, told):
    with pytest.raises(ValueError, match=told):  # ParameterError is one
        lipschitz_radius(p, q, alpha, own, others)


def test_one_rival_a_row_from_a_flat_array():
    flat = lipschitz_radius([0.9, 0.8], [0.05, 0.1], 0.75, 1.0, 1.0)
    np.testing.assert_array_equal(flat, lipschitz_radius([0.9, 0.8], [[0.05], [0.1]], 0.75, 1.0, 1.0))
