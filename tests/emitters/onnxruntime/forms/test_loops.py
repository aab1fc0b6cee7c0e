"""Loops: one Scan node, equal to the interpreter in every code, whatever its step computes."""

import onnx
import pytest
import torch

from qat.emitters.onnxruntime import emit_float, float_ops, open_session, run_session, unfolded_ops
from qat.emitters.onnxruntime.graph import graphs_of
from qat.emitters.onnxruntime.session import optimized_graph
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


def gated_step(bits=8, width=5, name="", state=STATE):
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
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_loop_gives_every_code_of_the_interpreter(assert_equal_in_both, bits, reverse):
    def write(builder, x, start):
        return builder.loop("loop", (x,), (start,), gated_step(bits), reverse)

    program, path = assert_equal_in_both(write, [(7, 5), (5,)], [ENTRY, STATE])
    assert float_ops(path) == [] and unfolded_ops(path) == []
    # weights are unpacked when the file is loaded, and not in every step
    (scan,) = (node for node in optimized_graph(path).node if node.op_type == "Scan")
    kinds = {node.op_type for body in graphs_of(scan) for node in body.node}
    assert "QLinearAdd" in kinds and "Mul" not in kinds


def test_a_constant_first_state_is_there_for_every_sample(assert_equal_in_both):
    def write(builder, x):
        first = builder.constant("first", torch.tensor([0, -128, 127, 5, -3]), STATE)
        return builder.loop("loop", (x,), (first,), gated_step())[0]

    assert_equal_in_both(write, [(3, 5)], [ENTRY])


@pytest.mark.parametrize("reverse", [False, True])
def test_a_constant_sequence_is_there_for_every_sample(assert_equal_in_both, reverse):
    def write(builder, start):
        codes = torch.randint(0, 256, (6, 5), generator=torch.Generator().manual_seed(3))
        return builder.loop("loop", (builder.constant("x", codes, ENTRY),), (start,), gated_step(), reverse)

    assert_equal_in_both(write, [(5,)], [STATE])


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_a_file_has_one_step_however_many_there_are(assert_equal_in_both, steps):
    def write(builder, x, start):
        return builder.loop("loop", (x,), (start,), gated_step())[0]

    _, path = assert_equal_in_both(write, [(steps, 5), (5,)], [ENTRY, STATE])
    assert len(onnx.load(path).graph.node) < 10


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


def test_a_state_of_more_than_8_bits_is_carried(assert_equal_in_both):
    def write(builder, x, start):
        steps = ProgramBuilder()
        entry, before = steps.input("entry", (5,), ENTRY), steps.input("before", (5,), WIDE)
        after = steps.add("after", before, entry, WIDE)
        steps.output("state", after)
        steps.output("output", steps.requantize("narrow", after, STATE))
        wide = builder.requantize("wide", start, WIDE)
        return builder.loop("loop", (x,), (wide,), steps.build("tuple").with_integer_edges("*"))[0]

    assert_equal_in_both(write, [(4, 5), (5,)], [ENTRY, STATE])


def test_real_numbers_in_a_step_are_found(assert_equal_in_both, tmp_path):
    def write(builder, x, start):
        return builder.loop("loop", (x,), (start,), gated_step())[0]

    program, _ = assert_equal_in_both(write, [(3, 5), (5,)], [ENTRY, STATE])
    emit_float(program, tmp_path / "float.onnx")
    found = float_ops(tmp_path / "float.onnx")
    assert any(name.endswith("real/total") for name in found) and any(name.startswith("Scan") for name in found)


def test_the_float_network_behind_a_loop_is_a_loop(assert_equal_in_both, tmp_path):
    def write(builder, x, start):
        return builder.loop("loop", (x,), (start,), gated_step())

    program, _ = assert_equal_in_both(write, [(6, 5), (5,)], [ENTRY, STATE])
    emit_float(program, tmp_path / "float.onnx")
    generator = torch.Generator().manual_seed(0)
    inputs = {"x0": torch.randn(8, 6, 5, generator=generator) * 2, "x1": torch.randn(8, 5, generator=generator) * 0.5}
    results = run_session(open_session(tmp_path / "float.onnx"), inputs)
    for name, expected in program(inputs).items():
        assert (results[name] - expected).square().mean() < 1e-2 * expected.square().mean()
