"""Post-training quantization of the CIFAR-10 ResNet-20 checkpoint: integer top-1 on the test split.

    python tests/benchmarks/post_training_cifar10.py [--data ../shared/data/cifar10] [--checkpoint PATH] [--batches 16]
"""

import argparse
import itertools

import torch

import qat
from qat.data import CIFAR10DataModule
from qat.models import ResNet20


def accuracy(network, loader) -> float:
    """Share of samples whose largest output is the target's."""
    hits = total = 0
    with torch.no_grad():
        for images, targets in loader:
            hits += int((network(images).argmax(1) == targets).sum())
            total += len(targets)
    return hits / total


def main() -> None:
    """Print one line for each width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/cifar10")
    parser.add_argument("--checkpoint", default="../shared/data/resnet20_cifar10_float.pt")
    parser.add_argument("--batches", type=int, default=16)
    arguments = parser.parse_args()
    data = CIFAR10DataModule(dir=arguments.data)
    data.setup("fit")
    data.setup("test")
    state = torch.load(arguments.checkpoint, weights_only=True)
    for quant in ("w8a8", "w4a4"):
        network = ResNet20(num_classes=10)
        network.load_state_dict(state)
        program = qat.quantize(network.eval(), itertools.islice(data.train_dataloader(), arguments.batches), quant)
        print(f"{quant} post-training, integer top-1: {accuracy(program, data.test_dataloader()):.2%}")


if __name__ == "__main__":
    main()
