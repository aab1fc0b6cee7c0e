"""Networks as plain C: bytes of flash and RAM, and the time of one sample, as the compiler is told.

    python tests/benchmarks/bench_c.py                          # ResNet-8 and DS-CNN of MLPerf Tiny
    python tests/benchmarks/bench_c.py --networks resnet8 --widths w4a8

Constants and arena are those that the header states; code is that of x86-64, a microcontroller's is denser. With
`-mgeneral-regs-only` the compiler has no vectors and no floating point, as for a small processor. ONNX Runtime runs its
own file of the same program, in one thread.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy
import torch
from rich.console import Console
from rich.table import Table

import qat
from qat.emitters import c, latency, onnxruntime
from qat.emitters.c.compiler import STRICT, compile_source
from qat.emitters.c.session import numpy_type
from qat.models.ds_cnn import DSCNN
from qat.models.mobilenet_v2 import MobileNetV2
from qat.models.resnet8 import ResNet8
from qat.models.vision_transformer import VisionTransformer

NETWORKS = {
    "resnet8": (ResNet8, (3, 32, 32)),
    "ds_cnn": (DSCNN, (1, 49, 10)),
    "mobilenet_v2": (MobileNetV2, (3, 32, 32)),
    "vit": (VisionTransformer, (3, 32, 32)),
}
FLAGS = (
    ("-O2", "-mgeneral-regs-only"),
    ("-O3", "-mgeneral-regs-only"),
    ("-O2",),
    ("-O3",),
    ("-O3", "-march=native"),
)
RUNS = 15


def code_bytes(path: Path, flags: tuple[str, ...], constants: int) -> int:
    """What the compiler makes of a source, without its constants."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "network.o"
        assert not compile_source(path, compiled, ("-c", *STRICT, *flags))
        result = subprocess.run(["size", compiled], capture_output=True, text=True, check=True)
    text, data = result.stdout.splitlines()[1].split()[:2]
    return int(text) + int(data) - constants


def milliseconds(path: Path, flags: tuple[str, ...]) -> float:
    """Median time of one sample."""
    session = c.open_session(path, flags)
    generator = numpy.random.default_rng(0)
    inputs = [
        generator.integers(port.grid.quant_min, port.grid.quant_max + 1, port.shape).astype(numpy_type(port))
        for port in session.interface.inputs
    ]
    outputs = [numpy.zeros(port.shape, numpy_type(port)) for port in session.interface.outputs]
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        assert session.call(inputs, outputs) == 0
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def onnxruntime_milliseconds(program: qat.IntegerProgram, folder: Path, sample: torch.Tensor) -> float:
    """Median time of one sample in ONNX Runtime."""
    onnxruntime.emit(program, folder / "model.onnx")
    session = onnxruntime.open_session(folder / "model.onnx")
    samples = {"onnxruntime": {program.inputs[0].name: sample}}
    return latency.median_times(onnxruntime, {"onnxruntime": session}, samples, RUNS)["onnxruntime"]


def main() -> None:
    """Print a table, a row for each network and width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", choices=list(NETWORKS), default=["resnet8", "ds_cnn"])
    parser.add_argument("--widths", nargs="*", default=["w8a8", "w4a8", "w2a2"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table()
    columns = ["network", "bits x weights / 8", "constants", "code -O2", "arena"]
    for column in (*columns, *(f"ms {' '.join(flags)}" for flags in FLAGS), "ms ONNX Runtime"):
        table.add_column(column, justify="right")
    for name in arguments.networks:
        for widths in arguments.widths:
            torch.manual_seed(0)
            make, shape = NETWORKS[name]
            program = qat.quantize(make().eval(), [torch.randn(8, *shape) for _ in range(2)], quant=widths)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.c"
                c.emit(program, path)
                footprint = c.footprint(path)
                weights = sum((layer.weight_count * (layer.weight_bits or 0) + 7) // 8 for layer in program.layers)
                numbers = [weights, footprint.constants, code_bytes(path, ("-O2",), footprint.constants)]
                numbers.append(footprint.arena)
                times = [milliseconds(path, flags) for flags in FLAGS]
                times.append(onnxruntime_milliseconds(program, Path(folder), torch.randn(1, *shape)))
            table.add_row(f"{name} {widths}", *(f"{number:,}" for number in numbers), *(f"{t:.2f}" for t in times))
    Console(width=180).print(table)


if __name__ == "__main__":
    main()
