import numpy
import pytest

from qat.emitters.litert.limits import Activation, Stage, offset_of, stages, whole_steps
from qat.integer.values import Grid, float32

BYTE = Grid(0.5, 100, 0, 255)


def test_eight_bits_fill_int8():
    assert offset_of(Grid(1.0, 7, 0, 255)) == -128
    assert offset_of(Grid(1.0, 7, -128, 127)) == 0


def test_fewer_codes_end_where_int8_ends_since_a_relu_keeps_them_above_zero():
    assert offset_of(Grid(1.0, 0, 0, 15)) == 112
    assert offset_of(Grid(1.0, 8, 0, 15)) == 112
    assert offset_of(Grid(1.0, 0, -127, 127)) == 0
    assert stages(Grid(1.0, 0, -127, 127), 0, 127, fuses=True) == [Stage(0, Activation.RELU)]


def test_limits_that_are_those_of_int8_cost_nothing():
    assert stages(BYTE, 0, 255, fuses=True) == [Stage(-28)]


def test_a_relu_is_fused():
    assert stages(BYTE, 100, 255, fuses=True) == [Stage(-28, Activation.RELU)]
    assert stages(Grid(0.5, 0, 0, 15), 0, 15, fuses=True) == [Stage(112, Activation.RELU)]


def test_a_relu6_is_fused_where_six_is_the_limit():
    assert stages(BYTE, 100, 112, fuses=True) == [Stage(-28, Activation.RELU6)]  # 6 / 0.5 above 100
    assert stages(BYTE, 98, 102, fuses=True) == [Stage(-28, Activation.RELU_N1_TO_1)]


def test_a_limit_above_is_where_int8_ends_in_a_tensor_with_a_higher_zero_point():
    # 110 is -18 in the tensor: raised by 145
    assert stages(BYTE, 100, 110, fuses=True) == [Stage(117, Activation.RELU), Stage(-28)]
    assert stages(BYTE, 0, 110, fuses=True) == [Stage(117), Stage(-28)]


def test_a_limit_below_is_where_int8_begins_in_a_tensor_with_a_lower_zero_point():
    # 90 is -38 in the tensor: lowered by 90
    assert stages(BYTE, 90, 255, fuses=True) == [Stage(-118), Stage(-28)]
    assert stages(BYTE, 90, 110, fuses=True) == [Stage(117), Stage(-118), Stage(-28)]
    assert stages(BYTE, 100, 255, fuses=False) == [Stage(-128), Stage(-28)]


def test_limits_without_zero_have_no_stages():
    assert stages(BYTE, 101, 200, fuses=True) is None


def test_an_activation_whose_bound_is_a_tie_is_not_trusted_to_kernels():
    # 6 / 4 = 1.5 steps
    assert stages(Grid(4.0, 100, 0, 255), 100, 102, fuses=True) == [Stage(125, Activation.RELU), Stage(-28)]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [([0, 32, 96, 128], ([0, 1, 3, 4], 32)), ([3, 5], ([3, 5], 1)), ([-24, 40], ([-3, 5], 8)), ([0, 0], ([0, 0], 1))],
)
def test_powers_of_two_are_taken_out_of_a_constant(numbers, expected):
    found, step = whole_steps(numpy.array(numbers))
    assert (found.tolist(), step) == expected


def test_scales_are_float32():
    assert stages(Grid(float32(0.1), 0, 0, 255), 0, 60, fuses=True) == [Stage(-128, Activation.RELU6)]
