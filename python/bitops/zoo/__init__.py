"""Packed networks that were trained with this package and come with it, ready to run.

Each takes images as uint8 and has a card that says how it was trained and what it reaches. The
files of a network are beside this module: NAME.safetensors and its card, NAME.json. `bench/zoo.py`
makes them.
"""

from .cards import Card, card, load, names, samples

__all__ = ["Card", "card", "load", "names", "samples"]
