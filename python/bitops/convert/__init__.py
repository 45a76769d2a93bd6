"""Networks trained elsewhere become networks of this package.

`from_onnx` reads ONNX, also as Brevitas, QONNX and FINN write it. Its steps:

    file            onnx_file       bytes to Graph, checked
    Graph           onnx_trace      node by node, by the operators in onnx_ops (onnx_arithmetic,
                                    onnx_layout, onnx_pools, onnx_products), onnx_quant and
                                    onnx_scales; nodes of constants by constants
    steps           simplify        constants merged and moved, so that products see bits
    layers          lowering        a Sequential, which freezes to a Packed

`from_lce` reads files of Larq Compute Engine in the same steps: lce_file makes the Graph, lce_ops
has the operators, and hands those that ONNX has too on to onnx_ops.

`check` compares a network with its source. `from_keras` reads files of Keras and Larq: keras_file
makes descriptions of layers, keras_layers the layers, keras the Sequential. `from_torch` records a
module while it runs:

    module          torch_module    a copy for evaluation
    copy            torch_record    the functions it calls; those that are steps by torch_forms
    functions       torch_ops       operators of ONNX, and so steps and layers as above;
                                    torch_calls applies these
    state dict      torch_state     arrays for layers that are given

`to_onnx` writes it, layer by layer as onnx_layers says, with the names and layouts that onnx_writer
keeps. `to_c` writes C, layer by layer as c_layers says, out of the functions in c_source and
c_numbers; c_program keeps tables, calls and the workspace.

This folder may import `layers` and what lies below. Formats are read by their own libraries, which
are optional.
"""

from .c_export import CSize, to_c
from .checking import Report, check
from .errors import ConversionError
from .keras import from_keras
from .lce import from_lce
from .onnx import from_onnx
from .onnx_export import to_onnx
from .torch import from_torch

__all__ = [
    "CSize",
    "ConversionError",
    "Report",
    "check",
    "from_keras",
    "from_lce",
    "from_onnx",
    "from_torch",
    "to_c",
    "to_onnx",
]
