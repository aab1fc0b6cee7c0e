import pytest
import torch

import qat
from qat.errors import ProgramError
from qat.real.nodes import RealInput, RealNode, RealOutput, Ref
from qat.real.program import RealProgram
from qat.real.weights import RealWeight
from qat.tokens import token_codes

X = RealInput("x", "float32", ("batch", 3), (2, 3))
CODES = RealWeight(
    torch.tensor([[2, -3, 1], [127, 0, -1]], dtype=torch.int8), torch.tensor([[0.5], [0.25]]), 8, False, 3, (2, 3), 0
)


def layer(tokens=(), **settings):
    arguments = (("input", Ref("x")), ("weight", Ref("w")), ("bias", Ref("b")))
    return RealNode("fc", "fc", "linear", arguments, "float32", ("batch", 2), tokens=tokens, **settings)


def program(tokens=(), activations="float", **settings):
    settings = {
        "inputs": (X,), "outputs": (RealOutput("output", "fc"),), "nodes": (layer(tokens),), "weights": {"w": CODES},
        "constants": {"b": torch.tensor([1.0, -1.0])}, "activations": activations,
    } | settings  # fmt: skip
    return RealProgram(**settings)


def test_float_activations_meet_weights_in_real_units():
    x = torch.tensor([[1.0, 2.0, 4.0]])
    assert program()(x).tolist() == [[1.0 - 3.0 + 2.0 + 1.0, 31.75 - 1.0 - 1.0]]


def test_dynamic_activations_are_codes_of_their_token_and_the_sums_whole_numbers():
    x = torch.tensor([[1.0, -2.54, 0.004], [0.0, 0.0, 0.0]])
    codes, scale = token_codes(x, (-1,))
    assert codes.tolist() == [[50, -127, 0], [0, 0, 0]]
    # 2 * 50 + 3 * 127, and 127 * 50; times the token's step, then the channel's
    sums = torch.tensor([481.0, 6350.0])
    expected = sums * scale[0] * torch.tensor([0.5, 0.25]) + torch.tensor([1.0, -1.0])
    found = program((-1,), "dynamic")(x)
    assert torch.equal(found[0], expected)
    assert found[1].tolist() == [1.0, -1.0]


def test_what_is_computed_in_real_numbers_is_listed_and_integers_of_layers_beside_it(quantized):
    dynamic, weight_only = quantized("w8-dynamic"), quantized("w4-weight-only")
    assert [node.name for node in dynamic.integer_operations] == ["conv", "depthwise", "head"]
    assert not weight_only.integer_operations
    for each in (dynamic, weight_only):
        assert not isinstance(each, qat.IntegerProgram)
        functions = [node.function for node in each.float_operations]
        assert functions == [
            "convolution", "aten.relu.default", "convolution", "aten.gelu.default", "aten.layer_norm.default", "linear",
            "aten._softmax.default",
        ]  # fmt: skip
    assert (dynamic.way, weight_only.way, quantized("fp16").way) == ("dynamic", "weight-only", "fp16")


def test_bytes_are_those_of_codes_at_their_width_and_of_numbers_as_stored(quantized):
    by_hand = 108 + 54 + 270  # weights of 8 bits, first and last layer among them
    scales = 4 * (6 + 6) + 4 * 5  # too few of them for float16
    constants = 4 * (6 + 6 + 54 + 54 + 5)
    assert quantized("w8-dynamic").bytes == by_hand + scales + constants
    assert quantized("w8-dynamic").float_bytes == 4 * (108 + 54 + 270 + 6 + 6 + 54 + 54 + 5)
    rows = {row.name: row for row in quantized("w8-dynamic").layers}
    assert rows["conv"].bytes == 108 + 4 * 6 + 4 * 6  # with the bias that its batch norm became
    assert (rows["head"].weight_bits, rows["head"].activation_bits, rows["head"].weight_count) == (8, 8, 270)
    assert quantized("w4-weight-only").layers[1].weight_bits == 4  # neither the first nor the last
    assert quantized("w4-weight-only").layers[1].activation_bits == 32


def test_inputs_are_checked():
    own = program()
    assert torch.equal(own({"x": torch.ones(2, 3)}), own([torch.ones(2, 3)]))
    for wrong, message in (
        (torch.ones(2, 4), r"float32 of shape \(2, 4\); expected float32 of \(batch, 3\)"),
        (torch.ones(2, 3, dtype=torch.int64), "int64 of shape"),
        ({"y": torch.ones(2, 3)}, "inputs y given; the program takes x"),
        ([torch.ones(2, 3)] * 2, "2 inputs given; the program takes 1: x"),
        (3, "inputs are a int; give a tensor, tensors by position, or tensors by input name"),
        ({"x": 3}, "input 'x' is a int; give a tensor"),
    ):
        with pytest.raises(ProgramError, match=message):
            own(wrong)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activations": "static"}, "activations are 'static'"),
        ({"storage": "float8"}, "storage 'float8'"),
        ({"outputs": ()}, "has inputs, outputs"),
        ({"outputs": (RealOutput("output", "fd"),)}, "output 'output' is 'fd', which nothing makes"),
        ({"constants": {}}, "'fc' reads 'b', which nothing before it makes"),
        ({"constants": {"b": torch.ones(2), "x": torch.ones(1)}}, "two tensors of the program are named 'x'"),
        ({"nodes": (layer((-1,)),)}, "reads tokens, but multiplies them with no codes"),
    ],
)
def test_a_program_that_contradicts_itself_is_refused(settings, message):
    with pytest.raises(ProgramError, match=message):
        program(**settings)


def test_the_float_network_behind_a_program_has_no_codes(quantized):
    own = quantized("w8-dynamic").in_float32()
    assert (own.weights, own.integer_operations, own.way) == ({}, (), "fp32")
    x = torch.randn(3, 2, 8, 8)
    assert float((own(x) - quantized("w8-dynamic")(x)).abs().max()) < 0.02


def test_tied_weights_are_there_once_and_counted_once(words, sentences):
    own = qat.quantize(words(tied=True), [sentences], quant="w4-weight-only")
    assert sorted(own.weights) == ["embedding.weight", "key.weight", "query.weight", "value.weight"]
    assert [row.weight_count for row in own.layers if row.bytes == 0] == [11 * 32]
