"""Functions on arrays of bits and numbers: the only modules that call `bitops._core`.

They import `config`, `isa` and each other, never layers. Nothing is imported here, so that the
oracle `reference` can use `ops.geometry` without the native module.
"""
