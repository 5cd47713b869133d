"""CIFAR-100 from the user's disk, fine labels: ``cifar-100-binary`` or ``cifar-100-python``.

Without the file of class names the classes are named by their numbers.

References
----------
A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

from functools import partial

from certmix.data._cifar import Family, find, load
from certmix.data._common import Source

FAMILY = Family(
    name="cifar100",
    class_names=tuple(str(k) for k in range(100)),
    label_bytes=2,
    binary_folder="cifar-100-binary",
    python_folder="cifar-100-python",
    parts={"train": ("train",), "test": ("test",)},
    labels_key="fine_labels",
    names_key="fine_label_names",
    names_pickle="meta",
    names_text="fine_label_names.txt",
)

SOURCE = Source(
    description="CIFAR-100 folder, binary or Python version (cifar-100-binary, cifar-100-python)",
    load=partial(load, FAMILY),
    find=partial(find, FAMILY),
)
