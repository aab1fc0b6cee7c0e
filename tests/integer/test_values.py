import pytest
import torch

from qat.errors import ProgramError
from qat.integer.values import Constant, Grid, IndexRange, Value, Weight, WeightGrid, float32


@pytest.mark.parametrize(
    ("quant_min", "quant_max", "bits", "dtype", "offset"),
    [
        (0, 255, 8, torch.uint8, 0),
        (0, 15, 4, torch.uint8, 0),
        (-128, 127, 8, torch.int8, 128),
        (-127, 127, 8, torch.int8, 127),
        (-2, 1, 2, torch.int8, 2),
        (0, 65535, 16, torch.int32, 0),
        (-32768, 32767, 16, torch.int16, 32768),
    ],
)
def test_a_grid_knows_its_width_its_dtype_and_its_unsigned_offset(quant_min, quant_max, bits, dtype, offset):
    grid = Grid(0.5, 0, quant_min, quant_max)
    assert (grid.bits, grid.dtype, grid.unsigned_offset) == (bits, dtype, offset)


def test_float32_rounds_to_the_nearest_float32():
    assert float32(0.1) == 0.100000001490116119384765625
    assert float32(1e300) == float("inf")


@pytest.mark.parametrize("scale", [0.1, 0.0, -1.0, float("nan"), float("inf"), 1e-40, 1])
def test_a_scale_is_a_positive_normal_float32(scale):
    with pytest.raises(ProgramError, match="float32"):
        Grid(scale, 0, 0, 255)


@pytest.mark.parametrize("codes", [(0, 0, 0), (0, 5, 3), (0, 0, 2**16), (0, -(2**16), 5), (300, 0, 255), (-1, 0, 255)])
def test_a_grid_without_zero_or_beyond_16_bits_is_refused(codes):
    with pytest.raises(ProgramError):
        Grid(1.0, *codes)


@pytest.mark.parametrize("shape", [(0,), (-1,), (2**40,), (2,) * 9, (True,)])
def test_absurd_shapes_are_refused(shape):
    with pytest.raises(ProgramError, match="shape"):
        Value("x", shape, Grid(1.0, 0, 0, 255))


def test_two_bit_weights_become_odd_multiples_of_32():
    weight = Weight(torch.tensor([[-2, -1, 0, 1]], dtype=torch.int8), WeightGrid(2, 64, 32), torch.tensor([0.5]))
    assert weight.kernel.tolist() == [[-96, -32, 32, 96]]
    assert weight.kernel.dtype == torch.int8
    assert weight.packed_bytes == 1


@pytest.mark.parametrize("grid", [(1,), (9,), (8, 2), (4, 0), (4, 17), (4, 16, 20)])
def test_a_weight_grid_must_fit_int8(grid):
    with pytest.raises(ProgramError):
        WeightGrid(*grid)


def test_weights_outside_their_width_are_refused():
    with pytest.raises(ProgramError, match="4 bits reach 0..8, outside -8..7"):
        Weight(torch.tensor([[0, 8]], dtype=torch.int8), WeightGrid(4), torch.ones(1))


def test_weight_scales_must_be_finite_and_positive():
    for scale in (float("nan"), 0.0, float("inf")):
        with pytest.raises(ProgramError, match="positive"):
            Weight(torch.zeros(1, 2, dtype=torch.int8), WeightGrid(4), torch.tensor([scale]))


def test_constant_codes_must_lie_on_their_grid():
    with pytest.raises(ProgramError, match="outside 0..15"):
        Constant("k", Grid(1.0, 0, 0, 15), torch.tensor([16], dtype=torch.uint8))


def test_an_index_range_counts_from_zero():
    indices = IndexRange(5)
    assert (indices.quant_min, indices.quant_max, indices.bits, indices.dtype) == (0, 4, 3, torch.int64)
    assert IndexRange(1).bits == 1
    for count in (0, -1, 2.0, True, 2**40):
        with pytest.raises(ProgramError, match="an index range counts"):
            IndexRange(count)
