"""How many output codes a fake-quantized forward in plain float32 gets wrong, and how many the eval forward does.

    python tests/benchmarks/eval_exactness.py

ResNet-20 with random weights, quantized from 4 batches of random images, 512 others compared with the interpreter, on
the CPU and on a GPU where there is one. Compiled code multiplies and adds in plain float32; eager eval code sums
products of codes.
"""

import torch

import qat
from qat.models import ResNet20
from qat.post_training import calibrate
from qat.verification import codes_of

CALIBRATION_BATCHES, SAMPLES, BATCH_SIZE = 4, 512, 128


def main() -> None:
    """Print one line for each width and forward."""
    torch.set_num_threads(2)
    for quant in ("w8a8", "w4a4"):
        torch.manual_seed(0)
        network = ResNet20().eval()
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
                    f"{quant} {device:4} {name:8} {int(distance.count_nonzero()):5} of {expected.numel()} output codes "
                    f"differ from the integers, by at most {int(distance.max())}"
                )


if __name__ == "__main__":
    main()
