import pytest
import torch

from qat.errors import ConfigurationError
from qat.models import DigitsCNN


def test_images_of_any_batch_size_become_logits():
    network = DigitsCNN(width=4).eval()
    for batch in (1, 3):
        assert network(torch.zeros(batch, 1, 8, 8)).shape == (batch, 10)


def test_the_second_convolution_has_a_residual_connection():
    network = DigitsCNN(width=2).eval()
    torch.nn.init.zeros_(network.conv2.weight)
    images = torch.rand(1, 1, 8, 8)
    inside = network.relu(network.bn1(network.conv1(images)))
    pooled = network.relu(network.bn3(network.conv3(network.pool(inside))))
    assert torch.equal(network(images), network.linear(pooled.mean((2, 3))))


def test_a_network_without_channels_is_refused():
    with pytest.raises(ConfigurationError, match="model.network.width is 0"):
        DigitsCNN(width=0)
