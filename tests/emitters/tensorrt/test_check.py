import logging

import onnx
import pytest
import torch
from onnx import numpy_helper

from qat.emitters.onnxruntime.islands import IslandCodes
from qat.emitters.samples import random_inputs
from qat.emitters.tensorrt import LayerComparison, check
from qat.emitters.tensorrt.check import is_exact, largest_sum, refuse_differences
from qat.errors import ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.values import Grid, Weight, WeightGrid

BYTE = Grid(0.5, 0, -128, 127)
RELU = Grid(0.5, 0, 0, 127)


def weight(rows):
    codes = torch.tensor(rows, dtype=torch.int8)
    return Weight(codes, WeightGrid(8), torch.full((len(codes),), 0.01))


def three_layers(builder, x):
    for name in ("first", "second", "third"):
        x = builder.linear(name, x, weight([[50, -30], [20, 60]]), BYTE)
    return x


def test_what_one_layer_rounds_otherwise_is_found_there_and_nowhere_else(written, tmp_path):
    program, path = written(three_layers, [(2,)], [BYTE])
    model = onnx.load(path)
    (codes,) = (tensor for tensor in model.graph.initializer if tensor.name == "second/bias")
    codes.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(codes) + 60, "second/bias"))  # 0.6 of a step
    onnx.save(model, tmp_path / "other.onnx")
    compared = LayerComparison(program, tmp_path / "other.onnx")
    (inputs,) = random_inputs(program, sizes=(50,))
    found = compared(inputs)
    assert {name: codes.largest for name, codes in found.items()} == {
        "input x0": 0,
        "first": 0,
        "second": 1,
        "third": 0,
    }
    with pytest.raises(ExportError, match=r"Linear 'second' gives other codes .* where at most 0 by one can be"):
        check(program, tmp_path / "other.onnx")


def test_nodes_of_real_numbers_that_no_operation_has_are_refused(written, tmp_path):
    program, path = written(three_layers, [(2,)], [BYTE])
    model = onnx.load(path)
    (scaled,) = (node for node in model.graph.node if node.name == "second/scaled")
    scaled.op_type = "Div"
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(
        ExportError, match="would compute 4 nodes in floating point, 'second/weight/transposed' among them"
    ):
        check(program, tmp_path / "other.onnx")


def test_sums_by_hand():
    builder = ProgramBuilder()
    x, relu = builder.input("x", (2,), BYTE), builder.input("relu", (2,), RELU)
    bias = torch.tensor([7, -9], dtype=torch.int32)
    builder.linear("signed", x, weight([[50, -30], [20, 60]]), BYTE, bias=bias)
    builder.linear("positive", relu, weight([[50, -30], [20, 60]]), BYTE, bias=bias)
    builder.matmul("product", builder.reshape("row", x, (1, 2)), builder.reshape("column", x, (2, 1)), BYTE)
    builder.sum("sum", x, (1,), BYTE)
    for index, name in enumerate(("signed", "positive", "product", "sum")):
        builder.output(f"y{index}", name)
    program = builder.build("dict")
    sums = {operation.name: largest_sum(operation, program) for operation in program.operations}
    # 50 * 127 + 30 * 128 = 10,190 and 80 * 128 = 10,240; of 0..127: 80 * 127 = 10,160
    assert sums["signed"] == 10_240 + 9 and sums["positive"] == 10_160 + 9
    assert (sums["product"], sums["sum"], sums["row"]) == (2 * 128 * 128, 2 * 128, 0)
    assert all(is_exact(operation, program) for operation in program.operations)


def test_sums_beyond_the_whole_numbers_of_float32_may_be_one_off(written, caplog):
    size = 2048
    program, path = written(
        lambda b, x: b.linear("wide", x, weight([[127] * size]), Grid(float(2**15), 0, -128, 127)), [(size,)], [BYTE]
    )
    (operation,) = program.operations
    assert largest_sum(operation, program) == size * 127 * 128 and not is_exact(operation, program)
    refuse_differences(program, {"wide": IslandCodes(10, 1000, 1)})
    for found in (IslandCodes(11, 1000, 1), IslandCodes(1, 1000, 2)):
        with pytest.raises(ExportError, match="Linear 'wide' gives other codes than the program"):
            refuse_differences(program, {"wide": found})


def test_what_was_found_is_logged(written, caplog):
    with caplog.at_level(logging.INFO, logger="qat"):
        written(lambda b, x: b.softmax("soft", x, 1, Grid(2.0**-7, 0, 0, 127)), [(300,)], [Grid(0.125, 0, -128, 127)])
    first, *others = [record.getMessage() for record in caplog.records]
    assert first.endswith("computes in float32 what TensorRT has no integers for: soft")
    assert all(message.startswith("soft gives other codes than the program for") for message in others)
