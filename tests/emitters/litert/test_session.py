import os

import numpy
import pytest
import torch

import qat.emitters.litert as emitter
from qat.emitters.litert import model, reading
from qat.emitters.options import ExportOptions
from qat.errors import ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.image_input import with_image_input
from qat.integer.images import ImageScaling
from qat.integer.lengths import Length
from qat.integer.semantics import for_runtime
from qat.integer.values import Grid, IndexRange, Weight, WeightGrid, float32

BYTE, NIBBLE = Grid(float32(0.02), 117, 0, 255), Grid(float32(0.3), 0, 0, 15)
OUTPUT = Grid(float32(0.05), 131, 0, 255)


def conv(builder, source, grid=OUTPUT):
    weight = Weight(torch.randint(-127, 128, (5, 3, 3, 3), dtype=torch.int8), WeightGrid(8), torch.full((5,), 0.004))
    return builder.conv("c", source, weight, grid)


def program(grid=BYTE, output=OUTPUT):
    builder = ProgramBuilder()
    builder.output("scores", conv(builder, builder.input("image", (3, 6, 7), grid), output))
    return for_runtime(builder.build(), "litert")


def test_edges_have_the_names_of_the_program_the_layout_of_the_network_and_any_batch(tmp_path):
    made = program()
    emitter.emit(made, tmp_path / "new" / "model.tflite")
    session = emitter.open_session(tmp_path / "new" / "model.tflite")
    runner = session.interpreter.get_signature_runner("serving_default")
    assert {name: detail["shape_signature"].tolist() for name, detail in runner.get_input_details().items()} == {
        "image": [-1, 3, 6, 7]
    }
    assert {name: detail["dtype"] for name, detail in runner.get_output_details().items()} == {"scores": numpy.float32}
    del runner  # the runtime counts who refers to it, and runs while nobody else does
    for batch in (1, 5, 2):
        x = torch.randn(batch, 3, 6, 7)
        assert torch.equal(emitter.run_session(session, {"image": x})["scores"], made(x))
    assert os.listdir(tmp_path / "new") == ["model.tflite"]


def test_equal_programs_give_equal_files_without_a_path(tmp_path):
    made = program()
    for name in ("a", "b"):
        emitter.emit(made, tmp_path / f"{name}.tflite", ExportOptions(labels=("x", "y")))
    assert (tmp_path / "a.tflite").read_bytes() == (tmp_path / "b.tflite").read_bytes()
    assert str(tmp_path).encode() not in (tmp_path / "a.tflite").read_bytes()


@pytest.mark.parametrize(
    ("grid", "output"), [(BYTE, OUTPUT), (NIBBLE, NIBBLE), (Grid(float32(0.02), 3, -128, 127),) * 2]
)
def test_codes_at_the_edges_are_int8_in_the_file_and_counted_from_0_outside(tmp_path, grid, output):
    made = program(grid, output).with_integer_edges("*")
    emitter.emit(made, tmp_path / "model.tflite")
    session = emitter.open_session(tmp_path / "model.tflite")
    assert session.inputs["image"]["dtype"] == session.outputs["scores"]["dtype"] == numpy.int8
    emitter.check_edges(session, made, "model.tflite")
    codes = torch.randint(0, grid.quant_max + grid.unsigned_offset + 1, (4, 3, 6, 7), dtype=torch.uint8)
    result = emitter.run_session(session, {"image": codes})["scores"]
    assert result.dtype == torch.uint8 and torch.equal(result, made(codes))
    assert emitter.float_ops(tmp_path / "model.tflite") == []
    assert "QUANTIZE" not in [each.kind for each in emitter.operations(tmp_path / "model.tflite")][:1]


def test_pictures_are_uint8_in_the_file(tmp_path):
    builder = ProgramBuilder()
    builder.output("scores", conv(builder, builder.input("image", (3, 6, 7), BYTE)))
    scaling = ImageScaling(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), channels_last=True)
    made = for_runtime(with_image_input(builder.build(), scaling), "litert")
    emitter.emit(made, tmp_path / "model.tflite")
    session = emitter.open_session(tmp_path / "model.tflite")
    assert session.inputs["image"]["dtype"] == numpy.uint8
    assert session.inputs["image"]["shape"].tolist() == [1, 6, 7, 3]
    pictures = torch.randint(0, 256, (4, 6, 7, 3), dtype=torch.uint8)
    assert torch.equal(emitter.run_session(session, {"image": pictures})["scores"], made(pictures))
    kinds = [each.kind for each in emitter.operations(tmp_path / "model.tflite")]
    assert kinds.count("TRANSPOSE") == 1  # of the output


def test_images_with_channels_last_need_no_transposition(tmp_path):
    made = program()
    emitter.emit(made, tmp_path / "model.tflite", ExportOptions(channels_last=True))
    session = emitter.open_session(tmp_path / "model.tflite")
    assert session.inputs["image"]["shape"].tolist() == [1, 6, 7, 3]
    x = torch.randn(3, 3, 6, 7)
    assert torch.equal(emitter.run_session(session, {"image": x})["scores"], made(x))
    emitter.check_edges(session, made, "model.tflite")
    assert [each.kind for each in emitter.operations(tmp_path / "model.tflite")][:2] == ["QUANTIZE", "CONV_2D"]


def test_indices_are_int64_at_the_edges(tmp_path):
    table = Weight(torch.randint(-128, 128, (10, 4), dtype=torch.int8), WeightGrid(8), torch.full((10,), 0.02))
    builder = ProgramBuilder()
    rows = builder.embedding("e", builder.input("ids", (5,), IndexRange(10)), table)
    builder.output("largest", builder.arg_max("a", rows, 2))
    made = for_runtime(builder.build(), "litert")
    emitter.emit(made, tmp_path / "model.tflite")
    session = emitter.open_session(tmp_path / "model.tflite")
    ids = torch.randint(0, 10, (3, 5))
    result = emitter.run_session(session, {"ids": ids})["largest"]
    assert result.dtype == torch.int64 and torch.equal(result, made(ids))


def test_one_value_at_several_edges(tmp_path):
    builder = ProgramBuilder()
    x = builder.input("x", (3, 6, 7), BYTE)
    y = conv(builder, x)
    for name, value in (("same", x), ("first", y), ("second", y)):
        builder.output(name, value)
    for made in (builder.build("tuple"), builder.build("tuple").with_integer_edges("*")):
        made = for_runtime(made, "litert")
        emitter.emit(made, tmp_path / "model.tflite")
        assert set(emitter.open_session(tmp_path / "model.tflite").outputs) == {"same", "first", "second"}


def test_a_file_of_another_program_is_refused(tmp_path):
    emitter.emit(program(), tmp_path / "model.tflite")
    session = emitter.open_session(tmp_path / "model.tflite")
    other = program().with_integer_edges("scores")
    with pytest.raises(ExportError, match="it makes scores float32 .* and the program makes scores uint8"):
        emitter.check_edges(session, other, "model.tflite")


def test_missing_and_damaged_files_are_refused(tmp_path):
    path = tmp_path / "model.tflite"
    with pytest.raises(ExportError, match="does not exist"):
        emitter.open_session(path)
    path.write_bytes(b"no model at all")
    with pytest.raises(ExportError, match="no TensorFlow Lite model"):
        emitter.open_session(path)
    emitter.emit(program(), path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ExportError, match="damaged|cannot load"):
        emitter.open_session(path)


def test_inputs_of_a_wrong_shape_are_refused(tmp_path):
    emitter.emit(program(), tmp_path / "model.tflite")
    session = emitter.open_session(tmp_path / "model.tflite")
    with pytest.raises(ExportError, match=r"fails on inputs of image \(2, 4, 6, 7\)"):
        emitter.run_session(session, {"image": torch.randn(2, 4, 6, 7)})


def test_weights_over_two_gigabytes_are_refused_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(model, "MAX_BYTES", 100)
    with pytest.raises(ExportError, match="holds less than 100, as its offsets have 31 bits"):
        emitter.emit(program(), tmp_path / "model.tflite")
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_not_equal_is_not_written(tmp_path):
    made, other = program(), program()
    with pytest.raises(ExportError, match="gives other codes than the program for"):
        emitter.emit(made, tmp_path / "equal.tflite")
        emitter.check(other, tmp_path / "equal.tflite")


def test_the_file_itself_says_what_it_computes(tmp_path):
    emitter.emit(program(), tmp_path / "model.tflite")
    found = emitter.operations(tmp_path / "model.tflite")
    assert [(each.kind, each.dtype) for each in found] == [
        ("QUANTIZE", "float32"), ("TRANSPOSE", "int8"), ("CONV_2D", "int8"), ("TRANSPOSE", "int8"),
        ("DEQUANTIZE", "float32"),
    ]  # fmt: skip
    assert [each.bytes for each in found] == [0, 16, 5 * 27 + 20, 16, 0]
    assert emitter.float_ops(tmp_path / "model.tflite") == []


def test_operators_of_real_numbers_are_told_from_the_file(tmp_path):
    emitter.emit_float(program(), tmp_path / "float.tflite")
    assert [each.split()[0] for each in emitter.float_ops(tmp_path / "float.tflite")] == [
        "TRANSPOSE", "CONV_2D", "TRANSPOSE",
    ]  # fmt: skip


def test_buffers_lie_at_multiples_of_16_bytes(tmp_path):
    made = model.Model()
    made.constant("k", numpy.arange(5, dtype=numpy.int8))
    x, y = (made.tensor(name, (1, 3), numpy.float32) for name in "xy")
    made.operator("ABS", [x], [y])
    content = made.to_bytes({"x": x}, {"y": y}, "")
    assert content.index(bytes(range(5))) % 16 == 0


def test_narrow_integers_share_bytes_the_first_in_the_lowest_bits():
    assert model.packed(numpy.array([[1, -2], [7, -8], [3, 0]]), 4).tolist() == [0xE1, 0x87, 0x03]
    assert model.packed(numpy.array([1, -2, -1, 0, 1]), 2).tolist() == [0b00111001, 0b01]


def test_conditions_name_the_runtime_and_its_kernels():
    conditions = emitter.session_conditions()
    assert conditions["delegate"] == "XNNPACK" and conditions["litert"] == emitter.runtime_version()


def test_metadata_of_a_model_is_found_by_name(tmp_path):
    emitter.emit(program(), tmp_path / "model.tflite")
    read = reading.read(tmp_path / "model.tflite")
    assert reading.entry(read, reading.EDGES) is not None and reading.entry(read, "nothing") is None


def test_what_xnnpack_runs_is_told(tmp_path):
    builder = ProgramBuilder()
    y = builder.slice("s", conv(builder, builder.input("image", (3, 6, 7), BYTE)), (0, 0, 0), (5, 4, 5), (1, 3, 1))
    builder.output("scores", y)
    emitter.emit(for_runtime(builder.build(), "litert"), tmp_path / "model.tflite")
    inside, outside = emitter.delegated_ops(tmp_path / "model.tflite")
    assert (inside, outside) == (["QUANTIZE", "TRANSPOSE", "CONV_2D", "TRANSPOSE", "DEQUANTIZE"], ["STRIDED_SLICE"])


def test_a_program_of_several_lengths_is_exported_at_the_recorded_one(tmp_path):
    weight = Weight(torch.randint(-127, 128, (5, 3), dtype=torch.int8), WeightGrid(8), torch.full((5,), 0.01))
    builder = ProgramBuilder()
    x = builder.input("x", (Length("length", 6), 3), BYTE)
    builder.output("y", builder.linear("fc", x, weight, OUTPUT))
    made = for_runtime(builder.build(), "litert")
    emitter.emit(made, tmp_path / "model.tflite")
    session = emitter.open_session(tmp_path / "model.tflite")
    emitter.check_edges(session, made, "model.tflite")
    assert session.inputs["x"]["shape"].tolist() == [1, 6, 3]
    x = torch.randn(2, 6, 3)
    assert torch.equal(emitter.run_session(session, {"x": x})["y"], made(x))
