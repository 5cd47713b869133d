"""What a guarantee can use of a run, copied into a folder of its own: the run is only read."""

from __future__ import annotations

from certmix.certification.request import CertifyRequest
from certmix.runs import RunFolder, Store
from certmix.runs.behaviour import logits_key
from certmix.runs.folder import DATABASE
from certmix.runs.sources import Loaded
from certmix.verification.guarantee.guarantees import Guarantee
from certmix.verification.guarantee.planning import Plan, identity_of

__all__ = ["copy_stored"]


def copy_stored(guarantee: Guarantee, loaded: Loaded, planned: Plan) -> None:
    """Copy the images of a plan from its stored run to its folder, unless these are one."""
    source, target = planned.stored, planned.folder
    if source is None or source == target:
        return
    identity, wanted = identity_of(guarantee.asked, loaded), set(planned.indices)
    models = [model for model in loaded.models.values() if model is not None]
    keys = ["bound", "fixed_samples", *(logits_key(model.checksum) for model in models)]
    if isinstance(guarantee.asked, CertifyRequest):
        classes = loaded.dataset.classes
        counts = Store(source / DATABASE, classes, read_only=True)
        with RunFolder(target, identity, classes) as run:
            _copy_remembered(counts, run.store, keys)
            run.store.write_images(one for index, one in counts.images().items() if index in wanted)
            for model in models:
                for index, row in counts.standard(model.checksum).items():
                    if index in wanted:
                        run.store.write_standard(model.checksum, [index], row[None])
        counts.close()
        return
    vectors = Store(source / DATABASE, read_only=True)
    with RunFolder(target, identity) as plain:
        _copy_remembered(vectors, plain.store, keys)
        for cell in vectors.cells():
            indices = sorted(vectors.known(cell) & wanted)
            if indices:
                plain.store.write(cell, indices, vectors.read(cell, indices))
    vectors.close()


def _copy_remembered(source: Store, target: Store, keys: list[str]) -> None:
    """Copy remembered values that are there."""
    for key in keys:
        if (value := source.get(key)) is not None:
            target.put(key, value)
