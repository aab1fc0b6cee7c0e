"""The reference interpreter: what an integer program computes, by integer arithmetic alone but for float islands.

`run` takes and gives codes and shows every value on the way; `run_real` is what calling a program does.
"""

import functools
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from qat.errors import ProgramError
from qat.integer.calls import by_input_name, structured
from qat.integer.checks import input_of
from qat.integer.kernels import compute, loops
from qat.integer.lengths import Length, at_lengths
from qat.integer.operations import Loop, Operation
from qat.integer.program import Input, Inputs, IntegerProgram
from qat.integer.reals import dequantize, quantize
from qat.integer.values import AnyGrid, Constant, Grid, IndexRange

#: Elements of the largest value that `run_real` computes at a time: they stay in a cache, and a call with a whole
#: data set takes little memory.
_CHUNK = 2**19


def run_real(program: IntegerProgram, inputs: Inputs):
    """Quantize real inputs, run the program, dequantize. Returns as `program.output_structure` says.

    Edges that carry codes or indices are taken and given as they are.
    """
    tensors = named_inputs(program, inputs)
    program = program.at(**lengths_of(program, tensors))
    size = len(next(iter(tensors.values())))
    samples = max(_CHUNK // max(math.prod(value.shape) for value in program.values), 1)
    pieces = []
    for start in range(0, size, samples):
        codes = quantize_inputs(program, {name: tensor[start : start + samples] for name, tensor in tensors.items()})
        results = run(program, codes, keep_all=False)
        pieces.append([results[edge.value] for edge in program.outputs])
    outputs = {
        edge.name: to_edge(torch.cat(parts), program.value(edge.value).grid, edge.codes)
        for edge, parts in zip(program.outputs, zip(*pieces, strict=True), strict=True)
    }
    return structured(program, outputs)


def named_inputs(program: IntegerProgram, inputs: Inputs) -> dict[str, Tensor]:
    """Inputs by input name, of the dtypes of their edges (`edge_dtype`).

    Checked: all there, of the right shape, one batch size; no NaN, no index or code out of range.

    inputs: a tensor, tensors by position, or tensors by input name.
    """
    given = by_input_name([edge.name for edge in program.inputs], inputs)
    tensors = {}
    for edge in program.inputs:
        value = program.value(edge.value)
        tensor, shape = given[edge.name].detach().cpu(), value.shape
        if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized:
            kind = f"{tensor.dtype} with layout {tensor.layout}"
            raise ProgramError(f"input {edge.name!r} is {kind}; give a dense tensor of real numbers.")
        fits = tensor.dim() == len(shape) + 1 and all(
            size == wanted or isinstance(wanted, Length) for size, wanted in zip(tensor.shape[1:], shape, strict=True)
        )
        if not fits or not len(tensor):
            sizes = (size.describe() if isinstance(size, Length) else str(size) for size in shape)
            raise ProgramError(
                f"input {edge.name!r} has shape {tuple(tensor.shape)}; expected (batch, {', '.join(sizes)}) "
                "with a batch of at least 1."
            )
        tensors[edge.name] = tensor
    lengths = {symbol: max(length, 1) for symbol, length in _lengths_in(program, tensors).items()}
    for edge in program.inputs:  # how far integers reach may follow the length of another input
        grid = at_lengths(program.value(edge.value).grid, lengths)
        tensors[edge.name] = _typed(tensors[edge.name], edge, grid)
    sizes = {name: len(tensor) for name, tensor in tensors.items()}
    if len(set(sizes.values())) > 1:
        raise ProgramError(f"inputs have different batch sizes, {sizes}; they must be equal.")
    return tensors


def lengths_of(program: IntegerProgram, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The lengths of inputs, by symbol. Raises `ProgramError` where inputs do not agree on one."""
    found = _lengths_in(program, tensors)
    for edge in program.inputs:
        given = tuple(tensors[edge.name].shape[1:])
        expected = at_lengths(program.value(edge.value).shape, found)
        if given != expected:
            lengths = ", ".join(f"{symbol} {length}" for symbol, length in found.items())
            raise ProgramError(
                f"input {edge.name!r} has shape {given} behind the batch, but another input has {lengths}, which makes "
                f"it {expected}; pad them to one length."
            )
    return found


def _lengths_in(program: IntegerProgram, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The lengths, by symbol, of the inputs that have them first."""
    places = {entry.symbol: input_of(program, entry.symbol) for entry in program.lengths}
    return {symbol: tensors[name].shape[dim] for symbol, (name, dim) in places.items()}


def _typed(tensor: Tensor, edge: Input, grid: AnyGrid) -> Tensor:
    """An input in the dtype of its edge."""
    dtype = edge_dtype(grid, edge.codes)
    if dtype.is_floating_point:
        if bool(tensor.isnan().any()):
            raise ProgramError(f"input {edge.name!r} contains NaN, which has no code; clean the data.")
        return tensor.to(dtype)
    least, most = edge_limits(grid)
    if tensor.is_floating_point():
        raise ProgramError(f"input {edge.name!r} is {tensor.dtype}; it takes integers of {least}..{most}.")
    if not tensor.numel():  # of length 0, which is refused with the length
        return tensor.to(dtype)
    lowest, highest = (int(extreme) for extreme in torch.aminmax(tensor.to(torch.int64)))
    if lowest < least or highest > most:
        kind = "codes" if edge.codes else "indices"
        raise ProgramError(
            f"input {edge.name!r} has integers {lowest}..{highest}, outside {least}..{most}; give it {kind} of that "
            "range only."
        )
    return tensor.to(dtype)


def quantize_inputs(program: IntegerProgram, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Codes by value name, of inputs by input name."""
    return {
        edge.value: from_edge(tensors[edge.name], program.value(edge.value).grid, edge.codes, edge.by_reciprocal)
        for edge in program.inputs
    }


def edge_dtype(grid: AnyGrid, codes: bool) -> torch.dtype:
    """What callers and files have at an edge whose value is on `grid`. codes: whether it carries codes.

    Codes travel as in the tensors of runtimes, counted from 0 (`code + grid.unsigned_offset`), in uint8 where 8 bits
    hold them.
    """
    if isinstance(grid, IndexRange):
        return grid.dtype
    if not codes:
        return torch.float32
    return torch.uint8 if grid.bits <= 8 else torch.int32


def edge_limits(grid: AnyGrid) -> tuple[int, int]:
    """The smallest and the largest integer at an edge that carries codes or indices."""
    offset = grid.unsigned_offset if isinstance(grid, Grid) else 0
    return grid.quant_min + offset, grid.quant_max + offset


def from_edge(tensor: Tensor, grid: AnyGrid, codes: bool, by_reciprocal: bool = False) -> Tensor:
    """Codes of `grid.dtype`, of a tensor as an edge has it. by_reciprocal: as for `quantize`."""
    if isinstance(grid, IndexRange) or not codes:
        return quantize(tensor, grid, by_reciprocal)
    return (tensor.to(torch.int32) - grid.unsigned_offset).to(grid.dtype)


def to_edge(tensor: Tensor, grid: AnyGrid, codes: bool) -> Tensor:
    """What an edge has for codes of `grid.dtype`."""
    if isinstance(grid, IndexRange) or not codes:
        return dequantize(tensor, grid)
    return (tensor.to(torch.int32) + grid.unsigned_offset).to(edge_dtype(grid, codes))


def run(
    program: IntegerProgram,
    codes: Mapping[str, Tensor],
    keep_all: bool = True,
    take_over: Callable[[Operation, Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Run on codes. codes: of the inputs, by value name, (N, *shape) of their grid's dtype, on any device.

    A program of several lengths runs at that of its inputs.

    take_over: from an operation and the codes it made to the codes that later operations see in their place.

    Returns the codes of every value, or where not `keep_all` of those that the outputs need.
    """
    program = program.at(**lengths_of(program, {edge.name: codes[edge.value] for edge in program.inputs}))
    first = next(iter(codes.values()))
    batch, device = len(first), first.device
    held: dict[str, Tensor] = {}
    for edge in program.inputs:
        held[edge.value] = _checked(program, edge.value, codes[edge.value], batch)
    for constant in program.constants:
        held[constant.name] = constant.codes[None].to(device)
    grids = {entry.name: entry.grid for entry in (*program.values, *program.constants)}
    last_use = {name: index for index, operation in enumerate(program.operations) for name in operation.inputs}
    kept = {edge.value for edge in program.outputs}
    for index, operation in enumerate(program.operations):
        operands, sources = ([table[name] for name in operation.inputs] for table in (held, grids))
        if isinstance(operation, Loop):
            results = loops.loop(operation, operands, functools.partial(run, operation.body, keep_all=False))
        else:
            result = compute(operation, operands, sources, grids[operation.output])
            results = (result if take_over is None else take_over(operation, result),)
        for name, result in zip(operation.outputs, results, strict=True):
            held[name] = _checked(program, name, result, batch)
        if not keep_all:
            for name in {*operation.inputs, *operation.outputs}:
                if name not in kept and last_use.get(name, -1) <= index:
                    held.pop(name, None)
    names = {constant.name for constant in program.constants}
    return {name: tensor for name, tensor in held.items() if name not in names}


def _checked(program: IntegerProgram, name: str, codes: Tensor, batch: int) -> Tensor:
    """`codes` if they are integers of the declared shape, dtype and range."""
    value = program.value(name)
    if isinstance(value, Constant) or codes.dtype != value.grid.dtype or codes.shape != (batch, *value.shape):
        raise ProgramError(
            f"value {name!r} has codes of {codes.dtype} and shape {tuple(codes.shape)}; expected {value.grid.dtype} "
            f"and ({batch}, {', '.join(map(str, value.shape))})."
        )
    lowest, highest = (int(extreme) for extreme in torch.aminmax(codes))
    if lowest < value.grid.quant_min or highest > value.grid.quant_max:
        raise ProgramError(
            f"value {name!r} has codes {lowest}..{highest}, outside {value.grid.quant_min}..{value.grid.quant_max}."
        )
    return codes
