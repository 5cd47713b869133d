"""Is a model still the one that a run was made with?  Its parts, and its logits of a few fixed inputs.

A checksum does not cover whatever else a model reads: each run keeps its models' logits of some inputs, and
every command that loads a model for a stored run compares them first.  No torch, but to compute logits.
"""

from __future__ import annotations

import binascii
import json
import math
from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from certmix.data import spread, stack
from certmix.errors import ModelError, RunError, brief
from certmix.files import parse_json
from certmix.runs import Store, read_run
from certmix.sampling.devices import full_float32
from certmix.types import Dataset, FloatArray

if TYPE_CHECKING:
    import torch

    from certmix.models.spec import LoadedModel
    from certmix.runs.sources import Loaded

CLOSE = {"full": 1e-4, "half": 2e-2}
"""Share of the spread of its logits by which a model that computes in full or in half precision may differ
from itself on another device, in another batch or under another version of torch."""
INPUTS, COPIES, SEED = 4, 3, 20_240_301
"""Inputs of the data set whose logits are kept, noisy copies of each, and the seed of their noise alone."""
MOST_COMPARED = 1000
"""Inputs, evenly spread, of which a command that only goes on with a run computes stored answers again."""
REMEDY = "restore its files, or certify anew with another --output"
_ROUNDING = 2.0**-18
"""Of the largest logit: what is left of a difference of float32 numbers that nearly cancel."""
_LEAST = 1e-300


def logits_key(checksum: str, shown: bool = False) -> str:
    """Return the key of the logits of a model in a run's database, `shown` what a kind of smoothing shows."""
    return f"logits of {checksum}{', as shown' * shown}"


def key_of(model: LoadedModel) -> str:
    """Return the key of a loaded model's logits: g may be the same net as is shown cases of inputs."""
    return logits_key(model.checksum, bool(getattr(model.module, "shows", False)))


@full_float32()
def probe(
    model: LoadedModel, dataset: Dataset, device: torch.device | str, sigma: float | None = None
) -> str:
    """Return a model's logits of the fixed inputs as text for a run's database.

    Those are `INPUTS` of the data set, evenly spread, and `COPIES` noisy copies of each: of noise level
    `sigma`, or without one of 1/8, 1/4 and 1/2 of these inputs' range, clipped to it.  They are computed in
    full precision, without compilation, whatever the run's own arithmetic.
    """
    import torch

    from certmix.calling import call_model

    clean = stack(dataset, spread(len(dataset), INPUTS).tolist()).astype(np.float32)
    noise = np.random.default_rng(SEED).standard_normal((COPIES, *clean.shape), np.float32)
    if sigma is not None:
        unit = np.float32(1) if dataset.scale is None else dataset.scale.astype(np.float32)
        copies = clean + np.float32(sigma) * unit * noise
    else:
        low, high = clean.min(), clean.max()  # as they are: the declared range may be another each time
        low, high = (low, high) if low < high else (low - 0.5, high + 0.5)
        levels = ((float(high) - float(low)) * np.array([0.125, 0.25, 0.5])).astype(np.float32)
        copies = np.clip(clean + levels.reshape(-1, *[1] * clean.ndim) * noise, low, high)
    inputs = torch.from_numpy(np.concatenate([clean, *copies]).astype(np.float32)).to(device)
    with torch.inference_mode():
        logits = call_model(model.module, inputs, model.name)
    raw = np.ascontiguousarray(logits.float().cpu().numpy(), "<f4").tobytes()
    precision = "half" if _is_half(model, logits) else "full"
    shown = {"classes": logits.shape[1], "sigma": sigma, "precision": precision}
    return json.dumps({**shown, "logits": b64encode(raw).decode()})


def parse(text: str) -> tuple[FloatArray, dict[str, Any]]:
    """Return the logits (m, c) of a text of `probe`, and what they were computed with; RunError."""
    try:
        told = parse_json(text.encode())
        logits = np.frombuffer(b64decode(told["logits"], validate=True), "<f4").reshape(-1, told["classes"])
        sigma = told["sigma"]
        if told["precision"] not in CLOSE or not (sigma is None or 0 < sigma < math.inf) or not logits.size:
            raise ValueError("a value out of range")
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        found = brief(error, 80)
        raise RunError(f"the stored logits of a model are damaged ({found}): restore the run") from None
    return logits.astype(np.float64), told


def like(stored: str, model: LoadedModel, dataset: Dataset, device: torch.device | str) -> str:
    """Say in what a model's logits differ from a text of `probe`."""
    return same_logits(stored, probe(model, dataset, device, parse(stored)[1]["sigma"]))


def difference(stored: FloatArray, found: FloatArray, precision: str = "full") -> str:
    """Say by how much logits (m, c) differ from the stored ones; "" where rounding may explain it."""
    if stored.shape != found.shape:
        return f"it gives logits of shape {found.shape}, not {stored.shape}"
    finite = np.isfinite(stored) & np.isfinite(found)
    odd = (stored != found) & ~finite & ~(np.isnan(stored) & np.isnan(found))
    kept = stored[np.isfinite(stored)]
    spread_of = float(np.ptp(kept)) if kept.size else 0.0
    limit = CLOSE[precision] * spread_of + _ROUNDING * float(np.abs(kept).max(initial=0.0))
    far = np.abs(np.subtract(found, stored, where=finite, out=np.zeros_like(stored)))
    rows = (far > limit).any(1) | odd.any(1)
    if not rows.any():
        return ""
    share = math.inf if odd.any() or not spread_of else float(far.max()) / spread_of
    moved = int((stored.argmax(1) != found.argmax(1)).sum())
    return (
        f"its logits of {int(rows.sum()):,} of {len(stored):,} inputs differ by up to {100 * share:.3g} % "
        f"of their spread (rounding: {100 * CLOSE[precision]:g} %), {moved:,} in class"
    )


def same_logits(stored: str, found: str) -> str:
    """Say in what two texts of `probe` differ, as `difference` does."""
    (before, told), (now, own) = parse(stored), parse(found)
    return difference(before, now, "half" if "half" in (told["precision"], own["precision"]) else "full")


def hold(
    store: Store,
    loaded: Loaded,
    device: torch.device | str,
    where: object,
    sigma: float | None = None,
    *,
    wanted: Collection[int] | None = None,
    step: int = 100,
) -> dict[str, str]:
    """Refuse models that no longer give the logits that a run keeps, of the fixed inputs and of its own.

    `where` is what to call the run, whose `store` is only read; `sigma` the noise level of the robust model's
    inputs, None for none; `wanted` the indices of the inputs that matter, None for all: of the standard
    model, on which no certificate rests, at most `MOST_COMPARED` of them are computed again; `step` the
    inputs in a forward pass.  Returns what is to be kept of models that the run does not know yet, by key;
    ModelError if a model gives others, RunError if results of the robust model have no such logits.
    """
    new = {}
    for role, model in loaded.models.items():
        if model is None:
            continue
        stored = store.get(key_of(model))
        if stored is None:
            if role == "robust" and store.begun():
                raise _unknown(where, role)
            new[key_of(model)] = probe(model, loaded.dataset, device, sigma if role == "robust" else None)
            continue
        most = MOST_COMPARED if role == "standard" else None
        if told := differs(store, role, model, loaded.dataset, device, wanted=wanted, step=step, most=most):
            raise changed(role, model, where, told)
    return new


def differs(
    store: Store,
    role: str,
    model: LoadedModel,
    dataset: Dataset,
    device: torch.device | str,
    *,
    wanted: Collection[int] | None = None,
    step: int = 100,
    most: int | None = None,
) -> str:
    """Say in what a model's logits are not those that a run keeps; see `hold`.  RunError if it keeps none."""
    import torch

    from certmix.calling import call_model

    stored = store.get(key_of(model))
    if stored is None:
        raise _unknown("the run", role)
    if told := like(stored, model, dataset, device):
        return told
    cell = "robust logits" if role == "robust" else f"standard logits {model.checksum}"
    known = sorted(store.known(cell))
    answers = dict(zip(known, store.read(cell, known), strict=True))
    probabilities = {} if role == "robust" else store.standard(model.checksum)
    for kept, soft in ((answers, False), (probabilities, True)):  # of these, logarithms are compared
        asked = set(kept) if wanted is None else set(kept) & set(wanted)
        places = [place for place, index in enumerate(dataset.indices.tolist()) if index in asked]
        places = [places[k] for k in spread(len(places), most or "all").tolist()]
        found, half = [], False
        for begin in range(0, len(places), step):
            inputs = torch.from_numpy(stack(dataset, places[begin : begin + step]))
            with torch.inference_mode():
                logits = call_model(model.module, inputs.to(device), model.name)
            half = half or _is_half(model, logits)
            found.append((logits.double().log_softmax(1) if soft else logits.double()).cpu().numpy())
        if not found:
            continue
        before = np.stack([kept[index] for index in dataset.indices[places].tolist()])
        now = np.concatenate(found)
        if soft:
            before, now = np.log(np.maximum(before, _LEAST)), np.maximum(now, math.log(_LEAST))
        if told := difference(before, now, "half" if half else "full"):
            return told
    return ""


def hold_original(
    folder: Path, described: dict[str, Any], store: Store, loaded: Loaded, device: torch.device | str
) -> None:
    """Refuse models whose checksums or logits are not those of a run that is only read: ModelError."""
    for role, model in loaded.models.items():
        stored = (described.get("models") or {}).get(role)
        if model is not None and isinstance(stored, dict) and stored.get("checksum") != model.checksum:
            raise changed(role, model, folder, told_changes(stored, model))
    if loaded.dataset.checksum == described["data"].get("checksum"):  # else its inputs are others
        for told in hold(store, loaded, device, folder):
            raise _unknown(folder, told.removeprefix(logits_key("")))


def told_changes(stored: dict[str, Any], model: LoadedModel) -> str:
    """Say in what a model of another checksum differs from that of a description."""
    sums = f"checksum {model.checksum[:12]}, {str(stored.get('checksum'))[:12]} there"
    return "; ".join(filter(None, [changed_parts(stored.get("parts"), model.parts), sums]))


def _unknown(where: object, what: str) -> RunError:
    return RunError(
        f"{where} keeps no logits to know its {what} model by: restore it, use --fresh, or name another "
        "--output"
    )


@full_float32()
def _is_half(model: LoadedModel, logits: torch.Tensor) -> bool:
    """Whether a model computes in half precision."""
    import torch

    values = (logits, *model.module.parameters(), *model.module.buffers())
    return any(value.dtype in (torch.float16, torch.bfloat16) for value in values)


def changed(role: str, model: LoadedModel, where: object, told: str) -> ModelError:
    """Return the error of a model that is not the one that a run was made with."""
    return ModelError(
        f"the {role} model {model.name} is not the one that {where} was made with: {told}: {REMEDY}"
    )


def changed_parts(before: Any, now: Mapping[str, str]) -> str:
    """Say which parts of a model changed, given those that a description keeps; "" if it keeps none."""
    if not isinstance(before, Mapping):
        return ""
    words = [f"{one} is gone" for one in before if one not in now]
    words += [f"{one} changed" for one in now if one in before and before[one] != now[one]]
    words += [f"{one} is new" for one in now if one not in before]
    return ", ".join(words[:4]) + (", ..." if len(words) > 4 else "")


def refuse_changed(folder: Path, models: Mapping[str, LoadedModel | None]) -> None:
    """Refuse a model that changed under the name it has in a folder's run: ModelError names the parts."""
    try:
        described = read_run(folder)
        known = {role: described["models"][role] for role in models}
        identity, objects = described["identity"], described["sources"].get("objects", ())
    except (RunError, AttributeError, KeyError, TypeError):
        return
    for role, model in models.items():
        before = known[role]
        if (
            model is None
            or role in objects
            or not isinstance(before, dict)
            or before.get("spec") != model.spec
        ):
            continue
        wanted = identity.get(f"{role}_checksum", model.checksum)
        if wanted == before.get("checksum") != model.checksum:
            raise changed(role, model, folder, told_changes(before, model))
