"""Whether a program is the eval forward it was made from, code for code.

torch.export traces a network on tensors without contents, and code may take another way for those than in the eval
forward. So both run on a batch like the recorded examples, on the CPU in float32, before a program is given out.
"""

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.utils import _pytree as pytree

from qat.errors import ConversionError
from qat.inject.exact import grid_of
from qat.inject.handle import Handle
from qat.inject.inputs import input_paths, map_input
from qat.integer.interpreter import named_inputs, quantize_inputs, run
from qat.integer.lengths import at_lengths
from qat.integer.program import IntegerProgram
from qat.integer.reals import quantize
from qat.lowering.state import Quantized, module_path, source_line

#: Samples that are compared: two, since one alone does not show all that depends on the batch; one of a network that
#: makes more codes of it than that, where the second takes as long as the rest of conversion.
_SAMPLES = 2
_MANY_CODES = 2**22


#: Positional and named arguments of the network's forward.
Arguments = tuple[tuple, dict]


@dataclass(frozen=True)
class Quantization:
    """One quantizer in the exported graph. node: the value it rounds. result: what that became in the program."""

    quantizer: str
    node: Node
    result: object


def check_faithful(module: nn.Module, handle: Handle, program: IntegerProgram, marks: list[Quantization]) -> None:
    """Raise `ConversionError` where output codes of `program` are not those of the module's eval forward.

    Real inputs are random, over the whole of their grids; integers are those of the recorded examples. A program of
    many lengths is compared at a shorter one as well. The module is in eval mode, on the CPU and in float32 or float64
    here. marks: every quantizer in the graph, in order.
    """
    with unnoticed(handle):
        for lengths in ({}, *_shorter(program)):
            inputs = _inputs(handle, program, lengths)
            of_length = program.at(**lengths)
            if _is_large(of_length) and _agrees_on_one_sample(module, handle, of_length, inputs):
                continue
            try:
                _compare(module, handle, of_length, inputs, marks)
            except Exception as error:
                if not lengths or isinstance(error, ConversionError):
                    raise
                at = " and ".join(f"{symbol} {length}" for symbol, length in lengths.items())
                raise ConversionError(f"the eval forward fails at {at} ({type(error).__name__}: {error})") from error


def _shorter(program: IntegerProgram) -> list[dict[str, int]]:
    """Lengths besides the recorded ones to compare at: halfway to the shortest."""
    halfway = {entry.symbol: (entry.shortest + entry.recorded) // 2 for entry in program.lengths}
    return [halfway] if any(halfway[entry.symbol] != entry.recorded for entry in program.lengths) else []


@torch.no_grad()
def _inputs(handle: Handle, program: IntegerProgram, lengths: dict[str, int]) -> Arguments:
    """`_SAMPLES` samples: random real numbers within their grids, integers as recorded, cut to `lengths`.

    Integers that choose an entry behind the end then choose the last one.
    """
    generator = torch.Generator().manual_seed(0)
    dtype = next((p.dtype for p in handle.module.parameters() if p.is_floating_point()), torch.float32)
    args, kwargs = _first(_SAMPLES, handle.examples)
    for path, _ in input_paths(handle.original_forward, args, kwargs):
        name = handle.plan.inputs.get(path)
        grid = None if name is None else grid_of(handle.quantizers[name])
        value = next((program.value(edge.value) for edge in program.inputs if edge.name == path), None)
        value = at_lengths(value, lengths) if lengths else value

        def prepared(example: Tensor, grid=grid, value=value) -> Tensor:
            for dim, size in enumerate(value.shape if lengths and value is not None else ()):
                example = example.narrow(dim + 1, 0, size)
            if not example.is_floating_point():
                ends = lengths and value is not None and example.dtype != torch.bool
                return (example.clamp(max=value.grid.quant_max) if ends else example).cpu()
            if grid is None:
                return example.to("cpu", dtype)
            low, high = ((code - grid.zero_point) * grid.scale for code in (grid.quant_min, grid.quant_max))
            return torch.empty(example.shape, dtype=dtype).uniform_(low, high, generator=generator)

        args, kwargs = map_input(args, kwargs, path, handle.input_names, prepared)
    return args, kwargs


def _first(samples: int, inputs: Arguments) -> Arguments:
    return pytree.tree_map_only(Tensor, lambda leaf: leaf.detach()[:samples] if leaf.dim() else leaf.detach(), inputs)


def _is_large(program: IntegerProgram) -> bool:
    return sum(math.prod(value.shape) for value in program.values) > _MANY_CODES


def _agrees_on_one_sample(module: nn.Module, handle: Handle, program: IntegerProgram, inputs: Arguments) -> bool:
    """Whether all output codes are equal; a network need not take a batch of one."""
    try:
        return not any(_differing(*pair) for pair in _outputs(module, handle, program, _first(1, inputs)))
    except Exception:  # of any kind, in the network's own code; with the whole batch it is told
        return False


def _compare(
    module: nn.Module, handle: Handle, program: IntegerProgram, inputs: Arguments, marks: list[Quantization]
) -> None:
    outputs = _outputs(module, handle, program, inputs)
    differing = sum(_differing(*pair) for pair in outputs)
    if not differing:
        return
    with _trails(handle) as trails:
        module(*inputs[0], **inputs[1])
    values = run(program, _input_codes(handle, program, inputs))
    raise ConversionError(
        f"{differing} of {sum(codes.numel() for _, codes in outputs)} output codes of the program are not those of the "
        f"eval forward; {_first_difference(values, trails, marks)}, where torch.export traces another computation than "
        "the eval forward runs, as it does where code asks whether it runs on a torch.Tensor (isinstance, type) or is "
        "traced; compute the same in both."
    )


def _outputs(
    module: nn.Module, handle: Handle, program: IntegerProgram, inputs: Arguments
) -> list[tuple[Tensor, Tensor]]:
    """The codes of every output: those of the eval forward, and those of the program."""
    results = run(program, _input_codes(handle, program, inputs), keep_all=False)
    returned = [leaf for leaf in pytree.tree_leaves(module(*inputs[0], **inputs[1])) if leaf is not None]
    return [
        (_codes_of(real, program.value(edge.value).grid), results[edge.value])
        for real, edge in zip(returned, program.outputs, strict=True)
    ]


def _input_codes(handle: Handle, program: IntegerProgram, inputs: Arguments) -> dict[str, Tensor]:
    given = dict(input_paths(handle.original_forward, *inputs))
    return quantize_inputs(program, named_inputs(program, {edge.name: given[edge.name] for edge in program.inputs}))


@contextlib.contextmanager
def unnoticed(handle: Handle) -> Iterator[None]:
    """Forwards inside are counted and measured nowhere."""
    runs, measures = handle.runs, {name: quantizer.measure for name, quantizer in handle.quantizers.items()}
    try:
        for quantizer in handle.quantizers.values():
            quantizer.measure = False
        with torch.no_grad():
            yield
    finally:
        handle.runs = runs
        for name, measure in measures.items():
            handle.quantizers[name].measure = measure


@contextlib.contextmanager
def _trails(handle: Handle) -> Iterator[dict[str, list[Tensor]]]:
    """What each quantizer rounds inside, in order, by its name."""
    trails = {name: [] for name in handle.quantizers}
    try:
        for name, quantizer in handle.quantizers.items():
            quantizer.trail = trails[name]
        yield trails
    finally:
        for quantizer in handle.quantizers.values():
            quantizer.trail = None


def _first_difference(values: dict[str, Tensor], trails: dict[str, list[Tensor]], marks: list[Quantization]) -> str:
    """The first value of the program whose codes are others than those of the eval forward, in words."""
    calls: dict[str, list[Quantization]] = defaultdict(list)
    for mark in marks:
        calls[mark.quantizer].append(mark)
    passed: dict[str, int] = defaultdict(int)
    for mark in marks:
        name, position = mark.quantizer, passed[mark.quantizer]
        passed[name] += 1
        result = mark.result
        if not isinstance(result, Quantized) or result.name not in values or len(trails[name]) != len(calls[name]):
            continue
        real, codes = trails[name][position], values[result.name]
        if real.numel() != codes.numel():
            continue
        expected = _codes_of(real.movedim(result.batch_at, 0).reshape(codes.shape), result.grid)
        differing = _differing(expected, codes)
        if differing:
            return (
                f"the first value that differs is {name} in {module_path(mark.node) or 'the network'} at "
                f"{source_line(mark.node)} ({differing} of {codes.numel()} codes)"
            )
    return "no single value in between shows where"


def _codes_of(real: Tensor, grid) -> Tensor:
    return quantize(real.detach().float() if real.is_floating_point() else real.detach(), grid)


def _differing(expected: Tensor, codes: Tensor) -> int:
    if expected.shape != codes.shape:
        return codes.numel()
    return int((expected.to(torch.int64) != codes.to(torch.int64)).sum())
