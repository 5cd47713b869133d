"""What the certified fit works with: data and models, an open run folder, and noise of its own for tuning."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from certmix.certification.describe import surroundings
from certmix.errors import Interrupted, ModelError
from certmix.nuts.certified import NoisyLogits
from certmix.runs import RunFolder, Store, StudyIdentity, default_folder
from certmix.runs.attacking import Progress, outputs
from certmix.runs.behaviour import hold, refuse_changed
from certmix.runs.identity import NOISE_VERSION
from certmix.runs.sources import Loaded, Sources, load_sources
from certmix.sampling import Draw, Sampler, resolve_device
from certmix.studies.empirical import Surroundings
from certmix.studies.nuts_certified_request import CertifiedRequest
from certmix.types import IntArray

__all__ = ["STUDY", "Bench", "draw", "open_bench", "tuning_seed"]

STUDY = "nuts-certified"
CLEAN, NOISY = "clean", "noisy"


@dataclass(frozen=True, eq=False)
class Bench:
    """What the steps of one study share; `run` is None in memory."""

    asked: CertifiedRequest
    sources: Sources
    loaded: Loaded
    device: torch.device
    where: Surroundings
    say: Callable[[str], None]
    store: Store
    run: RunFolder | None

    def report(self, done: int, total: int, cell: str, seconds: float) -> None:
        """Tell how far the step called `cell` is."""
        if self.where.progress is not None:
            self.where.progress(Progress(done, total, cell, seconds))


def tuning_seed(seed: int) -> int:
    """Return the seed of the tuning noise: another one than certifications with `seed` use."""
    digest = hashlib.blake2b(f"certmix tuning noise 1/{seed}".encode(), digest_size=8).digest()
    return (1 << 63) + (int.from_bytes(digest, "little") >> 1)


@contextmanager
def open_bench(asked: CertifiedRequest, named: Sources, where: Surroundings) -> Iterator[Bench]:
    """Load data and models, and open the run folder; each warning is said once."""
    said: set[str] = set()

    def say(message: str) -> None:
        if message not in said:
            said.add(message)
            where.say(message)

    device = resolve_device(where.device)
    loaded = load_sources(named, asked.sigma, device, say)
    if loaded.standard is None:
        raise ModelError(f"{STUDY} mixes two classifiers: name the accurate one with --standard")
    parts = {
        "data_checksum": loaded.dataset.checksum,
        "standard_checksum": loaded.standard.checksum,
        "robust_checksum": loaded.robust.checksum,
        **asked.identity(),
        "noise_version": NOISE_VERSION,
    }
    label = f"{loaded.dataset.name}-{loaded.robust.name}-sigma{asked.sigma:g}"
    if where.in_memory:
        yield Bench(asked, named, loaded, device, where, say, Store(None), None)
        return
    identity = StudyIdentity(STUDY, label, parts)
    path = Path(where.output) if where.output is not None else default_folder(identity)
    if not where.fresh:
        refuse_changed(path, loaded.models)
    with RunFolder(path, identity, fresh=where.fresh) as run:
        new = hold(run.store, loaded, device, run.path, asked.sigma)
        for key, value in new.items():
            run.store.put(key, value)
        batch = asked.batch_size or 0
        run.begin(surroundings(asked.as_dict(), loaded, named, device, batch))
        yield Bench(asked, named, loaded, device, where, say, run.store, run)


def draw(bench: Bench, positions: IntArray) -> NoisyLogits:
    """Draw what the store lacks of the tuning images' logits, and return all of them."""
    asked, loaded, dataset, store = bench.asked, bench.loaded, bench.loaded.dataset, bench.store
    assert loaded.standard is not None
    sampler = Sampler(
        loaded.robust.module, dataset.classes, asked.sigma, tuning_seed(asked.seed), device=bench.device,
        precision=asked.precision, batch_size=asked.batch_size,
    )  # fmt: skip
    known, begun = store.known(CLEAN) & store.known(NOISY), time.monotonic()
    try:
        for done, position in enumerate(positions.tolist(), 1):
            index = int(dataset.indices[position])
            if index not in known:
                image = torch.from_numpy(dataset.read(position))
                wanted = Draw(image, index, (asked.noisy_samples,), stream="selection")
                drawn = torch.cat([logits for _, logits in sampler.logits([wanted])])
                store.write(NOISY, [index], drawn.numpy().reshape(1, -1))
                store.write(CLEAN, [index], outputs([loaded.standard.module], image[None].to(bench.device)))
            bench.report(done, len(positions), "noisy logits", time.monotonic() - begun)
    except KeyboardInterrupt:
        raise Interrupted("interrupted before all tuning logits were drawn") from None
    indices = dataset.indices[positions]
    noisy = store.read(NOISY, indices.tolist()).reshape(len(positions), asked.noisy_samples, dataset.classes)
    return NoisyLogits(store.read(CLEAN, indices.tolist()), noisy, dataset.labels[positions], indices)
