"""Softmax, its logarithm, normalization and division: ONNX Runtime gives the codes of the interpreter, by integers."""

import dataclasses
import math

import onnx
import pytest
import torch
from onnx import TensorProto

from qat.emitters.onnxruntime import emit, float_ops, open_session, run_session
from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import dequantize
from qat.integer.lengths import Length, LengthRange
from qat.integer.operations import MASK_GRID
from qat.integer.values import Grid, float32

SOURCES = [
    Grid(float32(0.1), 128, 0, 255),
    Grid(float32(0.021), -5, -128, 127),
    Grid(float32(0.3), 5, 3, 9),
    Grid(float32(0.001), 0, -7, 7),
]
SHARES = [
    Grid(float32(1 / 255), 0, 0, 255),
    Grid(float32(0.3 / 255), -128, -128, 127),
    Grid(float32(0.01), 5, 2, 12),
]
TARGETS = [Grid(float32(0.03), 140, 0, 255), Grid(float32(0.2), -3, -128, 127), Grid(float32(0.4), 1, 0, 3)]


@pytest.mark.parametrize(("shape", "dim"), [((1,), 1), ((197,), 1), ((3, 5, 7), 3), ((3, 5, 7), 1), ((2, 2500), 2)])
@pytest.mark.parametrize("target", SHARES)
@pytest.mark.parametrize("source", SOURCES)
def test_softmax(assert_equal_in_both, source, target, shape, dim):
    _, path = assert_equal_in_both(lambda b, x: b.softmax("y", x, dim, target), [shape], [source])
    assert float_ops(path) == []


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 1, 1, 4), (1, 1, 4, 4)])
@pytest.mark.parametrize("source", SOURCES)
def test_softmax_with_a_mask(assert_equal_in_both, source, shape):
    grids = [source, MASK_GRID]
    for target in SHARES:
        assert_equal_in_both(
            lambda b, x, m, target=target: b.softmax("y", x, 4, target, mask=m), [(2, 3, 4, 4), shape], grids
        )


def test_softmax_with_a_constant_mask_some_of_whose_rows_are_empty(assert_equal_in_both):
    mask = torch.ones(1, 6, 6).tril(-1)

    def write(builder, x):
        return builder.softmax("y", x, 3, SHARES[2], mask=builder.constant("mask", mask, MASK_GRID))

    program, _ = assert_equal_in_both(write, [(2, 6, 6)], [SOURCES[0]])
    assert (program(torch.randn(1, 2, 6, 6))["y0"][:, :, 0] == 0).all()


@pytest.mark.parametrize(("shape", "dim"), [((1,), 1), ((197,), 1), ((3, 5, 7), 1), ((2, 2500), 2)])
@pytest.mark.parametrize("target", [*TARGETS, Grid(float32(0.1), 255, 0, 255)])
@pytest.mark.parametrize("source", SOURCES)
def test_log_softmax(assert_equal_in_both, source, target, shape, dim):
    assert_equal_in_both(lambda b, x: b.log_softmax("y", x, dim, target), [shape], [source])


def test_log_softmax_of_more_elements_than_recorded(tmp_path):
    builder = ProgramBuilder()
    x = builder.input("x", (Length("length", 1100),), Grid(float32(0.1), 0, 0, 255))
    builder.output("y", builder.log_softmax("scores", x, 1, Grid(float32(0.1), 255, 0, 255)))
    program = dataclasses.replace(builder.build(), lengths=(LengthRange("length", 1, 1100, 9000),))
    emit(program, tmp_path / "model.onnx")
    session = open_session(tmp_path / "model.onnx")
    for length in (1, 1100, 9000):
        x = torch.ones(2, length)
        assert torch.equal(run_session(session, {"x": x})["y"], program(x))


@pytest.mark.parametrize(
    ("shape", "dims", "gains"),
    [
        ((768,), (1,), (768,)),
        ((5, 48), (2,), (48,)),
        ((6, 4, 5), (1,), (6, 1, 1)),
        ((6, 4, 5), (2, 3), (6, 1, 1)),
        ((2, 3, 4, 5), (2, 3, 4), (2, 3, 1, 1)),
        ((3, 1), (2,), (3, 1)),
        ((2, 130, 130), (2, 3), (2, 1, 1)),
    ],
)
@pytest.mark.parametrize("kind", [{}, {"centered": False}, {"centered": False, "l2": True}])
@pytest.mark.parametrize("source", SOURCES)
def test_normalize(assert_equal_in_both, source, kind, shape, dims, gains):
    generator = torch.Generator().manual_seed(0)
    gain, shift = (torch.randn(gains, generator=generator) for _ in range(2))
    gain.view(-1)[0] = 0.0
    for target in TARGETS:
        assert_equal_in_both(
            lambda b, x, target=target: b.normalize("y", x, dims, target, gain=gain, shift=shift, **kind),
            [shape],
            [source],
        )


@pytest.mark.parametrize(("smallest_gain", "passes"), [(0.5, 1), (1e-4, 2)])
def test_bases_are_part_of_the_offsets_where_these_stay_inside_int32(assert_equal_in_both, smallest_gain, passes):
    """The narrow grids clamp from both sides, below as well where a quotient is negative and is rounded up."""
    generator = torch.Generator().manual_seed(0)
    gain = torch.rand(48, generator=generator) * 2 + 0.5
    gain[:24] *= -1
    gain[0] = smallest_gain
    shift = torch.randn(48, generator=generator) * 3
    for source in SOURCES:
        for target in [*TARGETS, Grid(float32(0.5), 5, 3, 9), Grid(float32(0.02), 0, 0, 255)]:
            _, path = assert_equal_in_both(
                lambda b, x, target=target: b.normalize("y", x, (2,), target, gain=gain, shift=shift),
                [(5, 48)],
                [source],
            )
    graph = onnx.load(path).graph
    constants = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    added = [node for node in graph.node if node.op_type == "Add" and constants.get(node.input[1]) == (48,)]
    assert len(added) == passes


@pytest.mark.parametrize("epsilon", [0.0, 1e-30, 1e-5, 1e5])
@pytest.mark.parametrize("kind", [{}, {"centered": False}, {"centered": False, "l2": True}])
def test_rows_that_have_no_deviation(tmp_path, kind, epsilon):
    builder = ProgramBuilder()
    source = SOURCES[1]
    x = builder.input("x", (64,), source)
    builder.output("y", builder.normalize("y", x, (1,), TARGETS[0], epsilon=epsilon, **kind))
    program = builder.build()
    emit(program, tmp_path / "model.onnx")
    rows = torch.arange(-128, 128)[:, None].expand(256, 64).clone()
    rows = torch.cat([rows, rows.index_fill(1, torch.tensor([3]), 7)])  # the same with one other element
    real = dequantize(rows.to(torch.int8), source)
    assert torch.equal(run_session(open_session(tmp_path / "model.onnx"), {"x": real})["y"], program(real))


@pytest.mark.parametrize("target", [*SOURCES, *TARGETS])
@pytest.mark.parametrize("second", SOURCES)
@pytest.mark.parametrize("first", SOURCES)
def test_every_quotient(tmp_path, first, second, target):
    builder = ProgramBuilder()
    grids, shapes = {"x": first, "z": second}, {"x": (-1, 1), "z": (1, -1)}
    codes = {key: torch.arange(grid.quant_min, grid.quant_max + 1) for key, grid in grids.items()}
    sizes = {key: tuple(codes[key].reshape(shapes[key]).shape) for key in grids}
    names = [builder.input(key, sizes[key], grid) for key, grid in grids.items()]
    builder.output("y", builder.divide("y", *names, target))
    program = builder.build()
    emit(program, tmp_path / "model.onnx")
    reals = {key: dequantize(codes[key].reshape(1, *sizes[key]).to(grid.dtype), grid) for key, grid in grids.items()}
    assert torch.equal(run_session(open_session(tmp_path / "model.onnx"), reals)["y"], program(reals))


@pytest.mark.parametrize("first", [True, False])
def test_a_constant_is_divided_or_divides(assert_equal_in_both, first):
    def write(builder, x):
        constant = builder.constant("c", torch.tensor([3, -5, 0, 100]), SOURCES[1])
        return builder.divide("y", *((constant, x) if first else (x, constant)), TARGETS[1])

    assert_equal_in_both(write, [(4,)], [SOURCES[0]])


def test_elementwise_passes_are_narrow(assert_equal_in_both):
    """What is as large as the value stays below int64, in which the runtime takes twice to five times as long."""

    def write(builder, x):
        normal = builder.normalize("n", x, (2,), SOURCES[0], gain=torch.full((48,), 2.0))
        return builder.softmax("s", normal, 2, SHARES[0])

    _, path = assert_equal_in_both(write, [(5, 48)], [SOURCES[0]])
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    types = {info.name: info.type.tensor_type for info in graph.value_info}
    large = [kind for kind in types.values() if math.prod(size.dim_value or 1 for size in kind.shape.dim) >= 5 * 48]
    assert len(large) > 10 and TensorProto.INT64 not in {kind.elem_type for kind in large}
