"""Tables of the eval forward: every code of a root, its function, and the code of that, against numbers by hand."""

from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.inject.actions import RegionAction
from qat.inject.tables import Mapped, Regions, grid_points, in_shape
from qat.integer.values import Grid, float32
from qat.quantizers import make_fake_quantize
from qat.spec import QuantSpec

SOURCE = Grid(0.5, 1, 0, 3)  # reals -0.5, 0, 0.5, 1
TARGET = Grid(0.25, 2, -8, 7)  # reals -2.5 .. 1.25


def test_the_points_of_a_grid_are_its_reals_in_the_order_of_its_codes():
    assert grid_points(SOURCE).tolist() == [-0.5, 0.0, 0.5, 1.0]
    assert grid_points(Grid(2.0, 0, -2, 1)).tolist() == [-4.0, -2.0, 0.0, 2.0]
    assert grid_points(SOURCE).dtype == torch.float64


def test_results_lose_the_dimensions_that_constants_of_one_element_bring():
    assert in_shape(torch.zeros(1, 1, 4), (4,)).shape == (4,)
    assert in_shape(torch.zeros(1, 2, 4), (2, 4)).shape == (2, 4)
    assert in_shape(torch.zeros(2, 4), (4,)).shape == (2, 4)  # a slope for each channel made more of them


def test_values_become_the_code_that_the_table_has_for_them():
    points = torch.tensor([0.125, 0.375, -100.0, 1.0], dtype=torch.float64)
    root = torch.tensor([[1.0, -0.5], [0.0, 0.5]])
    mapped = Mapped(root, SOURCE, points)
    # in steps of 0.25: 4, and the ties 0.5 and 1.5 go to 0 and 2; -100 saturates at code -8
    assert mapped.quantize(torch.zeros(2, 2), TARGET).tolist() == [[1.0, 0.0], [0.5, -2.5]]


def test_what_floats_left_beside_a_code_is_that_code():
    mapped = Mapped(torch.tensor([0.5000001, 0.4999999]), SOURCE, torch.arange(4, dtype=torch.float64))
    assert mapped.quantize(torch.zeros(2), Grid(1.0, 0, 0, 7)).tolist() == [2.0, 2.0]


def test_a_row_of_the_table_for_each_channel_lies_along_dimension_one():
    points = torch.tensor([[0.0, 1.0, 2.0, 3.0], [0.0, -1.0, -2.0, -3.0]], dtype=torch.float64)
    root = torch.tensor([[[-0.5, 1.0], [0.0, 1.0]]])  # (N, C, L)
    assert Mapped(root, SOURCE, points).quantize(torch.zeros(1, 2, 2), Grid(1.0, 4, 0, 7)).tolist() == [
        [[0.0, 3.0], [-1.0, -3.0]]
    ]


def test_the_gradient_passes_inside_the_grid_and_stops_outside():
    real = torch.tensor([-3.0, 0.3, 1.25, 1.3], requires_grad=True)
    points = torch.tensor([-3.0, 0.3, 1.25, 1.3], dtype=torch.float64)
    result = Mapped(grid_points(SOURCE).float(), SOURCE, points).quantize(real, TARGET)
    assert result.tolist() == [-2.5, 0.25, 1.25, 1.25]
    (result * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert real.grad.tolist() == [0.0, 2.0, 3.0, 0.0]


def rounded_half_to_even(value: Fraction) -> int:
    return round(value)  # of a Fraction, ties go to the even integer


@settings(max_examples=60, deadline=None)
@given(
    points=st.lists(st.floats(-1e4, 1e4, width=32), min_size=16, max_size=16),
    scale=st.floats(2.0**-10, 8.0).map(float32),
    zero_point=st.integers(-8, 7),
    source_scale=st.floats(2.0**-10, 8.0).map(float32),
)
def test_every_code_has_its_function_rounded_half_to_even(points, scale, zero_point, source_scale):
    source, target = Grid(source_scale, 5, 0, 15), Grid(scale, zero_point, -8, 7)
    expected = []
    for point in points:
        steps = rounded_half_to_even(Fraction(point / scale))  # the quotient as float64 has it
        code = min(max(steps + zero_point, -8), 7)
        expected.append(float32((code - zero_point) * scale))
    mapped = Mapped(grid_points(source).float(), source, torch.tensor(points, dtype=torch.float64))
    assert mapped.quantize(torch.zeros(16), target).tolist() == expected


@pytest.fixture
def root_quantizer():
    """A quantizer on the 4-bit grid of scale 0.5 and zero point 8: reals -4 to 3.5."""
    quantizer = make_fake_quantize(
        QuantSpec(bits=4, signed=False, symmetric=False, method="observed"), name="x", role="activation"
    )
    quantizer.scale.fill_(0.5)
    quantizer.zero_point.fill_(8)
    return quantizer


def follow(regions, address, function, args, roots=(), inner=()):
    action = SimpleNamespace(region=RegionAction("x", roots, inner))
    return regions.follow(address, action, function.__name__, function, args, {})


def test_while_the_root_has_met_no_data_there_is_no_table(root_quantizer):
    regions = Regions({"x": root_quantizer})
    assert follow(regions, 1, torch.exp, (torch.zeros(3),), roots=(("args", 0),)) is None
    assert not regions.known


def test_calls_of_a_region_extend_one_function_of_its_root(root_quantizer):
    root_quantizer.initialized.fill_(True)
    regions, x = Regions({"x": root_quantizer}), torch.tensor([[1.0, -4.0]])
    first = follow(regions, 1, torch.neg, (x,), roots=(("args", 0),))
    assert first.points.tolist() == [4.0 - 0.5 * step for step in range(16)]
    assert first.root is x
    # -x + x, by the results of the first call and the root
    second = follow(
        regions, 2, torch.add, (torch.neg(x), x), roots=(("args", 1),), inner=((("args", 0), 1),)
    )  # fmt: skip
    assert second.points.tolist() == [0.0] * 16
    assert second.root is x


def test_a_call_behind_one_that_was_not_followed_is_not_followed(root_quantizer):
    root_quantizer.initialized.fill_(True)
    assert follow(Regions({"x": root_quantizer}), 2, torch.exp, (torch.zeros(3),), inner=((("args", 0), 1),)) is None


def test_slopes_of_channels_make_a_row_for_each(root_quantizer):
    root_quantizer.initialized.fill_(True)
    regions, x = Regions({"x": root_quantizer}), torch.zeros(1, 2, 3)
    slopes = torch.tensor([0.5, 2.0])
    first = follow(regions, 1, torch.prelu, (x, slopes), roots=(("args", 0),))
    assert first.points[:, 0].tolist() == [-2.0, -8.0]
    assert first.points[:, 15].tolist() == [3.5, 3.5]
    # and a sum with the root keeps the rows
    second = follow(regions, 2, torch.add, (x, x), roots=(("args", 1),), inner=((("args", 0), 1),))
    assert second.points[:, 0].tolist() == [-6.0, -12.0]
