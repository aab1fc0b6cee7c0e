"""Recurrences: what an exported graph has between the marks of a loop becomes a program of one step."""

import dataclasses
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.fx import Node

from qat.errors import ProgramError
from qat.inject.exact import grid_of
from qat.integer.program import Input, IntegerProgram, Loop, Output, Transpose
from qat.lowering.state import Program, Quantized, QuantizedConstant, Unlowerable, known_sizes, merged_dims, module_path
from qat.quantizers import FakeQuantize

BEGIN, END = torch.ops.qat.loop_begin.default, torch.ops.qat.loop_end.default


@dataclass
class Step(Program):
    """The program of one step, while it is made.

    outer: the program that the loop belongs to. sequence: its value there, time in dimension 1. first: its first
    states, values or constants of `outer`. taken: the entry of the sequence and the states, as the step has them.
    """

    outer: Program | None = None
    sequence: Quantized | None = None
    first: tuple = ()
    taken: list[Quantized] = field(default_factory=list)


def begin(program: Program, node: Node, sequence, states) -> tuple[Step, tuple[Quantized, ...]]:
    """(the program of a step, what its step begins with) of `loop_begin`."""
    if not isinstance(sequence, Quantized):
        raise Unlowerable("its input is not on an integer grid")
    time = sequence.dim(1, "steps through")
    if time != 1:  # in front of it stands what is merged with the batch
        sequence = _turned(program, node, sequence)
    entry, *made = node.meta["val"]
    merged = merged_dims(node, entry)
    quantizers = [program.handle.quantizers[name] for name in _quantizers_of_states(node)]
    shapes = [known_sizes(node, state.shape)[1:] for state in made]
    if merged:
        shapes = [(sequence.shape[1], *shape) for shape in shapes]
    first = tuple(
        _first(program, state, quantizer, shape)
        for state, quantizer, shape in zip(states, quantizers, shapes, strict=True)
    )
    step = Step(program.handle, names=program.names, outer=program, sequence=sequence, first=first)
    path = module_path(node)
    known = [("entry", sequence.shape[1:], sequence.grid, sequence.quantizer)]
    known += [
        ("state", shape, grid_of(quantizer), quantizer.name)
        for shape, quantizer in zip(shapes, quantizers, strict=True)
    ]
    for name, *described in known:
        value = step.value(step.unique(".".join(filter(None, (path, name)))), *described)
        step.taken.append(dataclasses.replace(value, merged=merged))
    return step, tuple(step.taken)


def end(step: Step, node: Node, sequence, states, reverse: bool, outputs, dim: int) -> tuple[Program, tuple]:
    """(the program that the loop belongs to, its outputs and last states) of `loop_end`."""
    given = [*states, *outputs]
    if not all(isinstance(value, Quantized) for value in given):
        raise Unlowerable("a state or an output of its step is not on an integer grid")
    try:
        body = IntegerProgram(
            inputs=tuple(Input(f"in{place}", value.name, codes=True) for place, value in enumerate(step.taken)),
            outputs=tuple(Output(f"out{place}", value.name, codes=True) for place, value in enumerate(given)),
            values=tuple(step.values),
            operations=tuple(step.operations),
            constants=tuple(step.constants),
            output_structure="tuple",
        )
    except ProgramError as error:
        raise Unlowerable(str(error).removesuffix(".")) from error
    program, path = step.outer, module_path(node)
    name = program.unique(".".join(filter(None, (path, "loop"))))
    last = [program.unique(f"{name}.last") for _ in states]
    program.operations.append(
        Loop(
            name=name, source=path, inputs=(step.sequence.name, *(state.name for state in step.first)), output=name,
            body=body, last=tuple(last), reverse=reverse,
        )
    )  # fmt: skip
    output = given[-1]
    shape = (step.sequence.shape[0], *output.shape)
    stacked = program.value(name, shape, output.grid, output.quantizer)
    stacked = dataclasses.replace(stacked, merged=output.merged)
    if output.merged:
        stacked = _turned(program, node, stacked)
    ended = [
        dataclasses.replace(state, name=program.value(value, state.shape, state.grid, state.quantizer).name)
        for value, state in zip(last, states, strict=True)
    ]
    return program, (stacked, *ended)


def _turned(program: Program, node: Node, x: Quantized) -> Quantized:
    """Time and the dimension that is merged with the batch, in the place of each other."""
    permutation = (0, 2, 1, *range(3, len(x.shape) + 1))
    shape = (x.shape[1], x.shape[0], *x.shape[2:])
    turned = program.move(node, x, shape, Transpose, permutation=permutation)
    return dataclasses.replace(turned, merged=x.merged)


def _quantizers_of_states(node: Node) -> list[str]:
    """The quantizers of the states that the step leaves, on whose grids it finds them."""
    while node.target is not END:
        node = node.next
    names = [state.args[1] for state in node.args[1] if state.target is torch.ops.qat.fake_quantize.default]
    if len(names) != len(node.args[1]):
        raise Unlowerable("a state of its step is not on an integer grid")
    return names


def _first(program: Program, state, quantizer: FakeQuantize, shape: tuple[int, ...]):
    """A first state on the grid of those that follow: a value, or a constant of the program."""
    if isinstance(state, Quantized):
        if state.grid != grid_of(quantizer) or state.batch_at:
            raise Unlowerable(f"its first state is on the grid of {state.quantizer}, and the next on another")
        return state
    tensor = state.tensor if isinstance(state, QuantizedConstant) else state
    if not isinstance(tensor, Tensor):
        raise Unlowerable("its first state is not on an integer grid")
    return program.operand(QuantizedConstant(tensor, quantizer), len(shape))
