"""How many output codes a fake-quantized forward in plain float32 gets wrong, and how many the eval forward does.

    python tests/benchmarks/eval_exactness.py

ResNet-20 and a small vision transformer with random weights, quantized from 4 batches of random images, 512 others
compared with the interpreter, on the CPU and on a GPU where there is one. Compiled code multiplies and adds in plain
float32; eager eval code sums products of codes, looks results up, and runs the integer kernels of softmax and norms.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qat
from qat.models import ResNet20
from qat.post_training import calibrate
from qat.verification import codes_of

CALIBRATION_BATCHES, SAMPLES, BATCH_SIZE = 4, 512, 128


class Block(nn.Module):
    """Attention of 4 heads and two linear layers, each behind a layer norm."""

    def __init__(self, width: int):
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.first, self.second = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, places, width)."""
        heads = [y.reshape(*y.shape[:2], 4, -1).transpose(1, 2) for y in self.qkv(self.before(x)).chunk(3, -1)]
        x = x + self.out(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
        return x + self.second(F.gelu(self.first(self.between(x))))


class Transformer(nn.Module):
    """Patches of 4 pixels, two blocks, the mean of all places, 10 classes."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.position = nn.Parameter(0.02 * torch.randn(1, 64, width))
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.norm, self.classifier = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, 3, 32, 32) -> (N, 10)."""
        places = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.classifier(self.norm(self.blocks(places)).mean(1))


def main() -> None:
    """Print one line for each network, width and forward."""
    torch.set_num_threads(2)
    for kind, quant in ((kind, quant) for kind in (ResNet20, Transformer) for quant in ("w8a8", "w4a4")):
        torch.manual_seed(0)
        network = kind().eval()
        calibrate(network, [torch.randn(BATCH_SIZE, 3, 32, 32) for _ in range(CALIBRATION_BATCHES)], quant)
        program = qat.convert(network)
        grid = program.value(program.outputs[0].value).grid
        images = torch.randn(SAMPLES, 3, 32, 32).split(BATCH_SIZE)
        expected = torch.cat([codes_of(program(batch), grid) for batch in images])
        forwards = {"eval": network, "float32": torch.compile(network, backend="eager")}
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            network.to(device)
            for name, forward in forwards.items():
                with torch.no_grad():
                    codes = torch.cat([codes_of(forward(batch.to(device)), grid) for batch in images])
                distance = (codes - expected).abs()
                print(
                    f"{kind.__name__:11} {quant} {device:4} {name:8} {int(distance.count_nonzero()):5} of "
                    f"{expected.numel()} output codes differ from the integers, by at most {int(distance.max())}"
                )


if __name__ == "__main__":
    main()
