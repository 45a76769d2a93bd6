"""Functions on arrays of bits and numbers.

These modules import each other and the native module, never a layer. This file imports nothing, so
that `bitops.reference` can use `ops.geometry` without the native module.
"""
