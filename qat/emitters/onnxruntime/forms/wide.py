"""Operations on codes of more than 8 bits: what makes sums for a norm, and what reads them.

The runtime has no quantized kernels for them, so they are integer nodes: products in int32, rescaled in int64, codes in
int32 tensors.
"""

import numpy

from qat.emitters.onnxruntime.arithmetic import Arithmetic
from qat.emitters.onnxruntime.forms import moves
from qat.emitters.onnxruntime.forms.normalize import normalize
from qat.emitters.onnxruntime.graph import array_of
from qat.emitters.onnxruntime.writer import TOO_FINE, Writer, refused, tensor_of
from qat.emitters.refused import Refusal
from qat.integer.fixed_point import LONGEST_SHIFT
from qat.integer.operations import Add, Linear, Normalize, Operation, Requantize, Reshape, Transpose

#: Bits that the terms of a wide sum fill at most (`SumMultipliers`), and their sum.
_SUM_BITS = 42


def is_wide(writer: Writer, operation: Operation) -> bool:
    """Whether an operation makes or reads codes that uint8 cannot hold."""
    return any(map(writer.is_wide, (*operation.inputs, operation.output)))


def write(writer: Writer, operation: Operation) -> None:
    """Add the nodes of one such operation."""
    if type(operation) not in _FORMS:
        for name in (*operation.inputs, operation.output):
            writer.check_grid(name)
    if isinstance(operation, Linear):
        writer.check_grid(operation.inputs[0])
    _FORMS[type(operation)](writer, operation)


def linear(writer: Writer, operation: Linear) -> None:
    """MatMulInteger, and `fixed_point.round_once` of its sums with their bias."""
    nodes, graph, name = Arithmetic(writer, operation, numpy.int64), writer.graph, operation.name
    source = operation.inputs[0]
    kernel = nodes.node("Transpose", graph.weight(f"{name}/weight", operation.weight), perm=(1, 0))
    sums = nodes.node("MatMulInteger", tensor_of(source), kernel, writer.zero_point(source))
    _round_once(nodes, writer, operation, nodes.cast(sums, numpy.int64), array_of(operation.bias))


def requantize(writer: Writer, operation: Requantize) -> None:
    """`fixed_point.round_once` of codes."""
    nodes, source = Arithmetic(writer, operation, numpy.int64), operation.inputs[0]
    zero_point = writer.grid(source).zero_point + writer.offset(source)
    codes = nodes.cast(tensor_of(source), numpy.int64)
    _round_once(nodes, writer, operation, codes, numpy.array([-zero_point]), 1 if operation.factor > 0 else -1)


def _round_once(
    nodes: Arithmetic, writer: Writer, operation: Linear | Requantize, sums: str, bias: numpy.ndarray, sign: int = 1
) -> None:
    """The codes of the operation from int64 `sums`, to which `bias` has still to be added."""
    mantissa = sign * array_of(operation.multiplier.mantissa).astype(numpy.int64)
    shift = -array_of(operation.multiplier.exponent).astype(numpy.int64)
    if shift.min() < 1:
        raise refused(Refusal.of(operation, *TOO_FINE))
    shift = shift.clip(max=LONGEST_SHIFT)
    # What is shifted has to be positive: it is raised by whole codes, which are taken off again.
    lift = numpy.int64(1) << (LONGEST_SHIFT - shift)
    offset = bias.astype(numpy.int64) * mantissa + (numpy.int64(1) << (shift - 1)) + (lift << shift)
    raised = nodes.apply("Add", nodes.apply("Mul", sums, mantissa), offset)
    zero_point = writer.grid(operation.output).zero_point + writer.offset(operation.output)
    _finish(nodes, writer, operation, nodes.apply("Add", _shifted(nodes, raised, shift), zero_point - lift))


def add(writer: Writer, operation: Add) -> None:
    """`fixed_point.requantize_sum`, ties to even."""
    nodes, factors = Arithmetic(writer, operation, numpy.int64), operation.factors
    lift = 1 << max(_SUM_BITS - factors.shift, 1)  # even, as ties are broken by what is odd
    offset = writer.grid(operation.output).zero_point + writer.offset(operation.output) + lift << factors.shift
    terms = []
    for source, factor in zip(operation.inputs, (factors.first, factors.second), strict=True):
        terms.append(nodes.apply("Mul", nodes.cast(tensor_of(source), numpy.int64), factor))
        offset -= factor * (writer.grid(source).zero_point + writer.offset(source))
    total = nodes.apply("Add", nodes.node("Add", *terms), offset)
    if factors.shift:
        odd = nodes.apply("BitwiseAnd", _shifted(nodes, total, factors.shift), 1)
        total = nodes.apply("Add", nodes.node("Add", total, odd), (1 << (factors.shift - 1)) - 1)
        total = _shifted(nodes, total, factors.shift)
    _finish(nodes, writer, operation, nodes.apply("Sub", total, lift))


def _shifted(nodes: Arithmetic, positive: str, shift) -> str:
    """int64 numbers of at least 0, shifted to the right; the runtime shifts unsigned ones alone."""
    shifts = nodes.constant(shift, numpy.uint64)
    shifted = nodes.node("BitShift", nodes.cast(positive, numpy.uint64), shifts, direction="RIGHT")
    return nodes.cast(shifted, numpy.int64)


def _finish(nodes: Arithmetic, writer: Writer, operation: Add | Linear | Requantize, codes: str) -> None:
    """Limit codes counted from 0, int64, and give them the type of the output."""
    offset = writer.offset(operation.output)
    low, high = operation.clamp_min + offset, operation.clamp_max + offset
    clipped = nodes.node("Clip", codes, nodes.constant(low), nodes.constant(high))
    writer.graph.node("Cast", [clipped], tensor_of(operation.output), to=writer.tensor_type(operation.output))


_FORMS = {
    Linear: linear,
    Add: add,
    Normalize: normalize,
    Requantize: requantize,
    Reshape: moves.reshape,
    Transpose: moves.transpose,
}
