"""Whether a program is the eval forward it was made from, code for code.

torch.export traces a network on tensors without contents, and code may take another way for those than in the eval
forward. So both run on a batch like the recorded examples, on the CPU in float32, before a program is given out.
"""

import contextlib
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
from qat.integer.program import IntegerProgram
from qat.integer.reals import quantize
from qat.lowering.state import Quantized, module_path, source_line

#: Samples that are compared: two, since one alone does not show what depends on the batch.
_SAMPLES = 2


@dataclass(frozen=True)
class Quantization:
    """One quantizer in the exported graph. node: the value it rounds. result: what that became in the program."""

    quantizer: str
    node: Node
    result: object


def check_faithful(module: nn.Module, handle: Handle, program: IntegerProgram, marks: list[Quantization]) -> None:
    """Raise `ConversionError` where output codes of `program` are not those of the module's eval forward.

    Real inputs are random, over the whole of their grids; integers are those of the recorded examples. The module is in
    eval mode, on the CPU and in float32 (or float64) here. marks: every quantizer in the graph, in order.
    """
    args, kwargs = _batch(handle)
    codes = _input_codes(handle, program, args, kwargs)
    results = run(program, codes, keep_all=False)
    with _unnoticed(handle):
        returned = module(*args, **kwargs)
        outputs = [leaf for leaf in pytree.tree_leaves(returned) if leaf is not None]
        made = [
            (_codes_of(real, program.value(edge.value).grid), results[edge.value])
            for real, edge in zip(outputs, program.outputs, strict=True)
        ]
        differing = sum(_differing(*pair) for pair in made)
        if not differing:
            return
        with _trails(handle) as trails:
            module(*args, **kwargs)
    total = sum(codes.numel() for codes, _ in made)
    raise ConversionError(
        f"{differing} of {total} output codes of the program are not those of the eval forward; "
        f"{_first_difference(run(program, codes), trails, marks)}, where torch.export traces another computation than "
        "the eval forward runs, as it does where code asks whether it runs on a torch.Tensor (isinstance, type) or is "
        "traced; compute the same in both."
    )


@torch.no_grad()
def _batch(handle: Handle) -> tuple[tuple, dict]:
    """Inputs of the eval forward: random real numbers within their grids, integers as recorded."""
    generator = torch.Generator().manual_seed(0)
    dtype = next((p.dtype for p in handle.module.parameters() if p.is_floating_point()), torch.float32)

    def sample(leaf):
        if not isinstance(leaf, Tensor):
            return leaf
        leaf = leaf[:_SAMPLES] if leaf.dim() else leaf
        return leaf.detach().to("cpu", dtype if leaf.is_floating_point() else leaf.dtype)

    args, kwargs = pytree.tree_map(sample, handle.examples)
    for path, name in handle.plan.inputs.items():
        grid = grid_of(handle.quantizers[name])
        low, high = ((code - grid.zero_point) * grid.scale for code in (grid.quant_min, grid.quant_max))

        def uniform(example: Tensor, low=low, high=high) -> Tensor:
            return torch.empty_like(example).uniform_(low, high, generator=generator)

        args, kwargs = map_input(args, kwargs, path, handle.input_names, uniform)
    return args, kwargs


def _input_codes(handle: Handle, program: IntegerProgram, args: tuple, kwargs: dict) -> dict[str, Tensor]:
    taken = {edge.name for edge in program.inputs}
    given = dict(input_paths(handle.original_forward, args, kwargs))
    return quantize_inputs(program, named_inputs(program, {name: given[name] for name in given if name in taken}))


@contextlib.contextmanager
def _unnoticed(handle: Handle) -> Iterator[None]:
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
