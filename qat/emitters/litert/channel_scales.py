"""Scales of channels that are all but zero, as pruning and weight decay leave them.

Kernels take no factor below 2^-32. Sums times such a factor round to 0, and so they do times a larger one, as long as
that leaves them below one half.
"""

import numpy
import torch
from torch import Tensor

from qat.integer.fixed_point import MANTISSA_BITS, Multiplier
from qat.integer.operations import WeightedOperation
from qat.integer.program import IntegerProgram

#: Kernels take factors from 2 to this power on.
LOWEST_EXPONENT = -32
#: The factor in place of one below, and what its sums stay below.
_STAND_IN, _LARGEST_SUM = 2.0**-31, 2**30


def vanishing(program: IntegerProgram, operation: WeightedOperation) -> Tensor:
    """bool (O,): whose sums give the zero point whatever they are, and stay that with a factor that kernels take."""
    if not isinstance(operation.multiplier, Multiplier):
        return torch.zeros(operation.bias.shape, dtype=torch.bool)
    sources, output = [program.value(name) for name in operation.inputs], program.value(operation.output)
    is_small = operation.multiplier.exponent + MANTISSA_BITS <= LOWEST_EXPONENT
    return is_small & (operation.reach(sources, output) < _LARGEST_SUM)


def channel_scales(program: IntegerProgram, operation: WeightedOperation) -> Tensor:
    """float32 (O,): the scales of the weight, but for channels that vanish ones that kernels take."""
    source, output = (program.value(name).grid.scale for name in (operation.inputs[0], operation.output))
    raised = numpy.float32(_STAND_IN * output / source)
    return torch.where(vanishing(program, operation), torch.tensor(raised), operation.weight.scale)
