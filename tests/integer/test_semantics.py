import pytest
import torch

from qat.errors import ProgramError
from qat.integer.builder import ProgramBuilder
from qat.integer.fixed_point import SumMultipliers
from qat.integer.half_up import HalfUpMultipliers
from qat.integer.program import IntegerProgram
from qat.integer.semantics import for_runtime, semantics_of
from qat.integer.sixteen_bits import FixedSum
from qat.integer.values import Grid, Weight, WeightGrid, float32

INPUT, OUTPUT = Grid(0.5, 3, 0, 255), Grid(0.25, 100, 0, 255)


def program(bits=4, step=16, offset=0, bias=(5, -100), wide=False):
    builder = ProgramBuilder()
    x = builder.input("x", (2,), INPUT)
    weight = Weight(
        torch.tensor([[1, -2], [-1, 0]], dtype=torch.int8), WeightGrid(bits, step, offset), torch.full((2,), 0.125)
    )
    y = builder.linear("fc", x, weight, OUTPUT, bias=torch.tensor(bias, dtype=torch.int32))
    total = builder.add("sum", x, y, INPUT)
    product = builder.mul("product", total, y, OUTPUT)
    builder.output("out", builder.requantize("scaled", product, INPUT, factor=-2.0))
    return builder.build()


def operation(program, name):
    return next(each for each in program.operations if each.name == name)


def test_most_runtimes_round_as_programs_are_made():
    made = program()
    for runtime in ("onnxruntime", "c", "pytorch", "web", None):
        assert for_runtime(made, runtime) is made


def test_products_and_inputs_have_their_own_rounding_on_tensorrt():
    made, tensorrt = program(), for_runtime(program(), "tensorrt")
    assert operation(tensorrt, "product").rounds_first and operation(tensorrt, "scaled").rounds_first
    assert tensorrt.inputs[0].by_reciprocal
    assert operation(tensorrt, "sum").factors == operation(made, "sum").factors
    assert operation(tensorrt, "fc").weight.grid == operation(made, "fc").weight.grid


def test_additions_round_half_up_on_litert():
    litert = for_runtime(program(), "litert")
    # 0.5 / 0.5 and 0.25 / 0.5
    assert operation(litert, "sum").factors == HalfUpMultipliers(2**20, 2**19, 20)


def test_products_are_rounded_before_their_zero_point_on_litert():
    litert = for_runtime(program(), "litert")
    assert operation(litert, "product").rounds_first and operation(litert, "scaled").rounds_first


def test_real_inputs_are_multiplied_by_the_reciprocal_on_litert():
    assert for_runtime(program(), "litert").inputs[0].by_reciprocal
    assert not for_runtime(program().with_integer_edges("x"), "litert").inputs[0].by_reciprocal


def test_the_reciprocal_rounds_another_way_beside_a_tie():
    scale = float32(0.3)
    builder = ProgramBuilder()
    builder.output("y", builder.max("m", builder.input("x", (1,), Grid(scale, 0, -128, 127)), (1,), keepdim=True))
    usual = builder.build()
    litert = for_runtime(usual, "litert")
    halves = (torch.arange(-127, 127) + 0.5) * torch.tensor(scale)
    x = torch.cat([torch.nextafter(halves, halves * 2), halves, torch.nextafter(halves, halves * 0)])[:, None]
    steps = torch.round(x * (1 / torch.tensor(scale)))
    assert torch.equal(litert(x), steps.clamp(-128, 127) * scale)
    assert not torch.equal(litert(x), usual(x))


def test_narrow_weights_are_those_of_the_kernel_on_litert():
    weight = operation(for_runtime(program(), "litert"), "fc").weight
    assert weight.kernel.tolist() == [[1, -2], [-1, 0]]
    assert weight.scale.tolist() == [2.0, 2.0]


def test_the_bias_of_narrow_weights_is_rounded_to_their_step():
    # 5 / 16 = 0.3125, -100 / 16 = -6.25; ties to even: 24 / 16 = 1.5
    assert operation(for_runtime(program(), "litert"), "fc").bias.tolist() == [0, -6]
    assert operation(for_runtime(program(bias=(24, 8)), "litert"), "fc").bias.tolist() == [2, 0]


def test_two_bit_levels_without_a_zero_become_odd_numbers():
    weight = operation(for_runtime(program(2, 64, 32), "litert"), "fc").weight
    assert weight.kernel.tolist() == [[3, -3], [-1, 1]]
    assert weight.scale.tolist() == [4.0, 4.0]


def test_wide_weights_stay_as_they_are():
    made = program(8, 1)
    assert operation(for_runtime(made, "litert"), "fc").weight is operation(made, "fc").weight


def test_the_rounding_of_one_runtime_can_be_that_of_another():
    litert = for_runtime(program(8, 1), "litert")
    assert for_runtime(litert, "litert") is litert
    usual = for_runtime(litert, "onnxruntime")
    assert isinstance(operation(usual, "sum").factors, SumMultipliers)
    assert not operation(usual, "product").rounds_first and not usual.inputs[0].by_reciprocal


def test_programs_with_the_rounding_of_litert_are_stored_and_read(tmp_path):
    litert = for_runtime(program(), "litert")
    litert.save(tmp_path)
    read = IntegerProgram.load(tmp_path)
    x = torch.linspace(-200, 200, 100).reshape(50, 2)
    assert torch.equal(read(x), litert(x))
    assert operation(read, "sum").factors == operation(litert, "sum").factors
    assert operation(read, "product").rounds_first and read.inputs[0].by_reciprocal


def test_scales_that_an_addition_does_not_take_are_refused_with_its_name():
    builder = ProgramBuilder()
    x = builder.input("x", (2,), Grid(512.0, 0, 0, 255))
    builder.output("y", builder.add("block.sum", x, x, Grid(1.0, 0, 0, 255)))
    with pytest.raises(
        ProgramError, match="Add 'block.sum' .* cannot round as the runtime does: .* range that collapsed"
    ):
        for_runtime(builder.build(), "litert")


def test_wide_sums_have_one_definition_but_for_kernels_of_their_own():
    wide = Grid(0.5, 0, -(2**15), 2**15 - 1)
    assert isinstance(semantics_of("onnxruntime").factors(wide, wide, wide), SumMultipliers)
    assert isinstance(semantics_of("litert").factors(wide, wide, wide), FixedSum)


def product(constant=False):
    grid, target = Grid(0.5, 0, -128, 127), Grid(1.0, 0, -128, 127)
    builder = ProgramBuilder()
    x = builder.input("x", (1, 1), grid)
    z = builder.constant("k", torch.tensor([[1]]), grid) if constant else builder.input("z", (1, 1), grid)
    builder.output("y", builder.matmul("m", x, z, target))
    return builder.build()


def test_products_of_two_values_are_rounded_once_on_litert_ties_up():
    litert = for_runtime(product(), "litert")
    x, one = torch.arange(-6, 7)[:, None, None] * 1.0, torch.full((13, 1, 1), 0.5)
    # -12 to 12 codes times one code, in quarters of the output's step: -3, -2.5, ..., 3
    assert litert({"x": x, "z": one}).flatten().tolist() == [-3, -2, -2, -1, -1, 0, 0, 1, 1, 2, 2, 3, 3]
    assert product()({"x": x, "z": one}).flatten().tolist() == [-3, -2, -2, -2, -1, 0, 0, 0, 1, 2, 2, 2, 3]
    assert for_runtime(litert, "onnxruntime")({"x": x, "z": one}).flatten().tolist()[3] == -2


def test_products_with_a_constant_are_rounded_as_those_of_layers():
    made = product(constant=True).with_integer_edges("x")
    assert for_runtime(made, "litert") is made


def test_products_that_are_rounded_once_are_stored_and_read(tmp_path):
    for_runtime(product(), "litert").save(tmp_path)
    assert operation(IntegerProgram.load(tmp_path), "m").rounds_once
