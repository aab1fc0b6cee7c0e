"""Nodes and initializers of a file in the making."""

import numpy
import pytest
import torch
from onnx import TensorProto

from qat.emitters.onnxruntime import check_edges, emit, open_session, run_session
from qat.emitters.onnxruntime.graph import Graph, pads_of
from qat.errors import ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.lengths import Length
from qat.integer.values import Grid, Weight, WeightGrid

_BUILDER = ProgramBuilder()
_BUILDER.output("y", _BUILDER.input("x", (2,), Grid(0.5, 0, 0, 255)))
PROGRAM = _BUILDER.build()


def stored(bits, step=1, offset=0):
    half = 2 ** (bits - 1)
    codes = torch.arange(-half, half, dtype=torch.int16).to(torch.int8).reshape(2, -1)
    graph = Graph(PROGRAM)
    graph.weight("w", Weight(codes, WeightGrid(bits, step, offset), torch.ones(2)))
    return graph


@pytest.mark.parametrize(
    ("bits", "kind", "size"),
    [(2, TensorProto.INT2, 1), (3, TensorProto.INT4, 4), (4, TensorProto.INT4, 8)],
)
def test_narrow_weights_take_a_narrow_type(bits, kind, size):
    tensor = stored(bits).initializers["w/codes"]
    assert tensor.data_type == kind
    assert tensor.size == len(tensor.proto().raw_data) == size


def test_four_bit_codes_lie_low_nibble_first():
    assert stored(4).initializers["w/codes"].proto().raw_data[:2] == bytes([0x98, 0xBA])  # -8, -7, -6, -5


def test_wide_weights_are_plain_int8():
    graph = stored(5, step=4)
    assert graph.initializers["w"].data_type == TensorProto.INT8
    assert not graph.nodes


def test_plain_weights_are_the_program_s_own_memory():
    weight = Weight(torch.zeros(2, 8, dtype=torch.int8), WeightGrid(8), torch.ones(2))
    graph = Graph(PROGRAM)
    graph.weight("w", weight)
    assert numpy.shares_memory(graph.initializers["w"].content, weight.codes.numpy())


def test_a_step_and_an_offset_are_applied_in_int32():
    assert [node.op_type for node in stored(4).nodes] == ["Cast"]
    assert [node.op_type for node in stored(4, 16).nodes] == ["Cast", "Mul", "Cast"]
    assert [node.op_type for node in stored(2, 64, 32).nodes] == ["Cast", "Mul", "Add", "Cast"]


def test_the_lowest_opset_that_suffices_is_taken():
    assert stored(4).opset == 21
    assert stored(2).opset == 25


def test_a_name_is_taken_once():
    graph = Graph(PROGRAM)
    graph.claim("x")
    with pytest.raises(ExportError, match="'x'"):
        graph.constant("x", 1, "int32")


def test_pads_are_all_befores_then_all_afters():
    assert pads_of(((1, 2), (3, 4))) == [1, 3, 2, 4]


def test_sizes_that_follow_a_length_are_computed_once_for_all():
    length = Length("length", 6)
    builder = ProgramBuilder()
    builder.output("y", builder.negate("y", builder.input("x", (length,), Grid(0.5, 0, 0, 255))))
    program = builder.build()
    graph = Graph(program)
    graph.claim("x")
    first = graph.constant("a", (0, length, 2 * length + 1), "int64")
    second = graph.constant("b", (length, 2 * length + 1, 4), "int64")
    assert [node.op_type for node in graph.nodes] == ["Shape", "Mul", "Add", "Concat", "Concat"]
    assert graph.nodes[3].output[0] == first != second
    assert graph.constant("c", (0, length, 2 * length + 1), "int64") == first
    assert [(a.name, a.i) for a in graph.nodes[0].attribute] == [("end", 2), ("start", 1)]


def test_constants_and_shapes_follow_the_length(tmp_path):
    length = Length("length", 6)
    builder = ProgramBuilder()
    x = builder.input("x", (length, 2), Grid(0.5, 0, 0, 255))
    positions = builder.constant("positions", torch.arange(12).reshape(6, 2), Grid(0.5, 0, 0, 255), (length, 2))
    total = builder.add("sum", x, positions, Grid(0.5, 0, 0, 255))
    builder.output("y", builder.reshape("flat", total, (2 * length,)))
    program, path = builder.build(), tmp_path / "model.onnx"
    emit(program, path)
    session = open_session(path)
    check_edges(session, program, path)
    assert [entry.shape for entry in session.get_inputs()] == [["batch", "length", 2]]
    assert [entry.shape for entry in session.get_outputs()] == [["batch", "2*length"]]
    for size in (1, 4, 6):
        x = torch.rand(3, size, 2) * 10
        assert torch.equal(run_session(session, {"x": x})["y"], program(x))
