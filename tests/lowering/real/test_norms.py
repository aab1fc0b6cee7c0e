"""Batch norms in real programs."""

import torch
from torch import nn

import qat


def test_a_batch_norm_goes_into_the_scales_of_the_layer_in_front_of_it(program_of):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 4), nn.BatchNorm1d(4))
    network(torch.randn(8, 2, 5, 5))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([1.0, -2.0, 0.0]))
    config = qat.QuantConfig(activations="float")
    program = program_of(network, torch.randn(2, 2, 5, 5), config)
    assert [node.function for node in program.nodes] == ["convolution", "reshape", "linear"]
    norm = network[1]
    multiplier = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    scale = network[0].weight.abs().flatten(1).amax(1) / 127 * multiplier
    assert torch.allclose(program.weights["0.weight"].scale[:, 0], scale.detach(), rtol=1e-5)
    x = torch.randn(4, 2, 5, 5)
    assert float((program(x) - network(x)).detach().abs().max()) < 0.05


def test_a_batch_norm_whose_layer_is_read_by_others_stays_a_product_and_a_sum(program_of):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + y

    program = program_of(Both(), torch.randn(2, 1, 5, 5))
    assert [node.function for node in program.nodes] == [
        "convolution", "aten.mul.Tensor", "aten.add.Tensor", "aten.add.Tensor",
    ]  # fmt: skip
