"""What is said before sampling, checked against what sampling could give."""

from __future__ import annotations

from certmix.certification.evaluate import ceilings, expectations, reading_notes
from certmix.certification.request import CertifyRequest


def test_the_number_of_samples_named_is_enough_and_not_far_from_least():
    few = CertifyRequest(0.5, 0.55, samples=30, goal="fixed")
    (warning, *_) = [w for w in expectations(few, 10) if w.startswith("mixed, exact")]
    enough = int(warning.split("about ")[1].split()[0])
    reach = {
        n: ceilings(CertifyRequest(0.5, 0.55, samples=n, goal="fixed"), 10) for n in (enough, enough // 2)
    }
    assert reach[enough][1][2] > 0
    assert reach[enough // 2][1][2] == 0


def test_columns_out_of_reach_are_named():
    notes = reading_notes(CertifyRequest(0.5, 0.76, samples=1000, goal="fixed"), 10)
    assert any(
        note.startswith("mixed, exact: 1,000 samples an image can certify at most radius 1.02")
        for note in notes
    )
    assert not reading_notes(CertifyRequest(0.5, 0.76, samples=1000, goal="fixed", radii=(0.0, 0.25)), 10)


def test_nothing_is_said_when_there_is_nothing_to_say():
    assert expectations(CertifyRequest(0.5, 0.76), 10) == []
