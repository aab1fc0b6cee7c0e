"""What TensorRT-RTX makes of the QDQ files of networks with random weights, for two GPUs that are not there.

    python tests/benchmarks/tensorrt_engines.py

A line for each network and width: bytes; operations that the file computes in real numbers; codes of those, and of
everything else, that are not the program's, of random inputs; products and additions on int8, of how many, and seconds
that the engine took to build.
"""

import tempfile
import time
from pathlib import Path

import torch

import qat
from qat.emitters.onnxruntime.islands import IslandCodes
from qat.emitters.samples import random_inputs
from qat.emitters.tensorrt import LayerComparison, islands_in
from qat.emitters.tensorrt.conformance import COMPUTE_CAPABILITIES, INT8, node_types
from qat.models.digits_cnn import DigitsCNN
from qat.models.mobilenet_v2 import MobileNetV2
from qat.models.resnet8 import ResNet8
from qat.models.resnet20 import ResNet20
from qat.models.vision_transformer import VisionTransformer

NETWORKS = {
    DigitsCNN: (1, 8, 8),
    ResNet8: (3, 32, 32),
    ResNet20: (3, 32, 32),
    MobileNetV2: (3, 32, 32),
    VisionTransformer: (3, 32, 32),
}
SAMPLES = 32


def main() -> None:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        for make, shape in NETWORKS.items():
            for quant in ("w8a8", "w4a8", "w4a4"):
                measure(make(), shape, quant, Path(folder) / "model.onnx")


def measure(network: torch.nn.Module, shape: tuple[int, ...], quant: str, path: Path) -> None:
    """Print the line of one network at one width."""
    qat.prepare(network, torch.randn(4, *shape), quant=quant, target="tensorrt")
    network(torch.randn(16, *shape))
    program = qat.convert(network.eval())
    qat.export(program, path, runtime="tensorrt")
    built = []
    for compute_capability in COMPUTE_CAPABILITIES:
        start = time.perf_counter()
        found = node_types(path, compute_capability)
        int8 = sum(node.datatype == INT8 for node in found)
        seconds = time.perf_counter() - start
        built.append(f"{compute_capability} {int8} of {len(found)} on int8, {seconds:.1f} s")
    reals = islands_in(program, path)
    real, whole = IslandCodes(), IslandCodes()
    (inputs,) = random_inputs(program, sizes=(SAMPLES,), seed=1)
    for name, codes in LayerComparison(program, path)(inputs).items():
        real, whole = (real + codes, whole) if name in reals else (real, whole + codes)
    print(
        f"{type(network).__name__} {quant}: {path.stat().st_size:,} bytes, {len(reals)} in real numbers "
        f"({real.differing} of {real.total} codes), else {whole.differing} of {whole.total} codes; {'; '.join(built)}"
    )


if __name__ == "__main__":
    main()
