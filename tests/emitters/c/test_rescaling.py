"""Rescaling in C is the arithmetic of the program: one multiplication where that is proven, else as float32 rounds."""

import ctypes

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.emitters.c.compiler import compile_source
from qat.emitters.c.forms.elementwise import PRODUCT_AS_FLOAT
from qat.emitters.c.kernels import PLACES, RESCALED_AS_FLOAT, SHIFT_BASE, WIDE_PLACES, KernelTexts
from qat.emitters.c.rescaling import rounded_once, single_rounding
from qat.integer.fixed_point import Multiplier, requantize, requantize_once, requantize_product
from qat.integer.values import Grid, float32

LAST = 2**31 - 1
GRIDS = [
    Grid(1.0, 3, 0, 255),
    Grid(1.0, 0, 0, 255),
    Grid(1.0, -5, -128, 127),
    Grid(1.0, 0, 0, 15),
    Grid(1.0, 1, -2, 1),
]
factors = st.one_of(
    st.floats(2.0**-30, 30.0).map(float32),
    st.tuples(st.integers(1, 31), st.integers(0, 20)).map(lambda pair: pair[0] / 2.0 ** pair[1]),  # many ties
    st.sampled_from([2.0**-120, 2.0**-60, 2.0**24, 2.0**30]),
)

_LIBRARY = """
#include <stdint.h>
{kernels}
void sums(int64_t count, const int32_t *sum, int32_t multiplier, int32_t shift, int32_t *steps)
{{
    int64_t i;
    for (i = 0; i < count; i++)
        steps[i] = rescaled_as_float(sum[i], multiplier, shift);
}}
void products(int64_t count, const int32_t *product, int32_t multiplier, int32_t shift, int32_t zero, int32_t places,
    int32_t *steps)
{{
    int64_t i;
    for (i = 0; i < count; i++)
        steps[i] = scaled_as_float(product[i], multiplier, shift, zero, places);
}}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("library")
    texts = KernelTexts()
    texts.need(RESCALED_AS_FLOAT)
    texts.need(PRODUCT_AS_FLOAT)
    (folder / "arithmetic.c").write_text(_LIBRARY.format(kernels="\n\n".join(texts.texts)))
    flags = ("-std=c99", "-O1", "-shared", "-fPIC", "-fsanitize=undefined", "-fno-sanitize-recover=all")
    assert compile_source(folder / "arithmetic.c", folder / "arithmetic.so", flags) == []
    return ctypes.CDLL(str(folder / "arithmetic.so"))


def called(function, numbers, *arguments):
    numbers = numbers.to(torch.int32).contiguous().numpy()
    steps = numpy.zeros_like(numbers)
    words = [ctypes.c_int32(argument) for argument in arguments]
    function(ctypes.c_int64(numbers.size), numbers.ctypes.data_as(ctypes.c_void_p), *words,
             steps.ctypes.data_as(ctypes.c_void_p))  # fmt: skip
    return torch.from_numpy(steps).to(torch.int64)


def sums_near_ties(multiplier, grid, limit):
    """Sums around every change of code, small ones, and the ends; int64 (n,)."""
    factor = float(multiplier.to_float()[0])
    halves = torch.arange(grid.quant_min - grid.zero_point - 2, grid.quant_max - grid.zero_point + 2) + 0.5
    near = (halves.double() / factor).clamp(-limit, limit).round().to(torch.int64)
    around = (near[:, None] + torch.arange(-3, 4)).flatten()
    return torch.cat([around, torch.arange(-300, 300), torch.tensor([-limit, limit])]).clamp(-limit, limit)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(factors, st.sampled_from(GRIDS), st.integers(0, 2**30))
def test_sums_are_rescaled_as_float32_does(library, factor, grid, seed):
    multiplier = Multiplier.from_float(torch.tensor([factor], dtype=torch.float32))
    generator = torch.Generator().manual_seed(seed)
    anywhere = torch.randint(-LAST, LAST, (300,), generator=generator)
    sums = torch.cat([sums_near_ties(multiplier, grid, LAST), anywhere, anywhere >> 9])
    shift = SHIFT_BASE - int(multiplier.exponent)
    steps = called(library.sums, sums, int(multiplier.mantissa), shift)
    expected = requantize(sums[:, None], multiplier, grid, grid.quant_min, grid.quant_max)[:, 0].to(torch.int64)
    assert torch.equal((steps + grid.zero_point).clamp(grid.quant_min, grid.quant_max), expected)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(factors, st.sampled_from([*GRIDS, Grid(1.0, 30_000, 0, 65_535)]), st.integers(0, 2**30))
def test_products_are_rescaled_as_float32_does(library, factor, grid, seed):
    multiplier = Multiplier.from_float(torch.tensor([factor], dtype=torch.float32))
    limit = 255 * 255
    anywhere = torch.randint(-limit, limit, (300,), generator=torch.Generator().manual_seed(seed))
    products = torch.cat([sums_near_ties(multiplier, grid, limit), anywhere])
    shift, places = SHIFT_BASE - int(multiplier.exponent), PLACES if grid.bits <= 8 else WIDE_PLACES
    zero = grid.zero_point + grid.unsigned_offset
    steps = called(library.products, products, int(multiplier.mantissa), shift, zero, places) - grid.unsigned_offset
    expected = requantize_product(products[:, None], multiplier, grid, grid.quant_min, grid.quant_max)[:, 0]
    assert torch.equal(steps.clamp(grid.quant_min, grid.quant_max), expected.to(torch.int64))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    factors,
    st.sampled_from(GRIDS),
    st.sampled_from([requantize, requantize_product]),
    st.sampled_from([100, 65_025, 2**20, 2**24, LAST]),
    st.booleans(),
)
def test_one_multiplication_gives_every_code_or_is_not_taken(factor, grid, exact, reach, fused_relu):
    multiplier = Multiplier.from_float(torch.tensor([factor], dtype=torch.float32))
    clamp = grid.zero_point if fused_relu and grid.zero_point < grid.quant_max else grid.quant_min, grid.quant_max
    (found,) = single_rounding(multiplier, grid, clamp, reach, exact)
    if found is None:
        return
    sums = sums_near_ties(multiplier, grid, reach)
    chosen, shift = found.multiplier, found.shift
    assert 0 <= chosen < 2**31 and 1 <= shift <= 62
    moved = sums + sum(move * (sums == stray) for stray, move in found.strays)
    steps = ((moved * chosen + (1 << shift >> 1)) >> shift) + grid.zero_point
    expected = exact(sums[:, None], multiplier, grid, *clamp)[:, 0].to(torch.int64)
    assert torch.equal(steps.clamp(*clamp), expected)


def test_a_general_scale_needs_one_multiplication_and_a_half_makes_every_second_tie_a_stray():
    grid = Grid(1.0, 0, 0, 255)
    multiplier = Multiplier.from_float(torch.tensor([0.0123, 0.5, 2.0**-100]))
    found = single_rounding(multiplier, grid, (0, 255), 2**20, requantize)
    assert found[0] is not None and not found[0].strays
    # 1/2 is 0, 3/2 is 2, 5/2 is 2, ..., 509/2 is 254: a multiplier that rounds all ties down has 3/2, 7/2, ... wrong
    assert {abs(stray) % 4 for stray, _ in found[1].strays} == {3} and {move for _, move in found[1].strays} == {1}
    # so small that every sum is rounded to the zero point
    assert (2**20 * found[2].multiplier + (1 << (found[2].shift - 1))) >> found[2].shift == 0


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(2.0**-40, 2.0).map(float32), st.integers(-LAST, LAST))
def test_wide_codes_are_rounded_once_by_themselves(factor, total):
    grid = Grid(1.0, 30_000, 0, 65_535)
    multiplier = Multiplier.from_float(torch.tensor([factor], dtype=torch.float32))
    found = rounded_once(multiplier, abs(total))
    if found is None:
        assert factor * abs(total) > 2**30
        return
    (channel,) = found
    steps = (total * channel.multiplier + (1 << channel.shift >> 1)) >> channel.shift
    expected = requantize_once(torch.tensor([[total]]), multiplier, grid, 0, 65_535).item()
    assert min(max(steps + 30_000, 0), 65_535) == expected
