"""Parts of tensors, windows that are laid side by side: equal codes, and nothing that XNNPACK does not run."""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qat.emitters.litert import delegated_ops
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
    codes = torch.randint(-8, 8, (96, 64, *size), dtype=torch.int8)
    made = Weight(codes, WeightGrid(4, 16), torch.full((96,), 1e-4))
    window = dict(stride=stride, padding=tuple(zip(before, after, strict=True)), dilation=dilation)
    found = export(lambda b, x: b.conv("c", x, made, OUTPUT, **window), (64, *spatial))
    assert found.differing((1, 3)) == 0
    assert "FULLY_CONNECTED" in found.kinds and delegated_ops(found.path)[1] == []


def test_slices_in_steps_are_cut_by_xnnpack_where_sizes_are_multiples_of_the_steps(export):
    found = export(lambda b, x: b.slice("s", x, (0, 1, 2), (4, 6, 6), (2, 2, 3)))
    assert found.differing() == 0 and delegated_ops(found.path)[1] == []
    found = export(lambda b, x: b.slice("s", x, (0, 1, 2), (4, 6, 6), (2, 4, 1)))
    assert found.differing() == 0 and delegated_ops(found.path)[1] == ["STRIDED_SLICE"]
