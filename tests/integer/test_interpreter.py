import pytest
import torch
from every_operation import program_of_every_operation
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qat.errors import ProgramError
from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import dequantize, quantize, quantize_inputs, run
from qat.integer.operations import OPERATIONS, FloatIsland
from qat.integer.values import Grid, IndexRange, Weight, WeightGrid, float32

BYTE = Grid(0.5, 0, 0, 255)


def one_output(build, *shapes, grid=BYTE):
    builder = ProgramBuilder()
    names = [builder.input(f"x{index}", shape, grid) for index, shape in enumerate(shapes)]
    builder.output("y", build(builder, *names))
    return builder.build()


def codes_after(program, *codes, dtype=torch.uint8):
    inputs = {edge.value: torch.tensor(entry, dtype=dtype) for edge, entry in zip(program.inputs, codes, strict=True)}
    return run(program, inputs)[program.outputs[0].value].tolist()


def test_quantize_rounds_half_to_even_and_clamps():
    grid = Grid(0.5, 3, 0, 15)
    real = torch.tensor([0.25, 0.75, -0.25, 100.0, -100.0, float("inf")])
    assert quantize(real, grid).tolist() == [3, 5, 3, 15, 0, 15]
    assert dequantize(torch.tensor([3, 5, 15]), grid).tolist() == [0.0, 1.0, 6.0]


def test_linear_by_hand():
    weight = Weight(torch.tensor([[1, -2], [3, 4]], dtype=torch.int8), WeightGrid(4), torch.tensor([0.5, 0.25]))
    bias = torch.tensor([10, -20], dtype=torch.int32)
    out = Grid(0.25, 100, 0, 255)
    program = one_output(lambda b, x: b.linear("fc", x, weight, out, bias=bias), (2,))
    # acc = [5 - 14 + 10, 15 + 28 - 20] = [1, 23]; M = 0.5 * [0.5, 0.25] / 0.25 = [1, 0.5]; 11.5 rounds to 12.
    assert codes_after(program, [[5, 7]]) == [[101, 112]]


def test_convolution_by_hand_pads_with_real_zero():
    grid = Grid(0.5, 10, 0, 255)
    weight = Weight(torch.tensor([[[1, 2, 3]]], dtype=torch.int8), WeightGrid(4), torch.tensor([1.0]))
    program = one_output(lambda b, x: b.conv("c", x, weight, grid, padding=((1, 1),)), (1, 3), grid=grid)
    # centered input 1 2 3; sums 2 + 6, 1 + 4 + 9, 2 + 6; M = 1
    assert codes_after(program, [[[11, 12, 13]]]) == [[[18, 24, 18]]]


def test_a_fused_relu_clamps_at_the_zero_point():
    weight = Weight(torch.tensor([[-1]], dtype=torch.int8), WeightGrid(2), torch.tensor([1.0]))
    out = Grid(0.5, 7, 0, 255)
    program = one_output(lambda b, x: b.linear("fc", x, weight, out, clamp=(7, 255)), (1,))
    assert codes_after(program, [[5]]) == [[7]]


def test_addition_and_multiplication_by_hand():
    program = one_output(lambda b, x, y: b.add("s", x, y, Grid(1.0, 5, 0, 255)), (3,), (3,))
    # (a + b) / 2 + 5, ties to even
    assert codes_after(program, [[1, 2, 200]], [[2, 3, 200]]) == [[6, 8, 205]]
    program = one_output(lambda b, x, y: b.mul("p", x, y, Grid(1.0, 5, 0, 255)), (2,), (2,))
    # a * b / 4 + 5: 0.5 + 5 = 5.5 rounds to 6, 1.5 + 5 = 6.5 to 6
    assert codes_after(program, [[1, 2]], [[2, 3]]) == [[6, 6]]


def test_constants_broadcast_over_the_batch():
    def build(builder, x):
        offset = builder.constant("k", torch.tensor([[10], [20]]), BYTE)
        return builder.add("s", x, offset, BYTE)

    program = one_output(build, (2, 2))
    assert codes_after(program, [[[1, 2], [3, 4]], [[0, 0], [0, 0]]]) == [[[11, 12], [23, 24]], [[10, 10], [20, 20]]]


def test_requantize_scales_and_clamps():
    program = one_output(lambda b, x: b.requantize("r", x, Grid(0.25, 200, 0, 255), factor=-1.5), (2,))
    assert codes_after(program, [[1, 60]]) == [[197, 20]]
    program = one_output(lambda b, x: b.requantize("r", x, BYTE, clamp=(2, 12)), (3,))
    assert codes_after(program, [[1, 5, 60]]) == [[2, 5, 12]]


def test_means_by_hand():
    program = one_output(lambda b, x: b.mean("m", x, (2,), BYTE), (2, 4))
    assert codes_after(program, [[[1, 2, 3, 4], [0, 0, 0, 255]]]) == [[2, 64]]
    program = one_output(lambda b, x: b.average_pool("a", x, (2,), BYTE, padding=((1, 1),)), (1, 4))
    # (0 + 5) / 2 ties to 2, (7 + 8) / 2 ties to 8, (9 + 0) / 2 ties to 4
    assert codes_after(program, [[[5, 7, 8, 9]]]) == [[[2, 8, 4]]]


def test_moving_operations_by_hand():
    def build(builder, x):
        padded = builder.pad("pad", x, ((0, 0), (1, 0)))
        cut = builder.slice("cut", padded, (0, 0), (2, 3), (1, 2))
        turned = builder.transpose("turn", cut, (0, 2, 1))
        joined = builder.concatenate("join", (turned, turned), 2)
        return builder.max("max", builder.reshape("flat", joined, (2, 2, 2)), (1,))

    program = one_output(build, (2, 2), grid=Grid(0.5, 9, 0, 255))
    values = run(program, {"x0": torch.tensor([[[1, 2], [3, 4]]], dtype=torch.uint8)})
    assert values["pad"].tolist() == [[[9, 1, 2], [9, 3, 4]]]
    assert values["cut"].tolist() == [[[9, 2], [9, 4]]]
    assert values["turn"].tolist() == [[[9, 9], [2, 4]]]
    assert values["join"].tolist() == [[[9, 9, 9, 9], [2, 4, 2, 4]]]
    # flat: [[9 9][9 9]] [[2 4][2 4]], the largest over its first dimension
    assert values["max"].tolist() == [[[9, 9], [9, 9]]]


def test_every_value_is_an_integer_tensor():
    weight = Weight(torch.ones(2, 2, dtype=torch.int8), WeightGrid(8), torch.ones(2))
    program = one_output(lambda b, x: b.add("s", b.linear("fc", x, weight, BYTE), x, BYTE), (2,))
    values = run(program, {"x0": torch.ones(3, 2, dtype=torch.uint8)})
    assert set(values) == {"x0", "fc", "s"}
    assert all(not tensor.is_floating_point() for tensor in values.values())
    with pytest.raises(ProgramError, match="torch.float32"):
        run(program, {"x0": torch.ones(3, 2)})
    with pytest.raises(ProgramError, match="outside"):
        narrow = one_output(lambda b, x: b.reshape("r", x, (1,)), (1,), grid=Grid(1.0, 0, 0, 3))
        run(narrow, {"x0": torch.tensor([[4]], dtype=torch.uint8)})


class IntegersOnly(TorchDispatchMode):
    """Fails on every operation that takes or makes a floating-point tensor."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            assert not (isinstance(leaf, torch.Tensor) and leaf.is_floating_point()), (
                f"{function} works on real numbers"
            )
        return result


@pytest.mark.parametrize("batch", [1, 300])
@pytest.mark.parametrize("source", [Grid(float32(0.02), 128, 0, 255), Grid(float32(0.0001), 0, -32768, 32767)])
def test_only_integers_are_computed_with_between_quantize_and_dequantize(batch, source):
    program = program_of_every_operation(source)
    # an island is there to compute with real numbers
    assert {type(operation) for operation in program.operations} == {*OPERATIONS} - {FloatIsland}
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "x": torch.randn(batch, 4, 8, 8, generator=generator),
        "ids": torch.randint(0, 4, (batch, 2), generator=generator),
    }
    codes = quantize_inputs(program, inputs)
    with IntegersOnly():
        values = run(program, codes)
    assert len(values) == len(program.values)
    outputs = program(inputs)
    for edge in program.outputs:
        assert torch.equal(dequantize(values[edge.value], program.value(edge.value).grid), outputs[edge.name])


def test_a_large_batch_in_pieces_gives_what_single_samples_give():
    weight = Weight(torch.tensor([[1, -2, 3]], dtype=torch.int8), WeightGrid(4), torch.tensor([0.3]))
    program = one_output(lambda b, x: b.linear("fc", x, weight, Grid(float32(0.1), 90, 0, 255)), (3,))
    x = torch.rand(300, 3, generator=torch.Generator().manual_seed(0)) * 100
    assert torch.equal(program(x), torch.cat([program(row[None]) for row in x]))


def test_outputs_come_in_their_structure():
    builder = ProgramBuilder()
    x = builder.input("x", (4,), BYTE)
    builder.output("a", builder.reshape("r", x, (2, 2)))
    builder.output("b", x)
    real = torch.tensor([[0.5, 1.0, 1.5, 2.0]])
    pair = builder.build("tuple")(real)
    assert [tensor.shape for tensor in pair] == [(1, 2, 2), (1, 4)]
    named = builder.build("dict")(real)
    assert list(named) == ["a", "b"]
    assert torch.equal(named["b"], real)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(2, 3), "expected"),
        (torch.zeros(0, 2), "at least 1"),
        (torch.tensor([[0.0, float("nan")]]), "contains NaN"),
        ((torch.zeros(1, 2), torch.zeros(1, 2)), "2 inputs given"),
        ({"y": torch.zeros(1, 2)}, "takes x0"),
    ],
)
def test_wrong_inputs_are_refused(inputs, message):
    program = one_output(lambda b, x: b.reshape("r", x, (2, 1)), (2,))
    with pytest.raises(ProgramError, match=message):
        program(inputs)


def test_batches_of_different_size_are_refused():
    program = one_output(lambda b, x, y: b.add("s", x, y, BYTE), (2,), (2,))
    with pytest.raises(ProgramError, match="different batch sizes"):
        program((torch.zeros(1, 2), torch.zeros(2, 2)))


def of_ids():
    """A program that takes ids and a real input, and gives ids and a real output."""
    builder = ProgramBuilder()
    weight = Weight(torch.tensor([[1, 2], [3, 4], [5, 6]], dtype=torch.int8), WeightGrid(8), torch.full((3,), 0.5))
    rows = builder.embedding("rows", builder.input("ids", (2,), IndexRange(3)), weight)
    builder.output("y", builder.add("sum", rows, builder.input("x", (2, 2), BYTE), BYTE))
    builder.output("likely", builder.arg_max("argmax", "sum", 2))
    return builder.build("dict")


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_indices_go_in_and_come_out_as_they_are(dtype):
    outputs = of_ids()({"ids": torch.tensor([[0, 2]], dtype=dtype), "x": torch.tensor([[[1.0, 0.0], [1.0, 9.0]]])})
    assert outputs["y"].tolist() == [[[1.5, 1.0], [3.5, 12.0]]]
    assert outputs["likely"].tolist() == [[0, 1]] and outputs["likely"].dtype == torch.int64
    masks = one_output(lambda b, x: b.table("t", x, torch.tensor([9, 5]).byte(), BYTE), (2,), grid=IndexRange(2))
    assert masks(torch.tensor([[True, False]])).tolist() == [[2.5, 4.5]]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.tensor([[0, 3]]), r"input 'ids' has integers 0..3, outside 0..2"),
        (torch.tensor([[-1, 0]]), r"input 'ids' has integers -1..0, outside 0..2"),
        (torch.tensor([[0.0, 1.0]]), r"input 'ids' is torch.float32; it takes integers of 0..2"),
        (torch.tensor([[0, 1, 1]]), r"shape \(1, 3\); expected \(batch, 2\)"),
        (torch.tensor([[0j, 1j]]), "give a dense tensor of real numbers"),
        (torch.tensor([[0, 1]]).to_sparse(), "give a dense tensor of real numbers"),
    ],
)
def test_wrong_indices_are_refused(ids, message):
    with pytest.raises(ProgramError, match=message):
        of_ids()({"ids": ids, "x": torch.zeros(1, 2, 2)})


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_an_input_that_torch_quantized_is_refused():
    quantized = torch.quantize_per_tensor(torch.ones(1, 2, 2), 1.0, 0, torch.quint8)
    with pytest.raises(ProgramError, match="'x' is torch.quint8 .*give a dense tensor of real numbers"):
        of_ids()({"ids": torch.tensor([[0, 1]]), "x": quantized})
