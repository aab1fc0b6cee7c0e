"""Parts of tensors, windows that are laid side by side: equal codes, and nothing that XNNPACK does not run."""

import numpy
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from qat.emitters.litert import delegated_ops, weight_types
from qat.emitters.litert.forms.windows import Strip, Window
from qat.emitters.options import ExportOptions
from qat.integer.values import Grid, Weight, WeightGrid, float32

OUTPUT = Grid(float32(0.05), 131, 0, 255)
dimension = st.tuples(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), st.integers(0, 2), st.integers(0, 2), st.integers(0, 5)
)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(dimension, dimension))
def test_windows_of_narrow_weights_are_cut_by_xnnpack_whatever_their_strides(export, dimensions):
    size, stride, dilation, before, after, more = zip(*dimensions, strict=True)
    spatial = tuple(
        max((kernel - 1) * spread + 1 + extra - low - high, 1)
        for kernel, spread, low, high, extra in zip(size, dilation, before, after, more, strict=True)
    )
    made = weight(96, 64, *size)
    window = dict(stride=stride, padding=tuple(zip(before, after, strict=True)), dilation=dilation)
    found = export(lambda b, x: b.conv("c", x, made, OUTPUT, **window), (64, *spatial))
    assert found.differing((1, 3)) == 0
    assert "FULLY_CONNECTED" in found.kinds and delegated_ops(found.path)[1] == []


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 6), st.integers(1, 8), st.integers(2, 3), st.integers(0, 3), st.integers(0, 3), st.integers(1, 6))
def test_columns_of_few_channels_are_joined_to_strips(export, channels, width, step, before, after, strips):
    columns = step * strips
    window = dict(stride=(2, step), padding=((1, 0), (before, after)))
    assume(width <= before + columns + after)
    made = Weight(
        torch.randint(-127, 128, (5, channels, 3, width), dtype=torch.int8), WeightGrid(8), torch.ones(5) / 999
    )
    found = export(lambda b, x: b.conv("c", x, made, OUTPUT, **window), (channels, 5, columns))
    assert found.differing((1, 3)) == 0 and delegated_ops(found.path)[1] == []


def test_a_strip_begins_at_a_multiple_of_the_stride():
    strip = Strip.of(Window((3, 3), (2, 2), ((1, 1), (1, 1))), (6, 6, 3))
    assert strip == Strip(Window((3, 2), (2, 1), ((1, 1), (1, 0))), columns=2, first=1)
    weight = numpy.arange(1, 28).reshape(1, 3, 3, 3)
    assert strip.weight(weight)[0, 0].tolist() == [[0, 0, 0, 1, 2, 3], [4, 5, 6, 7, 8, 9]]
    assert Strip.of(Window((3, 3), (2, 2), ((1, 1), (1, 1))), (6, 6, 8)) is None  # as many blocks of 8 channels
    assert Strip.of(Window((3, 3), (2, 2), ((1, 1), (1, 1))), (6, 7, 3)) is None  # a column would be left over


def test_slices_in_steps_are_cut_by_xnnpack_where_sizes_are_multiples_of_the_steps(export):
    found = export(lambda b, x: b.slice("s", x, (0, 1, 2), (4, 6, 6), (2, 2, 3)))
    assert found.differing() == 0 and delegated_ops(found.path)[1] == []
    found = export(lambda b, x: b.slice("s", x, (0, 1, 2), (4, 6, 6), (2, 4, 1)))
    assert found.differing() == 0 and delegated_ops(found.path)[1] == ["STRIDED_SLICE"]


def test_slices_of_sixteen_bits_are_left_to_the_quicker_kernel(export):
    wide = Grid(float32(0.001), 0, -(2**15), 2**15 - 1)
    found = export(lambda b, x: b.slice("s", x, (0, 1, 2), (4, 6, 6), (2, 2, 3)), grid=wide)
    assert found.differing() == 0 and "SLICE" in found.kinds and "STRIDED_SLICE" not in found.kinds


def test_unpacked_weights_are_those_of_windows_alone(export):
    def write(b, x):
        y = b.conv("c", x, weight(64, 64, 3, 3), OUTPUT)
        return b.conv("d", y, weight(96, 64, 1, 1), OUTPUT)

    def types(found):
        return [weight_types(found.path)[name] for name in ("c/weight", "d/weight")]

    assert types(export(write, (64, 5, 5))) == ["int4", "int4"]
    found = export(write, (64, 5, 5), options=ExportOptions(unpacked_weights=True))
    assert types(found) == ["int8", "int4"]
    assert found.differing((1, 3)) == 0 and found.kinds.count("CONV_2D") == 1


def weight(*shape):
    """Of 4 bits."""
    codes = torch.randint(-8, 8, shape, dtype=torch.int8)
    return Weight(codes, WeightGrid(4, 16), torch.full((shape[0],), 1e-4))
