"""What the ONNX forms of all operations share: names of tensors, constants of grids, nodes with a clamp behind them.

A code travels as `code + grid.unsigned_offset`, so signed grids become uint8 as well: with int8 activations the same
network ran 11 times slower in ONNX Runtime 1.32. uint8 saturates at 0 and 255; narrower limits take a Clip. Codes of
more than 8 bits are int32, and only the operations of `forms.wide` know them.
"""

import numpy
from onnx import TensorProto, helper

from qat.emitters.onnxruntime.graph import Graph, array_of
from qat.emitters.refused import Refusal, RefusedError
from qat.integer.fixed_point import MANTISSA_BITS
from qat.integer.lengths import Length
from qat.integer.operations import ComputingOperation
from qat.integer.program import Input, IntegerProgram, Output
from qat.integer.values import AnyGrid, Constant, Grid, IndexRange

MICROSOFT = "com.microsoft"
UINT8_MAX = 255
#: What the names of tensors with codes begin with.
CODES = "codes/"
#: Why sums cannot become codes, and what to do.
TOO_FINE = (
    f"its output has steps more than 2^{MANTISSA_BITS} times finer than its sums",
    "look for a range that collapsed",
)


def tensor_of(value: str) -> str:
    """Name of the tensor that holds the codes of a value or constant: uint8, int32 of wide ones, int64 of indices."""
    return f"{CODES}{value}"


def is_wide(grid: AnyGrid) -> bool:
    """Whether codes of real numbers are such that uint8 cannot hold them."""
    return isinstance(grid, Grid) and grid.quant_max + grid.unsigned_offset > UINT8_MAX


def refused(refusal: Refusal) -> RefusedError:
    """What a form raises that has no kernel for its operation; `refusals` gathers them."""
    return RefusedError("onnxruntime", [refusal])


class Writer:
    """Writes operations into a graph; remembers which grids have their constants."""

    def __init__(self, program: IntegerProgram, graph: Graph | None = None) -> None:
        self.program = program
        self.graph = graph or Graph(program, compact=True)
        self._grids: dict[str, tuple[str, str]] = {}
        self._zeros: dict[str, str] = {}

    def grid(self, name: str) -> AnyGrid:
        """The grid of a value or constant."""
        return self.program.value(name).grid

    def is_constant(self, name: str) -> bool:
        """Whether that is a constant."""
        return isinstance(self.program.value(name), Constant)

    def holds_indices(self, name: str) -> bool:
        """Whether that holds indices instead of codes of real numbers."""
        return isinstance(self.grid(name), IndexRange)

    def offset(self, name: str) -> int:
        """What to add to a code to have the number in its tensor."""
        return 0 if self.holds_indices(name) else self.grid(name).unsigned_offset

    def tensor_type(self, name: str) -> int:
        """ONNX type of the tensor that holds a value's codes."""
        if self.holds_indices(name):
            return TensorProto.INT64
        return TensorProto.INT32 if self.is_wide(name) else TensorProto.UINT8

    def is_wide(self, name: str) -> bool:
        """Whether that has codes of real numbers that uint8 cannot hold."""
        return is_wide(self.grid(name))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a value or constant, without the batch."""
        return tuple(self.program.value(name).shape)

    def check_grid(self, name: str) -> None:
        """Refuse a grid that uint8 cannot hold."""
        if self.is_wide(name):
            grid = self.grid(name)
            raise refused(
                Refusal.of_value(
                    name,
                    "ONNX Runtime's integer kernels take codes of 8 bits",
                    "quantize its activations to at most 8 bits",
                    f"these are {grid.quant_min}..{grid.quant_max}",
                )
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

    def zero_point(self, name: str) -> str:
        """Name of what a value's tensor holds for zero."""
        if not self.holds_indices(name):
            return self.grid_constants(name)[1]
        if name not in self._zeros:
            self._zeros[name] = self.graph.constant(f"{tensor_of(name)}/zero", 0, numpy.int64)
        return self._zeros[name]

    def constant(self, constant: Constant) -> None:
        """Codes that never change, with a batch of 1."""
        codes = array_of(constant.codes).astype(numpy.int64) + self.offset(constant.name)
        dtype = helper.tensor_dtype_to_np_dtype(self.tensor_type(constant.name))
        name = tensor_of(constant.name)
        if not constant.sizes:
            self.graph.constant(name, codes[None], dtype)
            return
        self.graph.cut(self.graph.constant(f"{name}/whole", codes[None], dtype), name, constant.sizes, 1)

    def output(self, edge: Output) -> None:
        """Codes to a real output; indices, and codes that stay codes, as they are."""
        source = tensor_of(edge.value)
        self.check_grid(edge.value)
        if edge.codes or self.holds_indices(edge.value):
            self.graph.node("Identity", [source], edge.name)
            return
        self.graph.node("DequantizeLinear", [source, *self.grid_constants(edge.value)], edge.name)

    def input(self, edge: Input) -> None:
        """Real input to codes; indices, and what is codes already, as they are."""
        self.graph.claim(edge.name)
        grid = self.grid(edge.value)
        self.check_grid(edge.value)
        if edge.codes or self.holds_indices(edge.value):
            self.graph.node("Identity", [edge.name], tensor_of(edge.value))
            return
        operands = [edge.name, *self.grid_constants(edge.value)]
        self.clamped("QuantizeLinear", operands, edge.value, grid.quant_min, grid.quant_max)

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

    def limited(self, kind: str, operands: list[str], operation: ComputingOperation, domain="", **attributes) -> None:
        """A node that makes the operation's output within its clamp."""
        self.clamped(kind, operands, operation.output, operation.clamp_min, operation.clamp_max, domain, **attributes)

    def clip(self, source: str, target: str, low: int, high: int) -> None:
        """Limit uint8 codes to low..high."""
        limits = [
            self.graph.constant(f"{target}/{end}", limit, numpy.uint8) for end, limit in (("min", low), ("max", high))
        ]
        self.graph.node("Clip", [source, *limits], target)

    def reshape(self, source: str, target: str, shape: tuple[int, ...]) -> str:
        """shape: with the batch in front, 0 to keep it."""
        follows = [place for place, size in enumerate(shape) if isinstance(size, Length)]
        if len(follows) == 1 and -1 not in shape:  # the only size that is not known: the runtime finds it
            shape = (*shape[: follows[0]], -1, *shape[follows[0] + 1 :])
        wanted = self.graph.constant(f"{target}/shape", shape, numpy.int64)
        return self.graph.node("Reshape", [source, wanted], target)

    def shape_constant(self, name: str, shape: tuple[int, ...]) -> str:
        """Name of a shape, with the batch in front."""
        return self.graph.constant(f"{name}/shape", shape, numpy.int64)
