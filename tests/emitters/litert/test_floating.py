import pytest
import torch
import torch.nn.functional as F

import qat.emitters.litert as emitter
from qat.integer.builder import ProgramBuilder
from qat.integer.operations import table_codes
from qat.integer.values import Grid, Weight, WeightGrid, float32

INPUT, OUTPUT = Grid(float32(0.02), 128, 0, 255), Grid(float32(0.05), 128, 0, 255)
KINDS = {"sigmoid": "LOGISTIC", "tanh": "TANH", "gelu": "GELU", "hardswish": "HARD_SWISH", "silu": "LOGISTIC"}


def run(builder, path, x):
    emitter.emit_float(builder.build(), path)
    (result,) = emitter.run_session(emitter.open_session(path), {"x": x}).values()
    return result


def test_the_float_network_has_the_reals_that_weights_and_biases_stand_for(tmp_path):
    weight = Weight(torch.randint(-127, 128, (5, 4, 3, 3), dtype=torch.int8), WeightGrid(8), torch.rand(5) * 0.01)
    head = Weight(torch.randint(-127, 128, (3, 5), dtype=torch.int8), WeightGrid(8), torch.rand(3) * 0.01)
    bias = torch.randint(-900, 900, (5,), dtype=torch.int32)
    builder = ProgramBuilder()
    y = builder.conv("c", builder.input("x", (4, 8, 8), INPUT), weight, OUTPUT, bias=bias, clamp=(128, 255))
    y = builder.mean("m", builder.average_pool("a", y, (2, 2), OUTPUT), (2, 3), OUTPUT)
    builder.output("y", builder.linear("fc", y, head, OUTPUT))
    x = torch.randn(3, 4, 8, 8)
    result = run(builder, tmp_path / "float.tflite", x)
    unit = INPUT.scale * weight.scale
    expected = F.conv2d(x, weight.kernel * weight.scale[:, None, None, None], bias * unit).relu()
    expected = F.avg_pool2d(expected, 2).mean((2, 3)) @ (head.kernel * head.scale[:, None]).T
    assert torch.allclose(result, expected, atol=1e-5)
    kinds = [each.kind for each in emitter.operations(tmp_path / "float.tflite")]
    assert kinds == ["TRANSPOSE", "CONV_2D", "AVERAGE_POOL_2D", "MEAN", "FULLY_CONNECTED"]
    assert len(emitter.float_ops(tmp_path / "float.tflite")) == 5


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_functions_are_told_by_their_tables(tmp_path, name, kind):
    function = {"sigmoid": torch.sigmoid, "tanh": torch.tanh}.get(name) or getattr(F, name)
    points = (torch.arange(256, dtype=torch.float64) - INPUT.zero_point) * INPUT.scale
    builder = ProgramBuilder()
    builder.output(
        "y", builder.table("t", builder.input("x", (7,), INPUT), table_codes(function(points), OUTPUT), OUTPUT)
    )
    x = torch.randn(3, 7)
    assert torch.allclose(run(builder, tmp_path / "float.tflite", x), function(x), atol=1e-5)
    assert kind in [each.kind for each in emitter.operations(tmp_path / "float.tflite")]


def test_a_table_of_no_known_function_is_looked_up(tmp_path):
    codes = torch.randint(0, 256, (256,), dtype=torch.uint8)
    builder = ProgramBuilder()
    builder.output("y", builder.table("t", builder.input("x", (7,), INPUT), codes, OUTPUT))
    places = torch.randint(0, 256, (3, 7))
    result = run(builder, tmp_path / "float.tflite", (places - 128) * INPUT.scale)
    assert torch.allclose(result, (codes[places].float() - 128) * OUTPUT.scale)


def test_sums_products_and_moves(tmp_path):
    builder = ProgramBuilder()
    x = builder.input("x", (4, 6, 6), INPUT)
    half = builder.requantize("h", x, OUTPUT, factor=-0.5)
    total = builder.add("s", builder.mul("p", x, half, OUTPUT), builder.negate("n", x), OUTPUT)
    joined = builder.concatenate("c", (total, builder.max_pool("m", total, (3, 3), (1, 1), ((1, 1), (1, 1)))), 1)
    builder.output("y", builder.slice("cut", joined, (2, 0, 1), (7, 6, 5)))
    x = torch.randn(3, 4, 6, 6)
    wanted = x * (x * -0.5) - x
    wanted = torch.cat([wanted, F.max_pool2d(wanted, 3, 1, 1)], 1)[:, 2:7, :, 1:5]
    assert torch.allclose(run(builder, tmp_path / "float.tflite", x), wanted, atol=1e-5)
