import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.errors import ProgramError
from qat.real.weights import RealWeight


def weight(codes, scale, **settings):
    codes, scale = torch.tensor(codes, dtype=torch.int8), torch.tensor(scale)
    settings = {"bits": 4, "midrise": False, "group_size": 2, "shape": tuple(codes.shape), "axis": 0} | settings
    return RealWeight(codes, scale, **settings)


def test_each_group_has_its_scale_and_the_last_may_be_shorter():
    w = weight([[1, -2, 7], [0, 3, -7]], [[0.5, 2.0], [1.0, 10.0]])
    assert w.real.tolist() == [[0.5, -1.0, 14.0], [0.0, 3.0, -70.0]]
    assert (w.count, w.packed_bytes) == (6, 3)


def test_levels_at_odd_half_steps():
    w = weight([[-2, -1, 0, 1]], [[2.0]], bits=2, midrise=True, group_size=4)
    assert w.real.tolist() == [[-3.0, -1.0, 1.0, 3.0]]
    assert w.integers.tolist() == [[-3, -1, 1, 3]]
    assert w.integer_scale.tolist() == [1.0]
    assert w.largest_sum == 8


def test_channels_may_be_another_dimension():
    w = weight([[1, 2], [3, 4], [5, 6]], [[1.0], [10.0], [100.0]], shape=(2, 3), axis=1)
    assert w.real.tolist() == [[1.0, 30.0, 500.0], [2.0, 40.0, 600.0]]
    assert w.integers.tolist() == [[1, 3, 5], [2, 4, 6]]


def test_sums_of_integers_need_one_scale_for_a_channel():
    with pytest.raises(ProgramError, match="a channel with several groups has none"):
        _ = weight([[1, -2, 7]], [[0.5, 2.0]]).integer_scale


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 9}, "weights have 9 bits"),
        ({"bits": 2}, "weight codes of 2 bits reach 1..2"),
        ({"axis": 2}, "no channels in dimension 2"),
        ({"group_size": 1}, r"scales of \(1, 1\); expected \(1, 2\) and \(1, 2\)"),
        ({"shape": (1, 3)}, r"has codes of \(1, 2\)"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings, message):
    with pytest.raises(ProgramError, match=message):
        weight([[1, 2]], [[1.0]], **settings)


def test_scales_are_finite():
    with pytest.raises(ProgramError, match="not all finite"):
        weight([[1, 2]], [[float("nan")]])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 4), st.integers(2, 8))
def test_every_code_has_the_scale_of_its_group(channels, count, group_size, bits):
    generator = torch.Generator().manual_seed(bits * 100 + count)
    half = 2 ** (bits - 1)
    codes = torch.randint(-half, half, (channels, count), generator=generator).to(torch.int8)
    scale = torch.rand(channels, -(-count // group_size), generator=generator)
    w = RealWeight(codes, scale, bits, False, group_size, (channels, count), 0)
    for channel in range(channels):
        for place in range(count):
            expected = codes[channel, place].float() * scale[channel, place // group_size]
            assert w.real[channel, place] == expected
