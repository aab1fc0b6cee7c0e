"""Matrix products of two values: ONNX Runtime and the interpreter give equal codes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.emitters.onnxruntime import emit, float_ops, open_session, run_session
from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import dequantize
from qat.integer.values import Grid, float32

GRIDS = [
    Grid(float32(0.02), 100, 0, 255),
    Grid(float32(0.013), 0, 0, 255),
    Grid(float32(0.021), -5, -128, 127),
    Grid(float32(0.3), 0, 0, 15),
    Grid(float32(0.25), 0, -7, 7),
]
OUT = Grid(float32(0.3), 120, 0, 255)


@pytest.mark.parametrize("second", GRIDS)
@pytest.mark.parametrize("first", GRIDS)
def test_every_pair_of_grids(assert_equal_in_both, first, second):
    assert_equal_in_both(
        lambda b, x, y: b.matmul("m", x, y, OUT, factor=0.2, clamp=(20, 250)), [(3, 5, 16), (3, 16, 7)], [first, second]
    )


@pytest.mark.parametrize(
    "shapes",
    [
        [(5, 16), (16, 7)],
        [(1, 1), (1, 1)],
        [(1, 300), (300, 1)],
        [(4, 5, 16), (1, 16, 7)],
        [(2, 1, 5, 16), (2, 3, 16, 7)],
        [(2, 3, 65, 32), (2, 3, 32, 65)],
    ],
)
def test_shapes_that_broadcast(assert_equal_in_both, shapes):
    for grids in ((GRIDS[0], GRIDS[0]), (GRIDS[2], GRIDS[1])):
        _, path = assert_equal_in_both(lambda b, x, y: b.matmul("m", x, y, OUT), shapes, grids)
        assert not float_ops(path)


@pytest.mark.parametrize("turned", [False, True])
def test_constants_on_either_side(assert_equal_in_both, turned):
    codes = torch.arange(2 * 6 * 6).reshape(2, 6, 6) % 200

    def write(builder, x):
        constant = builder.constant("k", codes, GRIDS[0])
        pair = (constant, x) if turned else (x, constant)
        return builder.matmul("m", *pair, OUT)

    assert_equal_in_both(write, [(2, 6, 6)], [GRIDS[2]])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_random_shapes_scales_and_zero_points(tmp_path_factory, data):
    draw = data.draw
    heads, rows, inner, columns = (draw(st.integers(1, most)) for most in (3, 9, 70, 9))
    grids = [Grid(float32(draw(st.floats(0.01, 0.1))), draw(st.integers(0, 255)), 0, 255) for _ in range(2)]
    builder = ProgramBuilder()
    x = builder.input("x", (heads, rows, inner), grids[0])
    y = builder.input("y", (heads, inner, columns), grids[1])
    target = Grid(float32(draw(st.floats(0.05, 2.0))), draw(st.integers(0, 255)), 0, 255)
    builder.output("z", builder.matmul("m", x, y, target, factor=draw(st.floats(0.05, 4.0))))
    program = builder.build()
    path = tmp_path_factory.mktemp("products") / "model.onnx"
    emit(program, path)
    ends = torch.tensor([0, 255])
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**30)))
    codes = [ends[torch.randint(0, 2, (4, *program.value(name).shape), generator=generator)] for name in "xy"]
    inputs = {name: dequantize(entry, grid) for name, entry, grid in zip("xy", codes, grids, strict=True)}
    assert torch.equal(run_session(open_session(path), inputs)["z"], program(inputs))
