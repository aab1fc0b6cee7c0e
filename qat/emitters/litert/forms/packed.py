"""Weights that take their true width in the file: 4 and 2 bits.

LiteRT multiplies with packed weights in matrix products alone, exactly and as fast as with int8 ones; its convolution
of int4 weights rounds otherwise and takes 0.66 ms where that of int8 takes 0.17 ([32, 32, 64] by 64 x 3 x 3, one thread
of ai-edge-litert 2.3). So windows are laid side by side by slices, and the convolution is a matrix product: 0.27 ms
(`python tests/benchmarks/bench_litert_kernels.py`).
"""

import numpy

from qat.emitters.litert.forms import windows
from qat.emitters.litert.model import Scaling, schema
from qat.emitters.litert.writer import Writer, array_of
from qat.integer.operations import Conv, WeightedOperation

#: Widths that the file has types for.
_WIDTHS = (2, 4)
#: Bytes that packed weights have to save for each slice, twice what it takes in the file with its tensor and its sizes:
#: below, the file would hardly be smaller, and take longer.
_BYTES_OF_SLICE = 400


def packed_bits(writer: Writer, operation: WeightedOperation) -> int:
    """Width in which the kernel's integers are stored: 2, 4 or 8."""
    kernel = operation.weight.kernel
    lowest, highest = int(kernel.min()), int(kernel.max())
    if writer.real or operation.weight.grid.bits > max(_WIDTHS):
        return 8
    fitting = [bits for bits in _WIDTHS if fits_bits(lowest, highest, bits)]
    return min(fitting, default=8)


def fits_bits(lowest: int, highest: int, bits: int) -> bool:
    """Whether signed integers of this width hold lowest..highest."""
    return -(2 ** (bits - 1)) <= lowest and highest < 2 ** (bits - 1)


def as_matrix_product(writer: Writer, operation: Conv) -> bool:
    """Write a convolution of narrow weights as a matrix product; False where int8 takes no more room."""
    bits = packed_bits(writer, operation)
    if bits == 8 or operation.groups > 1:
        return False
    window = windows.Window.of(operation.kernel_size, operation.stride, operation.padding, operation.dilation)
    slices = sum(size for size in window.size if size > 1) + sum(step > 1 for step in window.stride)
    saved = operation.weight.codes.numel() * (8 - bits) // 8
    if saved < slices * _BYTES_OF_SLICE:
        return False
    source = operation.inputs[0]
    tensor, sizes = windows.source_of(writer, source)
    counts = window.counts(sizes[:2])
    tensor = _padded(writer, operation, tensor, sizes, window)
    rows = _side_by_side(writer, operation, tensor, window, counts)
    kernel = array_of(windows.flat_weight(operation.weight.kernel).permute(0, 2, 3, 1)).reshape(len(operation.bias), -1)
    units = operation.weight.scale * numpy.float32(writer.scale(source))
    weight = writer.model.packed_constant(
        f"{operation.name}/weight", kernel, bits, Scaling(tuple(operation.weight.scale.tolist()))
    )
    bias = writer.model.constant(f"{operation.name}/bias", array_of(operation.bias), Scaling(tuple(units.tolist())))

    def write(target: int, activation: int) -> None:
        options = schema.FullyConnectedOptionsT()
        options.keepNumDims, options.fusedActivationFunction = True, activation
        writer.model.operator("FULLY_CONNECTED", [rows, weight, bias], [target], options)

    windows.finish(writer, operation, counts, write)
    return True


def _padded(writer: Writer, operation: Conv, tensor: int, sizes, window: windows.Window) -> int:
    if not any(map(any, window.padding)):
        return tensor
    (top, bottom), (left, right) = window.padding
    source = operation.inputs[0]
    wide = writer.like(source, f"{source}/padded", (1, sizes[0] + top + bottom, sizes[1] + left + right, sizes[2]))
    amounts = writer.numbers(((0, 0), (top, bottom), (left, right), (0, 0)))
    writer.model.operator("PAD", [tensor, amounts], [wide], schema.PadOptionsT())
    return wide


def _side_by_side(writer: Writer, operation: Conv, tensor: int, window: windows.Window, counts) -> int:
    """(N, height, width, size of a window): the places of each window one after another, rows first."""
    for dim in (2, 1):  # columns first: rows are then cut whole
        extent, step, spread = (each[dim - 1] for each in (window.size, window.stride, window.dilation))
        if extent == 1 and step == 1:
            continue
        pieces = [
            _cut(writer, operation, tensor, dim, place * spread, counts[dim - 1], step) for place in range(extent)
        ]
        tensor = pieces[0] if extent == 1 else _joined(writer, operation, pieces)
    return tensor


def _cut(writer: Writer, operation: Conv, tensor: int, dim: int, start: int, count: int, step: int) -> int:
    shape = list(writer.model.shape(tensor))
    shape[dim] = count
    piece = writer.like(operation.inputs[0], "s", shape)
    begins = [start if place == dim else 0 for place in range(4)]
    if step == 1:
        sizes = writer.numbers([-1, *shape[1:]])
        writer.model.operator("SLICE", [tensor, writer.numbers(begins), sizes], [piece], schema.SliceOptionsT())
        return piece
    ends = [
        begin + (size - 1) * (step if place == dim else 1) + 1
        for place, (begin, size) in enumerate(zip(begins, shape, strict=True))
    ]
    steps = [step if place == dim else 1 for place in range(4)]
    options = schema.StridedSliceOptionsT()
    options.beginMask = options.endMask = 1  # all of the batch
    operands = [tensor, *map(writer.numbers, (begins, ends, steps))]
    writer.model.operator("STRIDED_SLICE", operands, [piece], options)
    return piece


def _joined(writer: Writer, operation: Conv, pieces: list[int]) -> int:
    shape = list(writer.model.shape(pieces[0]))
    shape[3] *= len(pieces)
    joined = writer.like(operation.inputs[0], "j", shape)
    options = schema.ConcatenationOptionsT()
    options.axis = 3
    writer.model.operator("CONCATENATION", pieces, [joined], options)
    return joined
