"""Tables and embeddings: ONNX Runtime looks up what the interpreter does."""

import math

import onnx
import pytest
import torch

from qat.emitters.onnxruntime import emit, float_ops, open_session, run_session
from qat.errors import ExportError
from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import dequantize
from qat.integer.operations import MASK_GRID, table_codes
from qat.integer.values import Grid, IndexRange, Weight, WeightGrid, float32

GRIDS = [
    Grid(float32(0.02), 100, 0, 255),
    Grid(float32(0.021), -5, -128, 127),
    Grid(float32(0.3), 0, 0, 15),
    Grid(float32(0.25), 0, -7, 7),
    Grid(float32(0.5), 5, 3, 9),
]


def reals_of(grid):
    """The real number of each code, float64 (n,)."""
    return (torch.arange(grid.quant_min, grid.quant_max + 1, dtype=torch.float64) - grid.zero_point) * grid.scale


@pytest.mark.parametrize("target", GRIDS)
@pytest.mark.parametrize("source", GRIDS)
def test_a_table_gives_the_function_of_every_code(tmp_path, source, target):
    builder = ProgramBuilder()
    count = source.quant_max - source.quant_min + 1
    x = builder.input("x", (count,), source)
    builder.output(
        "y", builder.table("gelu", x, table_codes(torch.nn.functional.gelu(reals_of(source)), target), target)
    )
    program = builder.build()
    emit(program, tmp_path / "model.onnx")
    every = dequantize(torch.arange(source.quant_min, source.quant_max + 1)[None], source)
    expected = torch.nn.functional.gelu(reals_of(source)) / target.scale
    low, high = target.reach
    expected = (expected.round().clamp(low, high) * target.scale).to(torch.float32)
    assert torch.equal(program(every)[0], expected)
    assert torch.equal(run_session(open_session(tmp_path / "model.onnx"), {"x": every})["y"][0], expected)


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 5, 7)])
@pytest.mark.parametrize("source", GRIDS)
def test_a_table_per_channel(assert_equal_in_both, source, shape):
    slopes = torch.tensor([[0.25], [-1.0], [3.0]], dtype=torch.float64)
    points = torch.where(reals_of(source) > 0, reals_of(source), slopes * reals_of(source))
    assert_equal_in_both(lambda b, x: b.table("prelu", x, table_codes(points, GRIDS[1]), GRIDS[1]), [shape], [source])


@pytest.mark.parametrize("codes", [[0, 1, 1], [[0, 1, 1], [1, 0, 0]]])
def test_a_table_of_indices_is_a_mask(assert_equal_in_both, codes):
    codes = torch.tensor(codes, dtype=torch.uint8)
    assert_equal_in_both(lambda b, x: b.table("mask", x, codes, MASK_GRID), [(2, 6)], [IndexRange(3)])


@pytest.mark.parametrize("weight_grid", [(2, 64, 32), (3, 32, 0), (4, 16, 0), (4, 1, 0), (6, 4, 0), (8, 1, 0)])
def test_an_embedding_gives_rows_at_every_width(assert_equal_in_both, weight_grid):
    bits, step, offset = weight_grid
    half = 2 ** (bits - 1)
    codes = torch.randint(-half, half, (11, 6), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    weight = Weight(codes, WeightGrid(bits, step, offset), torch.full((11,), 0.25))
    program, path = assert_equal_in_both(lambda b, x: b.embedding("e", x, weight), [(3, 4)], [IndexRange(11)])
    ids = torch.arange(12).reshape(1, 3, 4) % 11
    expected = (weight.kernel[ids].to(torch.float32)) * 0.25
    assert torch.equal(program(ids)["y0"], expected)
    assert not float_ops(path)
    assert program.layers[0].bytes == math.ceil(66 * bits / 8)


def test_an_embedding_and_a_linear_layer_of_one_weight_store_it_once(assert_equal_in_both):
    codes = torch.randint(-128, 128, (40, 8), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    weight = Weight(codes, WeightGrid(8), torch.full((40,), float32(0.01)))

    def write(builder, x):
        rows = builder.embedding("rows", x, weight)
        return builder.linear("head", rows, weight, Grid(float32(0.02), 128, 0, 255))

    _, path = assert_equal_in_both(write, [(5,)], [IndexRange(40)])
    sizes = [math.prod(tensor.dims) for tensor in onnx.load(path).graph.initializer]
    assert sizes.count(320) == 1


def test_indices_out_of_range_fail_in_the_runtime_too(tmp_path):
    builder = ProgramBuilder()
    weight = Weight(torch.ones(3, 2, dtype=torch.int8), WeightGrid(8), torch.ones(3))
    builder.output("y", builder.embedding("e", builder.input("ids", (1,), IndexRange(3)), weight))
    emit(builder.build(), tmp_path / "model.onnx")
    with pytest.raises(Exception, match="out of data bounds"):
        run_session(open_session(tmp_path / "model.onnx"), {"ids": torch.tensor([[3]])})


def test_a_file_of_other_types_is_another_program(tmp_path):
    from qat.emitters.onnxruntime import check_edges

    def program(grid):
        builder = ProgramBuilder()
        builder.output("y", builder.reshape("r", builder.input("x", (4,), grid), (2, 2)))
        return builder.build()

    emit(program(IndexRange(9)), tmp_path / "model.onnx")
    session = open_session(tmp_path / "model.onnx")
    check_edges(session, program(IndexRange(9)), "model.onnx")
    with pytest.raises(ExportError, match="another program"):
        check_edges(session, program(GRIDS[0]), "model.onnx")
