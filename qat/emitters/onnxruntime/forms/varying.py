"""Means over as many codes as an input is long: their multiplier is another at every length.

The quantized kernels of the runtime take a constant multiplier; a scale that nodes choose would be a real number on the
way. So the sums are rescaled by integer nodes, with the multiplier of each length in a table.
"""

import numpy

from qat.emitters.onnxruntime.arithmetic import Arithmetic
from qat.emitters.onnxruntime.writer import TOO_FINE, Writer, refused, tensor_of
from qat.emitters.refused import Refusal
from qat.integer.fixed_point import MANTISSA_BITS, Multiplier
from qat.integer.lengths import Length
from qat.integer.operations import Mean
from qat.integer.operations.base import largest_reach

#: Bits of a shift to the right beyond which nothing is left of a product.
_LONGEST_SHIFT = 62


def mean_of_length(writer: Writer, operation: Mean, rows: str, count: Length) -> None:
    """`fixed_point.requantize` of the sums of `rows` (..., count) of codes, for every length of the inputs."""
    nodes, name = Arithmetic(writer, operation, numpy.int64), operation.name
    (entry,) = (entry for entry in writer.program.lengths if entry.symbol == count.symbol)
    source, grid = operation.inputs[0], writer.grid(operation.inputs[0])
    if count.at(entry.longest) * largest_reach(grid) >= 2**MANTISSA_BITS:
        raise refused(
            Refusal.of(
                operation,
                "float32 does not hold the sum of so many codes",
                "prepare the network with shorter example_inputs",
                str(count.at(entry.longest)),
            )
        )
    multipliers = [
        Multiplier.from_scales(grid.scale, operation.share(count.at(length)), writer.grid(operation.output).scale)
        for length in range(entry.shortest, entry.longest + 1)
    ]
    mantissas = [int(multiplier.mantissa) for multiplier in multipliers]
    shifts = [-int(multiplier.exponent) for multiplier in multipliers]
    if min(shifts) < 0:
        raise refused(Refusal.of(operation, *TOO_FINE))
    length = writer.graph.constant("", (Length(count.symbol, count.recorded),), numpy.int64)
    place = nodes.apply("Sub", length, entry.shortest)
    ones = writer.graph.ones(f"{name}/ones", count, numpy.int8)
    sums = nodes.cast(nodes.node("MatMulInteger", rows, ones, writer.zero_point(source)), numpy.int64)
    products = nodes.node("Mul", sums, nodes.gather(mantissas, place))
    sizes = nodes.node("Abs", products)
    # To 24 significant bits, as float32 stores the product.
    units = {1 << (MANTISSA_BITS + bits): 2 << bits for bits in range(MANTISSA_BITS)}
    unit = nodes.step_up(sizes, {0: 1} | units, at_end=True)
    stored = nodes.node("Mul", _divided(nodes, sizes, unit), unit)
    shift = nodes.gather([1 << min(shift, _LONGEST_SHIFT) for shift in shifts], place)
    sizes = _divided(nodes, stored, shift)
    # not by Sign, which ONNX Runtime 1.30 gets wrong for int64
    steps = nodes.node("Where", nodes.apply("Less", products, 0), nodes.node("Neg", sizes), sizes)
    grid = writer.grid(operation.output)
    counted = nodes.apply("Add", steps, grid.zero_point + grid.unsigned_offset)
    limits = [nodes.constant(limit + grid.unsigned_offset) for limit in (operation.clamp_min, operation.clamp_max)]
    narrow = nodes.cast(nodes.node("Clip", counted, *limits), numpy.uint8)
    writer.reshape(narrow, tensor_of(operation.output), (0, *writer.shape(operation.output)))


def _divided(nodes: Arithmetic, numbers: str, divisor: str) -> str:
    """Numbers of at least 0 over a power of two, rounded to the nearest, ties to even."""
    whole = nodes.node("Div", numbers, divisor)
    rest = nodes.node("Sub", numbers, nodes.node("Mul", whole, divisor))
    odd = nodes.apply("BitwiseAnd", whole, 1)
    beyond = nodes.node("Greater", nodes.node("Add", nodes.node("Add", rest, rest), odd), divisor)
    return nodes.node("Add", whole, nodes.cast(beyond, numpy.int64))
