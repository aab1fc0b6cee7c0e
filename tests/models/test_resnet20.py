import torch

from qat.models import ResNet20
from qat.models.resnet20 import BasicBlock


def test_the_keys_are_those_of_the_public_checkpoints():
    names = {"conv1", "bn1", "linear"}
    names |= {
        f"layer{stage}.{block}.{part}"
        for stage in (1, 2, 3)
        for block in (0, 1, 2)
        for part in ("conv1", "bn1", "conv2", "bn2")
    }
    assert {key.rpartition(".")[0] for key in ResNet20().state_dict()} == names


def test_the_size_is_that_of_the_paper():
    assert sum(parameter.numel() for parameter in ResNet20().parameters()) == 269_722


def test_a_batch_becomes_logits():
    assert ResNet20(num_classes=7).eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_the_shortcut_takes_every_other_pixel_and_pads_channels_on_both_sides():
    block = BasicBlock(2, 4, stride=2).eval()
    x = torch.arange(8.0).view(1, 2, 2, 2)
    torch.nn.init.zeros_(block.conv2.weight)
    assert block(x).flatten().tolist() == [0, 0, 4, 0]  # zeros, channel 0 at (0, 0), channel 1 at (0, 0), zeros
