"""Means and sums over everything but the channels."""

import numpy
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.emitters.onnxruntime import build, emit, open_session, run_session
from qat.emitters.onnxruntime.forms.global_means import _scales
from qat.integer.builder import ProgramBuilder
from qat.integer.values import Grid, float32

SOURCE = Grid(float32(0.05), 100, 0, 255)
TARGET = Grid(float32(0.01), -7, -128, 127)


def kinds(path):
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("shape", [(5, 8, 8), (5, 5, 11), (5, 11, 11), (3, 2, 3, 4), (7, 9)])
@pytest.mark.parametrize("keepdim", [False, True])
def test_of_channels_that_stand_first_or_last(assert_equal_in_both, shape, keepdim):
    for dims in (tuple(range(2, len(shape) + 1)), tuple(range(1, len(shape)))):
        _, path = assert_equal_in_both(lambda b, x, dims=dims: b.mean("m", x, dims, TARGET, keepdim), [shape], [SOURCE])
        reshaped = [] if keepdim else ["Reshape"]
        assert kinds(path) == ["QuantizeLinear", "QLinearGlobalAveragePool", *reshaped, "DequantizeLinear"]


def test_of_other_dimensions_a_product_with_ones(assert_equal_in_both):
    for dims in ((1,), (3,), (1, 3), (1, 2, 3)):
        _, path = assert_equal_in_both(lambda b, x, dims=dims: b.mean("m", x, dims, TARGET), [(5, 4, 6)], [SOURCE])
        assert "QLinearMatMul" in kinds(path)


def test_a_clamp_and_a_narrow_grid(assert_equal_in_both):
    narrow = Grid(0.5, 2, 0, 15)
    assert_equal_in_both(lambda b, x: b.mean("m", x, (2, 3), narrow, clamp=(2, 9)), [(5, 4, 6)], [SOURCE])
    assert_equal_in_both(lambda b, x: b.mean("m", x, (2, 3), TARGET, True, clamp=(-7, 90)), [(5, 4, 6)], [SOURCE])


def test_a_pool_with_one_window_is_global(assert_equal_in_both):
    _, path = assert_equal_in_both(lambda b, x: b.average_pool("a", x, (5, 11), TARGET), [(4, 5, 11)], [SOURCE])
    assert "QLinearGlobalAveragePool" in kinds(path)
    padded = ((0, 0), (1, 0))
    for settings_ in (dict(padding=padded), dict()):
        window = (5, 12 if settings_ else 10)
        _, path = assert_equal_in_both(
            lambda b, x, window=window, given=settings_: b.average_pool("a", x, window, TARGET, **given),
            [(4, 5, 11)],
            [SOURCE],
        )
        assert "QLinearConv" in kinds(path)


def test_the_ones_of_a_window_take_no_place_in_the_file(tmp_path):
    builder = ProgramBuilder()
    builder.output("y", builder.average_pool("a", builder.input("x", (64, 40, 40), SOURCE), (32, 32), TARGET))
    assert len(build(builder.build())) < 2500


def summing(scale, target, count):
    builder = ProgramBuilder()
    builder.output("y", builder.sum("s", builder.input("x", (2, count), scale), (2,), target))
    return builder.build()


def test_sums_are_global_as_well_but_for_factors_that_the_kernel_refuses(tmp_path):
    for step, kind in ((2.0**-8, "QLinearGlobalAveragePool"), (2.0**-9, "QLinearMatMul")):
        program = summing(Grid(0.9375, 3, 0, 255), Grid(step, 0, 0, 255), 6)
        emit(program, tmp_path / "model.onnx")
        assert kind in kinds(tmp_path / "model.onnx")


@settings(max_examples=20, deadline=None)
@given(
    scale=st.floats(1e-4, 10),
    ratio=st.floats(1e-3, 20),
    zero_point=st.integers(-128, 127),
    signed=st.booleans(),
    count=st.integers(1, 130),
    last=st.booleans(),
)
def test_any_grids_and_counts(tmp_path_factory, scale, ratio, zero_point, signed, count, last):
    source = Grid(float32(scale), zero_point, -128, 127)
    target = Grid(float32(scale * ratio), zero_point, -128, 127) if signed else Grid(float32(scale * ratio), 0, 0, 15)
    builder = ProgramBuilder()
    shape, dims = ((count, 17), (1,)) if last else ((17, count), (2,))
    builder.output("y", builder.mean("m", builder.input("x", shape, source), dims, target))
    program, path = builder.build(), tmp_path_factory.mktemp("mean") / "model.onnx"
    path.write_bytes(build(program))
    generator = torch.Generator().manual_seed(count)
    x = (torch.randint(-128, 128, (64, *shape), generator=generator) - zero_point) * source.scale
    assert torch.equal(run_session(open_session(path), {"x": x})["y"], program(x))


@settings(max_examples=200, deadline=None)
@given(factor=st.floats(2.0**-31, 2.0**7, width=32), count=st.integers(1, 2**24 - 1))
def test_scales_give_back_the_factor(factor, count):
    scale, share = _scales(factor, count)
    assert numpy.float32(scale) / (numpy.float32(share) * numpy.float32(count)) == numpy.float32(factor)
