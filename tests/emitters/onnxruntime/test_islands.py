"""Files whose softmax, normalization and division are float islands, and what is still compared with equality."""

import logging

import onnx
import pytest
import torch
from onnx import numpy_helper

import qat
import qat.emitters.onnxruntime as emitter
from qat.emitters import export
from qat.emitters.onnxruntime import emit, float_ops
from qat.emitters.onnxruntime.islands import IslandCodes, IslandComparison, foreign_float_ops, islands_of
from qat.emitters.options import ExportOptions
from qat.errors import ConfigurationError, ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.operations import MASK_GRID
from qat.integer.values import Grid, Weight, WeightGrid, float32

FINE = Grid(float32(0.03), 120, 0, 255)
WRITERS = {
    "softmax": lambda b, x: b.softmax("y", x, 2, Grid(float32(1 / 255), 0, 0, 255)),
    "saturated softmax": lambda b, x: b.softmax("y", x, 2, Grid(float32(0.1 / 255), -120, -128, 127)),
    "narrow softmax": lambda b, x: b.softmax("y", x, 1, Grid(float32(0.1), 1, 0, 9), clamp=(2, 8)),
    "masked softmax": lambda b, x: b.softmax(
        "y", x, 2, Grid(float32(0.004), 7, 0, 255), mask=b.constant("m", torch.ones(6, 6).tril(-1), MASK_GRID)
    ),
    "log_softmax": lambda b, x: b.log_softmax("y", x, 2, Grid(float32(0.05), 255, 0, 255)),
    "layer norm": lambda b, x: b.normalize("y", x, (2,), FINE, gain=torch.linspace(-1, 2, 6), shift=torch.ones(6)),
    "norm of channels": lambda b, x: b.normalize("y", x, (1,), FINE, gain=torch.full((6, 1), 0.5)),
    "RMS norm": lambda b, x: b.normalize("y", x, (2,), FINE, centered=False),
    "L2 norm": lambda b, x: b.normalize("y", x, (1, 2), FINE, centered=False, l2=True, epsilon=1e-3),
    "divide": lambda b, x: b.divide("y", x, x, FINE),
}


def linear(width=6):
    codes = torch.arange(width * width).reshape(width, width).remainder(15).to(torch.int8) - 7
    return Weight(codes, WeightGrid(8), torch.full((width,), 0.01))


def program_of(write):
    """A linear layer, the operation, and a linear layer."""
    builder = ProgramBuilder()
    x = builder.linear("before", builder.input("x", (6, 6), FINE), linear(), FINE)
    builder.output("y", builder.linear("after", write(builder, x), linear(), FINE))
    return builder.build()


@pytest.mark.parametrize("name", WRITERS)
def test_an_island_is_float_and_everything_else_equal(tmp_path, name, caplog):
    program = program_of(WRITERS[name])
    with caplog.at_level(logging.INFO, "qat"):
        export(program, tmp_path / "model.onnx", nonlinear="float_island")
    assert "give other codes than the program for" in caplog.text
    assert [operation.output for operation in islands_of(program)] == ["y"]
    found = float_ops(tmp_path / "model.onnx")
    assert found and foreign_float_ops(program, tmp_path / "model.onnx") == []
    assert all(" codes/y" in entry for entry in found)
    assert "QLinearSoftmax" not in str(found)
    codes, _ = IslandComparison(program, tmp_path / "model.onnx")({"x": torch.randn(50, 6, 6)})
    assert codes.total == 50 * 36 and codes.largest <= 1 and codes.differing < 18


def test_a_program_without_such_operations_is_the_same_file(tmp_path):
    program = program_of(lambda b, x: b.negate("y", x))
    for nonlinear in ("integer", "float_island"):
        export(program, tmp_path / nonlinear, nonlinear=nonlinear)
    assert (tmp_path / "integer").read_bytes() == (tmp_path / "float_island").read_bytes()


def test_integers_are_the_default(tmp_path):
    program = program_of(WRITERS["softmax"])
    qat.export(program, tmp_path / "model.onnx")
    assert float_ops(tmp_path / "model.onnx") == []


def test_another_choice_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="nonlinear is 'float'; choose one of integer, float_island"):
        export(program_of(WRITERS["softmax"]), tmp_path / "model.onnx", nonlinear="float")


def test_other_codes_behind_an_island_are_found(tmp_path):
    program = program_of(WRITERS["layer norm"])
    emit(program, tmp_path / "model.onnx", ExportOptions("float_island"))
    model = onnx.load(tmp_path / "model.onnx")
    *_, product = (node for node in model.graph.node if node.op_type in ("QGemm", "QLinearConv"))
    scale = next(entry for entry in model.graph.initializer if entry.name == product.input[4])
    model.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(scale) * 1.1, "other"))
    product.input[4] = "other"
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="gives other codes than the program"):
        emitter.check(program, tmp_path / "model.onnx", "float_island")


@pytest.mark.parametrize("found", [IslandCodes(1, 10**6, 2), IslandCodes(200, 1000, 1)])
def test_islands_that_are_off_by_more_than_rounding_are_refused(tmp_path, monkeypatch, found):
    compare = IslandComparison.__call__
    monkeypatch.setattr(IslandComparison, "__call__", lambda *arguments: (found, compare(*arguments)[1]))
    with pytest.raises(ExportError, match="nonlinear=integer"):
        export(program_of(WRITERS["divide"]), tmp_path / "model.onnx", nonlinear="float_island")
    assert not (tmp_path / "model.onnx").exists()


def test_float_nodes_outside_of_islands_are_refused(tmp_path):
    program = program_of(WRITERS["divide"])
    emit(program, tmp_path / "model.onnx", ExportOptions("float_island"))
    other = program_of(lambda b, x: b.divide("z", x, x, FINE))
    assert len(foreign_float_ops(other, tmp_path / "model.onnx")) == len(float_ops(tmp_path / "model.onnx"))
    with pytest.raises(ExportError, match="in floating point"):
        emitter.check(program, tmp_path / "model.onnx")


def ruled_program():
    """An integer softmax, an absolute value that a rule left in float, and a linear layer."""

    def write(builder, x):
        shares = builder.softmax("shares", x, 2, Grid(float32(1 / 255), 0, 0, 255))
        return builder.float_island("y", "hypot", {"input": shares, "other": x}, FINE, module="net.hypot")

    return program_of(write)


def test_what_a_rule_left_in_float_is_an_island_of_every_file(tmp_path):
    program = ruled_program()
    assert [operation.name for operation in islands_of(program, "integer")] == ["y"]
    assert [operation.name for operation in islands_of(program)] == ["shares", "y"]
    for nonlinear, names in (("integer", ("y",)), ("float_island", ("shares", "y"))):
        path = tmp_path / nonlinear
        export(program, path, nonlinear=nonlinear)
        assert emitter.islands_in(program, path) == names
        assert foreign_float_ops(program, path) == []


def test_a_softmax_in_float_that_nobody_asked_for_is_refused_beside_an_island(tmp_path):
    program = ruled_program()
    export(program, tmp_path / "model.onnx", nonlinear="float_island")
    emitter.check(program, tmp_path / "model.onnx", "float_island")
    with pytest.raises(ExportError, match="would compute .* nodes in floating point: .*codes/shares"):
        emitter.check(program, tmp_path / "model.onnx")


def test_codes_that_differ_in_integers_are_not_taken_for_those_of_an_island(tmp_path):
    """The comparison goes on with the codes of the islands of the file alone, not with those of its integer softmax."""
    program = ruled_program()
    export(program, tmp_path / "model.onnx")
    codes, _ = IslandComparison(program, tmp_path / "model.onnx")({"x": torch.randn(50, 6, 6)})
    assert codes.total == 50 * 36 and codes.largest <= 1


def test_a_few_codes_may_be_one_off_however_few_there_are(tmp_path, monkeypatch):
    emitter.refuse_islands(IslandCodes(2, 11, 1))
    with pytest.raises(ExportError, match="drop the rules that leave operations in float"):
        emitter.refuse_islands(IslandCodes(3, 11, 1))


def test_the_float_network_beside_a_program_has_its_islands(tmp_path):
    program = ruled_program()
    emitter.emit_float(program, tmp_path / "float.onnx")
    assert any("Sqrt" in node for node in float_ops(tmp_path / "float.onnx"))
