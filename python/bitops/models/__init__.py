"""Published networks with binary weights, as functions that build them ready to train.

`width` multiplies the published numbers of channels and units; 1.0 is the network as published.
A file holds a family: binarynet, xnornet, resnets, densenets, quicknet, reactnet.
"""

from .binarynet import binarynet, mlp
from .common import features_of, scaled, seed_stream
from .densenets import binary_densenet28, meliusnet22
from .quicknet import quicknet
from .reactnet import reactnet_a
from .resnets import birealnet18, real_to_binary, resnet_e18
from .xnornet import alexnet, lenet5, nin, resnet18

__all__ = [
    "alexnet",
    "binary_densenet28",
    "binarynet",
    "birealnet18",
    "features_of",
    "lenet5",
    "meliusnet22",
    "mlp",
    "nin",
    "quicknet",
    "reactnet_a",
    "real_to_binary",
    "resnet18",
    "resnet_e18",
    "scaled",
    "seed_stream",
]
