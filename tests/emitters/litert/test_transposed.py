import pytest
import torch

from qat.emitters.litert.transposed import Spread, spreads
from qat.integer.builder import ProgramBuilder
from qat.integer.values import Grid, Weight, WeightGrid

BYTE = Grid(0.5, 128, 0, 255)


def program(kernel=(3, 3), padding=((1, 1), (1, 1)), stride=2, channels=0, twice=False, cut=None):
    """A convolution of an input (4, 5, 6) with stride - 1 zeros behind each place; channels: padded ones."""
    builder = ProgramBuilder()
    apart = builder.reshape("apart", builder.input("x", (4, 5, 6), BYTE), (4, 5, 1, 6, 1))
    zeros = builder.pad("zeros", apart, ((0, channels), (0, 0), (0, stride - 1), (0, 0), (0, stride - 1)))
    y = builder.reshape("together", zeros, (4 + channels, 5 * stride, 6 * stride))
    if cut is not None:
        y = builder.slice("cut", y, (0, cut, cut), (4, 5 * stride - cut, 6 * stride - cut))
    weight = Weight(torch.ones(2, 4 + channels, *kernel, dtype=torch.int8), WeightGrid(8), torch.ones(2))
    builder.output("y", builder.conv("c", y, weight, BYTE, padding=padding))
    if twice:
        builder.output("z", y)
    return builder.build("tuple")


def test_zeros_before_a_convolution_are_a_stride():
    # a kernel of 3 reaches (5 - 1) * 2 + 3 = 11 places, of which the convolution leaves out the first: 10 are left
    (spread,) = spreads(program()).values()
    assert spread == Spread("x", (2, 2), ("together", "zeros", "apart"), ((1, 0), (1, 0)))


def test_places_that_are_cut_before_the_convolution_are_left_out_as_well():
    # a kernel of 1 reaches (5 - 1) * 2 + 1 = 9 places, and 10 less one at either end are left
    (spread,) = spreads(program((1, 1), ((0, 0), (0, 0)), cut=1)).values()
    assert spread == Spread("x", (2, 2), ("cut", "together", "zeros", "apart"), ((1, 0), (1, 0)))


@pytest.mark.parametrize("settings", [{"channels": 1}, {"twice": True}, {"padding": ((2, 3), (2, 2))}])
def test_what_else_reads_the_zeros_or_adds_some_stays_as_it_is(settings):
    assert spreads(program(**settings)) == {}
