"""A small network with any body, trained a little, and the check that all three ways to run it agree."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qat

torch.set_num_threads(1)


class Network(nn.Module):
    """A convolution in front, `body` in the middle, a classifier behind."""

    def __init__(self, body, channels: int, features: int, parts: dict | None = None):
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.parts = nn.ModuleDict(parts or {})
        self.last = nn.Linear(features, 5)
        self.body = body
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, channels)[:, None, None])
        self.position = nn.Parameter(torch.linspace(-0.2, 0.3, channels)[None, :, None, None])

    def forward(self, x):
        return self.last(self.body(self, F.relu(self.first(x))).flatten(1))


def trained(network, quant, example, steps=2, target="onnxruntime"):
    """Prepared, and observed and trained a little on noise."""
    handle = qat.prepare(network, example[:2], quant, target)
    optimizer = torch.optim.SGD([*network.parameters(), *handle.parameters()], 0.01)
    for _ in range(steps):
        loss = sum(output.square().mean() for output in outputs_of(network(example)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    return handle


def outputs_of(result):
    if isinstance(result, torch.Tensor):
        return [result]
    return list(result.values()) if isinstance(result, dict) else list(result)


def images_of(channels=3):
    """40 images of noise."""
    return torch.randn(40, channels, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def trained_network():
    """(body, features, parts, quant, target) -> (a trained network in eval mode, images)."""

    def make(body, features, parts, quant="w8a8", target=None):
        torch.manual_seed(1)
        network = Network(body, 8, features, copy.deepcopy(parts))
        trained(network, quant, images_of(), target=target)
        return network, images_of()

    return make


@pytest.fixture
def assert_agreement(trained_network, tmp_path):
    """(body, features, parts, quant): eval forward, interpreter and ONNX Runtime give the same codes."""

    def check(body, features, parts, quant):
        network, images = trained_network(body, features, parts, quant)
        program = qat.convert(network)
        with torch.no_grad():
            assert torch.equal(network(images), program(images))
        qat.export(program, tmp_path / "model.onnx")  # refuses a file that is not integer or not equal
        report = qat.verify(program, tmp_path / "model.onnx", [images], module=network, repeats=0)
        assert report.float_ops == ()
        assert report.mismatches["onnxruntime"].differing == 0
        assert report.mismatches["fake_quant"].differing == 0
        return program

    return check
