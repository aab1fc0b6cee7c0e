"""Recurrences: what an exported graph has between the marks of a loop becomes a program of one step."""

import dataclasses
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from qat.errors import ProgramError
from qat.inject.exact import grid_of
from qat.integer.program import Constant, Input, IntegerProgram, Loop, Output, Transpose
from qat.lowering.lengths import beside_batch, lengths_of
from qat.lowering.state import (
    Program,
    Quantized,
    QuantizedConstant,
    Unlowerable,
    check_quantized,
    known_sizes,
    merged_dims,
    module_path,
)
from qat.quantizers import FakeQuantize

BEGIN, END = torch.ops.qat.loop_begin.default, torch.ops.qat.loop_end.default


@dataclass(frozen=True)
class PerStep:
    """What a step has of a constant sequence, and what it computes of that alone, for every step.

    tensor: (steps, ...), a step in the place of a sample; where a dimension is merged into the batch, (steps * its
    size, ...).
    """

    tensor: Tensor


@dataclass
class Step(Program):
    """The program of one step, while it is made.

    outer: the program that the loop belongs to. count: of its steps. sequences, states: what the loop takes step by
    step, and its first states, each with what it is in the step. They are values or constants of `outer`.
    merged: as of `Quantized`, of everything in the step.
    """

    outer: Program | None = None
    count: int = 0
    merged: int = 0
    sequences: list[tuple[Quantized | Constant, Quantized]] = field(default_factory=list)
    states: list[tuple[Quantized | Constant, Quantized]] = field(default_factory=list)

    def takes(self, name: str, shape: tuple[int, ...], quantizer: str) -> Quantized:
        """A value that a step begins with."""
        grid = grid_of(self.handle.quantizers[quantizer])
        return dataclasses.replace(self.value(self.unique(name), shape, grid, quantizer), merged=self.merged)

    def steps_of(self, constant: PerStep, quantizer: FakeQuantize) -> Quantized:
        """A constant sequence as a value of the step, on the grid of `quantizer`."""
        codes = quantizer.codes(constant.tensor).unflatten(0, (int(self.count), -1) if self.merged else (-1,))
        sequence = self.outer.constant(quantizer.name, grid_of(quantizer), codes)
        taken = self.takes(f"{quantizer.name}.step", tuple(codes.shape[1:]), quantizer.name)
        self.sequences.append((sequence, taken))
        return taken


def begin(program: Program, node: Node, sequence, states) -> tuple[Step, tuple]:
    """(the program of a step, what its step begins with) of `loop_begin`."""
    if not any(isinstance(source, Quantized) for source in (sequence, *states)):
        raise Unlowerable("it reads nothing of the inputs, and so makes a constant; keep what it makes in a buffer")
    entry, *made = node.meta["val"]
    count = known_sizes(node, node.args[0].meta["val"].shape)[1]
    step = Step(program.handle, names=program.names, outer=program, count=count, merged=merged_dims(node, entry))
    prefix = module_path(node)
    prefix = f"{prefix}." if prefix else ""
    if isinstance(sequence, Tensor):
        # (what is merged or 1, steps, ...)
        taken = PerStep(sequence.transpose(0, 1).flatten(0, 1))
    else:
        check_quantized(sequence)
        if sequence.dim(1, "steps through") != 1:  # in front of it stands what is merged with the batch
            sequence = _turned(program, node, sequence)
        taken = step.takes(f"{prefix}entry", sequence.shape[1:], sequence.quantizer)
        step.sequences.append((sequence, taken))
    for first, fake, name in zip(states, made, _quantizers_of_states(node), strict=True):
        shape = known_sizes(node, fake.shape)[1:]
        if step.merged:
            shape = (beside_batch(fake.shape[0], lengths_of(node.graph)), *shape)
        first = _first(program, first, program.handle.quantizers[name], shape)
        step.states.append((first, step.takes(f"{prefix}state", shape, name)))
    return step, (taken, *(state for _, state in step.states))


def end(step: Step, node: Node, sequence, states, reverse: bool, outputs, dim: int) -> tuple[Program, tuple]:
    """(the program that the loop belongs to, its outputs and last states) of `loop_end`."""
    given, pairs = [*states, *outputs], [*step.sequences, *step.states]
    if not all(isinstance(value, Quantized) for value in given):
        raise Unlowerable("a state or an output of its step is not on an integer grid")
    try:
        body = IntegerProgram(
            inputs=tuple(Input(f"in{place}", value.name, codes=True) for place, (_, value) in enumerate(pairs)),
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
    last = tuple(program.unique(f"{name}.last") for _ in states)
    inputs = tuple(source.name for source, _ in pairs)
    program.operations.append(
        Loop(name=name, source=path, inputs=inputs, output=name, body=body, last=last, reverse=reverse)
    )
    output = given[-1]
    stacked = program.value(name, (step.count, *output.shape), output.grid, output.quantizer)
    stacked = dataclasses.replace(stacked, merged=step.merged)
    if step.merged:
        stacked = _turned(program, node, stacked)
    ended = []
    for value, state in zip(last, states, strict=True):
        program.value(value, state.shape, state.grid, state.quantizer)
        ended.append(dataclasses.replace(state, name=value))
    return program, (stacked, *ended)


def of_every_step(step: Step, node: Node, args: tuple, kwargs: dict):
    """What a node computes of constants alone that are others in every step; behind its quantizer, a value."""
    if node.target is torch.ops.qat.fake_quantize.default:
        constant, name = args
        return step.steps_of(constant, step.handle.quantizers[name])
    leaves = pytree.tree_leaves((args, kwargs))
    if not all(isinstance(leaf, PerStep | Tensor | bool | int | float | None) for leaf in leaves):
        raise Unlowerable("it computes with a constant sequence that is not on an integer grid")
    args, kwargs = pytree.tree_map(lambda leaf: leaf.tensor if isinstance(leaf, PerStep) else leaf, (args, kwargs))
    result = node.target(*args, **kwargs)
    made = pytree.tree_map(lambda leaf: PerStep(leaf) if isinstance(leaf, Tensor) else leaf, result)
    return tuple(made) if isinstance(made, list) else made


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
