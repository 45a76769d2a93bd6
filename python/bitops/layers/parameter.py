"""A trainable array."""

from __future__ import annotations

import numpy as np

from ..ops.array import BitArray, pack


class Parameter:
    """One trainable float32 array, its gradient, and how an optimizer is to treat it.

    Parameters
    ----------
    value : array_like
        Start value, copied as float32.
    clip_value : float, optional
        The optimizer clips the array to [-clip_value, clip_value] after each step.
    lr_scale : float
        Multiplies the learning rate.
    binary : bool
        Whether the layer uses only the signs, packed along the last axis.

    Attributes
    ----------
    grad : ndarray of float32
        Gradient written by the last backward pass.
    version : int
        Grows with every change, so that what was derived from the value (packed bits) knows when
        it is stale.
    """

    def __init__(
        self,
        value,
        *,
        clip_value: float | None = None,
        lr_scale: float = 1.0,
        binary: bool = False,
    ):
        self._value = np.array(value, dtype=np.float32, order="C")
        self.grad = np.zeros_like(self._value)
        self.clip_value = clip_value
        self.lr_scale = lr_scale
        self.binary = binary
        self.version = 0
        self._signs: BitArray | None = None
        self._signs_version = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self._value.shape

    @property
    def size(self) -> int:
        return self._value.size

    @property
    def value(self) -> np.ndarray:
        """Read-only view; change the parameter with `assign` or through `writable`."""
        view = self._value.view()
        view.flags.writeable = False
        return view

    def writable(self) -> np.ndarray:
        """The array itself, to be changed in place right away; counts as a change."""
        self.version += 1
        return self._value

    def assign(self, value) -> None:
        """Copy `value`, an array_like of the same shape, into the parameter."""
        value = np.asarray(value)
        if value.shape != self.shape:
            raise ValueError(f"[Parameter] value must have shape {self.shape}, got {value.shape}")
        np.copyto(self.writable(), value, casting="same_kind")

    def signs(self) -> BitArray:
        """Signs of the value, packed along the last axis; packed anew only after a change."""
        if self._signs is None or self._signs_version != self.version:
            self.adopt_signs(pack(self._value))
        assert self._signs is not None
        return self._signs

    def adopt_signs(self, signs: BitArray) -> None:
        """Take the signs of the present value from who has just packed them."""
        self._signs, self._signs_version = signs, self.version

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape}, lr_scale={self.lr_scale:.4g})"
