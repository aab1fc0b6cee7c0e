"""Each operation of a program in real numbers, one function of torch per kind.

What only moves, chooses or counts is what the integer kernels do, of real numbers.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from qat.integer import operations as ops
from qat.integer.kernels import choices, indices, moves
from qat.integer.kernels.common import pad
from qat.integer.operations import Operation
from qat.integer.reals import dequantize
from qat.integer.values import Constant, Grid, Value

#: The real result of an operation, of its real operands (N, ...) and its `real_constants`.
Form = Callable[[Operation, Sequence[Tensor], Mapping[str, Tensor]], Tensor]

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_AVERAGES = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_LARGEST = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
#: Functions of tables by name.
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda real: F.gelu(real, approximate="tanh"),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "elu": F.elu,
    "mish": F.mish,
    "softplus": F.softplus,
    "exp": torch.exp,
    "erf": torch.erf,
    "abs": torch.abs,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "reciprocal": torch.reciprocal,
    "sin": torch.sin,
    "cos": torch.cos,
}


def real_constants(
    operation: Operation, sources: Sequence[Value | Constant], output: Value | Constant
) -> dict[str, Tensor]:
    """What the form of an operation reads beside its operands, float32 (indices int64), by name."""
    found = {}
    if isinstance(operation, ops.Conv | ops.Linear | ops.Embedding):
        scale = operation.weight.scale
        found["weight"] = operation.weight.kernel * scale.reshape(-1, *[1] * (operation.weight.codes.dim() - 1))
        if hasattr(operation, "bias"):
            found["bias"] = operation.bias * scale * sources[0].grid.scale
    elif isinstance(operation, ops.Normalize):
        epsilon, gain, shift = operation.factors.reals(sources[0].grid, output.grid, operation.l2)
        found |= {"epsilon": torch.tensor(epsilon), "gain": gain, "shift": shift}
    elif isinstance(operation, ops.Divide):
        found["step"] = torch.tensor(sources[1].grid.scale)
    elif isinstance(operation, ops.Table) and operation.function not in _FUNCTIONS:
        found["points"] = dequantize(operation.codes, output.grid)
        grid = sources[0].grid
        if isinstance(grid, Grid):
            found["scale"], found["offset"] = (torch.tensor(float(part)) for part in (grid.scale, _first_place(grid)))
    return {name: tensor.to(torch.float32) for name, tensor in found.items()}


def _first_place(grid: Grid) -> int:
    """Where in a table the entry of real zero is."""
    return grid.zero_point - grid.quant_min


def _convolution(operation: ops.Conv, operands: Sequence[Tensor], constants: Mapping[str, Tensor]) -> Tensor:
    convolution, padding = _CONVOLUTIONS[len(operation.kernel_size)], _even(operation.padding)
    real = operands[0]
    if padding is None:
        real, padding = pad(real, operation.padding, 0), 0
    weight, bias = constants["weight"], constants["bias"]
    return convolution(real, weight, bias, operation.stride, padding, operation.dilation, operation.groups)


def _even(padding: Sequence[tuple[int, int]]) -> tuple[int, ...] | None:
    """Padding that is the same on both sides, once."""
    return tuple(before for before, _ in padding) if all(before == after for before, after in padding) else None


def _average_pool(operation: ops.AveragePool, operands: Sequence[Tensor], constants) -> Tensor:
    average, padding = _AVERAGES[len(operation.kernel_size)], _even(operation.padding)
    real = operands[0]
    if padding is None:
        real, padding = pad(real, operation.padding, 0), 0
    return average(real, operation.kernel_size, operation.stride, padding)


def _max_pool(operation: ops.MaxPool, operands: Sequence[Tensor], constants) -> Tensor:
    padded = pad(operands[0], operation.full_padding(tuple(operands[0].shape[1:])), float("-inf"))
    largest = _LARGEST[len(operation.kernel_size)]
    found = largest(padded, operation.kernel_size, operation.stride, 0, operation.dilation)
    inside = (slice(count) for count in operation.output_shape(tuple(operands[0].shape[1:]))[1:])
    return found[(..., *inside)]


def _divide(operation: ops.Divide, operands: Sequence[Tensor], constants: Mapping[str, Tensor]) -> Tensor:
    first, second = operands
    return first / torch.where(second == 0, constants["step"], second)


def _softmax(operation: ops.Softmax, operands: Sequence[Tensor], constants) -> Tensor:
    if len(operands) == 1:
        return operands[0].softmax(operation.dim)
    scores, mask = operands
    # A row of which nothing takes part is zero, not even shares.
    return torch.where(mask > 0, scores, -1e38).softmax(operation.dim) * mask


def _normalize(operation: ops.Normalize, operands: Sequence[Tensor], constants: Mapping[str, Tensor]) -> Tensor:
    (real,), dims = operands, operation.dims
    gain, shift, epsilon = constants["gain"], constants["shift"], constants["epsilon"]
    if operation.centered:
        real = real - real.mean(dims, keepdim=True)
    square = real * real
    if operation.l2:
        root = torch.maximum(square.sum(dims, keepdim=True).sqrt(), epsilon)
    else:
        root = (square.mean(dims, keepdim=True) + epsilon).sqrt()
    return real / root * gain + shift


def _table(operation: ops.Table, operands: Sequence[Tensor], constants: Mapping[str, Tensor]) -> Tensor:
    """The function where it has a name, else the table's own points."""
    (real,) = operands
    if operation.function in _FUNCTIONS:
        return _FUNCTIONS[operation.function](real)
    points, places = constants["points"], real
    if "scale" in constants:
        places = (real / constants["scale"]).round() + constants["offset"]
        places = places.clamp(0, points.shape[-1] - 1).to(torch.int64)
    if points.dim() == 2:
        firsts = torch.arange(0, points.numel(), points.shape[1], device=places.device)
        places = places + firsts.reshape(-1, *[1] * (places.dim() - 2))
    return points.flatten()[places]


def _of_one(function: Callable[[Operation, Tensor], Tensor]) -> Form:
    return lambda operation, operands, constants: function(operation, operands[0])


def _of_all(function: Callable[[Sequence[Tensor]], Tensor]) -> Form:
    return lambda operation, operands, constants: function(operands)


#: One form for each kind of operation but loops and float islands.
FLOAT_FORMS: dict[type[Operation], Form] = {
    ops.Conv: _convolution,
    ops.Linear: lambda operation, operands, constants: F.linear(operands[0], constants["weight"], constants["bias"]),
    ops.MatMul: lambda operation, operands, constants: (operands[0] @ operands[1]) * operation.factor,
    ops.Add: _of_all(lambda operands: operands[0] + operands[1]),
    ops.Mul: _of_all(lambda operands: operands[0] * operands[1]),
    ops.Requantize: _of_one(lambda operation, real: real * operation.factor),
    ops.Table: _table,
    ops.Divide: _divide,
    ops.Softmax: _softmax,
    ops.LogSoftmax: _of_one(lambda operation, real: real.log_softmax(operation.dim)),
    ops.Normalize: _normalize,
    ops.AveragePool: _average_pool,
    ops.Mean: _of_one(lambda operation, real: real.mean(operation.dims, keepdim=operation.keepdim)),
    ops.Sum: _of_one(lambda operation, real: real.sum(operation.dims, keepdim=operation.keepdim)),
    ops.MaxPool: _max_pool,
    ops.Max: _of_one(moves.largest),
    ops.Concatenate: lambda operation, operands, constants: moves.concatenate(operation, operands),
    ops.Reshape: _of_one(moves.reshape),
    ops.Transpose: _of_one(lambda operation, real: real.permute(operation.permutation)),
    ops.Slice: _of_one(moves.cut),
    ops.Pad: _of_one(lambda operation, real: pad(real, operation.amounts, 0)),
    ops.Take: _of_one(moves.take),
    ops.Expand: _of_one(moves.expand),
    ops.Negate: _of_one(lambda operation, real: -real),
    ops.Select: _of_all(choices.select),
    ops.Embedding: lambda operation, operands, constants: F.embedding(operands[0], constants["weight"]),
    ops.ArgMax: _of_one(choices.arg_max),
    ops.TopKValues: _of_one(choices.top_values),
    ops.TopKIndices: _of_one(choices.top_indices),
    ops.IndexTable: _of_one(indices.look_up),
    ops.IndexSum: _of_all(indices.add),
    ops.IndexProduct: _of_all(indices.multiply),
    ops.CumulativeSum: _of_one(indices.cumulate),
    ops.Gather: lambda operation, operands, constants: indices.gather(operation, operands),
}
