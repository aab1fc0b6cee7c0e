"""Batch norm folded by hand: numbers are powers of two, so that every result is exact."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qat.folding import BIAS_LIMIT, BatchNorm, KernelWeight, bias_codes, fake_quantize_bias, fold_scale
from qat.functional import SCALE_FLOOR
from qat.spec import QuantSpec

T = torch.tensor


@pytest.mark.parametrize(
    ("bits", "step", "offset", "integers"),
    [
        (8, 1, 0, (-127, 127)),
        (7, 2, 0, (-126, 126)),
        (4, 16, 0, (-112, 112)),
        (3, 32, 0, (-96, 96)),
        (2, 64, 32, (-96, 96)),  # -2..1 become -96, -32, 32, 96: odd half steps of 64
    ],
)
def test_narrow_codes_use_the_range_of_int8(bits, step, offset, integers):
    spec = QuantSpec(bits=bits)
    kernel = KernelWeight.of(spec)
    assert (kernel.step, kernel.offset) == (step, offset)
    assert tuple(code * step + offset for code in (spec.quant_min, spec.quant_max)) == integers


def test_an_affine_grid_of_two_bits_has_a_zero():
    assert KernelWeight.of(QuantSpec(bits=2, symmetric=False)) == KernelWeight(64, 0)


def test_batch_norm_is_a_multiplier_and_a_shift():
    # variances 4 and 1/4 less eps: 1/sqrt is 1/2 and 2; gamma 3 and -1: multipliers 1.5 and -2
    batch_norm = BatchNorm(T([1.0, -2.0]), T([4.0, 0.25]), T([3.0, -1.0]), T([0.5, 1.0]), eps=0.0)
    multiplier, shift = batch_norm.affine(None)
    assert multiplier.tolist() == [1.5, -2.0]
    assert shift.tolist() == [-1.5 + 0.5, -4.0 + 1.0]
    _, with_bias = batch_norm.affine(T([1.0, 1.0]))
    assert with_bias.tolist() == [0.5, -6.0 + 1.0]


def test_a_batch_norm_without_weight_and_bias():
    multiplier, shift = BatchNorm(T([1.0]), T([0.25]), None, None, eps=0.0).affine(None)
    assert (multiplier.tolist(), shift.tolist()) == ([2.0], [-2.0])


def test_bfloat16_statistics_are_folded_in_float32():
    multiplier, shift = BatchNorm(*(T([value]).bfloat16() for value in (1.0, 4.0, 3.0, 0.5)), eps=0.0).affine(None)
    assert multiplier.dtype == shift.dtype == torch.float32
    assert (multiplier.tolist(), shift.tolist()) == ([1.5], [-1.0])


def test_the_size_of_the_multiplier_goes_into_the_scale_and_the_sign_does_not():
    scale, dead = fold_scale(T(0.5), T([0.25, 0.25]), T([2.0, -2.0]), T([1.0, 1.0]))
    assert scale.tolist() == [0.5, 0.5]
    assert dead.tolist() == [False, False]


def test_a_channel_whose_shift_would_leave_int32_is_dead_and_keeps_its_shift():
    scale, dead = fold_scale(T(0.5), T([1.0, 1.0]), T([2.0**-40, 0.0]), T([1.0, -3.0]))
    assert dead.tolist() == [True, True]
    assert scale.tolist() == [2.0**-19, 3 * 2.0**-19]  # shift / 2^20 / input scale
    assert bias_codes(T([1.0, -3.0]), 0.5 * scale).tolist() == [2.0**20, -(2.0**20)]


def test_a_channel_of_nothing_is_not_dead():
    scale, dead = fold_scale(T(0.5), T([1.0]), T([0.0]), T([0.0]))
    assert dead.tolist() == [False]
    assert scale.tolist() == [SCALE_FLOOR]


def test_the_bias_is_rounded_half_to_even_and_stays_in_its_limit():
    assert bias_codes(T([0.25, 0.75, 1.25, -0.25]), T(0.5)).tolist() == [0.0, 2.0, 2.0, 0.0]
    assert bias_codes(T([1e30, -1e30]), T(0.5)).tolist() == [BIAS_LIMIT, -BIAS_LIMIT]


def test_a_fake_quantized_bias_has_the_gradient_of_the_identity():
    bias, step = T([0.3, -0.8], requires_grad=True), T([0.5, 0.5], requires_grad=True)
    rounded = fake_quantize_bias(bias, step)
    assert rounded.tolist() == [0.5, -1.0]
    rounded.sum().backward()
    assert bias.grad.tolist() == [1.0, 1.0] and step.grad is None


numbers = st.floats(-1e3, 1e3, width=32)


@given(numbers, st.floats(2.0**-40, 1e3, width=32), numbers, numbers, st.floats(2.0**-20, 16.0, width=32))
def test_every_folded_bias_fits_int32(mean, variance, gamma, beta, input_scale):
    multiplier, shift = BatchNorm(T([mean]), T([variance]), T([gamma]), T([beta]), 1e-5).affine(None)
    scale, _ = fold_scale(T(input_scale), T([2.0**-7]), multiplier, shift)
    assert bool(torch.isfinite(scale).all()) and float(scale) >= SCALE_FLOOR
    codes = bias_codes(shift, input_scale * scale)
    assert float(codes.abs()) <= BIAS_LIMIT
    # the bias of the accumulator is the shift, to half a unit or the 24 bits of a float32
    assert (
        abs(float(codes * input_scale * scale - shift))
        <= float(input_scale * scale) * 0.51 + abs(float(shift)) * 2**-22
    )
