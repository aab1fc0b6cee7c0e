import pytest
import torch

from qat.integer.builder import ProgramBuilder
from qat.integer.program import Grid, IntegerProgram, Weight, WeightGrid

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
