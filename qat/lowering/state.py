"""What a node of the exported graph becomes while lowering, and the program under construction."""

import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor
from torch.fx import Node

from qat.errors import ProgramError
from qat.folding import BatchNorm
from qat.inject.exact import code_bounds, grid_of
from qat.inject.handle import Handle
from qat.integer.operations import Operation
from qat.integer.program import Constant, Grid, Negate, Reshape, Transpose, Value
from qat.lowering.lengths import NoLength, beside_batch, lengths_of, sizes_of
from qat.quantizers import FakeQuantize

#: Where the code lies that runs between a network's lines.
_OWN = tuple(str(Path(__file__).parents[1] / part) for part in ("inject", "quantizers", "lowering"))


#: Key of `Node.meta` for a node of constants alone, whose batch of one is no symbol.
CONSTANT = "qat_constant"


class Unlowerable(Exception):
    """A node has no integer form; the message says why and what to do. Collected into one `ConversionError`."""


@dataclass(frozen=True)
class Quantized:
    """A value of the program. shape: without the batch. quantizer: whose grid it lies on.

    merged: 1 where the network holds the first dimension of the shape together with the batch in one. batch_at: where
    the network has the batch at the moment; rules that do not ask for it refuse a value that has it not in front.
    """

    name: str
    shape: tuple[int, ...]
    grid: Grid
    quantizer: str
    merged: int = 0
    batch_at: int = 0

    @property
    def rank(self) -> int:
        """How many dimensions torch counts, the batch with them."""
        return len(self.shape) + 1 - self.merged

    def dim(self, dim: int, what: str = "works on") -> int:
        """The dimension of the program, batch included, that is torch's `dim`. Refuses the batch."""
        order = list(range(1, self.rank))
        order.insert(self.batch_at, 0)
        dim = order[dim % self.rank]
        if dim == 0:
            raise Unlowerable(f"it {what} the batch; keep a dimension for the batch alone, of any size")
        return dim + self.merged


def check_quantized(x) -> None:
    """Refuse an operand that is no value of the program."""
    if not isinstance(x, Quantized):
        raise Unlowerable("its input is not on an integer grid")


@dataclass(frozen=True)
class QuantizedConstant:
    """A constant behind its fake quantizer. transposed: a matrix whose second dimension is the outputs."""

    tensor: Tensor
    quantizer: FakeQuantize
    transposed: bool = False


#: Makes the operation once its output grid is known: (name, output name, output grid, clamp_min, clamp_max).
Builder = Callable[[str, str, Grid, int, int], Operation]


@dataclass(frozen=True)
class Pending:
    """A computation that waits for the quantizer behind it.

    shape: of what the operation makes, without the batch. view: another shape that the result is given then, or
    turn: another order of its dimensions.
    low, high: real bounds of fused activations. build: makes the operation.
    fold: for a layer with weights, the same computation with a batch norm folded in; None where that is not possible.
    merged, batch_at: as of `Quantized`.
    times: the same computation multiplied by a positive number: (node, number) -> Pending; None where it cannot be.
    gained: the same for a constant vector along the last dimension.
    mapped: the function of one value that this is (`qat.lowering.pointwise.Mapped`), None where it is none.
    is_table: whether the operation is made from `mapped`.
    """

    shape: tuple[int, ...]
    build: Builder
    low: float = -math.inf
    high: float = math.inf
    fold: Callable[[BatchNorm], "Pending"] | None = None
    view: tuple[int, ...] | None = None
    turn: tuple[int, ...] | None = None
    times: Callable | None = None
    gained: Callable | None = None
    merged: int = 0
    batch_at: int = 0
    mapped: object | None = None
    is_table: bool = False


@dataclass(frozen=True)
class Masked:
    """Scores of which a softmax leaves some out. mask: bool, True for those, or a value with codes 1 for the others."""

    scores: Quantized
    mask: "Tensor | Quantized"


@dataclass(frozen=True)
class RealInput:
    """An input of the network, before its quantizer. path: its name. example: as the network was recorded with."""

    path: str
    example: Tensor


@dataclass(frozen=True)
class Failed:
    """A node that was reported already, or depends on one that was."""


@dataclass
class Program:
    """The program under construction."""

    handle: Handle
    values: list[Value] = field(default_factory=list)
    constants: list[Constant] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def unique(self, name: str) -> str:
        """`name`, with a number behind it where it is taken."""
        candidate, count = name, 1
        while candidate in self.names:  # a layer may be called `mean#2` itself
            count += 1
            candidate = f"{name}#{count}"
        self.names.add(candidate)
        return candidate

    def value(self, name: str, shape: tuple[int, ...], grid: Grid, quantizer: str) -> Quantized:
        """Declare a value."""
        self.values.append(Value(name, shape, grid))
        return Quantized(name, shape, grid, quantizer)

    def constant(self, name: str, grid: Grid, codes: Tensor) -> Constant:
        """Declare a constant."""
        constant = Constant(self.unique(name), grid, codes.to(grid.dtype).contiguous())
        self.constants.append(constant)
        return constant

    def operand(self, x, rank: int, minus: bool = False) -> "Quantized | Constant":
        """A value, or a fake-quantized constant as one of the program that has `rank` dimensions without the batch.

        minus: the constant with the other sign.
        """
        if isinstance(x, Quantized | Constant):
            return x
        if not isinstance(x, QuantizedConstant):
            raise Unlowerable("an operand is not on an integer grid")
        codes: Tensor = x.quantizer.codes(x.tensor)
        if codes.dim() > rank:
            if codes.shape[0] != 1:
                raise Unlowerable(
                    f"its constant has shape {tuple(codes.shape)} over the batch; constants cannot depend on the batch"
                )
            codes = codes[0]
        codes = codes.reshape((1,) * (rank - codes.dim()) + tuple(codes.shape))
        grid = grid_of(x.quantizer)
        if minus:
            codes, grid = grid.quant_min + grid.quant_max - codes, Negate.mirrored(grid)
        return self.constant(x.quantizer.name, grid, codes)

    def move(
        self, node: Node, source: Quantized, shape: tuple[int, ...], kind: type[Operation], /, **attributes
    ) -> Quantized:
        """Append an operation that moves codes of `source` into `shape`."""
        return self.join(node, (source,), shape, kind, **attributes)

    def join(self, node: Node, sources, shape: tuple[int, ...], kind: type[Operation], /, **attributes) -> Quantized:
        """Append an operation that moves codes of all `sources` into one value of `shape`."""
        path = module_path(node)
        name = self.unique(".".join(filter(None, (path, kind.__name__.lower()))))
        inputs = tuple(source.name for source in sources)
        try:
            operation = kind(name=name, source=path, inputs=inputs, output=name, **attributes)
            grid = operation.output_grid(*sources)
        except ProgramError as error:
            raise Unlowerable(str(error).removesuffix(".")) from error
        self.operations.append(operation)
        (first, *_) = (source for source in sources if isinstance(source, Quantized))
        return self.value(name, shape, grid, first.quantizer)

    def finish(self, pending: Pending, quantizer_name: str) -> Quantized:
        """Append a pending computation with the grid of the quantizer behind it."""
        grid = grid_of(self.handle.quantizers[quantizer_name])
        name = self.unique(quantizer_name.removesuffix(".output"))
        try:
            operation = pending.build(name, name, grid, *code_bounds(pending.low, pending.high, grid))
        except ProgramError as error:
            raise Unlowerable(str(error).removesuffix(".")) from error
        self.operations.append(operation)
        result = self.value(name, pending.shape, grid, quantizer_name)
        if pending.turn is not None:
            turned = self.unique(f"{name}.transpose")
            self.operations.append(
                Transpose(name=turned, source="", inputs=(name,), output=turned, permutation=pending.turn)
            )
            shape = tuple(pending.shape[dim - 1] for dim in pending.turn[1:])
            result = self.value(turned, shape, grid, quantizer_name)
        if pending.view is None:
            return dataclasses.replace(result, merged=pending.merged, batch_at=pending.batch_at)
        viewed = self.unique(f"{name}.reshape")
        self.operations.append(Reshape(name=viewed, source="", inputs=(name,), output=viewed, shape=pending.view))
        result = self.value(viewed, pending.view, grid, quantizer_name)
        return dataclasses.replace(result, merged=pending.merged, batch_at=pending.batch_at)


def module_path(node: Node) -> str:
    """Path of the innermost module that the node was traced in; empty for the network itself."""
    stack = node.meta.get("nn_module_stack") or {}
    # export sees the network as the sub-module `network` of a wrapper
    return list(stack.values())[-1][0].removeprefix("network").removeprefix(".") if stack else ""


def source_line(node: Node) -> str:
    """`file:line` of the innermost line outside torch that made the node."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    outside = [frame for frame in frames if "/torch/" not in frame[0] and not frame[0].startswith(_OWN)] or frames
    return ":".join(outside[-1]) if outside else "an unknown line"


def batch_shape(node: Node, index: int | None = None, batch_at: int = 0) -> tuple[int, ...]:
    """Shape of what the node makes, without the batch dimension, which is at `batch_at`.

    index: of which tensor, if it makes several.
    """
    made = node.meta["val"]
    shape = known_sizes(node, (made if index is None else made[index]).shape)
    if node.meta.get(CONSTANT):
        return shape[1:]
    if 0 < batch_at < len(shape):
        shape = (shape[batch_at], *shape[:batch_at], *shape[batch_at + 1 :])
    if not len(shape) or isinstance(shape[0], int):
        raise Unlowerable(
            "it fixes or removes the batch dimension; keep dimension 0 for the batch, of any size, and take that size "
            "from x.shape[0], since len(x) is a fixed number"
        )
    if not all(isinstance(size, int) for size in shape[1:]):
        raise Unlowerable("it mixes the batch dimension into others; keep dimension 0 for the batch alone")
    return (*_merged_into_batch(node, shape[0]), *shape[1:])


def known_sizes(node: Node, shape) -> tuple:
    """A shape of the graph of `node`, in which what is no integer is of the batch. Sizes may be a `Length`."""
    try:
        return sizes_of(node, shape)
    except NoLength as problem:
        raise Unlowerable(str(problem)) from problem


def merged_dims(node: Node, made) -> int:
    """How many dimensions of the program (0 or 1) are merged into the batch of a tensor of the exported graph."""
    if not isinstance(made, Tensor) or not made.dim():
        return 0
    batch = known_sizes(node, made.shape)[batch_position(node, made)]
    return 0 if isinstance(batch, int) else len(_merged_into_batch(node, batch))


def batch_position(node: Node, made) -> int:
    """Where a tensor of the exported graph has the batch, 0 where it is in front or not there at all."""
    if not isinstance(made, Tensor):
        return 0
    return next((dim for dim, size in enumerate(known_sizes(node, made.shape)) if not isinstance(size, int)), 0)


def _merged_into_batch(node: Node, size) -> tuple[int, ...]:
    """The factor that a dimension 0 has besides the batch, as in `x.flatten(0, 1)`; nothing for the batch alone."""
    if size.node.expr.is_Integer:  # a batch that a node further on fixes
        return ()
    try:
        factor = beside_batch(size, lengths_of(node.graph))
    except NoLength as problem:
        raise Unlowerable(str(problem)) from problem
    if factor is None:
        raise Unlowerable("it mixes the batch dimension into others; keep dimension 0 for the batch")
    return () if type(factor) is int and factor == 1 else (factor,)
