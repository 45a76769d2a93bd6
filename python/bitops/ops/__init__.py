"""Functions on arrays of bits and numbers.

They import each other and the native module, never a layer. This file imports nothing, so that
the oracle `bitops.reference` can use `ops.geometry` without the native module.
"""
