import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import run
from qat.integer.kernels import matrices
from qat.integer.values import Grid, Weight, WeightGrid, float32


def expected_codes(accumulators, operation, grid):
    """Requantize exact accumulators (float64, channels in dimension 1) by float32 arithmetic."""
    factor = operation.multiplier.to_float().reshape(-1, *[1] * (accumulators.dim() - 2))
    codes = torch.round(accumulators.to(torch.float32) * factor).to(torch.float64) + grid.zero_point
    return codes.clamp(operation.clamp_min, operation.clamp_max).to(grid.dtype)


@st.composite
def convolutions(draw):
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    depthwise = draw(st.booleans()) and groups > 1
    inputs = 1 if depthwise else draw(st.integers(1, 3))
    dims = draw(st.integers(1, 2))
    return dict(
        groups=groups,
        inputs=inputs,
        outputs=groups * draw(st.integers(1, 3)),
        kernel=tuple(draw(st.integers(1, 3)) for _ in range(dims)),
        stride=tuple(draw(st.integers(1, 3)) for _ in range(dims)),
        dilation=tuple(draw(st.integers(1, 2)) for _ in range(dims)),
        padding=tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(dims)),
        size=tuple(draw(st.integers(5, 8)) for _ in range(dims)),
        bits=draw(st.sampled_from([(2, 64, 32), (3, 32, 0), (4, 16, 0), (8, 1, 0)])),
        input_grid=draw(
            st.sampled_from(
                [Grid(0.5, 0, 0, 255), Grid(0.5, 77, 0, 255), Grid(0.5, -3, -128, 127), Grid(0.5, 0, 0, 4095)]
            )
        ),
        seed=draw(st.integers(0, 2**30)),
    )


@settings(max_examples=150, deadline=None)
@given(convolutions())
def test_convolutions_equal_exact_sums(case):
    generator = torch.Generator().manual_seed(case["seed"])
    bits, step, offset = case["bits"]
    shape = (case["outputs"], case["inputs"], *case["kernel"])
    codes = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), shape, generator=generator).to(torch.int8)
    scale = torch.rand(case["outputs"], generator=generator) * 0.01 + 1e-4
    grid = Grid(float32(0.7), 120, 0, 255)
    source = case["input_grid"]
    builder = ProgramBuilder()
    x = builder.input("x", (case["inputs"] * case["groups"], *case["size"]), source)
    bias = torch.randint(-5000, 5000, (case["outputs"],), generator=generator).to(torch.int32)
    geometry = {key: case[key] for key in ("stride", "padding", "dilation", "groups")}
    weight = Weight(codes, WeightGrid(bits, step, offset), scale)
    builder.output("y", builder.conv("c", x, weight, grid, bias=bias, **geometry))
    program = builder.build()
    inputs = torch.randint(source.quant_min, source.quant_max + 1, (2, *builder.shape(x)), generator=generator)
    actual = run(program, {"x": inputs.to(source.dtype)})["c"]
    centered = torch.nn.functional.pad(
        inputs.double() - source.zero_point, [amount for pair in reversed(case["padding"]) for amount in pair]
    )
    convolve = torch.nn.functional.conv1d if len(case["kernel"]) == 1 else torch.nn.functional.conv2d
    arguments = dict(stride=case["stride"], dilation=case["dilation"], groups=case["groups"])
    exact = convolve(centered, weight.kernel.double(), bias.double(), **arguments)
    assert torch.equal(actual, expected_codes(exact, program.operations[0], grid))


@pytest.mark.parametrize("grid", [Grid(0.5, 33, 0, 255), Grid(0.5, 5, -128, 127), Grid(0.5, 1000, 0, 65535)])
@pytest.mark.parametrize("rows", [1, 2, 17])
@pytest.mark.parametrize("size", [1, 5, 64, 131])
def test_linear_equals_exact_sums_for_every_size(grid, rows, size):
    generator = torch.Generator().manual_seed(size)
    codes = torch.randint(-127, 128, (3, size), generator=generator).to(torch.int8)
    weight = Weight(codes, WeightGrid(8), torch.full((3,), 0.001))
    out = Grid(float32(0.3), 100, 0, 255)
    builder = ProgramBuilder()
    builder.output("y", builder.linear("fc", builder.input("x", (2, size), grid), weight, out))
    program = builder.build()
    inputs = torch.randint(grid.quant_min, grid.quant_max + 1, (rows, 2, size), generator=generator)
    actual = run(program, {"x": inputs.to(grid.dtype)})["fc"]
    exact = (inputs.double() - grid.zero_point) @ codes.double().T
    expected = expected_codes(exact.flatten(0, 1), program.operations[0], out)
    assert torch.equal(actual.flatten(0, 1), expected)


def test_extreme_codes_do_not_saturate_on_the_way():
    """255 * 127 added in pairs leaves 16 bits; the sum must not."""
    grid = Grid(1.0, 0, 0, 255)
    weight = Weight(torch.full((1, 256), 127, dtype=torch.int8), WeightGrid(8), torch.tensor([2.0**-15]))
    builder = ProgramBuilder()
    builder.output("y", builder.linear("fc", builder.input("x", (256,), grid), weight, grid))
    actual = run(builder.build(), {"x": torch.full((1, 256), 255, dtype=torch.uint8)})["fc"]
    assert actual.item() == round(255 * 127 * 256 / 2**15)


def test_a_processor_whose_int8_product_saturates_takes_the_exact_way(monkeypatch):
    monkeypatch.setattr(matrices, "int8_matmul_is_exact", lambda: False)
    test_extreme_codes_do_not_saturate_on_the_way()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 2),
    st.booleans(),
    st.sampled_from([Grid(1.0, 0, 0, 255), Grid(1.0, 0, -128, 127)]),
    st.integers(0, 2**30),
)
def test_max_pool_equals_torch(kernel, stride, dilation, ceil_mode, grid, seed):
    padding = kernel // 2
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(grid.quant_min, grid.quant_max + 1, (2, 3, 9, 8), generator=generator)
    builder = ProgramBuilder()
    pairs = ((padding, padding),) * 2
    x = builder.input("x", (3, 9, 8), grid)
    pooled = builder.max_pool(
        "pool", x, (kernel,) * 2, (stride,) * 2, pairs, dilation=(dilation,) * 2, ceil_mode=ceil_mode
    )
    builder.output("y", pooled)
    actual = run(builder.build(), {"x": codes.to(grid.dtype)})["pool"]
    expected = torch.nn.functional.max_pool2d(codes.double(), kernel, stride, padding, dilation, ceil_mode)
    assert torch.equal(actual, expected.to(grid.dtype))


def test_a_clamp_of_wide_codes_leaves_its_input_as_it_is():
    grid = Grid(1.0, 0, 0, 65_535)
    builder = ProgramBuilder()
    x = builder.input("x", (3,), grid)
    builder.output("clamped", builder.requantize("clamped", x, grid, clamp=(0, 300)))
    builder.output("x again", x)
    codes = torch.tensor([[7, 300, 60_000]], dtype=torch.int32)
    results = run(builder.build("dict"), {"x": codes})
    assert results["clamped"].tolist() == [[7, 300, 300]]
    assert results["x"].tolist() == [[7, 300, 60_000]]
