"""The networks of the recipes come out as integers at every width that their tables show."""

import pytest
import torch

import qat
from qat.models import DSCNN, MobileNetV2, ResNet8, VisionTransformer

#: Small images and narrow layers: the operations, and how they follow upon each other, are those of the recipes.
NETWORKS = {
    "resnet8": (ResNet8, (3, 8, 8)),
    "ds_cnn": (DSCNN, (1, 49, 10)),
    "mobilenet_v2": (lambda: MobileNetV2(width=0.25), (3, 8, 8)),
    "vit": (lambda: VisionTransformer(image_size=8, width=16, depth=1, hidden=32), (3, 8, 8)),
}


@pytest.mark.parametrize("quant", ["w8a8", "w4a8", "w4a4", "w2a2"])
@pytest.mark.parametrize("name", NETWORKS)
def test_training_ends_in_an_equal_integer_file(name, quant, tmp_path):
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    network = make()
    qat.prepare(network, torch.randn(2, *shape), quant)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        network(torch.randn(8, *shape)).square().mean().backward()
        optimizer.step()
    program = qat.convert(network.eval())
    qat.export(program, tmp_path / "model.onnx")
    report = qat.verify(program, tmp_path / "model.onnx", [torch.randn(16, *shape)], module=network, repeats=0)
    assert report.ok and not report.mismatches["fake_quant"].differing
