import pytest
import torch
from torch import nn

from qat.errors import ConfigurationError
from qat.models import MobileNetV2
from qat.models.mobilenet_v2 import InvertedResidual


def test_the_size_is_the_one_documented():
    assert sum(parameter.numel() for parameter in MobileNetV2().parameters()) == 388_810


def test_a_batch_becomes_logits():
    network = MobileNetV2(num_classes=7).eval()
    assert network.features(torch.zeros(2, 3, 32, 32)).shape == (2, 320, 8, 8)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_a_block_widens_convolves_each_channel_and_narrows():
    block = InvertedResidual(4, 8, stride=2, expansion=6)
    shapes = [(layer.in_channels, layer.out_channels, layer.groups, layer.stride) for layer in convolutions(block)]
    assert shapes == [(4, 24, 1, (1, 1)), (24, 24, 24, (2, 2)), (24, 8, 1, (1, 1))]


def test_the_first_block_does_not_widen():
    assert [layer.groups for layer in convolutions(InvertedResidual(4, 8, stride=1, expansion=1))] == [4, 1]


def test_a_block_adds_its_input_where_shapes_agree():
    x = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    same, wider = InvertedResidual(4, 4, 1, 2).eval(), InvertedResidual(4, 8, 1, 2).eval()
    for block in (same, wider):
        nn.init.zeros_(block.layers[-2].weight)
    assert torch.equal(same(x), x)
    assert not wider(x).any()


def test_a_width_scales_the_stages_to_multiples_of_8_and_leaves_the_last_layer():
    network = MobileNetV2(width=0.5)
    assert {layer.out_channels % 8 for layer in convolutions(network)} == {0}
    assert [layer.out_channels for layer in convolutions(network)][0] == 8
    assert network.classifier[-1].in_features == 320


def test_a_width_of_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="model.network.width is 0; it is a factor of the channels, above 0"):
        MobileNetV2(width=0)


def convolutions(network):
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]
