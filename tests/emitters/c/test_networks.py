"""Whole networks as C: every code of the interpreter, with sanitizers watching, at every width."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import qat
from qat.data import DigitsDataModule
from qat.emitters import c
from qat.emitters.c.trial import run_in_process
from qat.models import DigitsCNN
from qat.models.ds_cnn import DSCNN
from qat.models.vision_transformer import VisionTransformer

WATCHED = ("-O2", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture
def assert_same_codes(tmp_path, monkeypatch):
    """(program, inputs) -> path of its source, which gives every code of the interpreter on these inputs as well."""
    monkeypatch.setattr(c, "OPTIMIZED", WATCHED)

    def check(program, inputs):
        path = tmp_path / "network.c"
        c.emit(program, path)
        actual = run_in_process(path, {program.inputs[0].name: inputs}, WATCHED)
        expected = program(inputs)
        expected = expected if isinstance(expected, torch.Tensor) else next(iter(expected.values()))
        assert torch.equal(actual[program.outputs[0].name], expected)
        assert c.float_ops(path) == []
        return path

    return check


def test_digits_that_a_trained_network_tells_apart(assert_same_codes):
    torch.manual_seed(0)
    data = DigitsDataModule()
    data.setup()
    (images, labels), (held_out, expected) = (vars(data.splits[name]).values() for name in ("train", "test"))
    network = DigitsCNN(width=8)
    handle = qat.prepare(network, images[:2], "w4a8")
    optimizer = torch.optim.Adam([*network.parameters(), *handle.parameters()], 0.01)
    for rows in torch.randperm(len(images)).split(64) * 6:
        loss = F.cross_entropy(network(images[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    program = qat.convert(network.eval())
    path = assert_same_codes(program, held_out)
    (scores,) = run_in_process(path, {program.inputs[0].name: held_out}).values()
    assert (scores.argmax(1) == expected).float().mean() > 0.85


class ResidualBlock(nn.Module):
    """Two convolutions with batch norms, a shortcut that narrows the image, and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1, self.bn1 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.shortcut = nn.Conv2d(8, 16, 1, stride=2)
        self.linear = nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))
        return self.linear(F.adaptive_avg_pool2d(y, 1).flatten(1))


@pytest.mark.parametrize("quant", ["w8a8", "w6a7", "w5a6", "w4a8", "w3a4", "w2a2"])
def test_a_residual_block_at_every_width(assert_same_codes, quant):
    torch.manual_seed(1)
    network = ResidualBlock().eval()
    images = torch.randn(24, 3, 12, 12)
    assert_same_codes(qat.quantize(network, [images[:8], images[8:16]], quant=quant), images)


@pytest.mark.parametrize("quant", ["w8a8", "w4a8"])
def test_depthwise_blocks(assert_same_codes, quant):
    torch.manual_seed(2)
    network = DSCNN(channels=16).eval()
    sounds = torch.randn(6, 1, 49, 10)
    path = assert_same_codes(qat.quantize(network, [sounds], quant=quant), sounds)
    assert "depthwise" in path.read_text()


@pytest.mark.parametrize("quant", ["w8a8", "w4a8"])
def test_a_small_transformer(assert_same_codes, quant):
    torch.manual_seed(3)
    network = VisionTransformer(image_size=8, patch_size=4, width=16, heads=2, hidden=32, depth=2).eval()
    images = torch.randn(12, 3, 8, 8)
    path = assert_same_codes(qat.quantize(network, [images], quant=quant), images)
    kinds = {operation.kind for operation in c.operations(path)}
    assert {"Softmax", "MatMul", "Normalize", "Table"} <= kinds


def test_a_recurrence(assert_same_codes):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.recurrent, self.linear = nn.GRU(6, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x):
            return self.linear(self.recurrent(x)[0][:, -1])

    torch.manual_seed(4)
    sequences = torch.randn(10, 7, 6)
    assert_same_codes(qat.quantize(Network().eval(), [sequences], quant="w8a8"), sequences)
