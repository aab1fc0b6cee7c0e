"""Files of 16-bit codes: the arithmetic of `qat.integer.sixteen_bits` beside the kernels of the runtime."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import qat.emitters.litert as emitter
from qat.emitters.samples import outputs_by_name, random_inputs
from qat.errors import ProgramError
from qat.integer.builder import ProgramBuilder
from qat.integer.operations import table_codes
from qat.integer.semantics import for_runtime
from qat.integer.values import Grid, IndexRange, Weight, WeightGrid, float32

ENDS = (-32767, 32767)
WIDE, COARSE = Grid(float32(0.0007), 0, *ENDS), Grid(float32(0.02), 0, *ENDS)
RELU = (0, 32767)


def weight(*shape, bits=8):
    half = 2 ** (bits - 1)
    codes = torch.randint(-half, half, shape, dtype=torch.int8)
    return Weight(codes, WeightGrid(bits), torch.rand(shape[0]) * 0.01 + 0.003)


def bias(count):
    return torch.randint(-(2**20), 2**20, (count,), dtype=torch.int32)


def inside(kinds):
    """The operators between the edges, without those that turn their layout and what keeps -32768 out."""
    return [kind for kind in kinds if kind not in ("TRANSPOSE", "QUANTIZE", "DEQUANTIZE", "MAXIMUM")]


ratios = st.floats(-1, 1).map(lambda exponent: 8.0**exponent)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.floats(-4, -2), st.tuples(ratios, ratios, ratios, ratios, ratios, ratios))
def test_factors_of_any_scales_are_those_of_the_kernels(tmp_path_factory, exponent, ratios):
    """Every kernel that rescales, on codes over the whole of their grids."""
    first = Grid(float32(10.0**exponent), 0, *ENDS)

    def grid(of, ratio):
        return Grid(float32(of * ratio), 0, *ENDS)

    def wider(name, ratio, times):
        return grid(builder.grid(name).scale * times, ratio)

    builder = ProgramBuilder()
    x, y = builder.input("x", (6, 8, 8), first), builder.input("y", (6, 8, 8), grid(first.scale, ratios[0]))
    torch.manual_seed(0)
    made = [
        builder.conv("conv", x, weight(5, 6, 3, 3), wider(x, ratios[1], 4), bias(5)),
        builder.conv("each", x, weight(6, 1, 3, 3), wider(x, ratios[2], 2), bias(6), groups=6, clamp=RELU),
        builder.linear("linear", y, weight(4, 8), wider(y, ratios[3], 3), bias(4)),
        builder.mean("mean", y, (2, 3), wider(y, ratios[4], 0.3)),
        builder.requantize("times", x, wider(x, ratios[3], 0.4), factor=-0.37),
        builder.mul("mul", x, y, wider(x, ratios[5], builder.scale(y) * 2**14)),
        builder.add("add", x, y, wider(x, ratios[5], 1 + ratios[0])),
        builder.matmul("matmul", x, y, wider(x, ratios[4], builder.scale(y) * 2**15), factor=0.3),
    ]
    for name in made:
        builder.output(f"to {name}", name)
    try:
        program = for_runtime(builder.build("dict"), "litert")
    except ProgramError:  # scales that kernels do not take
        assume(False)
    assert emitter.refusals(program) == []
    path = tmp_path_factory.mktemp("file") / "model.tflite"
    emitter.emit(program, path)  # compares
    assert emitter.float_ops(path) == []
    session = emitter.open_session(path)
    (inputs,) = random_inputs(program, (16,), seed=9)
    results = emitter.run_session(session, inputs)
    expected = outputs_by_name(program, inputs)
    assert {name: int((results[name] != codes).sum()) for name, codes in expected.items()} == dict.fromkeys(expected, 0)


def gelu(builder, x):
    points = torch.arange(ENDS[0], ENDS[1] + 1, dtype=torch.float64) * builder.scale(x)
    return builder.table("t", x, table_codes(torch.nn.functional.gelu(points), COARSE), COARSE)


def difference(builder, x):
    pooled = builder.average_pool("p", builder.negate("n", x), (2, 2), WIDE, stride=(1, 1), padding=((1, 0), (0, 1)))
    return builder.add("a", pooled, builder.constant("k", torch.tensor([[[7]]]), Grid(0.25, 3, 0, 15)), COARSE)


def moved(builder, x):
    cut = builder.slice("s", builder.pad("z", x, ((0, 0), (1, 0), (0, 2))), (0, 1, 0), (4, 7, 8), (1, 2, 1))
    joined = builder.concatenate("c", (cut, builder.take("g", cut, 2, [2, 0, 0])), 2)
    return builder.expand("e", builder.max("m", joined, (3,), keepdim=True), (4, 6, 5))


@pytest.mark.parametrize(
    ("write", "kinds"),
    [
        (lambda b, x: b.conv("c", x, weight(6, 2, 3, 3), COARSE, bias(6), groups=2, clamp=RELU), ["CONV_2D"]),
        (lambda b, x: b.conv("c", x, weight(64, 4, 3, 3, bits=4), COARSE, clamp=(100, 200)), ["CONV_2D", "MINIMUM"]),
        (lambda b, x: b.max_pool("p", x, (3, 3), (2, 2), ((1, 1), (1, 1))), ["PADV2", "MAX_POOL_2D"]),
        (lambda b, x: b.requantize("r", x, WIDE, clamp=(-5, 300)), ["MINIMUM"]),
        (gelu, ["CAST", "ADD", "GATHER"]),
        (difference, ["MUL", "PAD", "DEPTHWISE_CONV_2D", "ADD"]),
        (moved, ["PAD", "STRIDED_SLICE", "GATHER", "CONCATENATION", "REDUCE_MAX", "TILE"]),
        (lambda b, x: b.arg_max("a", x, 1), ["CAST", "ARG_MAX", "CAST"]),
        (lambda b, x: b.linear("l", b.reshape("f", x, (144,)), weight(5, 144), COARSE), ["RESHAPE", "FULLY_CONNECTED"]),
    ],
)
@pytest.mark.parametrize("codes", [False, True])
def test_operations(export, write, kinds, codes):
    found = export(write, grid=WIDE, codes=codes and write is not test_operations)
    assert found.differing() == 0
    assert inside(found.kinds) == kinds


def test_the_lowest_int16_number_is_no_code(export):
    found = export(lambda b, x: b.linear("l", x, weight(3, 6), WIDE), shape=(6,), grid=WIDE)
    assert found.kinds == ["QUANTIZE", "MAXIMUM", "FULLY_CONNECTED", "MAXIMUM", "DEQUANTIZE"]
    (result,) = emitter.run_session(found.session, {"x": torch.full((1, 6), -1e9)}).values()
    assert torch.equal(result, found.program({"x": torch.full((1, 6), -1e9)}))


def test_rows_of_8_bits_are_widened(export):
    rows = Weight(torch.randint(-127, 128, (9, 4), dtype=torch.int8), WeightGrid(8), torch.full((9,), float32(0.01)))
    found = export(
        lambda b, x: b.requantize("r", b.embedding("e", x, rows), Grid(float32(0.00004), 0, *ENDS)),
        shape=(3,), grid=IndexRange(9),
    )  # fmt: skip
    assert found.differing() == 0 and found.kinds[-4:] == ["CAST", "MUL", "MAXIMUM", "DEQUANTIZE"]
