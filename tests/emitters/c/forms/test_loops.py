"""Loops in C: a function for one step, called for every entry."""

import dataclasses

import pytest
import torch

from qat.integer.builder import ProgramBuilder
from qat.integer.operations import table_codes
from qat.integer.values import Grid, Weight, WeightGrid, float32

ENTRY, STATE, GATE = Grid(float32(0.03), 120, 0, 255), Grid(float32(0.008), -3, -128, 127), Grid(1 / 128, 0, 0, 255)
WIDE = Grid(float32(0.0001), 0, -32768, 32767)


def weight_of(bits, outputs, inputs):
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (outputs, inputs), generator=generator).to(torch.int8)
    grid = WeightGrid(2, 64, 32) if bits == 2 else WeightGrid(bits, 2 ** max(0, 4 - bits))
    return Weight(codes, grid, torch.full((outputs,), float32(0.02 / grid.step)))


def gated_step(bits=8, width=5, name=""):
    """A step with a weight, a table, a product, and a sum: the next state, and a sum that is no state."""
    builder = ProgramBuilder()
    entry = builder.input(f"{name}entry", (width,), ENTRY)
    before = builder.input(f"{name}before", (width,), STATE)
    recurrent = builder.linear(f"{name}recurrent", before, weight_of(bits, width, width), ENTRY)
    total = builder.add(f"{name}total", recurrent, entry, ENTRY)
    points = (torch.arange(256, dtype=torch.float64) - ENTRY.zero_point) * ENTRY.scale
    gate = builder.table(f"{name}gate", total, table_codes(points.sigmoid(), GATE), GATE)
    after = builder.mul(
        f"{name}after", gate, builder.table(f"{name}tanh", total, table_codes(points.tanh(), STATE), STATE), STATE
    )
    builder.output("state", after)
    builder.output("output", builder.add(f"{name}given", after, entry, ENTRY, clamp=(100, 200)))
    return builder.build("tuple").with_integer_edges("*")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_a_loop_gives_every_code_of_the_interpreter(assert_equal_in_both, bits, reverse):
    def write(builder, x, start):
        return builder.loop("loop", (x,), (start,), gated_step(bits), reverse)

    assert_equal_in_both(write, [(7, 5), (5,)], [ENTRY, STATE])


@pytest.mark.parametrize("reverse", [False, True])
def test_constant_states_and_sequences(assert_equal_in_both, reverse):
    def write(builder, x, start):
        first = builder.constant("first", torch.tensor([0, -128, 127, 5, -3]), STATE)
        codes = torch.randint(0, 256, (6, 5), generator=torch.Generator().manual_seed(3))
        sequence = builder.constant("sequence", codes, ENTRY)
        return [
            builder.loop("one", (x,), (first,), gated_step(name="one "), reverse)[0],
            builder.loop("two", (sequence,), (start,), gated_step(name="two "), reverse)[1],
        ]

    assert_equal_in_both(write, [(3, 5), (5,)], [ENTRY, STATE])


@pytest.mark.parametrize("steps", [1, 50])
def test_a_source_has_one_step_however_many_there_are(assert_equal_in_both, steps):
    def write(builder, x, start):
        return builder.loop("loop", (x,), (start,), gated_step())[0]

    _, path = assert_equal_in_both(write, [(steps, 5), (5,)], [ENTRY, STATE])
    assert path.read_text().count("    loop_step(") == 1


def test_two_loops_in_a_row_and_states_that_no_step_changes(assert_equal_in_both):
    def constant_state():
        builder = ProgramBuilder()
        entry, before = builder.input("kept entry", (5,), ENTRY), builder.input("kept", (5,), STATE)
        builder.output("state", before)
        builder.output("output", builder.add("kept sum", entry, before, ENTRY))
        return builder.build("tuple").with_integer_edges("*")

    def write(builder, x, start):
        output, last = builder.loop("first", (x,), (start,), gated_step(name="first "))
        output, last = builder.loop("second", (output,), (last,), gated_step(name="second "), reverse=True)
        return builder.loop("third", (output,), (last,), constant_state())

    assert_equal_in_both(write, [(4, 5), (5,)], [ENTRY, STATE])


def test_a_state_of_more_than_8_bits_is_carried_and_unread_entries_are_no_warning(assert_equal_in_both):
    def write(builder, x, start):
        steps = ProgramBuilder()
        entry, before = steps.input("entry", (5,), ENTRY), steps.input("before", (5,), WIDE)
        steps.input("unread", (5,), ENTRY)
        after = steps.add("after", before, entry, WIDE)
        steps.output("state", after)
        steps.output("output", steps.requantize("narrow", after, STATE))
        wide = builder.requantize("wide", start, WIDE)
        body = steps.build("tuple").with_integer_edges("*")
        body_inputs = (body.inputs[0], body.inputs[2], body.inputs[1])
        body = dataclasses.replace(body, inputs=body_inputs)
        return builder.loop("loop", (x, x), (wide,), body)[0]

    assert_equal_in_both(write, [(4, 5), (5,)], [ENTRY, STATE])
