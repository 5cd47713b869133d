"""Studies compose the stations: data, models, sampling, bounds, radii, records, report."""

from typing import Any

STUDIES = (
    "attack", "mix-sweep", "compare-trust", "confidence", "lipschitz", "nuts-fit", "nuts-evaluate",
    "nuts-certified", "tune",
)  # fmt: skip
"""What can be shown again: the ``view`` of the module of that name makes the result of numbers."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "attack": {},
    "mix-sweep": {"steps": 20},
    "compare-trust": {"steps": 10},
    "confidence": {"steps": 20, "inputs": 200},
    "lipschitz": {"steps": 20, "inputs": 20, "restarts": 2},
    "nuts-fit": {"steps": 50, "inputs": 200},
    "nuts-evaluate": {"steps": 20},
}
"""What a study has by default, where that is not the default of `AttackRequest` itself."""
