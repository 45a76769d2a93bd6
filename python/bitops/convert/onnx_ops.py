"""The operators of ONNX itself that compute with numbers, all in one table.

Those that give few values, and those of QONNX and FINN, are in onnx_quant.
"""

from __future__ import annotations

from . import onnx_arithmetic, onnx_layout, onnx_pools, onnx_products
from .calls import Handler

HANDLERS: dict[str, Handler] = {
    **onnx_arithmetic.HANDLERS,
    **onnx_layout.HANDLERS,
    **onnx_pools.HANDLERS,
    **onnx_products.HANDLERS,
}
