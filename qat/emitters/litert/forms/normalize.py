"""Normalization of integer operators: ten passes over the value, and a root and its quotients once a row.

This is the program's definition, operator for operator (`qat.integer.kernels.normalize`). Values are normalized in
int32 where the program does so, else in int64. What is computed once a row is int64, in tensors (N, rows).
"""

import numpy

from qat.emitters.litert.forms.divided import divided, root
from qat.emitters.litert.forms.integers import Integers
from qat.emitters.litert.model import schema
from qat.emitters.litert.norms import norm_divisions
from qat.emitters.litert.orders import Order
from qat.emitters.litert.writer import Writer, array_of
from qat.integer.operations import Normalize


def normalize(writer: Writer, operation: Normalize) -> None:
    """`kernels.normalize`; of real numbers their mean square and its root."""
    source = operation.inputs[0]
    order = writer.held(source).order
    tensor, axes = writer.read(source, order), [order.index(dim) for dim in operation.dims]
    if writer.real:
        _of_reals(writer, operation, order, tensor, axes)
        return
    grid, factors, shape = writer.grid(source), operation.factors, writer.shape(source)
    divisions = norm_divisions(operation, shape, grid, writer.grid(operation.output))
    nodes, count = Integers(writer, operation.name), operation.row_size(shape)
    codes, rest = nodes.cast(tensor, numpy.int32), None
    if operation.centered:
        total = nodes.reduced("SUM", codes, axes)
        values = nodes.between("SUB", codes, nodes.apply("FLOOR_DIV", total, factors.count))
        rest = nodes.cast(_by_rows(nodes, nodes.apply("FLOOR_MOD", total, factors.count)), numpy.int64)
    else:
        values = nodes.apply("SUB", codes, grid.zero_point + writer.offset(source))
    square = _under_the_root(nodes, operation, values, axes, rest, count * (grid.quant_max - grid.quant_min) ** 2)
    found = root(nodes, square, divisions.root)
    size = nodes.constant(factors.count, found)
    slope = divided(nodes, size, found, divisions.slopes, factors.quotient_shift)
    row = tuple(1 if axis in axes else length for axis, length in enumerate(writer.model.shape(tensor)))
    dtype = numpy.int32 if divisions.narrow else numpy.int64
    values = values if divisions.narrow else nodes.cast(values, dtype)
    steps = nodes.between("MUL", values, nodes.reshaped(nodes.cast(slope, dtype), row))
    if rest is not None:
        lift = nodes.cast(divided(nodes, rest, found, divisions.slopes, factors.quotient_shift), dtype)
        steps = nodes.between("SUB", steps, nodes.reshaped(lift, row))
    divisors, offsets, bases = (
        _in_order(each, order, dtype) for each in (factors.divisors, factors.offsets, factors.bases)
    )
    if divisions.narrow:
        steps = nodes.apply("DIV", nodes.apply("ADD", steps, offsets), divisors)
    else:
        signs = numpy.sign(divisors)
        steps = steps if signs.min() > 0 else nodes.apply("MUL", steps, signs)
        raised = nodes.apply("ADD", steps, offsets * signs)
        steps = divided(nodes, raised, nodes.constant(abs(divisors), raised), divisions.codes)
    nodes.finish(operation, order, steps, bases)


def _under_the_root(
    nodes: Integers, operation: Normalize, values: int, axes: list[int], rest: int | None, largest: int
) -> int:
    """The square of each row with its epsilon, int64 (N, rows), at least 1. largest: what the squares add up to."""
    factors, wide = operation.factors, largest >= 2**31
    long = nodes.cast(values, numpy.int64) if wide else values
    sums = _by_rows(nodes, nodes.reduced("SUM", nodes.between("MUL", long, long), axes))
    square = nodes.apply("MUL", sums if wide else nodes.cast(sums, numpy.int64), factors.count)
    if rest is not None:
        square = nodes.between("SUB", square, nodes.between("MUL", rest, rest))
    square = nodes.apply("MUL", square, 1 << 2 * factors.root_shift)
    if factors.epsilon and not operation.l2:
        return nodes.apply("ADD", square, factors.epsilon)
    return nodes.apply("MAXIMUM", square, max(factors.epsilon, 1))


def _by_rows(nodes: Integers, tensor: int) -> int:
    """What there is once a row as (N, rows), which kernels take faster with a number than more dimensions."""
    return nodes.reshaped(tensor, (1, int(numpy.prod(nodes.writer.model.shape(tensor)))))


def _in_order(numbers, order: Order, dtype) -> numpy.ndarray:
    """What broadcasts to a value without its batch, in the order of a tensor; one number for equal ones."""
    array = array_of(numbers).astype(dtype)
    array = array.reshape((1,) * (len(order) - array.ndim) + array.shape).transpose(order)
    return array.reshape(-1)[0] if (array == array.reshape(-1)[0]).all() else array


def _of_reals(writer: Writer, operation: Normalize, order: Order, tensor: int, axes: list[int]) -> None:
    """The operators that networks have: MEAN, RSQRT, and products."""
    nodes, shape = Integers(writer, operation.name), writer.model.shape(tensor)
    row = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    reducer, places = schema.ReducerOptionsT(), writer.numbers(axes)
    reducer.keepDims = True
    grids = writer.grid(operation.inputs[0]), writer.grid(operation.output)
    epsilon, gain, shift = operation.factors.reals(*grids, operation.l2)

    def real(kind, operands, options, size=shape):
        return nodes.add(kind, operands, options, size, numpy.float32)

    def number(value):
        return writer.model.constant("n", numpy.array([value], numpy.float32))

    if operation.centered:
        tensor = real("SUB", [tensor, real("MEAN", [tensor, places], reducer, row)], schema.SubOptionsT())
    kind = "SUM" if operation.l2 else "MEAN"
    square = real(kind, [real("MUL", [tensor, tensor], schema.MulOptionsT()), places], reducer, row)
    if operation.l2:
        square = real("MAXIMUM", [square, number(max(epsilon**2, 1e-38))], schema.MaximumMinimumOptionsT(), row)
    else:
        square = real("ADD", [square, number(epsilon)], schema.AddOptionsT(), row)
    normalized = real("MUL", [tensor, real("RSQRT", [square], None, row)], schema.MulOptionsT())
    gains, shifts = (
        writer.model.constant("n", numpy.atleast_1d(_in_order(each, order, numpy.float32))) for each in (gain, shift)
    )
    scaled = real("MUL", [normalized, gains], schema.MulOptionsT())

    def write(target: int, activation: int) -> None:
        options = schema.AddOptionsT()
        options.fusedActivationFunction = activation
        writer.model.operator("ADD", [scaled, shifts], [target], options)

    writer.limited(operation, order, write)
