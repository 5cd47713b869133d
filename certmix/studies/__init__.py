"""Studies compose the stations: data, models, sampling, bounds, radii, records, report."""

STUDIES = (
    "attack", "mix-sweep", "compare-trust", "confidence", "lipschitz", "nuts-fit", "nuts-evaluate",
    "nuts-certified", "tune",
)  # fmt: skip
"""What can be shown again: the ``view`` of the module of that name makes the result of numbers."""
