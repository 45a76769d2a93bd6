"""Data sets of images and labels, read from files.

These modules import nothing else from the package than `bitops.files`, to open files.
"""

from .datasets import (
    Dataset,
    load_cifar10,
    load_dataset,
    load_digits,
    load_images,
    load_mnist,
    load_npz,
    load_svhn,
)

__all__ = [
    "Dataset",
    "load_cifar10",
    "load_dataset",
    "load_digits",
    "load_images",
    "load_mnist",
    "load_npz",
    "load_svhn",
]
