import os

import onnx
import pytest
import torch

import qat.emitters.tensorrt as emitter
from qat.emitters import export, files_of
from qat.emitters.onnxruntime.islands import IslandCodes
from qat.errors import ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.image_input import with_image_input
from qat.integer.images import ImageScaling
from qat.integer.values import Grid, IndexRange, Weight, WeightGrid

BYTE = Grid(0.5, 0, -128, 127)


def small_program():
    weight = Weight(torch.tensor([[1, -2], [3, 4]], dtype=torch.int8), WeightGrid(4, 16), torch.tensor([0.05, 0.03]))
    builder = ProgramBuilder()
    builder.output("logits", builder.linear("fc", builder.input("features", (2,), BYTE), weight, BYTE))
    return builder.build()


def test_inputs_and_outputs_have_the_names_of_the_program_and_any_batch(tmp_path):
    export(small_program(), tmp_path / "new" / "model.onnx", runtime="tensorrt")
    session = emitter.open_session(tmp_path / "new" / "model.onnx")
    assert [(edge.name, edge.shape) for edge in session.get_inputs()] == [("features", ["batch", 2])]
    assert [(edge.name, edge.shape) for edge in session.get_outputs()] == [("logits", ["batch", 2])]
    assert os.listdir(tmp_path / "new") == ["model.onnx"]


def test_equal_programs_give_equal_files_without_a_path(tmp_path):
    export(small_program(), tmp_path / "a.onnx", runtime="tensorrt")
    export(small_program(), tmp_path / "b.onnx", runtime="tensorrt")
    content = (tmp_path / "a.onnx").read_bytes()
    assert content == (tmp_path / "b.onnx").read_bytes()
    assert str(tmp_path).encode() not in content


def test_every_quantization_is_int8_with_zero_point_0_and_none_is_clipped_before_it_is_read(tmp_path):
    export(small_program(), tmp_path / "model.onnx", runtime="tensorrt")
    graph = onnx.load(tmp_path / "model.onnx").graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    points = [node.input[2] for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert points and not any(tensors[name].any() or tensors[name].dtype != "int8" for name in points)
    dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    assert not [node for node in graph.node if node.op_type == "Clip" and dequantized.intersection(node.input)]
    assert tensors["fc/bias"].dtype == "float32"


def test_a_file_that_is_not_equal_is_not_left(tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_text("the file of before")
    monkeypatch.setattr(emitter.LayerComparison, "__call__", lambda self, inputs: {"fc": IslandCodes(1, 2, 1)})
    with pytest.raises(ExportError, match=r"Linear 'fc' gives other codes than the program for 3 of 6 codes, by at"):
        export(small_program(), tmp_path / "model.onnx", runtime="tensorrt")
    assert os.listdir(tmp_path) == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_text() == "the file of before"


def test_a_program_that_cannot_run_is_refused(tmp_path):
    builder = ProgramBuilder()
    builder.output("y", builder.reshape("flat", builder.input("x", (2, 2), Grid(0.5, 3, 0, 255)), (4,)))
    with pytest.raises(ExportError, match=r"^tensorrt cannot run this network: value .* \(0..255 with zero point 3\)"):
        export(builder.build(), tmp_path / "model.onnx", runtime="tensorrt")
    assert not os.listdir(tmp_path)


def test_edges_may_carry_codes_and_indices(tmp_path):
    weight = Weight(torch.arange(-4, 4).reshape(4, 2).to(torch.int8), WeightGrid(8), torch.full((4,), 0.5))
    builder = ProgramBuilder()
    rows = builder.embedding("rows", builder.input("ids", (3,), IndexRange(4)), weight)
    builder.output("y", builder.add("add", rows, builder.input("x", (3, 2), Grid(0.5, 0, -127, 127)), BYTE))
    builder.output("best", builder.arg_max("best", "add", 2))
    program = builder.build("tuple").with_integer_edges("x", "y")
    emitter.emit(program, tmp_path / "model.onnx")
    session = emitter.open_session(tmp_path / "model.onnx")
    emitter.check_edges(session, program, tmp_path / "model.onnx")
    inputs = {"ids": torch.tensor([[0, 3, 1]]), "x": torch.tensor([[[127, 0], [254, 128], [1, 2]]], dtype=torch.uint8)}
    outputs = emitter.run_session(session, inputs)
    # rows -4 -3, 2 3 and -2 -1, and codes of x less 127: -4 -130, 129 4 and -128 -126, clamped; outputs count by 128
    assert outputs["y"].tolist() == [[[124, 0], [255, 132], [0, 2]]]
    assert outputs["best"].tolist() == [[0, 0, 1]]


def test_raw_pictures_are_looked_up(tmp_path):
    builder = ProgramBuilder()
    weight = Weight(torch.ones(2, 3, 1, 1, dtype=torch.int8), WeightGrid(8), torch.full((2,), 0.5))
    builder.output("y", builder.conv("c", builder.input("x", (3, 4, 4), BYTE), weight, BYTE))
    scaling = ImageScaling(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1), channels_last=True)
    program = with_image_input(builder.build(), scaling)
    emitter.emit(program, tmp_path / "model.onnx")
    picture = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    session = emitter.open_session(tmp_path / "model.onnx")
    assert torch.equal(emitter.run_session(session, {"x": picture})["y"], program(picture))
    assert not emitter.float_ops(tmp_path / "model.onnx")


def test_conditions_say_what_ran_and_what_was_not_measured():
    conditions = emitter.session_conditions()
    assert conditions["graph_optimization_level"] == "ORT_DISABLE_ALL"
    assert conditions["latency"].startswith("not measured")


def test_a_file_that_is_missing_or_damaged_is_refused(tmp_path):
    with pytest.raises(ExportError, match="does not exist"):
        emitter.open_session(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").write_text("nothing")
    with pytest.raises(ExportError, match="ONNX Runtime cannot load"):
        emitter.open_session(tmp_path / "model.onnx")


def test_a_file_says_what_it_is(tmp_path):
    export(small_program(), tmp_path / "model.onnx", runtime="tensorrt", labels=["cat", "dog"])
    entries = emitter.metadata(tmp_path / "model.onnx")
    assert entries["labels"] == ["cat", "dog"] and entries["weight_bits"] == {"fc": 4}


def test_weights_beyond_a_protobuf_lie_beside_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr("qat.emitters.onnxruntime.model_file.MAX_SINGLE_BYTES", 1000)
    weight = Weight(torch.ones(64, 64, dtype=torch.int8), WeightGrid(8), torch.full((64,), 0.01))
    builder = ProgramBuilder()
    builder.output("y", builder.linear("fc", builder.input("x", (64,), BYTE), weight, BYTE))
    emitter.emit(builder.build(), tmp_path / "model.onnx")
    assert sorted(os.listdir(tmp_path)) == ["model.onnx", "model.onnx.data"]
    assert files_of("tensorrt", tmp_path / "model.onnx") == tuple(map(tmp_path.joinpath, sorted(os.listdir(tmp_path))))
    assert emitter.float_ops(tmp_path / "model.onnx") == []
    assert next(each.bytes for each in emitter.operations(tmp_path / "model.onnx") if each.name == "fc/weight") == (
        64 * 64 + 64 * (4 + 1)
    )
