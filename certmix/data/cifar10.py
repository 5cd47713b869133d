"""CIFAR-10 from the user's disk: ``cifar-10-batches-bin`` or ``cifar-10-batches-py``.

References
----------
A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

from functools import partial

from certmix.data._cifar import Family, find, load
from certmix.data._common import Source

FAMILY = Family(
    name="cifar10",
    class_names=(
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ),
    label_bytes=1,
    binary_folder="cifar-10-batches-bin",
    python_folder="cifar-10-batches-py",
    parts={"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)},
    labels_key="labels",
    names_key="label_names",
    names_pickle="batches.meta",
    names_text="batches.meta.txt",
)  # fmt: skip

SOURCE = Source(
    description="CIFAR-10 folder, binary or Python version (cifar-10-batches-bin, cifar-10-batches-py)",
    load=partial(load, FAMILY),
    find=partial(find, FAMILY),
)
