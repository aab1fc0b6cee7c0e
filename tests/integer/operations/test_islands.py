"""Functions of real numbers between two grids: by hand, and what fields are refused."""

import dataclasses
import math

import pytest
import torch

from qat.errors import ProgramError
from qat.integer.builder import ProgramBuilder
from qat.integer.float_functions import FLOAT_FUNCTIONS
from qat.integer.operations import MASK_GRID, FloatIsland
from qat.integer.operations.islands import Flag, FloatWeight, Real, Sizes, Text, Whole
from qat.integer.program import Layer
from qat.integer.values import Grid

HALVES = Grid(0.5, 0, -128, 127)
QUARTERS = Grid(0.25, 8, 0, 255)


def program_of(function, operands, grid=HALVES, shapes=((4,),), grids=(HALVES, QUARTERS), **settings):
    """One island. operands: name -> "0", the first input, or a constant."""
    builder = ProgramBuilder()
    inputs = [builder.input(str(index), shape, grids[index]) for index, shape in enumerate(shapes)]
    assert [name for name in operands.values() if isinstance(name, str)] == inputs
    builder.output("y", builder.float_island("y", function, operands, grid, **settings))
    return builder.build()


def test_a_cumulative_sum_by_hand():
    program = program_of("cumsum", {"input": "0"}, QUARTERS, arguments={"dim": 1})
    # codes 2, -3, 1, 100 are 1, -1.5, 0.5, 50; their sums 1, -0.5, 0, 50 are at most (255 - 8) / 4 = 61.75
    assert program(torch.tensor([[1.0, -1.5, 0.5, 50.0]])).tolist() == [[1.0, -0.5, 0.0, 50.0]]
    # 63.5 twice: 127 saturates at 61.75; -64 is below -2
    assert program(torch.tensor([[63.5, 63.5, -64.0, -64.0]])).tolist() == [[61.75, 61.75, 61.75, -1.0]]


def test_a_layer_by_hand():
    weight, bias = torch.tensor([[1.0, 0.5], [0.0, 0.1]]), torch.tensor([0.0, 1.0])
    program = program_of("linear", {"input": "0", "weight": weight, "bias": bias}, shapes=((2,),))
    # 3 + 0.5 * 2 = 4; 0.1 * 2 + 1 = 1.2, whose nearest half is 1
    assert program(torch.tensor([[3.0, 2.0]])).tolist() == [[4.0, 1.0]]
    assert program.bytes == program.float_bytes == 4 * 6
    assert program.layers == (Layer("y", "y", "FloatIsland", 32, 8, 6, 24),)


def test_two_operands_on_two_grids():
    program = program_of("hypot", {"input": "0", "other": "1"}, shapes=((2,), (2,)))
    assert program((torch.tensor([[3.0, -6.0]]), torch.tensor([[4.0, 8.0]]))).tolist() == [[5.0, 10.0]]


def test_a_masked_softmax_is_0_where_nothing_takes_part():
    builder = ProgramBuilder()
    scores = builder.input("x", (2, 2), HALVES)
    mask = builder.constant("mask", torch.tensor([[1, 0], [0, 0]]), MASK_GRID)
    builder.output("y", builder.float_island("y", "softmax", {"input": scores, "mask": mask}, HALVES, {"dim": -1}))
    assert builder.build()(torch.zeros(1, 2, 2)).tolist() == [[[1.0, 0.0], [0.0, 0.0]]]


def test_a_number_that_is_none_is_0_and_infinity_saturates():
    program = program_of("log", {"input": "0"})
    # the logarithms of 1, 0 and -1: 0, minus infinity and none
    assert program(torch.tensor([[1.0, 0.0, -1.0, 1.0]])).tolist() == [[0.0, -64.0, 0.0, 0.0]]


def test_dimensions_that_are_merged_with_the_batch():
    program = program_of("cumsum", {"input": "0"}, shapes=((3, 2),), arguments={"dim": 1}, merged=1)
    x = torch.arange(12.0).reshape(2, 3, 2)
    assert torch.equal(program(x), x.cumsum(2))


def test_the_size_of_a_batch_changes_no_code():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 257, generator=generator)
    program = program_of("linear", {"input": "0", "weight": weight}, Grid(0.25, 0, -128, 127), shapes=((257,),))
    x = torch.randn(300, 257, generator=generator) * 3
    assert torch.equal(program(x), torch.cat([program(row) for row in x.split(1)]))


def test_what_is_in_float_is_listed():
    program = program_of("abs", {"input": "0"}, module="head.abs")
    (island,) = program.float_operations
    assert (island.name, island.source, island.function) == ("y", "head.abs", "abs")
    builder = ProgramBuilder()
    builder.output("y", builder.negate("y", builder.input("x", (2,), HALVES)))
    assert builder.build().float_operations == ()


def test_arguments_are_plain_data():
    written = FloatIsland.written({"dim": 1, "eps": 0.5, "keepdim": True, "mode": "bilinear", "stride": (1, 2)})
    assert written == (
        Whole("dim", 1), Real("eps", 0.5), Flag("keepdim", True), Text("mode", "bilinear"), Sizes("stride", (1, 2))
    )  # fmt: skip


def island(**changes):
    fields = {
        "name": "y", "source": "", "inputs": ("x",), "output": "y", "clamp_min": -128, "clamp_max": 127,
        "function": "cumsum", "operands": ("input",), "weights": (), "arguments": FloatIsland.written({"dim": 1}),
    }  # fmt: skip
    return FloatIsland(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"function": "exec"}, "computes 'exec'; a float island holds one of linear, conv1d"),
        ({"function": "__import__"}, "a float island holds one of"),
        ({"operands": ("input", "input")}, r"has 1 inputs for \['input', 'input'\]"),
        ({"operands": ()}, "has 1 inputs for"),
        ({"arguments": (Whole("dim", 1), Whole("dim", 2))}, "each is given once"),
        ({"merged": 2}, "merges 2 dimensions with the batch"),
        ({"weights": (FloatWeight("input", torch.ones(2)),)}, "each is given once"),
        ({"weights": (FloatWeight("other", torch.ones(2, dtype=torch.float64)),)}, "must be torch.float32"),
        ({"weights": (FloatWeight("other", torch.tensor([math.nan])),)}, "has NaN or infinity in its other"),
        ({"function": "linear", "operands": ("weight",)}, "has a weight that depends on the inputs"),
        ({"inputs": (), "operands": ()}, "takes at least 1 inputs"),
    ],
)
def test_fields_that_contradict_one_another_are_refused(changes, message):
    with pytest.raises(ProgramError, match=message):
        island(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arguments": FloatIsland.written({"dim": 0})}, "it works on the batch"),
        ({"arguments": FloatIsland.written({"dim": -2})}, "it works on the batch"),
        ({"arguments": FloatIsland.written({"dim": 9})}, "its dim is 9 of 2 dimensions"),
        ({"arguments": FloatIsland.written({"dim": True})}, "its dim is True, not int"),
        ({"arguments": FloatIsland.written({"dim": "1"})}, "its dim is 1, not int"),
        ({"arguments": ()}, "name its dim"),
        ({"arguments": FloatIsland.written({"dim": 1, "out": 1})}, "it has 'out'; it takes input, dim"),
        ({"operands": ("other",)}, "it has 'other'"),
        ({"function": "norm", "arguments": FloatIsland.written({"dim": 1, "ord": -1.0})}, "its ord is -1.0"),
        ({"function": "norm", "arguments": FloatIsland.written({"dim": (0, 1)})}, "it works on the batch"),
        ({"function": "softmax", "arguments": FloatIsland.written({"dim": -1.0})}, "its dim is -1.0, not int"),
        ({"function": "hypot", "arguments": ()}, "its other is missing"),
        (
            {"function": "add", "arguments": (), "weights": (FloatWeight("other", torch.ones(5)),)},
            r"cannot compute add of \[\(4,\)\]",
        ),
        ({"function": "linear", "weights": (FloatWeight("weight", torch.ones(2, 3)),), "arguments": ()}, "cannot"),
        ({"function": "det", "arguments": ()}, r"cannot compute det of \[\(4,\)\]"),
        ({"function": "layer_norm", "arguments": FloatIsland.written({"normalized_shape": (5,)})}, "cannot compute"),
        ({"function": "fold", "arguments": FloatIsland.written({"output_size": 3, "kernel_size": 2})}, "cannot"),
        (
            {"function": "bmm", "arguments": (), "weights": (FloatWeight("other", torch.ones(3, 4, 4)),)},
            "over the batch|cannot compute bmm",
        ),
    ],
)
def test_calls_that_the_function_does_not_take_are_refused(changes, message):
    with pytest.raises(ProgramError, match=message):
        island(**changes).output_shape((4,))


def test_a_value_without_dimensions_has_none_to_merge_with_the_batch():
    with pytest.raises(ProgramError, match="merges a dimension with the batch that one of its inputs does not have"):
        island(merged=1).output_shape(())


def test_what_mixes_samples_is_refused():
    constant = FloatWeight("input", torch.ones(2, 4))
    mixing = island(function="matmul", operands=("other",), weights=(constant,), arguments=())
    with pytest.raises(ProgramError, match="over the batch|cannot compute matmul"):
        mixing.output_shape((4,))


def test_a_mask_is_on_the_grid_of_masks():
    builder = ProgramBuilder()
    operands = {"input": builder.input("x", (2,), HALVES), "mask": builder.input("m", (2,), HALVES)}
    builder.output("y", builder.float_island("y", "softmax", operands, HALVES, {"dim": 1}))
    with pytest.raises(ProgramError, match="has a mask on Grid"):
        builder.build()


def test_a_shape_that_the_function_does_not_make_is_refused():
    program = program_of("linear", {"input": "0", "weight": torch.ones(3, 4)})
    values = (program.values[0], dataclasses.replace(program.values[1], shape=(2,)))
    with pytest.raises(ProgramError, match=r"makes \(3,\), but 'y' is declared \(2,\)"):
        dataclasses.replace(program, values=values)


@pytest.mark.parametrize("name", FLOAT_FUNCTIONS)
def test_every_function_has_its_tensors_and_arguments(name):
    function = FLOAT_FUNCTIONS[name]
    assert 1 <= function.required <= len(function.tensors)
    assert function.constants < {*function.tensors}
    assert {*function.needed, *function.dims} <= {*function.arguments}
