"""The folder of a sampled run."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.databases import as_one_file
from fuzz.harness import scratch

from certmix.certification.request import CertifyRequest
from certmix.runs import ImageRecord, Store, write_log
from certmix.runs.sources import Sources

REQUEST = CertifyRequest(0.5, 0.76, images=4, samples=200, goal="fixed")
RUN: dict[str, Any] = {
    "format_version": 2,
    "identity": {"data": "points", "robust": "net", "sigma": 0.5},
    "request": json.loads(json.dumps(REQUEST.as_dict())),
    "sources": json.loads(json.dumps(Sources().as_dict())),
    "data": {"name": "points", "inputs": 12, "class_names": ["a", "b", "c"]},
    "models": {"robust": {"name": "net", "checksum": "h"}, "standard": {"name": "big", "checksum": "one"}},
    "batch_size": 100,
}
VOTES = np.array([[181, 2, 17], [200, 0, 0], [90, 100, 10], [120, 40, 40]])


@cache
def database() -> bytes:
    with scratch() as folder:
        store = Store(folder / "made.sqlite", 3)
        for index, votes in enumerate(VOTES):
            store.write_image(ImageRecord(3 * index, index % 3, "c" * 64, votes // 20, {200: votes}, 1.5))
        store.write_standard("one", [0, 3, 6, 9], np.full((4, 3), [0.25, 0.5, 0.25]))
        store.close()
        return as_one_file(folder / "made.sqlite")


def prepare(folder: Path, run: bytes | None = None, counts: bytes | None = None) -> None:
    (folder / "run.json").write_bytes(json.dumps(RUN).encode() if run is None else run)
    (folder / "numbers.sqlite").write_bytes(database() if counts is None else counts)
    write_log(folder / "records.tsv", [(3 * k, k % 3, 0, 0.5, 1.0) for k in range(4)], "clopper-pearson")
