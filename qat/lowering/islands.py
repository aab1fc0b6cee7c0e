"""Float islands: the node that stands for a call that a rule left in float."""

import torch
from torch import Tensor
from torch.fx import Node

from qat.inject.coverage import rules_for
from qat.inject.exact import grid_of
from qat.inject.handle import Handle
from qat.inject.islands import between, unmarked
from qat.integer.reals import dequantize
from qat.lowering.normalized import mask_name
from qat.lowering.state import (
    Masked,
    Pending,
    Program,
    Quantized,
    QuantizedConstant,
    Unlowerable,
    batch_shape,
    module_path,
    source_line,
)


def float_island(program: Program, node: Node, tensors, operands: str, function: str, arguments: str) -> Pending:
    """qat.float_island: a function of values and real constants, as `qat.inject.islands.mark` wrote it down."""
    names, named = unmarked(operands, arguments)
    values: dict[str, Quantized] = {}
    constants: dict[str, Tensor] = {}
    inputs: dict[str, str] = {}
    for name, tensor in zip(names, tensors, strict=True):
        if isinstance(tensor, Masked) and function == "softmax":
            if tensor.scores.merged:
                _put(_taking_part(tensor.mask), "mask", values, constants)
            else:
                inputs["mask"] = mask_name(program, node, tensor.mask, len(tensor.scores.shape))
            tensor = tensor.scores
        _put(tensor, name, values, constants)
    merged = {value.merged for value in values.values()}
    if len(merged) > 1 or any(value.batch_at for value in values.values()):
        raise Unlowerable("it is left in float, and reads the batch in several places; keep dimension 0 for the batch")
    inputs = {name: value.name for name, value in values.items()} | inputs
    make = between(function, tuple(inputs), constants, named, *merged)

    def build(name, output, grid, clamp_min, clamp_max):
        names = {"name": name, "source": module_path(node), "inputs": tuple(inputs.values()), "output": output}
        return make(grid, clamp_min, clamp_max, **names)

    return Pending(batch_shape(node), build)


def way_out(handle: Handle, node: Node, name: str) -> str:
    """What a refusal of `node`, an operation called `name`, adds: the rule that leaves it in float, if there is one."""
    source = source_line(node)
    layers = [
        layer for layer, operation in handle.plan.may_be_islands.items()
        if operation == name and handle.sources.get(layer) == source
    ]  # fmt: skip
    return f"; or leave it in float, as an island between integers, by {rules_for(layers)}" if layers else ""


def _taking_part(mask: Tensor | Quantized) -> Tensor | Quantized:
    """1 where a score takes part, of the mask of those that do not."""
    return mask if isinstance(mask, Quantized) else mask.logical_not()


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
