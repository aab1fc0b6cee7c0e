"""Weights that take their true width in the file: 4 and 2 bits.

XNNPACK multiplies with packed weights in matrix products alone, exactly and as fast as with int8 ones. Convolutions of
int4 weights are left to LiteRT's own kernel, which unpacks them at every run, rounds twice (the product with a 31-bit
factor to its upper 32 bits, then the shift, half up) and takes 0.69 ms where that of int8 takes 0.17 ([32, 32, 64] by
64 x 3 x 3, one thread of ai-edge-litert 2.3). So windows are laid side by side by slices, and the convolution is a
matrix product: 0.25 ms (`python tests/benchmarks/bench_litert_kernels.py`).
"""

import numpy

from qat.emitters.litert.channel_scales import channel_scales
from qat.emitters.litert.forms import cuts, windows
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
    if writer.real or operation.weight.grid.bits > max(_WIDTHS) or writer.is_wide(operation.inputs[0]):
        return 8
    fitting = [bits for bits in _WIDTHS if fits_bits(lowest, highest, bits)]
    return min(fitting, default=8)


def fits_bits(lowest: int, highest: int, bits: int) -> bool:
    """Whether signed integers of this width hold lowest..highest."""
    return -(2 ** (bits - 1)) <= lowest and highest < 2 ** (bits - 1)


def as_matrix_product(writer: Writer, operation: Conv) -> bool:
    """Write a convolution of narrow weights as a matrix product; False where int8 is to be, or takes no more room."""
    bits = packed_bits(writer, operation)
    if bits == 8 or operation.groups > 1:
        return False
    window = windows.Window.of(operation.kernel_size, operation.stride, operation.padding, operation.dilation)
    slices = sum(size for size in window.size if size > 1) + sum(step > 1 for step in window.stride)
    saved = operation.weight.codes.numel() * (8 - bits) // 8
    if slices and writer.unpacked or saved < slices * _BYTES_OF_SLICE:
        return False
    source = operation.inputs[0]
    tensor, sizes = windows.source_of(writer, source)
    counts = window.counts(sizes[:2])
    tensor = _padded(writer, operation, tensor, sizes, window)
    rows = _side_by_side(writer, operation, tensor, window, counts)
    kernel = array_of(windows.flat_weight(operation.weight.kernel).permute(0, 2, 3, 1)).reshape(len(operation.bias), -1)
    scales = channel_scales(writer.program, operation)
    units = scales * numpy.float32(writer.scale(source))
    weight = writer.model.packed_constant(f"{operation.name}/weight", kernel, bits, Scaling(tuple(scales.tolist())))
    bias = writer.model.constant(f"{operation.name}/bias", array_of(operation.bias), Scaling(tuple(units.tolist())))

    def write(target: int, activation: int) -> None:
        options = schema.FullyConnectedOptionsT()
        options.keepNumDims, options.fusedActivationFunction = True, activation
        writer.model.operator("FULLY_CONNECTED", [rows, weight, bias], [target], options)

    windows.finish(writer, operation, counts, write)
    return True


def _padded(writer: Writer, operation: Conv, tensor: int, sizes, window: windows.Window) -> int:
    """What the windows lie in; of a stride it has a multiple, of zeros that no window reads."""
    pads = tuple(
        (before, after + -(size + before + after) % step)
        for size, (before, after), step in zip(sizes, window.padding, window.stride, strict=False)
    )
    return windows.widened(writer, operation.inputs[0], tensor, pads)


def _side_by_side(writer: Writer, operation: Conv, tensor: int, window: windows.Window, counts) -> int:
    """(N, height, width, size of a window): the places of each window one after another, rows first.

    Cut as `cuts` says: as many columns as the stride become channels of one, and as many rows one row.
    """
    name, (_, height, width, channels) = operation.inputs[0], writer.model.shape(tensor)
    (rows, columns), (down, across) = window.size, window.stride
    tensor = cuts.in_shape(writer, name, tensor, (1, height, width // across, across * channels))
    pieces = []
    for first, last in _runs([place * window.dilation[1] for place in range(columns)], across):
        begins = (0, 0, first // across, first % across * channels)
        sizes = (1, height, counts[1], (last - first + 1) * channels)
        pieces.append(cuts.block(writer, name, tensor, begins, sizes))
    tensor = _joined(writer, name, pieces)
    channels = writer.model.shape(tensor)[3]
    tensor = cuts.in_shape(writer, name, tensor, (1, height // down, down * counts[1], channels))
    places = [place * window.dilation[0] for place in range(rows)]
    begins = [(0, place // down, place % down * counts[1], 0) for place in places]
    return _joined(writer, name, [cuts.block(writer, name, tensor, begin, (1, *counts, channels)) for begin in begins])


def _runs(places: list[int], step: int) -> list[tuple[int, int]]:
    """(first, last) of places that follow one another without a multiple of the step between them."""
    runs = []
    for place in places:
        if runs and place == runs[-1][1] + 1 and place % step:
            runs[-1] = (runs[-1][0], place)
        else:
            runs.append((place, place))
    return runs


def _joined(writer: Writer, name: str, pieces: list[int]) -> int:
    if len(pieces) == 1:
        return pieces[0]
    shapes = [writer.model.shape(piece) for piece in pieces]
    joined = writer.like(name, "j", (*shapes[0][:3], sum(shape[3] for shape in shapes)))
    options = schema.ConcatenationOptionsT()
    options.axis = 3
    writer.model.operator("CONCATENATION", pieces, [joined], options)
    return joined
