import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qat.errors import ProgramError
from qat.integer.builder import ProgramBuilder
from qat.integer.checks import accumulator_reach
from qat.integer.fixed_point import Multiplier
from qat.integer.program import Grid, Value, Weight, WeightGrid

BYTE = Grid(0.5, 0, 0, 255)
OUT = Grid(0.25, 128, 0, 255)


def linear_weight(codes, bits=8, step=1):
    codes = torch.tensor(codes, dtype=torch.int8)
    return Weight(codes, WeightGrid(bits, step), torch.full((len(codes),), 0.5))


@pytest.fixture
def program():
    builder = ProgramBuilder()
    x = builder.input("x", (2,), BYTE)
    y = builder.linear("fc", x, linear_weight([[1, 2], [3, -4], [0, 5]], 4), OUT, module="head.fc")
    builder.output("logits", builder.reshape("flat", y, (3, 1)))
    return builder.build()


def changed(program, **changes):
    return dataclasses.replace(program, **changes)


def with_operation(program, **changes):
    first, *rest = program.operations
    return changed(program, operations=(dataclasses.replace(first, **changes), *rest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: changed(p, output_structure="list"), "choose one of tensor, tuple, dict"),
        (lambda p: changed(p, outputs=()), "needs both"),
        (lambda p: changed(p, outputs=p.outputs * 2), "cannot be returned as one tensor"),
        (lambda p: changed(p, values=p.values * 2), "two values and constants are named 'x'"),
        (lambda p: changed(p, operations=p.operations[::-1]), "which nothing before it makes"),
        (lambda p: changed(p, operations=p.operations[:1]), "nothing makes"),
        (lambda p: changed(p, values=p.values[:2]), "not declared"),
        (lambda p: with_operation(p, inputs=("flat",)), "which nothing before it makes"),
        (lambda p: with_operation(p, output="x"), "made twice"),
        (lambda p: with_operation(p, clamp_max=256), "inside its grid's 0..255"),
        (lambda p: with_operation(p, clamp_min=9, clamp_max=8), "must ascend"),
        (lambda p: with_operation(p, weight=linear_weight([[1], [2], [3]])), "cannot take an input"),
        (
            lambda p: with_operation(p, multiplier=Multiplier.from_float(torch.full((3,), 2.0))),
            "multipliers that are not",
        ),
        (lambda p: with_operation(p, bias=torch.zeros(2, dtype=torch.int32)), r"both must be \(3,\)"),
        (lambda p: with_operation(p, bias=torch.zeros(3)), "must be torch.int32"),
        (lambda p: with_operation(p, bias=torch.full((3,), 2**31 - 1, dtype=torch.int32)), "beyond the 2147483647"),
        (lambda p: changed(p, values=(*p.values[:2], Value("flat", (3,), OUT))), "is declared"),
        (lambda p: changed(p, values=(*p.values[:2], Value("flat", (3, 1), BYTE))), "put a Requantize between"),
        (lambda p: changed(p, values=(*p.values, Value("spare", (3,), OUT))), "nothing makes the value 'spare'"),
    ],
)
def test_an_unsound_program_is_refused(program, change, message):
    with pytest.raises(ProgramError, match=message):
        change(program)


def test_an_overflow_names_the_layer_its_reach_and_a_remedy():
    builder = ProgramBuilder()
    wide = Grid(0.5, 0, 0, 65535)
    x = builder.input("x", (300,), wide)
    builder.output("y", builder.linear("fc", x, linear_weight([[127] * 300]), OUT, module="head"))
    with pytest.raises(ProgramError, match=r"'fc' \(from head\) can accumulate up to 2496883500.* fewer"):
        builder.build()


def test_two_constants_and_constants_elsewhere_are_refused():
    builder = ProgramBuilder()
    builder.constant("k", torch.tensor([1, 2]), BYTE)
    with pytest.raises(ProgramError, match="nothing but constants, 'k', 'k'; fold them"):
        builder.add("sum", "k", "k", OUT)
    with pytest.raises(ProgramError, match="takes a constant, 'k', but only values can be its inputs"):
        builder.reshape("r", "k", (2, 1))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-128, 127), min_size=3, max_size=3),
    st.integers(-(2**20), 2**20),
    st.sampled_from([Grid(0.5, 0, 0, 15), Grid(0.5, 7, 0, 15), Grid(0.5, -3, -8, 7), Grid(0.5, 15, 0, 15)]),
)
def test_the_reach_is_the_largest_sum_of_any_input(codes, bias, grid):
    builder = ProgramBuilder()
    biases = torch.tensor([bias], dtype=torch.int32)
    x = builder.input("x", (3,), grid)
    builder.output("y", builder.linear("fc", x, linear_weight([codes]), OUT, bias=biases))
    program = builder.build()
    ends = itertools.product([grid.quant_min - grid.zero_point, grid.quant_max - grid.zero_point], repeat=3)
    sums = [sum(code * weight for code, weight in zip(end, codes, strict=True)) for end in ends]
    largest = max(max(abs(total), abs(total + bias)) for total in sums)
    assert accumulator_reach(program.operations[0], program.named) == largest


def test_the_reach_of_other_operations():
    builder = ProgramBuilder()
    x = builder.input("x", (2, 4), OUT)
    builder.mul("mul", x, x, OUT)
    builder.mean("mean", x, (2,), OUT)
    builder.average_pool("pool", x, (3,), OUT)
    builder.requantize("clamp", x, OUT)
    for name in ("mul", "mean", "pool", "clamp"):
        builder.output(name, name)
    program = builder.build("dict")
    reach = [accumulator_reach(operation, program.named) for operation in program.operations]
    assert reach == [128 * 128, 4 * 128, 3 * 128, 128]
