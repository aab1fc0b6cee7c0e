"""What each option of post-training quantization is worth: ResNet-20 on CIFAR-10 from a float checkpoint.

    python tests/benchmarks/post_training_options.py --data ../shared/data/cifar10 \\
        --checkpoint ../shared/data/resnet20_cifar10_float.pt [--device cuda] [--images 2000] [--quant w4a4 w8a8]

Prints one row for each width and choice of options: top-1 over the first IMAGES images of the test split (all of them
without --images) of the eval forward, which has the integer program's codes; how much of the variance of the float
logits is lost; and the seconds that quantization took. Calibration takes images of the training split, without
augmentation; nothing was chosen by the test split. One thread, unless --threads says otherwise.
"""

import argparse
import copy
import dataclasses
import sys
import time

import torch
from torch import Tensor, nn

import qat
from qat.data import CIFAR10DataModule
from qat.models import ResNet20
from qat.post_training import calibrate

WIDTHS = ("w8a8", "w4a8", "w4a4", "w3a8", "w3a3", "w2a8", "w2a2")

LEARNED = qat.AdaRound()

#: What is compared, by the name in the table.
OPTIONS = {
    "ranges alone": qat.PostTraining(),
    "bias correction": qat.PostTraining(bias_correction=True),
    "equalized": qat.PostTraining(equalize=True),
    "AdaRound": qat.PostTraining(adaround=LEARNED),
    "AdaRound, bias correction": qat.PostTraining(adaround=LEARNED, bias_correction=True),
    "all three": qat.PostTraining(equalize=True, adaround=LEARNED, bias_correction=True),
}

#: The same with one scale for a whole weight, which is what equalization is for.
PER_TENSOR = {
    f"one scale a weight, {name}": options for name, options in OPTIONS.items() if name in ("ranges alone", "equalized")
}

#: Other statistics for ranges, of activations and weights.
STATISTICS = {f"{observer} ranges": observer for observer in ("minmax", "moving_average", "percentile", "histogram")}


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of CIFAR-10's parquet files")
    parser.add_argument("--checkpoint", required=True, help="state dict of the float network")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, help="how many test images; all of them if left out")
    parser.add_argument("--batches", type=int, default=16, help="of 128 images of the training split each")
    parser.add_argument("--quant", nargs="+", default=WIDTHS, choices=WIDTHS)
    parser.add_argument("--only", nargs="+", help="names of rows")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    data = CIFAR10DataModule(dir=given.data, batch_size=128, seed=0, split_seed=0, val_share=0.1, augment=False)
    data.setup("fit")
    batches = [images.to(device) for (images, _), _ in zip(data.train_dataloader(), range(given.batches), strict=False)]
    data.setup("test")
    test = first_images(data.test_dataloader(), given.images, device)
    network = ResNet20(num_classes=10)
    network.load_state_dict(torch.load(given.checkpoint, weights_only=True))
    network.to(device).eval()
    real = logits_of(network, test)
    print(f"{sum(len(images) for images, _ in test)} test images on {device}, torch {torch.__version__}")
    print(f"float: {top_1(real, test):.2f} %\n")
    print("| bits | options | top-1 | lost variance of logits | seconds |\n|---|---|---|---|---|")
    for quant in given.quant:
        for name, config, options in rows(quant):
            if given.only and name not in given.only:
                continue
            began = time.perf_counter()
            quantized = copy.deepcopy(network)
            handle = calibrate(quantized, batches, config, options=options)
            seconds = time.perf_counter() - began
            logits = logits_of(quantized, test)
            handle.remove()
            lost = ((logits - real).square().sum() / (real - real.mean(0)).square().sum()).item()
            print(f"| {quant} | {name} | {top_1(logits, test):.2f} | {lost:.4f} | {seconds:.0f} |", flush=True)


def rows(quant: str):
    """(name, config, options) of every row of one width."""
    config = qat.QuantConfig.parse(quant)
    one_scale = dataclasses.replace(config, weight=dataclasses.replace(config.weight, granularity="per_tensor"))
    for name, options in OPTIONS.items():
        yield name, config, options
    for name, options in PER_TENSOR.items():
        yield name, one_scale, options
    for name, observer in STATISTICS.items():
        specs = {
            each: dataclasses.replace(getattr(config, each), observer=observer) for each in ("weight", "activation")
        }
        yield name, dataclasses.replace(config, **specs), qat.PostTraining()


def first_images(loader, count: int | None, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """The first `count` images with their labels, in batches."""
    taken, left = [], count
    for images, labels in loader:
        images, labels = images[:left], labels[:left]
        taken.append((images.to(device), labels.to(device)))
        left = None if left is None else left - len(images)
        if left == 0:
            break
    return taken


@torch.no_grad()
def logits_of(network: nn.Module, test: list[tuple[Tensor, Tensor]]) -> Tensor:
    """(images, classes)."""
    return torch.cat([network(images) for images, _ in test])


def top_1(logits: Tensor, test: list[tuple[Tensor, Tensor]]) -> float:
    """Percentage of images whose largest logit is that of their label."""
    labels = torch.cat([labels for _, labels in test])
    return 100 * (logits.argmax(1) == labels).double().mean().item()


if __name__ == "__main__":
    main(sys.argv[1:])
