"""TRANSPOSE_CONV."""

from qat.emitters.litert.forms import windows
from qat.emitters.litert.forms.sums import weight_and_bias
from qat.emitters.litert.model import schema
from qat.emitters.litert.transposed import Spread
from qat.emitters.litert.writer import Writer, array_of
from qat.integer.operations import Conv


def transposed_convolution(writer: Writer, operation: Conv, spread: Spread) -> None:
    """TRANSPOSE_CONV over all places that the kernel reaches, and a SLICE where the result leaves some out."""
    tensor, (height, width, _) = windows.source_of(writer, spread.source)
    lead = 2 - len(spread.strides)
    strides, crop = (1,) * lead + spread.strides, ((0, 0),) * lead + spread.crop
    kernel = windows.flat_weight(operation.weight.kernel).flip(2, 3).permute(0, 2, 3, 1)
    weight, bias = weight_and_bias(writer, operation, array_of(kernel), operation.weight.scale, 0)
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
        writer.model.operator("TRANSPOSE_CONV", [writer.numbers(whole), weight, tensor, bias], [result], options)
        if result != target:
            starts = [0, *(before for before, _ in crop), 0]
            ends = writer.numbers([-1, *counts, len(operation.bias)])
            writer.model.operator("SLICE", [result, writer.numbers(starts), ends], [target], schema.SliceOptionsT())

    windows.finish(writer, operation, tuple(counts), write)
