import torch

from qat.models import DSCNN


def test_the_size_is_that_of_the_benchmark():
    network = DSCNN()
    trained = sum(parameter.numel() for parameter in network.parameters())
    running = sum(buffer.numel() for name, buffer in network.named_buffers() if "running" in name)
    assert (trained, trained + running) == (23_756, 24_908)  # Keras counts running statistics as parameters


def test_shapes_are_those_of_the_benchmark():
    network = DSCNN(num_classes=7).eval()
    features = torch.zeros(2, 1, 49, 10)
    assert network.stem(features).shape == (2, 64, 25, 5)
    assert network(features).shape == (2, 7)


def test_only_training_drops_values():
    network = DSCNN(dropout=0.5)
    features = torch.randn(4, 1, 49, 10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network.eval()(features), network(features))
    assert not torch.equal(network.train().stem(features), network.stem(features))
