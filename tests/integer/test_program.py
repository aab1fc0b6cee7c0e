import dataclasses

import pytest
import torch

from qat.errors import ProgramError
from qat.integer.builder import ProgramBuilder
from qat.integer.fixed_point import Multiplier
from qat.integer.program import Grid, IntegerProgram, Value, Weight, WeightGrid

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


def test_layers_count_weights_at_true_width_and_biases_at_32_bits(program):
    layer, reshape = program.layers
    assert (layer.name, layer.source, layer.kind) == ("fc", "head.fc", "Linear")
    assert (layer.weight_bits, layer.activation_bits, layer.weight_count, layer.bytes) == (4, 8, 6, 3 + 12)
    assert (reshape.weight_bits, reshape.bytes) == (None, 0)
    assert program.bytes == 15
    assert program.float_bytes == 4 * (6 + 3)


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
    builder.input("x", (2,), BYTE)
    builder.constant("k", torch.tensor([1, 2]), BYTE)
    builder.output("y", builder.add("sum", "k", "k", OUT))
    with pytest.raises(ProgramError, match="fold them"):
        builder.build()
    builder = ProgramBuilder()
    builder.input("x", (2,), BYTE)
    builder.constant("k", torch.tensor([1, 2]), BYTE)
    builder.output("y", builder.reshape("r", "k", (2, 1)))
    with pytest.raises(ProgramError, match="only Add and Mul do"):
        builder.build()


def test_a_program_is_called_with_a_tensor_a_tuple_or_a_dict(program):
    x = torch.tensor([[1.0, 2.0]])
    expected = program(x)
    assert expected.shape == (1, 3, 1)
    assert torch.equal(program((x,)), expected)
    assert torch.equal(program({"x": x}), expected)


def test_a_program_is_saved_and_loaded(program, tmp_path):
    program.save(tmp_path)
    loaded = IntegerProgram.load(tmp_path)
    assert loaded.layers == program.layers
    assert torch.equal(loaded(torch.ones(2, 2)), program(torch.ones(2, 2)))
