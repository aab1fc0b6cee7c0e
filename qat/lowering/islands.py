"""Float islands: the node that stands for a call that a rule left in float."""

import torch
from torch import Tensor
from torch.fx import Node

from qat.inject.exact import grid_of
from qat.inject.islands import between, unmarked
from qat.integer.reals import dequantize
from qat.lowering.state import (
    Masked,
    Pending,
    Program,
    Quantized,
    QuantizedConstant,
    Unlowerable,
    batch_shape,
    module_path,
)


def float_island(program: Program, node: Node, tensors, operands: str, function: str, arguments: str) -> Pending:
    """qat.float_island: a function of values and real constants, as `qat.inject.islands.mark` wrote it down."""
    names, named = unmarked(operands, arguments)
    values: dict[str, Quantized] = {}
    constants: dict[str, Tensor] = {}
    for name, tensor in zip(names, tensors, strict=True):
        if isinstance(tensor, Masked) and function == "softmax":
            _put(tensor.mask if isinstance(tensor.mask, Quantized) else tensor.mask.logical_not(), "mask", values,
                 constants)  # fmt: skip
            tensor = tensor.scores
        _put(tensor, name, values, constants)
    merged = {value.merged for value in values.values()}
    if len(merged) > 1 or any(value.batch_at for value in values.values()):
        raise Unlowerable("it is left in float, and reads the batch in several places; keep dimension 0 for the batch")
    make = between(function, tuple(values), constants, named, *merged)
    inputs = tuple(value.name for value in values.values())

    def build(name, output, grid, clamp_min, clamp_max):
        names = {"name": name, "source": module_path(node), "inputs": inputs, "output": output}
        return make(grid, clamp_min, clamp_max, **names)

    return Pending(batch_shape(node), build)


def _put(tensor, name: str, values: dict[str, Quantized], constants: dict[str, Tensor]) -> None:
    """Among the values or the constants, what an operand is."""
    if isinstance(tensor, Quantized):
        values[name] = tensor
    elif isinstance(tensor, QuantizedConstant):
        constants[name] = dequantize(tensor.quantizer.codes(tensor.tensor), grid_of(tensor.quantizer))
    elif isinstance(tensor, Tensor):
        constants[name] = tensor.detach().to(torch.float32)
    else:
        raise Unlowerable(f"it is left in float, and its {name} is not on an integer grid")
