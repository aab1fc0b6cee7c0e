import numpy
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from qat.emitters.onnxruntime import emit, session
from qat.emitters.onnxruntime.session import float_ops, open_session, run_session, session_options, unfolded_ops
from qat.errors import ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.values import Grid, Weight, WeightGrid

BYTE = Grid(0.5, 128, 0, 255)


def write_model(path, nodes, initializers=()):
    edges = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4])] for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", *edges, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, path)
    return path


GRID = [numpy_helper.from_array(numpy.float32(0.5), "s"), numpy_helper.from_array(numpy.uint8(3), "z")]


def test_quantize_first_and_dequantize_last_are_no_float_ops(tmp_path):
    limits = [numpy_helper.from_array(numpy.uint8(limit), name) for name, limit in (("low", 1), ("high", 9))]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("Clip", ["q", "low", "high"], ["c"]),
        helper.make_node("DequantizeLinear", ["c", "s", "z"], ["y"]),
    ]
    assert float_ops(write_model(tmp_path / "m.onnx", nodes, GRID + limits)) == []


def test_a_float_op_between_is_found(tmp_path):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Sin", ["d"], ["y"], name="wave"),
    ]
    found = float_ops(write_model(tmp_path / "m.onnx", nodes, GRID))
    assert "Sin wave" in found
    assert any(entry.startswith("DequantizeLinear") for entry in found)


def test_a_float_model_is_all_float_ops(tmp_path):
    nodes = [helper.make_node("Sin", ["x"], ["h"], name="a"), helper.make_node("Exp", ["h"], ["y"], name="b")]
    assert float_ops(write_model(tmp_path / "m.onnx", nodes)) == ["Sin a", "Exp b"]


def weight_program(bits, step, offset):
    half = 2 ** (bits - 1)
    codes = torch.arange(64, dtype=torch.int64).reshape(8, 8) % (2 * half) - half
    weight = Weight(codes.to(torch.int8), WeightGrid(bits, step, offset), torch.full((8,), 0.01))
    builder = ProgramBuilder()
    builder.output("y", builder.linear("fc", builder.input("x", (8,), BYTE), weight, BYTE))
    return builder.build()


@pytest.mark.parametrize(("bits", "step", "offset"), [(2, 64, 32), (3, 32, 0), (4, 16, 0), (4, 1, 0), (8, 1, 0)])
def test_narrow_weights_are_unpacked_once_when_the_file_is_loaded(tmp_path, bits, step, offset):
    path = tmp_path / "m.onnx"
    emit(weight_program(bits, step, offset), path)
    assert unfolded_ops(path) == []
    kinds = [node.op_type for node in session.optimized_graph(path).node]
    assert kinds == ["QuantizeLinear", "QGemm", "DequantizeLinear"]


@pytest.mark.parametrize(
    ("machine", "features", "options"),
    [
        ("x86_64", {"avx2"}, {"session.x64quantprecision": "1"}),
        ("AMD64", set(), {"session.x64quantprecision": "1"}),
        ("x86_64", {"avx2", "avx512_vnni"}, {}),
        ("aarch64", {"asimddp"}, {}),
    ],
)
def test_exact_kernels_are_asked_for_where_the_processor_has_no_vnni(monkeypatch, machine, features, options):
    monkeypatch.setattr(session, "cpu_features", lambda: frozenset(features))
    monkeypatch.setattr(session.platform, "machine", lambda: machine)
    assert session_options() == options


def test_the_precise_kernels_compute_the_same(tmp_path, monkeypatch):
    program, path = weight_program(8, 1, 0), tmp_path / "m.onnx"
    emit(program, path)
    monkeypatch.setattr(session, "session_options", lambda: {"session.x64quantprecision": "1"})
    x = torch.linspace(-64, 63.5, 256)[torch.randint(0, 256, (50, 8), generator=torch.Generator().manual_seed(0))]
    assert torch.equal(run_session(open_session(path), {"x": x})["y"], program(x))


def test_a_file_that_cannot_be_loaded_is_named_with_the_reason(tmp_path):
    with pytest.raises(ExportError, match="missing.onnx does not exist.*; give the path"):
        open_session(tmp_path / "missing.onnx")
    (tmp_path / "damaged.onnx").write_bytes(b"no protobuf")
    with pytest.raises(ExportError, match="cannot load .*damaged.onnx .*; export the program again"):
        open_session(tmp_path / "damaged.onnx")


def test_what_the_runtime_does_not_take_is_one_sentence(tmp_path):
    builder = ProgramBuilder()
    builder.output("y", builder.negate("y", builder.input("x", (4,), BYTE)))
    emit(builder.build(), tmp_path / "m.onnx")
    with pytest.raises(ExportError, match=r"ONNX Runtime \S+ fails on inputs of x \(2, 5\) \("):
        run_session(open_session(tmp_path / "m.onnx"), {"x": torch.zeros(2, 5)})
