"""Parts of tensors in steps of 1, which XNNPACK cuts out; LiteRT's own kernel of a longer step copies byte by byte.

In steps of n, dimension d is first taken apart: every n of its places become one, n times as large behind. That moves
nothing, and what lies r places behind a step is then a block of the places behind d.
"""

import math
from collections.abc import Sequence

from qat.emitters.litert.model import schema
from qat.emitters.litert.writer import Writer

#: Types of what XNNPACK cuts.
_TAKEN = (schema.TensorType.INT8, schema.TensorType.FLOAT32)


def block(writer: Writer, name: str, tensor: int, begins: Sequence[int], sizes: Sequence[int]) -> int:
    """The tensor of `sizes` at `begins` of a tensor of the value `name`, of any batch."""
    if writer.model.shape(tensor) == tuple(sizes):
        return tensor
    piece = writer.like(name, "s", sizes)
    block_into(writer, tensor, piece, begins)
    return piece


def block_into(writer: Writer, tensor: int, target: int, begins: Sequence[int], steps: Sequence[int] = ()) -> None:
    """What lies at `begins` in all of the batch, as large as `target`. steps: 1 each where left out.

    STRIDED_SLICE: XNNPACK leaves a SLICE of a batch of any size to LiteRT, whose own kernel of that is the quicker one
    for numbers that XNNPACK does not take.
    """
    sizes = writer.model.shape(target)
    steps = steps or (1,) * len(sizes)
    if writer.model.tensors[tensor].type not in _TAKEN and set(steps) == {1}:
        operands = [tensor, writer.numbers(begins), writer.numbers((-1, *sizes[1:]))]
        writer.model.operator("SLICE", operands, [target], schema.SliceOptionsT())
        return
    ends = [begin + (size - 1) * step + 1 for begin, size, step in zip(begins, sizes, steps, strict=True)]
    options = schema.StridedSliceOptionsT()
    options.beginMask = options.endMask = 1  # all of the batch
    operands = [tensor, *map(writer.numbers, (begins, ends, steps))]
    writer.model.operator("STRIDED_SLICE", operands, [target], options)


def in_shape(writer: Writer, name: str, tensor: int, shape: Sequence[int]) -> int:
    """A tensor of the value `name` in another shape; the tensor itself where it has that."""
    if writer.model.shape(tensor) == tuple(shape):
        return tensor
    target = writer.like(name, "r", shape)
    writer.reshape(tensor, target, shape)
    return target


def in_steps(writer: Writer, name: str, tensor: int, dim: int, start: int, count: int, step: int) -> int:
    """`count` places of a dimension of a tensor of the value `name`, whose size is a multiple of the step."""
    shape = writer.model.shape(tensor)
    before, behind = math.prod(shape[1:dim]), math.prod(shape[dim + 1 :])
    apart = in_shape(writer, name, tensor, (1, before, shape[dim] // step, step * behind))
    piece = block(writer, name, apart, (0, 0, start // step, start % step * behind), (1, before, count, behind))
    return in_shape(writer, name, piece, (*shape[:dim], count, *shape[dim + 1 :]))
