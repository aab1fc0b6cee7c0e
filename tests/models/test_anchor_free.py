import pytest
import torch

from qat.errors import ConfigurationError
from qat.models import AnchorFreeDetector
from qat.models.boxes import points_of


@pytest.mark.parametrize("size, batch", [(64, 1), (96, 3)])
def test_every_point_of_the_image_has_its_outputs(size, batch):
    network = AnchorFreeDetector(num_classes=3, width=2).eval()
    outputs = network(torch.rand(batch, 3, size, size))
    count = len(points_of(size, network.strides).strides)
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        "logits": (batch, 3, count),
        "distances": (batch, 4, count),
    }
    assert (outputs["distances"] >= 0).all()


def test_outputs_are_in_the_order_of_the_points():
    torch.manual_seed(0)
    network = AnchorFreeDetector(num_classes=1, width=16).eval()
    images = torch.zeros(1, 3, 64, 64)
    changed = images.clone()
    changed[:, :, :4, 40:44] = 1.0  # nearest to the points at (44, 4) and (40, 8)
    difference = (network(changed)["logits"] - network(images)["logits"]).abs()[0, 0]
    points = points_of(64, network.strides)
    away = (points.centres - torch.tensor([42.0, 2.0])).norm(dim=1)
    for level in network.strides:
        # a 3 x 3 convolution looks as far as its own fields: nothing changes where it cannot see
        members = points.strides == level
        assert difference[members][away[members].argmin()] > 0
        assert points.centres[members][difference[members].argmax()].sub(torch.tensor([42.0, 2.0])).abs().max() < 32


def test_it_begins_without_any_detection():
    torch.manual_seed(0)
    logits = AnchorFreeDetector(width=4).eval()(torch.rand(2, 3, 64, 64))["logits"]
    assert logits.sigmoid().mean() < 0.05


def test_a_network_without_channels_is_refused():
    with pytest.raises(ConfigurationError, match="model.network.width is 0"):
        AnchorFreeDetector(width=0)
