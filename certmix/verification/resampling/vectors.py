"""Computing the published radii of a run without samples again, from fresh logits or by propagation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from certmix.calling import call_model
from certmix.certification.deterministic_request import DeterministicRequest, GivenConstant, Margin
from certmix.margins.propagation import margin_lower
from certmix.types import FloatArray
from certmix.verification.checks import CheckResult
from certmix.verification.plain.radii import constant_radius, slack_of
from certmix.verification.rederivation.published import Published, read_published
from certmix.verification.rederivation.sources import Faults, judged, unchecked
from certmix.verification.rederivation.stored import StoredVectors, read_vectors
from certmix.verification.rederivation.vector_claims import RadiiRow, match_claim, read_radii
from certmix.verification.rederivation.vectors import vector_request
from certmix.verification.rederivation.vectors_figures import standard_checksums
from certmix.verification.resampling.choice import choose_images
from certmix.verification.resampling.draws import Again

__all__ = ["resample_vectors"]

CLOSE = 1e-4
"""Difference of logits, relative to the largest, that another device or batch may explain."""

CHECKS = ("radii again",)


def resample_vectors(again: Again) -> list[CheckResult]:
    """Return the checks of a run without samples: every published radius of the images chosen, again."""
    run = read_vectors(again.run)
    request = vector_request(run)
    chosen, lacking = choose_images(again, dict.fromkeys(run.cells.get("robust logits", {}), 1.0))
    if not chosen:
        return [unchecked(CHECKS[0], lacking)]
    return [_radii_again(again, run, request, dict(list(chosen.items())[: again.images]))]


def _logits(again: Again, position: int) -> FloatArray:
    dataset, model = again.reloaded.dataset, again.reloaded.models["robust"]
    assert dataset is not None
    assert model is not None
    with torch.inference_mode():
        inputs = torch.from_numpy(dataset.read(position))[None].to(again.device)
        found: FloatArray = call_model(model.module, inputs, model.name).double().cpu().numpy()[0]
    return found


def _radii_again(
    again: Again, run: StoredVectors, request: DeterministicRequest, chosen: dict[int, int]
) -> CheckResult:
    """Every published radius of the chosen images must be verified, or follow from the fresh logits."""
    faults: Faults = []
    published = read_published(again.run)
    logits = {index: _logits(again, position) for index, position in chosen.items()}
    checksums = standard_checksums(run)
    for done, found in enumerate(published, 1):
        asked, _ = match_claim(found, request, checksums)
        rows = [row for row in read_radii(found.folder) if row.index in chosen]
        faults += _propagated(again, asked, rows, chosen) if asked.certificate == "margin" else (
            _computed(found, asked, rows, logits)
        )  # fmt: skip
        again.report(done, len(published))
    if not published:
        return unchecked(CHECKS[0], "nothing was published yet")
    how = "verified by bound propagation" if request.certificate == "margin" else "what fresh logits give"
    about = f"of {len(chosen)} images in {len(published)} tables, chosen by seed {again.new_seed}"
    return judged(CHECKS[0], faults, f"all radii {about}, are {how}")


def _computed(
    found: Published, request: GivenConstant, rows: list[RadiiRow], logits: Mapping[int, FloatArray]
) -> Faults:
    """Radii from fresh logits; rounding of logits moves them by as much as a difference of two logits."""
    constant, what = request.given
    faults: Faults = []
    for row in rows:
        z = logits[row.index]
        slack = 4 * CLOSE * (1 + float(np.abs(z).max())) / constant
        for radius, alpha in zip(row.radii, request.weights(), strict=True):
            plain = constant_radius(z, alpha, constant, what, slack_of(alpha))
            if abs(radius - plain) > slack:
                text = f"image {row.index}, alpha {alpha:g}: radius {radius!r}, fresh logits give {plain!r}"
                faults.append((row.index, f"{text} (results/{found.name})"))
    return faults


def _propagated(again: Again, request: Margin, rows: list[RadiiRow], chosen: dict[int, int]) -> Faults:
    """Published radii that bound propagation does not verify."""
    dataset, model = again.reloaded.dataset, again.reloaded.models["robust"]
    assert dataset is not None
    assert model is not None
    faults: Faults = []
    for place, alpha in enumerate(request.weights()):
        claimed = [row for row in rows if row.radii[place] > 0]
        if not claimed:
            continue
        inputs = torch.from_numpy(np.stack([dataset.read(chosen[row.index]) for row in claimed]))
        margins = margin_lower(
            model.module, inputs, np.array([row.predict for row in claimed]), request.norm,
            np.array([row.radii[place] for row in claimed]), method=request.bound_method,
            input_range=dataset.input_range, chunk=10,
        )  # fmt: skip
        mu = (1 - alpha) / alpha + slack_of(alpha)
        for row, margin in zip(claimed, margins.tolist(), strict=True):
            if not (margin > 0 and margin >= mu * (1 - 1e-9)):
                text = f"radius {row.radii[place]!r} is not verified, the margin there is {margin:.6g}"
                faults.append((row.index, f"image {row.index}, alpha {alpha:g}: {text}"))
    return faults
