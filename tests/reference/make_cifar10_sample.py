"""Make the samples inside the package from CIFAR-10's official binary version.

    python make_cifar10_sample.py cifar-10-batches-bin ../../certmix/data

Writes ``cifar10_sample.png`` and ``cifar10_tuning.png``, every 20th test input from the first or the 11th on
one lossless sheet, and beside them ``.json`` files with labels, original indices, digest and provenance.
Needs numpy and Pillow; the sheet's bytes may vary with Pillow's version, the
pixels, whose digest is recorded, do not.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

TEST_BATCH_SHA256 = "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"
STEP, COLUMNS = 20, 25


def make(source: Path, target: Path, name: str, first: int) -> None:
    """Write the sheet and its facts."""
    content = (source / "test_batch.bin").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != TEST_BATCH_SHA256:
        raise SystemExit(f"test_batch.bin: sha256 is {digest}, expected {TEST_BATCH_SHA256}")
    rows = np.frombuffer(content, np.uint8).reshape(10_000, 3073)
    indices = np.arange(first, 10_000, STEP)
    pixels = np.ascontiguousarray(rows[indices, 1:]).reshape(-1, 3, 32, 32)
    down = len(pixels) // COLUMNS
    sheet = pixels.reshape(down, COLUMNS, 3, 32, 32).transpose(0, 3, 1, 4, 2)
    sheet = np.ascontiguousarray(sheet).reshape(down * 32, COLUMNS * 32, 3)
    Image.fromarray(sheet).save(target / f"{name}.png", optimize=True)
    facts = {
        "source": "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009: CIFAR-10",
        "url": "https://www.cs.toronto.edu/~kriz/cifar.html",
        "drawn": f"every {STEP}th input of test_batch.bin, in order: indices {first}, {first + STEP}, ..., "
        f"{indices[-1]}",
        "test_batch_sha256": TEST_BATCH_SHA256,
        "layout": f"{COLUMNS} inputs across, {down} down, row by row, 32x32 RGB each",
        "sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "sha256_of": "the pixels as uint8 (500, 3, 32, 32)",
        "class_names": (source / "batches.meta.txt").read_text().split(),
        "indices": indices.tolist(),
        "labels": rows[indices, 0].tolist(),
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in facts.items()]
    (target / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    for name, first in (("cifar10_sample", 0), ("cifar10_tuning", 10)):
        make(Path(sys.argv[1]), Path(sys.argv[2]), name, first)
