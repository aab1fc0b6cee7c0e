import os

import onnx
import pytest
import torch
from safetensors.torch import load_file

import qat.emitters.onnxruntime as emitter
from qat.emitters import export
from qat.emitters.onnxruntime import open_session
from qat.errors import ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.values import Grid, Weight, WeightGrid

BYTE = Grid(0.5, 128, 0, 255)


def small_program(structure="tensor"):
    weight = Weight(torch.tensor([[1, -2], [3, 4]], dtype=torch.int8), WeightGrid(4, 16), torch.tensor([0.05, 0.03]))
    builder = ProgramBuilder()
    builder.output("logits", builder.linear("fc", builder.input("features", (2,), BYTE), weight, BYTE))
    return builder.build(structure)


def test_inputs_and_outputs_have_the_names_of_the_program_and_any_batch(tmp_path):
    export(small_program(), tmp_path / "new" / "model.onnx")
    session = open_session(tmp_path / "new" / "model.onnx")
    assert [(edge.name, edge.shape) for edge in session.get_inputs()] == [("features", ["batch", 2])]
    assert [(edge.name, edge.shape) for edge in session.get_outputs()] == [("logits", ["batch", 2])]
    assert os.listdir(tmp_path / "new") == ["model.onnx"]


def test_equal_programs_give_equal_files_without_a_path(tmp_path):
    export(small_program(), tmp_path / "a.onnx")
    export(small_program(), tmp_path / "b.onnx")
    content = (tmp_path / "a.onnx").read_bytes()
    assert content == (tmp_path / "b.onnx").read_bytes()
    assert str(tmp_path).encode() not in content
    export(small_program("dict"), tmp_path / "c.onnx")
    graphs = [onnx.load(tmp_path / name).graph for name in ("a.onnx", "c.onnx")]
    assert graphs[0] == graphs[1]


def square_layer(bits, size=64):
    codes = torch.zeros(size, size, dtype=torch.int8)
    builder = ProgramBuilder()
    weight = Weight(codes, WeightGrid(bits), torch.ones(size))
    builder.output("y", builder.linear("fc", builder.input("x", (size,), BYTE), weight, BYTE))
    return builder.build()


@pytest.mark.parametrize(("bits", "width"), [(2, 2), (3, 4), (4, 4), (5, 8), (6, 8), (7, 8), (8, 8)])
def test_weights_take_the_narrowest_type_in_the_file_and_their_own_width_in_the_program(tmp_path, bits, width):
    program = square_layer(bits)
    export(program, tmp_path / "model.onnx")
    program.save(tmp_path)
    tensors = {tensor.name: tensor for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer}
    stored = tensors.get("fc/weight/codes", tensors.get("fc/weight"))
    assert len(stored.raw_data) == 64 * 64 * width // 8
    assert load_file(tmp_path / "program.safetensors")["fc.weight.codes"].numel() == 64 * 64 * bits // 8
    assert program.bytes == 64 * 64 * bits // 8 + 64 * 4


@pytest.mark.parametrize(
    ("name", "replacement", "message"),
    [
        ("float_ops", lambda path: ["Conv c"], "1 nodes in floating point: Conv c"),
        ("unfolded_ops", lambda path: ["Cast w"], "unpack weights at every run: Cast w"),
        ("run_session", lambda session, inputs: {"logits": torch.full((1, 2), 1e3)}, "other codes than the program"),
    ],
)
def test_a_file_that_is_not_integer_or_not_equal_is_not_left(tmp_path, monkeypatch, name, replacement, message):
    (tmp_path / "model.onnx").write_text("the file of before")
    monkeypatch.setattr(emitter, name, replacement)
    with pytest.raises(ExportError, match=message):
        export(small_program(), tmp_path / "model.onnx")
    assert os.listdir(tmp_path) == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_text() == "the file of before"
