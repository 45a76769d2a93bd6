"""Data sets of images and labels, read from files.

Imports nothing of the package outside this folder, but for the opening of files.
"""

from .datasets import Dataset, load_cifar10, load_dataset, load_digits, load_mnist, load_svhn

__all__ = [
    "Dataset",
    "load_cifar10",
    "load_dataset",
    "load_digits",
    "load_mnist",
    "load_svhn",
]
