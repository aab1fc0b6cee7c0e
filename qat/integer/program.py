"""IntegerProgram: a network as typed integer operations, the one thing that lowering makes and emitters read.

Everything is checked when a program is made: names resolve, operations are in order, shapes and grids agree,
multipliers are those of the scales, and no accumulator can leave int32 (sums of products of 16-bit codes: 38 bits).
"""

import dataclasses
import fnmatch
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

from torch import Tensor

from qat.errors import ProgramError
from qat.integer.checks import check_edges, check_lengths, check_operation, check_order
from qat.integer.fixed_point import Multiplier, SumMultipliers
from qat.integer.images import ImageScaling
from qat.integer.lengths import Length, LengthRange, at_lengths
from qat.integer.operations import (
    Add,
    ArgMax,
    AveragePool,
    Concatenate,
    Conv,
    CumulativeSum,
    Divide,
    Embedding,
    Expand,
    FloatIsland,
    Gather,
    IndexProduct,
    IndexSum,
    IndexTable,
    Linear,
    LogSoftmax,
    LogSoftmaxFactors,
    Loop,
    MatMul,
    Max,
    MaxPool,
    Mean,
    Mul,
    Negate,
    Normalize,
    NormalizeFactors,
    Operation,
    Pad,
    Ratio,
    Requantize,
    Reshape,
    Select,
    Slice,
    Softmax,
    SoftmaxFactors,
    Sum,
    Table,
    Take,
    TopKIndices,
    TopKValues,
    Transpose,
    table_codes,
)
from qat.integer.values import Constant, Grid, IndexRange, Value, Weight, WeightGrid, check_name, float32

if TYPE_CHECKING:
    from qat.integer.module import ProgramModule

__all__ = [
    "Add", "ArgMax", "AveragePool", "Concatenate", "Constant", "Conv", "CumulativeSum", "Divide", "Embedding",
    "Expand", "FloatIsland", "Gather", "Grid", "IndexProduct", "IndexRange", "IndexSum", "IndexTable", "Input",
    "IntegerProgram", "Layer", "Length", "LengthRange", "Linear", "LogSoftmax", "LogSoftmaxFactors", "Loop", "MatMul",
    "Max", "MaxPool", "Mean", "Mul", "Multiplier", "Negate", "Normalize", "NormalizeFactors", "Output", "Pad",
    "Ratio", "Requantize", "Reshape", "Select", "Slice", "Softmax", "SoftmaxFactors", "Sum", "SumMultipliers",
    "Table", "Take", "TopKIndices", "TopKValues", "Transpose", "Value", "Weight", "WeightGrid", "float32",
    "table_codes",
]  # fmt: skip

#: Programs of one length that a program keeps: training data comes in buckets of a few.
MAX_PROGRAMS = 16

#: Width of the constants of a float island.
FLOAT_BITS = 32

Inputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


@dataclass(frozen=True)
class Input:
    """A real float32 input, quantized first: code = clamp(round_half_even(fl32(x / scale)) + zero_point).

    Or, where the value holds indices, an integer one that is taken as it is.
    name: what callers and exported files call it. value: the value that holds its codes.
    codes: whether it takes codes instead of real numbers (`qat.integer.interpreter.edge_dtype`).
    image: where the codes are pixels, how they become the real numbers that the network was trained with.
    by_reciprocal: whether real numbers are multiplied by fl32(1 / scale) instead of divided (`qat.integer.semantics`).
    """

    name: str
    value: str
    codes: bool = False
    image: ImageScaling | None = None
    by_reciprocal: bool = False

    def __post_init__(self):
        check_name(self.name, "an input")
        if self.image is not None and not self.codes:
            raise ProgramError(f"input {self.name!r} takes pictures, whose pixels are codes; write codes=True.")


@dataclass(frozen=True)
class Output:
    """A real float32 output, dequantized last: fl32(scale * (code - zero_point)); or indices, int64, as they are.

    name, value, codes: as for `Input`.
    """

    name: str
    value: str
    codes: bool = False

    def __post_init__(self):
        check_name(self.name, "an output")


@dataclass(frozen=True)
class Layer:
    """One operation as a report shows it. weight_bits: None without weights. bytes: weights at true width and bias."""

    name: str
    source: str
    kind: str
    weight_bits: int | None
    activation_bits: int
    weight_count: int
    bytes: int


@dataclass(frozen=True, eq=False)
class IntegerProgram:
    """Integer operations in the order in which they run.

    inputs, outputs: tensors at the edges, in the order of the network's arguments and results.
    values: every integer tensor, inputs and results of operations. constants: operands that never change.
    output_structure: what `program(inputs)` returns: "tensor" (one output), "tuple" or "dict" (by output name); outputs
    of a network that returns nested structures are named by their place, "features.0", and come as a dict.
    lengths: what the sizes that are a `Length` follow. The shapes are those of recorded lengths.
    """

    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    values: tuple[Value, ...]
    operations: tuple[Operation, ...]
    constants: tuple[Constant, ...] = ()
    output_structure: str = "tensor"
    lengths: tuple[LengthRange, ...] = ()

    def __post_init__(self):
        check_edges(self)
        check_order(self)
        for operation in self.operations:
            check_operation(operation, self.named)
        check_lengths(self)
        if any(edge.image is not None for edge in self.inputs):
            from qat.integer.image_input import check_images

            check_images(self)

    def __call__(self, inputs: Inputs):
        """Run the reference interpreter. inputs: real (or index) tensor(s), by position or by input name.

        Returns real float32 (or int64 index) output(s) in `output_structure`.
        """
        # The interpreter is above the program it runs; only this convenience looks up.
        from qat.integer.interpreter import run_real

        return run_real(self, inputs)

    def at(self, **lengths: int) -> "IntegerProgram":
        """The program of inputs of one length, `program.at(length=12)`; those that are not named are as recorded.

        Raises `ProgramError` for a length that inputs cannot have.
        """
        known = {entry.symbol: entry for entry in self.lengths}
        for symbol, length in lengths.items():
            if symbol not in known:
                names = ", ".join(known) or "none"
                raise ProgramError(f"the program has no length {symbol!r}; its lengths are: {names}.")
            entry = known[symbol]
            if not isinstance(length, int) or not entry.shortest <= length <= entry.longest:
                raise ProgramError(
                    f"{symbol} is {length!r}; the program takes {entry.shortest} to {entry.longest}. Prepare the "
                    "network with example_inputs of the longest length that it will meet."
                )
        if not known:
            return self
        chosen = tuple(lengths.get(symbol, entry.recorded) for symbol, entry in known.items())
        made = self._of_one_length.get(chosen)
        if made is None:
            made = self._made_for(dict(zip(known, chosen, strict=True)))
            # other threads may do the same
            for oldest in list(self._of_one_length)[: 1 - MAX_PROGRAMS]:
                self._of_one_length.pop(oldest, None)
            self._of_one_length[chosen] = made
        return made

    def _made_for(self, sizes: Mapping[str, int]) -> "IntegerProgram":
        """The program of inputs of these lengths, by symbol."""
        values = at_lengths(self.values, sizes)
        constants = tuple(constant.at(sizes) for constant in self.constants)
        known = {entry.name: entry for entry in (*values, *constants)}
        operations = [
            operation.refitted([known[name] for name in operation.inputs], known[operation.output])
            for operation in at_lengths(self.operations, sizes)
        ]
        return IntegerProgram(self.inputs, self.outputs, values, tuple(operations), constants, self.output_structure)

    @functools.cached_property
    def _of_one_length(self) -> dict[tuple[int, ...], "IntegerProgram"]:
        """Programs of one length that were asked for lately."""
        return {}

    @functools.cached_property
    def named(self) -> dict[str, Value | Constant]:
        """Values and constants by name."""
        return {entry.name: entry for entry in (*self.values, *self.constants)}

    @property
    def bodies(self) -> tuple["IntegerProgram", ...]:
        """The steps of its loops."""
        return tuple(operation.body for operation in self.operations if isinstance(operation, Loop))

    def value(self, name: str) -> Value | Constant:
        """The value or constant of that name."""
        return self.named[name]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The operations as a report shows them, in order."""
        return tuple(_layer(operation, output) for operation, output in self.computations())

    @property
    def bytes(self) -> int:
        """Bytes of all weights at their true width, and of all biases."""
        return sum(layer.bytes for layer in self.layers)

    @property
    def float_bytes(self) -> int:
        """Bytes of the same weights and biases in float32."""
        return sum(4 * count for operation, _ in self.computations() for count in _counts(operation))

    @property
    def float_operations(self) -> tuple[FloatIsland, ...]:
        """The operations that compute in real numbers (`name`, `source`, `function`), none in an integer program."""
        return tuple(operation for operation, _ in self.computations() if isinstance(operation, FloatIsland))

    def with_integer_edges(self, *patterns: str) -> "IntegerProgram":
        """The same program, whose inputs and outputs of these names take and give codes instead of real numbers.

        patterns: as in a shell, "past.*". What is indices stays so. Raises `ProgramError` for a pattern that names no
        input and no output.
        """
        edges = [edge.name for edge in (*self.inputs, *self.outputs)]
        for pattern in patterns:
            if not fnmatch.filter(edges, pattern):
                raise ProgramError(f"no input or output is named {pattern!r}; choose among {', '.join(edges)}.")
        named = {name for pattern in patterns for name in fnmatch.filter(edges, pattern)}
        return self._with_codes(lambda edge: edge.codes or edge.name in named)

    def with_real_edges(self) -> "IntegerProgram":
        """The same program, of which no input and no output carries codes, and none is a raw picture."""
        from qat.integer.image_input import without_image_inputs

        return without_image_inputs(self)._with_codes(lambda edge: False)

    def with_image_input(
        self,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        channels_last: bool = False,
        input: str | None = None,
        largest: int = 255,
    ) -> "IntegerProgram":
        """The same program, which takes raw uint8 pictures: their codes are exactly those of the normalized numbers.

        mean, std, largest: (pixel / largest - mean) / std, in float32 and in this order, is what the network takes; a
        number for all channels, or one for each. channels_last: whether pictures are (N, height, width, C) instead of
        (N, C, height, width). input: which input, where there are several. Raises `ProgramError` for numbers that scale
        nothing, and for an input that is no picture.
        """
        from qat.integer.image_input import with_image_input

        return with_image_input(self, ImageScaling(mean, std, largest, channels_last), input)

    def _with_codes(self, chosen: Callable[[Input | Output], bool]) -> "IntegerProgram":
        inputs, outputs = (
            tuple(
                dataclasses.replace(edge, codes=chosen(edge) and isinstance(self.value(edge.value).grid, Grid))
                for edge in edges
            )
            for edges in (self.inputs, self.outputs)
        )
        return dataclasses.replace(self, inputs=inputs, outputs=outputs)

    def weighted(self) -> Iterator[Operation]:
        """The operations that have a weight: sums of products, embeddings, also in loops."""
        return (operation for operation, _ in self.computations() if hasattr(operation, "weight"))

    def computations(self) -> Iterator[tuple[Operation, Value]]:
        """Every operation with its output, in order, and in the place of a loop those of its step."""
        for operation in self.operations:
            if isinstance(operation, Loop):
                yield from operation.body.computations()
            else:
                yield operation, self.named[operation.output]

    def to_module(self) -> "ProgramModule":
        """A `torch.nn.Module` that computes the program: on a GPU, compiled, or exported by `torch.export`.

        Raises `ProgramError` for float islands.
        """
        # The module is above the program it runs, as the interpreter is.
        from qat.integer.module import ProgramModule

        return ProgramModule.of(self)

    def save(self, directory: str | PathLike) -> None:
        """Write program.json and program.safetensors into `directory`, each complete or not at all."""
        from qat.integer.storage import save

        save(self, directory)

    @classmethod
    def load(cls, directory: str | PathLike) -> "IntegerProgram":
        """Read what `save` wrote. Raises `ProgramError` for a file that is damaged, hostile or of another version."""
        from qat.integer.storage import load

        return load(directory)


def _counts(operation: Operation) -> tuple[int, int]:
    """How many weights and biases an operation has, or real constants."""
    if isinstance(operation, FloatIsland):
        return sum(values.numel() for values in operation.constants.values()), 0
    weight, bias = getattr(operation, "weight", None), getattr(operation, "bias", None)
    return 0 if weight is None else weight.codes.numel(), 0 if bias is None else bias.numel()


def _layer(operation: Operation, output: Value) -> Layer:
    weight = getattr(operation, "weight", None)
    weights, biases = _counts(operation)
    if isinstance(operation, FloatIsland):
        bits, size = (FLOAT_BITS if weights else None), weights * FLOAT_BITS // 8
    else:
        bits, size = (None, 0) if weight is None else (weight.grid.bits, weight.packed_bytes)
    return Layer(
        name=operation.name,
        source=operation.source,
        kind=type(operation).__name__,
        weight_bits=bits,
        activation_bits=output.grid.bits,
        weight_count=weights,
        bytes=size + 4 * biases,
    )
