"""One training step, quantized over float, side by side.

    python tests/benchmarks/bench_training_step.py [--rounds 15] [--threads 2]

On a CPU: ResNet-20 on CIFAR-sized images, batch 128, eager. On a GPU: ResNet-18 at 224 x 224, batch 256, bf16 autocast,
eager and compiled. Every variant runs once in each round, so that noise of the machine meets all alike; printed are the
median of the step and the median, over rounds, of its ratio to float.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qat
from qat.models.resnet20 import ResNet20
from qat.schedule import QuantState


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al., arXiv:1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18 for 224 x 224 images (arXiv:1512.03385, table 1)."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        widths = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
        self.layers = nn.Sequential(*(nn.Sequential(BasicBlock(i, o, s), BasicBlock(o, o, 1)) for i, o, s in widths))
        self.fc = nn.Linear(512, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(self.layers(x).mean((2, 3)))


def make_step(network: nn.Module, x: Tensor, y: Tensor, extra=(), compiled: bool = False) -> Callable[[], None]:
    """A whole training step: forward, loss, backward, SGD."""
    optimizer = torch.optim.SGD([*network.parameters(), *extra], 1e-3, momentum=0.9)
    forward = torch.compile(network) if compiled else network

    def step() -> None:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
            loss = F.cross_entropy(forward(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if x.is_cuda:
            torch.cuda.synchronize()

    return step


def variants(make: Callable[[], nn.Module], x: Tensor, y: Tensor, compiled: bool) -> dict[str, Callable[[], None]]:
    """Steps by name; the first is float."""
    steps = {}

    def add(name: str, quant: str | None = None, state: QuantState | None = None, remove: bool = False) -> None:
        torch.manual_seed(0)
        network = make().to(x.device)
        extra = []
        if quant is not None:
            handle = qat.prepare(network, x[:2], quant)
            make_step(network, x, y)()  # observers and step sizes start
            extra = list(handle.parameters())
            if state is not None:
                handle.set_state(state)
            if remove:
                handle.remove()
        steps[name] = make_step(network, x, y, extra)

    frozen = QuantState(observe=False, freeze_batch_norm=True)
    add("float")
    add("installed, not started", "w8a8", QuantState(observe=False, fake_quantize=False))
    add("w8a8, observing", "w8a8")
    add("w8a8, observers and batch norm frozen", "w8a8", frozen)
    add("w4a4, learning", "w4a4")
    add("w4a4, observers and batch norm frozen", "w4a4", frozen)
    add("finished (removed)", "w8a8", remove=True)
    if compiled:
        for name, quant in (("float, compiled", None), ("w8a8, compiled", "w8a8"), ("w4a4, compiled", "w4a4")):
            network = make().to(x.device)
            if quant is not None:
                qat.prepare(network, x[:2], quant)
                make_step(network, x, y)()
            steps[name] = make_step(network, x, y, compiled=True)
    return steps


def measure(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every step in every round."""
    for step in steps.values():
        step()
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if torch.cuda.is_available():
        title = torch.cuda.get_device_name()
        make, x, classes = ResNet18, torch.randn(256, 3, 224, 224, device="cuda"), 1000
    else:
        title = f"CPU, {arguments.threads} threads"
        make, x, classes = ResNet20, torch.randn(128, 3, 32, 32), 10
    y = torch.randint(0, classes, (len(x),), device=x.device)
    seconds = measure(variants(make, x, y, compiled=x.is_cuda), arguments.rounds)
    print(f"{make.__name__}, batch {len(x)}, {tuple(x.shape[1:])}, {title}, torch {torch.__version__}")
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, seconds["float"], strict=True))
        print(f"{name:40s} {statistics.median(times) * 1e3:9.1f} ms   {ratio:5.2f} x float")


if __name__ == "__main__":
    main()
