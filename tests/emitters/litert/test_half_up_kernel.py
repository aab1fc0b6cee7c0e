"""The arithmetic of additions beside the kernel of the runtime, on every pair of codes."""

import numpy
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qat.emitters.litert.model import Model, Scaling, schema
from qat.integer.half_up import HalfUpMultipliers, requantize_half_up
from qat.integer.values import Grid, float32

CODES = numpy.arange(-128, 128).astype(numpy.int8)
FIRST, SECOND = (grid.reshape(1, -1) for grid in numpy.meshgrid(CODES, CODES, indexing="ij"))


def kernel_sums(first, second, output):
    model = Model()
    grids = {"a": first, "b": second, "c": output}
    tensors = [
        model.tensor(name, FIRST.shape, numpy.int8, Scaling((grid.scale,), grid.zero_point))
        for name, grid in grids.items()
    ]
    model.operator("ADD", tensors[:2], tensors[2:], schema.AddOptionsT())
    content = model.to_bytes({"a": tensors[0], "b": tensors[1]}, {"c": tensors[2]}, "")
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    for tensor, codes in zip(tensors, (FIRST, SECOND), strict=False):
        interpreter.set_tensor(tensor, codes)
    interpreter.invoke()
    return torch.from_numpy(interpreter.get_tensor(tensors[2]).copy())


scales = st.floats(1e-4, 10.0).map(float32)
points = st.integers(-128, 127)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.tuples(scales, scales, scales), st.tuples(points, points, points))
def test_additions_are_those_of_the_kernel_on_every_pair_of_codes(scales, points):
    ratio = max(scales[:2]) / scales[2]
    assume(2**-10 <= ratio < 255)
    grids = [Grid(scale, point, -128, 127) for scale, point in zip(scales, points, strict=True)]
    factors = HalfUpMultipliers.from_grids(*grids)
    centered = [
        torch.from_numpy(codes).to(torch.int32) - grid.zero_point
        for codes, grid in zip((FIRST, SECOND), grids, strict=False)
    ]
    assert torch.equal(requantize_half_up(*centered, factors, grids[2], -128, 127), kernel_sums(*grids))


@pytest.mark.parametrize("scales", [(1.0, 1.0, 2.0), (0.5, 0.25, 1.0), (3.0, 1.0, 4.0), (0.75, 0.75, 0.5)])
def test_ties_are_those_of_the_kernel(scales):
    grids = [Grid(scale, 0, -128, 127) for scale in scales]
    factors = HalfUpMultipliers.from_grids(*grids)
    centered = [torch.from_numpy(codes).to(torch.int32) for codes in (FIRST, SECOND)]
    assert torch.equal(requantize_half_up(*centered, factors, grids[2], -128, 127), kernel_sums(*grids))
