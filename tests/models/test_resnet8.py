import torch

from qat.models import ResNet8
from qat.models.resnet8 import BasicBlock


def test_the_size_is_that_of_the_benchmark():
    network = ResNet8()
    trained = sum(parameter.numel() for parameter in network.parameters())
    running = sum(buffer.numel() for name, buffer in network.named_buffers() if "running" in name)
    assert (trained, trained + running) == (78_186, 78_666)  # Keras counts running statistics as parameters


def test_a_batch_becomes_logits():
    assert ResNet8(num_classes=7).eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_the_shortcut_of_a_block_that_narrows_is_a_convolution_without_norm():
    block = BasicBlock(1, 1, stride=2).eval()
    torch.nn.init.zeros_(block.conv2.weight), torch.nn.init.zeros_(block.conv2.bias)
    torch.nn.init.constant_(block.shortcut.weight, 3.0), torch.nn.init.constant_(block.shortcut.bias, 1.0)
    assert block(torch.arange(16.0).view(1, 1, 4, 4)).flatten().tolist() == [1, 7, 25, 31]  # 3 * (0, 2, 8, 10) + 1


def test_a_block_of_one_shape_adds_its_input():
    block = BasicBlock(2, 2, stride=1).eval()
    torch.nn.init.zeros_(block.conv2.weight), torch.nn.init.zeros_(block.conv2.bias)
    x = torch.tensor([[-1.0, 2.0], [3.0, -4.0]]).view(1, 2, 2, 1)
    assert block(x).flatten().tolist() == [0, 2, 3, 0]
