"""What a float island computes: real numbers of codes, a function of them in real numbers, and codes of the result."""

from collections.abc import Sequence

from torch import Tensor

from qat.integer.operations.islands import FloatIsland
from qat.integer.reals import dequantize, quantize
from qat.integer.values import Grid


def float_island(operation: FloatIsland, operands: Sequence[Tensor], sources: Sequence[Grid], target: Grid) -> Tensor:
    """clamp(quantize(function of the dequantized operands)). operands: (N, ...) codes of `sources`."""
    reals = [dequantize(codes, grid) for codes, grid in zip(operands, sources, strict=True)]
    if operation.merged:
        parts = reals[0].shape[1]
        reals = [real.flatten(0, 1) for real in reals]
    tensors = dict(zip(operation.operands, reals, strict=True))
    tensors |= {name: values.to(reals[0].device) for name, values in operation.constants.items()}
    result = operation.definition.compute(tensors, operation.settings)
    if operation.merged:
        result = result.unflatten(0, (-1, parts))
    return quantize(result, target).clamp_(operation.clamp_min, operation.clamp_max)
