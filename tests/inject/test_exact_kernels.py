"""What the eval forward leaves to an integer kernel, against numbers by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.inject.exact_kernels import Computed, codes_of
from qat.inject.nonlinear import divide_between, requantize_between, softmax_between
from qat.integer.operations import MASK_GRID
from qat.integer.values import Grid, float32

SOURCE = Grid(0.5, 2, 0, 15)  # reals -1 .. 6.5
TARGET = Grid(0.25, 4, 0, 15)  # reals -1 .. 2.75


def test_codes_are_rounded_half_to_even_and_saturate():
    real = torch.tensor([-1.0, 0.0, 0.25, 0.75, 6.5, -100.0, 100.0])
    codes = codes_of(real, SOURCE)
    assert codes.tolist() == [0, 2, 2, 4, 15, 0, 15]
    assert codes.dtype == SOURCE.dtype


def test_codes_have_the_dtype_of_a_wide_grid():
    codes = codes_of(torch.tensor([-40000.0, 0.5, 40000.0]), Grid(1.0, 0, -32768, 32767))
    assert codes.tolist() == [-32768, 0, 32767]
    assert codes.dtype == torch.int16


def moved(real, **settings):
    """A value of `SOURCE` on `TARGET`: the kernel multiplies the code's steps by 2."""
    return Computed(requantize_between(SOURCE), (codes_of(real, SOURCE),), (SOURCE,), **settings)


def test_the_kernel_makes_the_values():
    real = torch.tensor([[-1.0, 0.0], [0.5, 6.5]])
    # steps -2, 0, 1, 13 times 2, and 26 saturates at 15 - 4
    assert moved(real).quantize(real, TARGET).tolist() == [[-1.0, 0.0], [0.5, 2.75]]


def test_what_floats_made_decides_neither_a_value_nor_its_shape_in_the_kernel():
    real = torch.tensor([[-1.0, 0.0], [0.5, 1.0]])
    assert moved(real).quantize(torch.full((4,), 9.0), TARGET).tolist() == [-1.0, 0.0, 0.5, 1.0]


def test_activations_behind_the_kernel_are_bounds_of_its_code():
    real = torch.tensor([-1.0, 0.5, 2.5])
    computed = moved(real)
    computed.bound(0.0, math.inf)
    computed.bound(-math.inf, 1.4)  # 5.6 steps: 6
    assert (computed.low, computed.high) == (0.0, 1.4)
    assert computed.quantize(real, TARGET).tolist() == [0.0, 0.5, 1.5]


def test_a_later_bound_moves_the_earlier_ones_with_it():
    computed = moved(torch.zeros(1), low=0.0, high=1.0)
    computed.bound(2.0, 3.0)  # clamp(clamp(x, 0, 1), 2, 3) is 2
    assert (computed.low, computed.high) == (2.0, 2.0)


def test_bounds_beyond_the_grid_end_at_it():
    real = torch.tensor([-1.0, 6.5])
    assert moved(real, low=-50.0, high=50.0).quantize(real, TARGET).tolist() == [-1.0, 2.75]
    assert moved(real, low=50.0, high=60.0).quantize(real, TARGET).tolist() == [2.75, 2.75]
    assert moved(real, low=-60.0, high=-50.0).quantize(real, TARGET).tolist() == [-1.0, -1.0]


def test_the_gradient_passes_inside_the_bounds_and_stops_outside():
    real = torch.tensor([-0.5, 0.5, 1.5, 2.5], requires_grad=True)
    result = moved(real.detach(), low=0.0, high=1.5).quantize(real, TARGET)
    assert result.tolist() == [0.0, 0.5, 1.5, 1.5]
    result.sum().backward()
    assert real.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_an_operand_that_is_left_out_is_no_input_of_the_kernel():
    scores = torch.tensor([[7, 6, 6]], dtype=torch.uint8)
    halves, shares = Grid(float32(math.log(2)), 0, 0, 255), Grid(0.25, 0, 0, 15)
    make, real = softmax_between(halves, False, 1, 3), torch.zeros(1, 3)
    all_of_them = Computed(make, (scores, None), (halves, MASK_GRID))
    assert all_of_them.quantize(real, shares).tolist() == [[0.5, 0.25, 0.25]]
    mask = torch.tensor([[0, 1, 1]], dtype=torch.uint8)
    masked = Computed(make, (scores, mask), (halves, MASK_GRID))
    assert masked.quantize(real, shares).tolist() == [[0.0, 0.5, 0.5]]


def test_operands_and_grids_come_in_pairs():
    with pytest.raises(ValueError, match="zip"):
        Computed(divide_between(SOURCE, SOURCE), (torch.zeros(1, 1),), (SOURCE, SOURCE)).quantize(
            torch.zeros(1, 1), TARGET
        )


@settings(max_examples=60, deadline=None)
@given(
    codes=st.lists(st.integers(0, 15), min_size=1, max_size=8),
    low=st.floats(-3, 3, width=32),
    width=st.floats(0, 3, width=32),
)
def test_whatever_the_bounds_results_are_codes_between_those_of_the_bounds(codes, low, width):
    real = (torch.tensor(codes) - 2) * 0.5
    results = moved(real, low=low, high=low + width).quantize(real, TARGET)
    steps = results / 0.25 + 4
    assert torch.equal(steps, steps.round())
    lowest, highest = (min(max(round(bound / 0.25) + 4, 0), 15) for bound in (low, low + width))
    free = [min(max(2 * (code - 2) + 4, 0), 15) for code in codes]
    assert steps.tolist() == [min(max(code, lowest), highest) for code in free]
