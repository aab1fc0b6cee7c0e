"""Bytes of weights in files, layer by layer."""

import onnx
import pytest
import torch

from qat.emitters.onnxruntime import build
from qat.integer.builder import ProgramBuilder
from qat.integer.values import Grid, Weight, WeightGrid

BYTE = Grid(0.5, 128, 0, 255)


@pytest.mark.parametrize("bits", [3, 5, 6, 7])
def test_widths_without_a_type_of_their_own_take_the_next_one_in_every_layer(bits):
    """Bytes of the weights of a file, against bits * weights / 8 of the program."""
    width = 4 if bits == 3 else 8

    def weight(*shape):
        half = 2 ** (bits - 1)
        generator = torch.Generator().manual_seed(len(shape))
        codes = torch.randint(-half, half, shape, dtype=torch.int8, generator=generator)
        return Weight(codes, WeightGrid(bits, 2 ** (8 - bits)), torch.full(shape[:1], 0.01))

    builder = ProgramBuilder()
    value = builder.conv("conv", builder.input("x", (4, 8, 8), BYTE), weight(16, 4, 3, 3), BYTE)
    value = builder.conv("depthwise", value, weight(16, 1, 3, 3), BYTE, groups=16)
    value = builder.reshape("rows", value, (16, 16))
    value = builder.linear("tokens", value, weight(32, 16), BYTE)
    builder.output("y", builder.linear("fc", builder.reshape("flat", value, (512,)), weight(8, 512), BYTE))
    program = builder.build()
    counts = {layer.name: layer.weight_count for layer in program.layers if layer.weight_bits}
    stored = {}
    for tensor in onnx.load_from_string(build(program)).graph.initializer:
        layer, _, rest = tensor.name.partition("/")
        if rest in ("weight", "weight/codes"):
            stored[layer] = len(tensor.raw_data)
    assert stored == {name: count * width // 8 for name, count in counts.items()}
    channels = {"conv": 16, "depthwise": 16, "tokens": 32, "fc": 8}
    dense = {layer.name: layer.bytes - 4 * channels[layer.name] for layer in program.layers if layer.weight_bits}
    assert dense == {name: count * bits // 8 for name, count in counts.items()}
