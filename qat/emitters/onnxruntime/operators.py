"""Each operation of an integer program as ONNX nodes in QOperator form, on uint8 codes.

A code travels as `code + grid.unsigned_offset`, so signed grids become uint8 as well: with int8 activations the same
network ran 11 times slower in ONNX Runtime 1.32. uint8 saturates at 0 and 255; narrower limits take a Clip.
Means and average pools are matrix products and convolutions with ones, so that they are rescaled as everything else is.
"""

import math

import numpy

from qat.emitters.onnxruntime.graph import Graph, array_of, pads_of
from qat.errors import ExportError
from qat.integer.operations import (
    Add,
    AveragePool,
    ComputingOperation,
    Concatenate,
    Conv,
    Linear,
    Max,
    MaxPool,
    Mean,
    Mul,
    Operation,
    Pad,
    Requantize,
    Reshape,
    Slice,
    Transpose,
    WeightedOperation,
)
from qat.integer.program import IntegerProgram
from qat.integer.values import Grid, float32

MICROSOFT = "com.microsoft"
UINT8_MAX = 255
#: float32 to int32 conversion of the runtime's elementwise product overflows at 2^31 instead of saturating.
PRODUCT_LIMIT = 2**30


def tensor_of(value: str) -> str:
    """Name of the uint8 tensor that holds the codes of a value or constant."""
    return f"codes/{value}"


def build(program: IntegerProgram) -> bytes:
    """The bytes of the ONNX file."""
    writer = _Writer(program)
    for edge in program.inputs:
        writer.graph.claim(edge.name)
        writer.quantize(edge.name, edge.value)
    for constant in program.constants:
        codes = array_of(constant.codes).astype(numpy.int64) + constant.grid.unsigned_offset
        writer.check_grid(constant.name, constant.grid)
        writer.graph.constant(tensor_of(constant.name), codes[None], numpy.uint8)
    for operation in program.operations:
        writer.check_grid(operation.output, writer.grid(operation.output))
        writer.write(operation)
    for edge in program.outputs:
        scale, zero_point = writer.grid_constants(edge.value)
        writer.graph.node("DequantizeLinear", [tensor_of(edge.value), scale, zero_point], edge.name)
    shapes = {name: entry.shape for name, entry in program.named.items()}
    return writer.graph.to_bytes(
        [(edge.name, shapes[edge.value]) for edge in program.inputs],
        [(edge.name, shapes[edge.value]) for edge in program.outputs],
    )


class _Writer:
    """Writes operations into a graph; remembers which grids have their constants."""

    def __init__(self, program: IntegerProgram) -> None:
        self.program = program
        self.graph = Graph()
        self._grids: dict[str, tuple[str, str]] = {}

    def grid(self, name: str) -> Grid:
        """The grid of a value or constant."""
        return self.program.value(name).grid

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a value or constant, without the batch."""
        return tuple(self.program.value(name).shape)

    def check_grid(self, name: str, grid: Grid) -> None:
        """Refuse a grid that uint8 cannot hold."""
        if grid.quant_max + grid.unsigned_offset > UINT8_MAX:
            raise ExportError(
                f"value {name!r} has codes {grid.quant_min}..{grid.quant_max}, but ONNX Runtime's integer kernels "
                "take 8 bits; quantize its activations to at most 8 bits."
            )

    def grid_constants(self, name: str) -> tuple[str, str]:
        """Names of the scale and zero point of a value's uint8 tensor."""
        if name not in self._grids:
            grid = self.grid(name)
            scale = self.graph.constant(f"{tensor_of(name)}/scale", grid.scale, numpy.float32)
            zero_point = self.graph.constant(
                f"{tensor_of(name)}/zero_point", grid.zero_point + grid.unsigned_offset, numpy.uint8
            )
            self._grids[name] = scale, zero_point
        return self._grids[name]

    def quantize(self, real: str, value: str) -> None:
        """Real input to codes."""
        grid = self.grid(value)
        self.check_grid(value, grid)
        operands = [real, *self.grid_constants(value)]
        self.clamped("QuantizeLinear", operands, value, grid.quant_min, grid.quant_max)

    def clamped(
        self, kind: str, operands: list[str], output: str, low: int, high: int, domain="", **attributes
    ) -> None:
        """A node that makes the value `output`, and a Clip behind it where its limits are narrower than uint8's."""
        target, offset = tensor_of(output), self.grid(output).unsigned_offset
        low, high = low + offset, high + offset
        if (low, high) == (0, UINT8_MAX):
            self.graph.node(kind, operands, target, domain, **attributes)
            return
        wide = self.graph.node(kind, operands, f"{target}/wide", domain, **attributes)
        self.clip(wide, target, low, high)

    def clip(self, source: str, target: str, low: int, high: int) -> None:
        """Limit uint8 codes to low..high."""
        limits = [
            self.graph.constant(f"{target}/{end}", limit, numpy.uint8) for end, limit in (("min", low), ("max", high))
        ]
        self.graph.node("Clip", [source, *limits], target)

    def write(self, operation: Operation) -> None:
        """Add the nodes of one operation."""
        sources = [tensor_of(name) for name in operation.inputs]
        target = tensor_of(operation.output)
        match operation:
            case Conv():
                self.convolution(operation)
            case Linear():
                self.linear(operation)
            case Add():
                self.add(operation)
            case Mul():
                self.multiply(operation)
            case Requantize():
                self.requantize(operation)
            case AveragePool():
                self.average_pool(operation)
            case Mean():
                self.mean(operation)
            case MaxPool():
                self.max_pool(operation)
            case Max():
                axes = self.graph.constant(f"{target}/axes", operation.dims, numpy.int64)
                self.graph.node("ReduceMax", [*sources, axes], target, keepdims=int(operation.keepdim))
            case Concatenate():
                self.graph.node("Concat", sources, target, axis=operation.dim)
            case Reshape():
                self.reshape(sources[0], target, (0, *operation.shape))
            case Transpose():
                self.graph.node("Transpose", sources, target, perm=operation.permutation)
            case Slice():
                axes = range(1, len(operation.starts) + 1)
                cuts = {"starts": operation.starts, "ends": operation.ends, "axes": axes, "steps": operation.steps}
                names = [self.graph.constant(f"{target}/{key}", list(cut), numpy.int64) for key, cut in cuts.items()]
                self.graph.node("Slice", [*sources, *names], target)
            case Pad():
                self.pad(operation)
            case _:
                raise ExportError(f"{type(operation).__name__} {operation.name!r} has no ONNX Runtime form.")

    def reshape(self, source: str, target: str, shape: tuple[int, ...]) -> str:
        """shape: with the batch in front, 0 to keep it."""
        wanted = self.graph.constant(f"{target}/shape", shape, numpy.int64)
        return self.graph.node("Reshape", [source, wanted], target)

    def weights(self, operation: WeightedOperation) -> list[str]:
        """Names of weight, weight scale and weight zero point."""
        name, channels = operation.name, len(operation.weight.codes)
        return [
            self.graph.weight(f"{name}/weight", operation.weight),
            self.graph.constant(f"{name}/weight_scale", array_of(operation.weight.scale), numpy.float32),
            self.graph.constant(f"{name}/weight_zero_point", [0] * channels, numpy.int8),
        ]

    def bias(self, operation: WeightedOperation) -> str:
        """Name of the int32 bias."""
        return self.graph.constant(f"{operation.name}/bias", array_of(operation.bias), numpy.int32)

    def convolution(self, operation: Conv) -> None:
        """QLinearConv."""
        source = operation.inputs[0]
        operands = [
            tensor_of(source),
            *self.grid_constants(source),
            *self.weights(operation),
            *self.grid_constants(operation.output),
            self.bias(operation),
        ]
        self.limited(
            "QLinearConv",
            operands,
            operation,
            kernel_shape=operation.kernel_size,
            strides=operation.stride,
            pads=pads_of(operation.padding),
            dilations=operation.dilation,
            group=operation.groups,
        )

    def limited(self, kind: str, operands: list[str], operation: ComputingOperation, domain="", **attributes) -> None:
        """A node that makes the operation's output within its clamp."""
        self.clamped(kind, operands, operation.output, operation.clamp_min, operation.clamp_max, domain, **attributes)

    def linear(self, operation: Linear) -> None:
        """QGemm, which has an int32 bias; it takes matrices, so other ranks are reshaped around it."""
        source, target = operation.inputs[0], operation.output
        codes, shape = tensor_of(source), self.shape(target)
        flat = len(shape) == 1
        if not flat:
            codes = self.reshape(codes, f"{operation.name}/rows", (-1, self.shape(source)[-1]))
        operands = [
            codes,
            *self.grid_constants(source),
            *self.weights(operation),
            self.bias(operation),
            *self.grid_constants(target),
        ]
        if flat:
            self.limited("QGemm", operands, operation, MICROSOFT, transB=1)
            return
        rows = self.graph.node("QGemm", operands, f"{operation.name}/result", MICROSOFT, transB=1)
        self.limited("Reshape", [rows, self._shape(operation.name, (-1, *shape))], operation)

    def _shape(self, name: str, shape: tuple[int, ...]) -> str:
        return self.graph.constant(f"{name}/shape", shape, numpy.int64)

    def add(self, operation: Add) -> None:
        """QLinearAdd. Its scales only enter as ratios to the output's, here the program's exact factors over 1."""
        factors, name = operation.factors, operation.name
        operands = []
        for end, factor, source in zip(
            ("first", "second"), (factors.first, factors.second), operation.inputs, strict=True
        ):
            ratio = self.graph.constant(f"{name}/{end}_ratio", math.ldexp(factor, -factors.shift), numpy.float32)
            operands += [tensor_of(source), ratio, self.grid_constants(source)[1]]
        one = self.graph.constant(f"{name}/one", 1.0, numpy.float32)
        self.limited("QLinearAdd", [*operands, one, self.grid_constants(operation.output)[1]], operation, MICROSOFT)

    def multiply(self, operation: Mul) -> None:
        """QLinearMul."""
        self._check_product(operation, [self.grid(name) for name in operation.inputs])
        operands = []
        for source in operation.inputs:
            operands += [tensor_of(source), *self.grid_constants(source)]
        self.limited("QLinearMul", [*operands, *self.grid_constants(operation.output)], operation, MICROSOFT)

    def requantize(self, operation: Requantize) -> None:
        """Clip where codes stay what they are, else a QLinearMul by 1 or -1 that has the factor as its scale."""
        source, target = self.grid(operation.inputs[0]), self.grid(operation.output)
        codes, name = tensor_of(operation.inputs[0]), operation.name
        if operation.is_clamp(source, target) and source.unsigned_offset == target.unsigned_offset:
            offset = target.unsigned_offset
            limits = operation.clamp_min + offset, operation.clamp_max + offset
            self.clip(codes, tensor_of(operation.output), *limits)
            return
        self._check_product(operation, [source])
        code, zero_point = (1, 0) if operation.factor > 0 else (0, 1)
        sign = [
            self.graph.constant(f"{name}/sign", [code], numpy.uint8),
            self.graph.constant(f"{name}/factor", float32(abs(operation.factor)), numpy.float32),
            self.graph.constant(f"{name}/sign_zero_point", zero_point, numpy.uint8),
        ]
        operands = [codes, *self.grid_constants(operation.inputs[0]), *sign, *self.grid_constants(operation.output)]
        self.limited("QLinearMul", operands, operation, MICROSOFT)

    def _check_product(self, operation: Mul | Requantize, grids: list[Grid]) -> None:
        largest = math.prod(max(map(abs, grid.reach)) for grid in grids) * operation.multiplier.to_float().max().item()
        if largest >= PRODUCT_LIMIT:
            raise ExportError(
                f"{type(operation).__name__} {operation.name!r} reaches {largest:.3g} steps of its output, whose "
                f"range has collapsed; ONNX Runtime computes up to {PRODUCT_LIMIT}."
            )

    def average_pool(self, operation: AveragePool) -> None:
        """A depthwise QLinearConv with ones."""
        channels = self.shape(operation.output)[0]
        ones = numpy.ones((channels, 1, *operation.kernel_size))
        self.limited(
            "QLinearConv",
            self._averaging(operation, tensor_of(operation.inputs[0]), ones, operation.count),
            operation,
            kernel_shape=operation.kernel_size,
            strides=operation.stride,
            pads=pads_of(operation.padding),
            group=channels,
        )

    def mean(self, operation: Mean) -> None:
        """A QLinearMatMul with a column of ones, the reduced dimensions moved to the end and joined."""
        source, name = operation.inputs[0], operation.name
        shape, codes = self.shape(source), tensor_of(operation.inputs[0])
        kept = [dim for dim in range(1, len(shape) + 1) if dim not in operation.dims]
        order = [0, *kept, *sorted(operation.dims)]
        if order != sorted(order):
            codes = self.graph.node("Transpose", [codes], f"{name}/moved", perm=order)
        count = math.prod(shape[dim - 1] for dim in operation.dims)
        rows = self.reshape(codes, f"{name}/rows", (0, *(shape[dim - 1] for dim in kept), count))
        operands = self._averaging(operation, rows, numpy.ones((count, 1)), count)
        result = self.graph.node("QLinearMatMul", operands, f"{name}/result")
        self.limited("Reshape", [result, self._shape(name, (0, *self.shape(operation.output)))], operation)

    def _averaging(self, operation: AveragePool | Mean, codes: str, ones: numpy.ndarray, count: int) -> list[str]:
        """Operands of a product with ones that each weigh 1 / count."""
        name, source = operation.name, operation.inputs[0]
        return [
            codes,
            *self.grid_constants(source),
            self.graph.constant(f"{name}/ones", ones, numpy.int8),
            self.graph.constant(f"{name}/share", float32(1 / count), numpy.float32),
            self.graph.constant(f"{name}/zero", 0, numpy.int8),
            *self.grid_constants(operation.output),
        ]

    def max_pool(self, operation: MaxPool) -> None:
        """MaxPool on codes, with the overhang of ceil_mode written out as padding."""
        source, target = tensor_of(operation.inputs[0]), tensor_of(operation.output)
        padding = operation.full_padding(self.shape(operation.inputs[0]))
        if any(max(pair) >= size for pair, size in zip(padding, operation.kernel_size, strict=True)):
            # The kernel pads by less than a window; further out, 0 is the code that never wins.
            amounts = self.graph.constant(f"{target}/amounts", pads_of(((0, 0), (0, 0), *padding)), numpy.int64)
            lowest = self.graph.constant(f"{target}/lowest", 0, numpy.uint8)
            source = self.graph.node("Pad", [source, amounts, lowest], f"{target}/padded")
            padding = ((0, 0),) * len(padding)
        self.graph.node(
            "MaxPool",
            [source],
            target,
            kernel_shape=operation.kernel_size,
            strides=operation.stride,
            pads=pads_of(padding),
            dilations=operation.dilation,
        )

    def pad(self, operation: Pad) -> None:
        """Pad with the code of zero."""
        target = tensor_of(operation.output)
        amounts = self.graph.constant(f"{target}/amounts", pads_of(((0, 0), *operation.amounts)), numpy.int64)
        zero_point = self.grid_constants(operation.inputs[0])[1]
        self.graph.node("Pad", [tensor_of(operation.inputs[0]), amounts, zero_point], target)
