"""Means and sums of as many codes as inputs are long: ONNX Runtime gives the interpreter's codes at every length."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.emitters.onnxruntime import build, emit, float_ops, open_session, run_session
from qat.errors import ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.fixed_point import requantize_once
from qat.integer.lengths import Length
from qat.integer.values import Grid, float32

LENGTH = Length("length", 40)
SOURCE = Grid(float32(0.1), 100, 0, 255)


def reducing(kind, source, target, shape=(LENGTH, 3), dims=(1,), keepdim=False):
    builder = ProgramBuilder()
    x = builder.input("x", shape, source)
    builder.output("y", getattr(builder, kind)("y", x, dims, target, keepdim))
    return builder.build()


def check(program, path, lengths, shape=lambda length: (length, 3)):
    emit(program, path)
    assert float_ops(path) == []
    session = open_session(path)
    for length in lengths:
        x = torch.rand(5, *shape(length)) * 30 - 12
        assert torch.equal(run_session(session, {"x": x})["y"], program(x))


@pytest.mark.parametrize("kind", ["mean", "sum"])
@pytest.mark.parametrize("keepdim", [False, True])
def test_equal_at_every_length(tmp_path, kind, keepdim):
    target = Grid(float32(0.03 if kind == "mean" else 2.0), 120, 0, 255)
    check(reducing(kind, SOURCE, target, keepdim=keepdim), tmp_path / "model.onnx", range(1, 41))


def test_over_several_dimensions(tmp_path):
    program = reducing("mean", SOURCE, Grid(float32(0.05), 9, 0, 255), (4, LENGTH, 3), (1, 2))
    check(program, tmp_path / "model.onnx", (1, 2, 17, 40), lambda length: (4, length, 3))


@settings(max_examples=15, deadline=None)
@given(
    scale=st.floats(1e-4, 10),
    ratio=st.floats(0.01, 20),
    zero_point=st.integers(-128, 127),
    signed=st.booleans(),
    length=st.integers(1, 40),
)
def test_any_grids(tmp_path_factory, scale, ratio, zero_point, signed, length):
    source = Grid(float32(scale), zero_point, -128, 127)
    target = Grid(float32(scale * ratio), zero_point, -128, 127) if signed else Grid(float32(scale * ratio), 0, 0, 15)
    program, path = reducing("mean", source, target), tmp_path_factory.mktemp("mean") / "model.onnx"
    path.write_bytes(build(program))
    x = (torch.randint(-128, 128, (64, length, 3)) - zero_point) * source.scale
    assert torch.equal(run_session(open_session(path), {"x": x})["y"], program(x))


@pytest.mark.parametrize(("scale", "length", "total"), [(0.6852310299873352, 32, 3322), (0.6438596248626709, 20, 1835)])
def test_products_are_rounded_to_24_bits_first_as_float32_does(tmp_path, scale, length, total):
    """Of these sums, a product rounded once gives another code."""
    program, path = reducing("mean", Grid(1.0, 0, 0, 255), Grid(scale, 0, 0, 255), (LENGTH, 1)), tmp_path / "model.onnx"
    path.write_bytes(build(program))
    x = torch.full((1, length, 1), float(total // length))
    x[0, : total % length] += 1
    assert x.sum() == total
    found, expected = run_session(open_session(path), {"x": x})["y"], program(x)
    assert torch.equal(found, expected)
    target = program.value("y").grid
    once = requantize_once(torch.tensor([[total]]), program.at(length=length).operations[0].multiplier, target, 0, 255)
    assert int(once) * scale != pytest.approx(float(expected))


def test_sums_that_float32_does_not_hold_are_refused():
    length = Length("length", 70_000)
    program = reducing("mean", Grid(float32(0.1), 0, 0, 255), Grid(float32(0.1), 0, 0, 255), (length, 1))
    with pytest.raises(ExportError, match=r"float32 does not hold the sum of so many codes \(70000\)"):
        build(program)
