"""TRANSPOSE_CONV."""

import numpy

from qat.emitters.litert.forms import cuts, windows
from qat.emitters.litert.forms.sums import weight_and_bias
from qat.emitters.litert.model import schema
from qat.emitters.litert.transposed import Spread
from qat.emitters.litert.writer import Writer, array_of
from qat.integer.operations import Conv


def transposed_convolution(writer: Writer, operation: Conv, spread: Spread) -> None:
    """TRANSPOSE_CONV over all places that the kernel reaches, and a STRIDED_SLICE where the result leaves some out."""
    tensor, (height, width, _) = windows.source_of(writer, spread.source)
    lead = 2 - len(spread.strides)
    strides, crop = (1,) * lead + spread.strides, ((0, 0),) * lead + spread.crop
    kernel = windows.flat_weight(operation.weight.kernel).flip(2, 3).permute(0, 2, 3, 1)
    weight, bias = weight_and_bias(writer, operation, array_of(kernel), 0)
    sizes = [
        (length - 1) * step + extent
        for length, step, extent in zip((height, width), strides, kernel.shape[1:3], strict=True)
    ]
    counts = [size - before - after for size, (before, after) in zip(sizes, crop, strict=True)]
    whole = (1, *sizes, len(operation.bias))
    options = schema.TransposeConvOptionsT()
    options.padding, (options.strideH, options.strideW) = windows.VALID, strides

    def write(target: int, activation: int) -> None:
        options.fusedActivationFunction = activation
        result = target
        if tuple(counts) != tuple(sizes):
            name = f"{operation.name}/whole"
            result = writer.model.tensor(name, whole, writer.dtype(operation.output), writer.model.scaling(target))
        shape = _shape(writer, operation, tensor, whole)
        writer.model.operator("TRANSPOSE_CONV", [shape, weight, tensor, bias], [result], options)
        if result != target:
            cuts.block_into(writer, result, target, (0, *(before for before, _ in crop), 0))

    windows.finish(writer, operation, tuple(counts), write)


def _shape(writer: Writer, operation: Conv, tensor: int, whole: tuple[int, ...]) -> int:
    """The shape of the result. XNNPACK takes the batch from the input, the kernel of 16-bit codes from here."""
    if writer.real or not writer.is_wide(operation.output):
        return writer.numbers(whole)
    count = writer.model.tensor(f"{operation.name}/shape", (4,), numpy.int32, dynamic=False)
    batch = writer.model.tensor(f"{operation.name}/batch", (1,), numpy.int32, dynamic=False)
    joined = writer.model.tensor(f"{operation.name}/sizes", (4,), numpy.int32, dynamic=False)
    shape, joins = schema.ShapeOptionsT(), schema.ConcatenationOptionsT()
    shape.outType = schema.TensorType.INT32
    writer.model.operator("SHAPE", [tensor], [count], shape)
    writer.model.operator("SLICE", [count, writer.numbers([0]), writer.numbers([1])], [batch], schema.SliceOptionsT())
    writer.model.operator("CONCATENATION", [batch, writer.numbers(whole[1:])], [joined], joins)
    return joined
