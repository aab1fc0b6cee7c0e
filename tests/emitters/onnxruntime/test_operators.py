"""Every operation, run by ONNX Runtime and by the interpreter: equal codes."""

import math

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_programs import random_weight

from qat.emitters.onnxruntime import emit, open_session, run_session
from qat.emitters.onnxruntime.operators import build
from qat.emitters.onnxruntime.session import optimized_graph
from qat.errors import ExportError, ProgramError
from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import dequantize
from qat.integer.values import Grid, float32

UNSIGNED = Grid(float32(0.02), 100, 0, 255)
RELU = Grid(float32(0.013), 0, 0, 255)
SIGNED = Grid(float32(0.021), -5, -128, 127)
NARROW = Grid(float32(0.3), 0, 0, 15)
SIGNED_NARROW = Grid(float32(0.25), 0, -7, 7)
GRIDS = [UNSIGNED, RELU, SIGNED, NARROW, SIGNED_NARROW]
WEIGHT_GRIDS = [(2, 64, 32), (3, 32, 0), (4, 16, 0), (4, 1, 0), (6, 4, 0), (8, 1, 0)]


@pytest.mark.parametrize("shape", [(8,), (3, 8), (3, 2, 8), (2, 1, 3, 8), (2, 3, 1, 2, 8), (1, 2, 1, 3, 2, 8)])
@pytest.mark.parametrize("bias", [None, torch.arange(6, dtype=torch.int32) * 50 - 100])
def test_linear_of_any_rank(assert_equal_in_both, shape, bias):
    for source, weight_grid, clamp in ((UNSIGNED, (8, 1, 0), None), (SIGNED, (4, 16, 0), (100, 250))):
        weight = random_weight((6, 8), *weight_grid)
        assert_equal_in_both(
            lambda b, x, w=weight, c=clamp: b.linear("fc", x, w, UNSIGNED, bias=bias, clamp=c), [shape], [source]
        )


def test_linear_layers_are_turned_no_time(assert_equal_in_both):
    """What turns their dimensions is taken out by the runtime, between other operations as well."""

    def write(builder, x):
        for place in range(3):
            y = builder.linear(f"first{place}", x, random_weight((16, 8)), UNSIGNED)
            y = builder.table(f"table{place}", y, torch.arange(255, -1, -1).to(torch.uint8), UNSIGNED)
            y = builder.linear(f"second{place}", y, random_weight((8, 16), seed=1), UNSIGNED)
            x = builder.normalize(f"norm{place}", builder.add(f"add{place}", x, y, UNSIGNED), (2,), UNSIGNED)
        return x

    _, path = assert_equal_in_both(write, [(5, 8)], [UNSIGNED])
    kinds = [node.op_type for node in optimized_graph(path).node]
    assert kinds.count("QLinearConv") == 6 and "Transpose" not in kinds


@pytest.mark.parametrize("weight_grid", WEIGHT_GRIDS)
@pytest.mark.parametrize("source", GRIDS)
def test_convolution(assert_equal_in_both, weight_grid, source):
    weight = random_weight((6, 4, 3, 3), *weight_grid)
    bias = torch.arange(6, dtype=torch.int32) * 50 - 100
    assert_equal_in_both(
        lambda b, x: b.conv("c", x, weight, UNSIGNED, bias=bias, padding=((1, 1), (2, 0)), stride=(1, 2)),
        [(4, 7, 8)],
        [source],
    )


@pytest.mark.parametrize("target", GRIDS)
def test_convolution_to_every_grid_with_a_fused_clamp(assert_equal_in_both, target):
    clamp = target.zero_point, target.quant_max - 2
    weight = random_weight((6, 4, 3, 3))
    assert_equal_in_both(lambda b, x: b.conv("c", x, weight, target, clamp=clamp), [(4, 7, 8)], [UNSIGNED])


@pytest.mark.parametrize("groups", [2, 8])
def test_grouped_and_depthwise_convolution(assert_equal_in_both, groups):
    weight = random_weight((16, 8 // groups, 3, 3), 4, 16)
    padding = ((1, 1), (1, 1))
    assert_equal_in_both(
        lambda b, x: b.conv("c", x, weight, UNSIGNED, groups=groups, padding=padding), [(8, 6, 6)], [SIGNED]
    )


def test_convolution_in_one_dimension_with_dilation(assert_equal_in_both):
    weight = random_weight((5, 3, 3))
    assert_equal_in_both(
        lambda b, x: b.conv("c", x, weight, SIGNED, dilation=(2,), padding=((2, 1),)), [(3, 20)], [UNSIGNED]
    )


@pytest.mark.parametrize("shape", [(1,), (37,), (3, 37), (2, 3, 37)])
@pytest.mark.parametrize("weight_grid", WEIGHT_GRIDS)
def test_linear(assert_equal_in_both, shape, weight_grid):
    weight = random_weight((10, shape[-1]), *weight_grid)
    bias = torch.arange(10, dtype=torch.int32) * 10
    assert_equal_in_both(
        lambda b, x: b.linear("fc", x, weight, SIGNED, bias=bias, clamp=(-100, 90)), [shape], [UNSIGNED]
    )


@pytest.mark.parametrize("target", [UNSIGNED, SIGNED_NARROW])
@pytest.mark.parametrize("second", GRIDS)
@pytest.mark.parametrize("first", GRIDS)
def test_addition_and_multiplication(assert_equal_in_both, first, second, target):
    assert_equal_in_both(lambda b, x, y: b.add("s", x, y, target), [(3, 5, 7)] * 2, [first, second])
    assert_equal_in_both(lambda b, x, y: b.mul("p", x, y, target), [(3, 5, 7)] * 2, [first, second])


def all_pairs():
    codes = torch.arange(256)
    return codes.repeat_interleave(256), codes.repeat(256)


@settings(max_examples=15, deadline=None)
@given(st.data())
@pytest.mark.parametrize("kind", ["add", "mul"])
def test_all_pairs_of_codes_for_random_scales(tmp_path_factory, kind, data):
    draw = data.draw
    scales = [float32(draw(st.floats(0.05, 1.0))) for _ in range(3)]
    grids = [Grid(scale, draw(st.integers(0, 255)), 0, 255) for scale in scales]
    builder = ProgramBuilder()
    x, y = (builder.input(name, (3,), grid) for name, grid in zip("xy", grids[:2], strict=True))
    builder.output("z", getattr(builder, kind)("op", x, y, grids[2]))
    program = builder.build()
    path = tmp_path_factory.mktemp("pairs") / "model.onnx"
    emit(program, path)
    first, second = (torch.cat([codes, codes[:2]]).reshape(-1, 3) for codes in all_pairs())
    inputs = {"x": dequantize(first, grids[0]), "y": dequantize(second, grids[1])}
    assert torch.equal(run_session(open_session(path), inputs)["z"], program(inputs))


@pytest.mark.parametrize("kind", ["add", "mul"])
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 1, 1), (4, 5, 7), (1, 5, 1)])
def test_constants_and_broadcasting(assert_equal_in_both, kind, shape):
    codes = torch.arange(math.prod(shape)).reshape(shape) % 16

    def write(builder, x):
        constant = builder.constant("k", codes, NARROW)
        first = getattr(builder, kind)("a", x, constant, UNSIGNED)
        return getattr(builder, kind)("b", constant, first, SIGNED)

    assert_equal_in_both(write, [(4, 5, 7)], [UNSIGNED])


def test_two_values_of_other_shapes_broadcast(assert_equal_in_both):
    assert_equal_in_both(lambda b, x, y: b.mul("m", x, y, UNSIGNED), [(4, 5, 7), (4, 1, 1)], [RELU, NARROW])
    assert_equal_in_both(lambda b, x, y: b.add("m", x, y, UNSIGNED), [(1, 1, 1), (4, 5, 7)], [RELU, NARROW])


@pytest.mark.parametrize("factor", [1.0, -1.0, 0.37, -2.5])
@pytest.mark.parametrize("target", GRIDS)
def test_requantize(assert_equal_in_both, factor, target):
    for source in (UNSIGNED, SIGNED):
        assert_equal_in_both(lambda b, x: b.requantize("r", x, target, factor=factor), [(5, 7)], [source])


def test_requantize_to_a_clamp_alone(assert_equal_in_both):
    _, path = assert_equal_in_both(lambda b, x: b.requantize("r", x, UNSIGNED, clamp=(100, 200)), [(5, 7)], [UNSIGNED])
    assert [node.op_type for node in onnx.load(path).graph.node] == ["QuantizeLinear", "Clip", "DequantizeLinear"]
    halves = Grid(0.5, 0, -128, 127), Grid(0.5, 0, 0, 127)
    assert_equal_in_both(lambda b, x: b.requantize("r", x, halves[1]), [(5, 7)], [halves[0]])


@pytest.mark.parametrize("source", GRIDS)
def test_average_pool_and_means(assert_equal_in_both, source):
    cases = [
        lambda b, x: b.average_pool("a", x, (2, 3), UNSIGNED, stride=(1, 2), padding=((1, 0), (1, 1))),
        lambda b, x: b.mean("m", x, (2, 3), SIGNED),
        lambda b, x: b.mean("m", x, (1,), UNSIGNED, keepdim=True),
        lambda b, x: b.mean("m", x, (1, 2, 3), UNSIGNED),
        lambda b, x: b.mean("m", x, (1, 3), NARROW, keepdim=True, clamp=(1, 9)),
    ]
    for case in cases:
        assert_equal_in_both(case, [(4, 6, 7)], [source])


@pytest.mark.parametrize("source", GRIDS)
def test_moving_operations(assert_equal_in_both, source):
    cases = [
        lambda b, x: b.max_pool("p", x, (3, 2), (2, 2), ((1, 1), (1, 0)), ceil_mode=True),
        lambda b, x: b.max_pool("p", x, (2, 2), (1, 1), dilation=(2, 1)),
        lambda b, x: b.max("m", x, (2, 3)),
        lambda b, x: b.max("m", x, (1,), keepdim=True),
        lambda b, x: b.concatenate("c", (x, x), 2),
        lambda b, x: b.reshape("r", x, (12, 14)),
        lambda b, x: b.transpose("t", x, (0, 3, 1, 2)),
        lambda b, x: b.slice("s", x, (1, 0, 2), (4, 6, 7), (1, 2, 3)),
        lambda b, x: b.pad("d", x, ((0, 1), (2, 0), (1, 1))),
    ]
    for case in cases:
        assert_equal_in_both(case, [(4, 6, 7)], [source])
    assert_equal_in_both(lambda b, x: b.max_pool("p", x, (2,), ceil_mode=True), [(4, 7)], [source])


def test_sixteen_bit_activations_are_refused():
    builder = ProgramBuilder()
    x = builder.input("x", (2,), Grid(1.0, 0, 0, 65535))
    builder.output("y", builder.reshape("r", x, (2, 1)))
    with pytest.raises(ExportError, match="'x' .*these are 0..65535.*at most 8 bits"):
        build(builder.build())


def test_products_beyond_int32_are_refused():
    builder = ProgramBuilder()
    x = builder.input("x", (2,), Grid(1.0, 0, 0, 255))
    builder.output("y", builder.mul("m", x, x, Grid(float32(2.0**-20), 0, 0, 255)))
    with pytest.raises(ExportError, match="look for a range that collapsed"):
        build(builder.build())


def test_equal_programs_give_equal_bytes():
    def program():
        builder = ProgramBuilder()
        x = builder.input("x", (4, 7), UNSIGNED)
        builder.output("y", builder.conv("c", x, random_weight((6, 4, 3), 4, 16), NARROW))
        return builder.build()

    assert build(program()) == build(program())


def test_names_that_meet_are_refused():
    builder = ProgramBuilder()
    x = builder.input("codes/r", (2,), UNSIGNED)
    builder.output("y", builder.reshape("r", x, (2, 1)))
    with pytest.raises((ExportError, ProgramError), match="codes/r"):
        build(builder.build())
