"""Sums of products as QDQ nodes: equal codes in ONNX Runtime with optimizations off and in the interpreter."""

import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from small_programs import random_weight

from qat.integer.values import Grid, Weight, float32

FULL = Grid(float32(0.02), 0, -128, 127)
SYMMETRIC = Grid(float32(0.021), 0, -127, 127)
RELU = Grid(float32(0.013), 0, 0, 127)
NARROW = Grid(float32(0.3), 0, 0, 15)
SIGNED_NARROW = Grid(float32(0.25), 0, -7, 7)
GRIDS = [FULL, SYMMETRIC, RELU, NARROW, SIGNED_NARROW]
WEIGHT_GRIDS = [(2, 64, 32), (3, 32, 0), (4, 16, 0), (6, 4, 0), (8, 1, 0)]


def initializers(path):
    return {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("output", GRIDS)
@pytest.mark.parametrize("source", GRIDS)
def test_every_pair_of_grids(assert_equal_in_both, source, output):
    bias = torch.arange(6, dtype=torch.int32) * 50 - 100
    weight = random_weight((6, 4, 3, 3), *WEIGHT_GRIDS[GRIDS.index(output)])
    assert_equal_in_both(
        lambda b, x: b.conv("c", x, weight, output, bias=bias, padding=((1, 1), (1, 1))), [(4, 5, 5)], [source]
    )


@pytest.mark.parametrize(
    ("shape", "weight", "settings"),
    [
        ((4, 9), (6, 4, 3), {"stride": (2,)}),
        ((4, 9, 8), (8, 1, 3, 3), {"groups": 4, "dilation": (2, 1)}),
        ((4, 9, 8), (6, 4, 1, 1), {"stride": (2, 1), "padding": ((0, 1), (2, 0))}),
        ((2, 5, 6, 4), (4, 2, 2, 3, 1), {}),
    ],
)
def test_convolutions_of_any_geometry(assert_equal_in_both, shape, weight, settings):
    assert_equal_in_both(lambda b, x: b.conv("c", x, random_weight(weight), FULL, **settings), [shape], [FULL])


@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 1, 3, 8)])
def test_linear_of_any_rank(assert_equal_in_both, shape):
    for weight_grid in WEIGHT_GRIDS:
        weight = random_weight((6, 8), *weight_grid)
        assert_equal_in_both(lambda b, x, w=weight: b.linear("fc", x, w, FULL, clamp=(0, 127)), [shape], [SYMMETRIC])


@pytest.mark.parametrize(("bits", "step", "offset", "unit"), [(4, 16, 0, 16), (3, 32, 0, 32), (2, 64, 32, 32)])
@pytest.mark.parametrize(("inputs", "block"), [(16, 16), (48, 16), (64, 64), (256, 128)])
def test_linear_weights_of_up_to_four_bits_are_int4_in_blocks(
    assert_equal_in_both, bits, step, offset, unit, inputs, block
):
    weight = random_weight((6, inputs), bits, step, offset)
    _, path = assert_equal_in_both(lambda b, x: b.linear("fc", x, weight, FULL), [(3, inputs)], [FULL])
    tensors = initializers(path)
    assert tensors["fc/weight/codes"].data_type == TensorProto.INT4
    assert len(tensors["fc/weight/codes"].raw_data) == 6 * inputs // 2
    scale = numpy_helper.to_array(tensors["fc/weight/scale"])
    assert scale.shape == (6, inputs // block) and (scale == unit).all()
    (node,) = (node for node in onnx.load(path).graph.node if node.name == "fc/weight/wide")
    assert {entry.name: entry.i for entry in node.attribute} == {"axis": 1, "block_size": block}


@pytest.mark.parametrize(("bits", "step", "inputs"), [(5, 8, 64), (8, 1, 64), (4, 16, 24)])
def test_other_weights_are_int8_with_a_scale_per_channel(assert_equal_in_both, bits, step, inputs):
    weight = random_weight((6, inputs), bits, step)
    _, path = assert_equal_in_both(lambda b, x: b.linear("fc", x, weight, FULL), [(inputs,)], [FULL])
    tensors = initializers(path)
    assert tensors["fc/weight/codes"].data_type == TensorProto.INT8
    (node,) = (node for node in onnx.load(path).graph.node if node.name == "fc/weight")
    assert (node.op_type, node.attribute[0].name, node.attribute[0].i) == ("DequantizeLinear", "axis", 0)
    assert [tuple(tensors[name].dims) for name in node.input] == [(6, inputs), (6,), (6,)]


@pytest.mark.parametrize(
    ("clamp", "bias", "between"), [((0, 127), 5, "Relu"), (None, 5, "Round"), (None, 0, None), ((0, 100), 0, "Relu")]
)
def test_between_the_bias_of_a_convolution_and_its_multipliers_stands_what_keeps_them_apart(
    assert_equal_in_both, clamp, bias, between
):
    bias = torch.full((6,), bias, dtype=torch.int32)
    _, path = assert_equal_in_both(
        lambda b, x: b.conv("c", x, random_weight((6, 4, 3, 3)), FULL, bias=bias, clamp=clamp), [(4, 5, 5)], [FULL]
    )
    nodes = {node.output[0]: node for node in onnx.load(path).graph.node}
    source = nodes[nodes["c/scaled"].input[0]]
    assert source.op_type == (between or "Conv")
    assert source.output[0] == "c/sums" or source.input[0] == "c/sums"


def test_equal_weights_are_stored_once(assert_equal_in_both):
    weight = random_weight((8, 8))

    def write(builder, x):
        return builder.linear("second", builder.linear("first", x, weight, FULL), weight, FULL)

    _, path = assert_equal_in_both(write, [(8,)], [FULL])
    assert [name for name, tensor in initializers(path).items() if list(tensor.dims) == [8, 8]] == [
        "first/weight/codes"
    ]


@pytest.mark.parametrize("output", GRIDS)
def test_products_of_two_values_and_means(assert_equal_in_both, output):
    assert_equal_in_both(
        lambda b, x, y: b.matmul("m", x, y, output, factor=0.1), [(3, 5, 16), (1, 16, 7)], [SYMMETRIC, RELU]
    )
    cases = [
        lambda b, x: b.average_pool("p", x, (2, 2), output),
        lambda b, x: b.average_pool("p", x, (3, 3), output, stride=(2, 1), padding=((1, 1), (1, 0))),
        lambda b, x: b.mean("m", x, (2, 3), output),
        lambda b, x: b.mean("m", x, (1,), output, keepdim=True),
        lambda b, x: b.sum("s", x, (3,), output, clamp=(max(output.quant_min, -3), 7)),
    ]
    for case in cases:
        assert_equal_in_both(case, [(4, 6, 7)], [SYMMETRIC])


@pytest.mark.parametrize(
    ("grid", "codes", "products"),
    [
        (SYMMETRIC, (-127, 128, 1), 1),
        (Grid(0.5, 0, 0, 255), (0, 256, 2), 1),
        (Grid(0.5, 0, 0, 255), (0, 256, 1), 2),
        (Grid(0.5, 40, 0, 255), (0, 256, 1), 2),
    ],
)
def test_a_product_with_a_constant_of_any_codes(assert_equal_in_both, grid, codes, products):
    low, high, step = codes
    drawn = torch.randint(low // step, high // step, (16, 4), generator=torch.Generator().manual_seed(0)) * step
    _, path = assert_equal_in_both(
        lambda b, x: b.matmul("m", x, b.constant("table", drawn, grid), FULL, factor=0.002), [(5, 16)], [SYMMETRIC]
    )
    assert [node.op_type for node in onnx.load(path).graph.node].count("MatMul") == products


@settings(max_examples=12, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scales=st.tuples(*[st.floats(1e-4, 10)] * 2), channels=st.tuples(*[st.integers(1, 40)] * 2), seed=st.integers(0, 99)
)
def test_any_scales(assert_equal_in_both, scales, channels, seed):
    source, output = (Grid(float32(scale), 0, -128, 127) for scale in scales)
    weight = random_weight(channels, seed=seed)
    weight = Weight(weight.codes, weight.grid, weight.scale * (scales[1] / scales[0]))
    assert_equal_in_both(lambda b, x: b.linear("fc", x, weight, output), [(channels[1],)], [source])
