"""Channels that are all but zero have factors below those of LiteRT's kernels, and are equal nevertheless."""

import pytest
import torch
from torch import nn

import qat
import qat.emitters.litert as emitter
from qat.emitters.litert.channel_scales import channel_scales, vanishing
from qat.emitters.samples import outputs_by_name, random_inputs
from qat.integer.builder import ProgramBuilder
from qat.integer.values import Grid, Weight, WeightGrid


def test_only_sums_that_vanish_get_another_scale():
    builder, grid = ProgramBuilder(), Grid(0.5, 0, 0, 255)
    weight = Weight(torch.tensor([[1, 2], [3, 4]]).to(torch.int8), WeightGrid(8), torch.tensor([2.0**-10, 2.0**-40]))
    result = builder.linear("fc", builder.input("x", (2,), grid), weight, grid, torch.tensor([0, 5], dtype=torch.int32))
    builder.output("y", result)
    program = builder.build()
    (operation,) = program.operations
    assert vanishing(program, operation).tolist() == [False, True]
    assert channel_scales(program, operation).tolist() == [2.0**-10, 2.0**-31]


@pytest.mark.parametrize("quant", ["w8a8", "w4a8"])
def test_pruned_and_tiny_channels_are_equal(quant, tmp_path):
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(32, 4)
    network = nn.Sequential(*layers)
    with torch.no_grad():
        for layer in (network[0], network[2], network[4]):
            layer.weight[0] = 0.0
            layer.weight[1] *= 1e-12
            layer.bias[:2] = 0.0
    batches = [torch.randn(8, 2, 4, 4) for _ in range(4)]
    program = qat.quantize(network, batches, quant, target="litert")
    assert sum(int(vanishing(program, layer).sum()) for layer in program.operations if hasattr(layer, "bias")) >= 3
    qat.export(program, tmp_path / "model.tflite", runtime="litert")
    session = emitter.open_session(tmp_path / "model.tflite")
    (inputs,) = random_inputs(program, (33,), seed=5)
    for name, expected in outputs_by_name(program, inputs).items():
        assert torch.equal(emitter.run_session(session, inputs)[name], expected)
