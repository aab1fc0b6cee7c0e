"""Loops over the steps of a sequence: what they make of codes, and what they refuse."""

import dataclasses

import pytest
import torch

from qat.errors import ProgramError
from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import quantize_inputs, run
from qat.integer.program import Grid, IntegerProgram, Loop, Weight, WeightGrid

BYTE, HALF = Grid(1.0, 0, 0, 255), Grid(0.5, 0, 0, 255)


def running_sum(names: str = "", state: Grid = BYTE, output: Grid = HALF, width: int = 2) -> IntegerProgram:
    """One step: the state plus an entry of the sequence is the next state, and twice the code is given."""
    builder = ProgramBuilder()
    entry = builder.input(f"{names}entry", (width,), BYTE)
    before = builder.input(f"{names}before", (width,), state)
    after = builder.add(f"{names}after", before, entry, state)
    builder.output("sum", after)
    builder.output("doubled", builder.requantize(f"{names}doubled", after, output))
    return builder.build("tuple").with_integer_edges("*")


def looped(body: IntegerProgram, steps: int = 3, first: int | None = None, reverse: bool = False, width: int = 2):
    """A program with one loop. first: code of a constant first state; None: it is an input."""
    builder = ProgramBuilder()
    sequence = builder.input("x", (steps, width), BYTE)
    if first is None:
        state = builder.input("start", (width,), BYTE)
    else:
        state = builder.constant("start", torch.full((width,), first), BYTE)
    output, last = builder.loop("loop", (sequence,), (state,), body, reverse)
    builder.output("output", output)
    builder.output("last", last)
    return builder.build("tuple")


@pytest.mark.parametrize(
    ("reverse", "sums"), [(False, [[11, 2], [13, 6], [18, 9]]), (True, [[18, 9], [17, 7], [15, 3]])]
)
def test_every_step_has_the_state_of_the_one_before(reverse, sums):
    program = looped(running_sum(), reverse=reverse)
    x = torch.tensor([[[1.0, 2.0], [2.0, 4.0], [5.0, 3.0]], [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    output, last = program((x, torch.tensor([[10.0, 0.0], [7.0, 1.0]])))
    assert output[0].tolist() == sums and output[1].tolist() == [[7, 1]] * 3
    assert last.tolist() == [[18, 9], [7, 1]]


def test_a_first_state_may_be_a_constant_for_every_sample():
    output, last = looped(running_sum(), first=4)(torch.ones(2, 3, 2))
    assert output.tolist() == [[[5, 5], [6, 6], [7, 7]]] * 2 and last.tolist() == [[7, 7]] * 2


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_there_are_as_many_steps_as_the_sequence_has(steps):
    output, _ = looped(running_sum(), steps, first=0)(torch.ones(1, steps, 2))
    assert output[0, :, 0].tolist() == list(range(1, steps + 1))


def test_values_of_a_step_stay_inside():
    program = looped(running_sum(), first=0)
    values = run(program, quantize_inputs(program, {"x": torch.ones(1, 3, 2)}))
    assert set(values) == {"x", "loop", "loop/sum"}
    assert values["loop"][0, :, 0].tolist() == [2, 4, 6]  # steps of a half


def test_weights_of_a_step_are_weights_of_the_program():
    builder = ProgramBuilder()
    entry, before = builder.input("entry", (2,), BYTE), builder.input("before", (2,), BYTE)
    weight = Weight(torch.tensor([[1, 0], [0, 1]], dtype=torch.int8), WeightGrid(4), torch.ones(2))
    after = builder.add("after", builder.linear("recurrent", before, weight, BYTE), entry, BYTE)
    for name in ("state", "output"):
        builder.output(name, after)
    program = looped(builder.build("tuple").with_integer_edges("*"))
    assert [operation.name for operation in program.weighted()] == ["recurrent"]
    assert [layer.name for layer in program.layers] == ["recurrent", "after"]
    assert (program.bytes, program.float_bytes) == (2 + 8, 16 + 8)


def test_a_body_of_other_grids_or_shapes_is_refused():
    for body, message in (
        (running_sum(state=HALF), "'start' of .* on .*scale=1.0.*the body takes .*scale=0.5"),
        (running_sum(width=3), r"'x' of \(2,\) .* but the body takes \(3,\)"),
    ):
        with pytest.raises(ProgramError, match=message):
            looped(body)


def test_a_next_state_on_another_grid_is_refused():
    builder = ProgramBuilder()
    entry, before = builder.input("entry", (2,), BYTE), builder.input("before", (2,), BYTE)
    builder.output("state", builder.add("after", before, entry, HALF))
    builder.output("output", "after")
    with pytest.raises(ProgramError, match="'start' of .* but the next state is"):
        looped(builder.build("tuple").with_integer_edges("*"))


def test_a_body_that_takes_real_numbers_is_refused():
    with pytest.raises(ProgramError, match="its edges carry codes"):
        looped(running_sum().with_real_edges())


def test_a_body_with_a_loop_is_refused():
    builder = ProgramBuilder()
    entry, before = builder.input("e", (3, 2), BYTE), builder.input("b", (2,), BYTE)
    output, last = builder.loop("inner", (entry,), (before,), running_sum())
    builder.output("state", last)
    builder.output("output", output)
    inner = builder.build("tuple").with_integer_edges("*")
    builder = ProgramBuilder()
    with pytest.raises(ProgramError, match="no loop inside"):
        builder.loop("outer", (builder.input("x", (4, 3, 2), BYTE),), (builder.input("s", (2,), BYTE),), inner)


def test_names_are_unique_in_a_program_and_its_steps():
    builder = ProgramBuilder()
    x, state = builder.input("x", (3, 2), BYTE), builder.input("start", (2,), BYTE)
    builder.output("output", builder.loop("loop", (x,), (state,), running_sum())[0])
    builder.output("after", builder.requantize("after", state, HALF))
    with pytest.raises(ProgramError, match="two values and constants are named 'after'"):
        builder.build("tuple")


def test_counts_of_inputs_states_and_outputs_have_to_agree():
    (loop,) = looped(running_sum()).operations
    assert isinstance(loop, Loop) and (loop.sequences, loop.states) == (("x",), ("start",))
    for changes, message in (
        ({"inputs": ("x",)}, "a sequence or more and a state or more"),
        ({"last": ()}, "a sequence or more and a state or more"),
        ({"inputs": ("x", "x", "start"), "last": ("a", "b")}, "and its body as many"),
        ({"inputs": ("x", "start"), "body": running_sum().with_real_edges()}, "its edges carry codes"),
    ):
        with pytest.raises(ProgramError, match=message):
            dataclasses.replace(loop, **changes)


def test_sequences_of_different_lengths_are_refused():
    builder = ProgramBuilder()
    first, second = builder.input("first", (2,), BYTE), builder.input("second", (2,), BYTE)
    before = builder.input("before", (2,), BYTE)
    after = builder.add("after", builder.add("both", first, second, BYTE), before, BYTE)
    builder.output("state", after)
    builder.output("output", after)
    body = builder.build("tuple").with_integer_edges("*")
    builder = ProgramBuilder()
    sequences = builder.input("x", (3, 2), BYTE), builder.input("y", (4, 2), BYTE)
    with pytest.raises(ProgramError, match=r"sequences of \[\(3, 2\), \(4, 2\)\], whose steps are not as many"):
        builder.loop("loop", sequences, (builder.input("s", (2,), BYTE),), body)
