"""A program as a torch module: differing codes, 0 for all, and milliseconds, on the GPU where there is one.

    python tests/benchmarks/bench_module.py [--ways float eager exported compiled] [--batch 64] [--quant w8a8]

A program of every kind of operation, and networks with random weights: run by the module in eager code, as exported
graph, and compiled, each beside the interpreter; and the float network, in eager code.
"""

import argparse
import time
from collections.abc import Callable

import torch
from every_operation import program_of_every_operation
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import qat
from qat.integer.program import IntegerProgram
from qat.integer.values import Grid, float32
from qat.models import DSCNN, DigitsCNN, MobileNetV2, ResNet20, VisionTransformer

REPEATS = 20
WAYS = ["float", "eager", "exported", "compiled"]
#: Class -> shape of a sample.
NETWORKS = {
    DigitsCNN: (1, 8, 8),
    ResNet20: (3, 32, 32),
    MobileNetV2: (3, 32, 32),
    VisionTransformer: (3, 32, 32),
    DSCNN: (1, 49, 10),
}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def inputs_of(program: IntegerProgram, batch: int) -> dict[str, Tensor]:
    """Inputs by name, real ones of a normal distribution."""
    generator = torch.Generator().manual_seed(batch)
    found = {}
    for edge in program.inputs:
        value = program.value(edge.value)
        shape = (batch, *value.shape)
        if isinstance(value.grid, Grid):
            found[edge.name] = torch.randn(shape, generator=generator)
        else:
            found[edge.name] = torch.randint(0, value.grid.count, shape, generator=generator)
    return found


def differing(program: IntegerProgram, run: Callable) -> int:
    """How many numbers of the outputs differ from the interpreter's, over batches of 3, 1 and 16."""
    count = 0
    for batch in (3, 1, 16):
        inputs = inputs_of(program, batch)
        outputs = run(*(tensor.to(DEVICE) for tensor in inputs.values()))
        for wanted, found in zip(tree_leaves(program(inputs)), tree_leaves(outputs), strict=True):
            count += int((wanted != found.cpu()).sum())
    return count


def milliseconds(run: Callable, inputs: list[Tensor]) -> float:
    """The least time of a run."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run(*inputs)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1000)
    return min(times)


def main() -> None:
    """Print a line for each way to run each program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS, help="how to run them (default: all)")
    parser.add_argument("--batch", type=int, default=64, help="samples of the runs that are timed (default: 64)")
    parser.add_argument("--quant", default="w8a8", help="preset of the networks (default: w8a8)")
    options = parser.parse_args()
    torch.manual_seed(0)
    processor = torch.cuda.get_device_name() if DEVICE == "cuda" else "processor"
    print(f"torch {torch.__version__}, {processor}, {torch.get_num_threads()} threads, batch of {options.batch}")
    every = program_of_every_operation(Grid(float32(0.02), 128, 0, 255))
    measure("every operation", every, None, [way for way in options.ways if way != "float"], options.batch)
    for kind, shape in NETWORKS.items():
        network = kind().eval()
        program = qat.quantize(network, [torch.randn(32, *shape)], options.quant)
        measure(f"{kind.__name__} {options.quant}", program, network.to(DEVICE), options.ways, options.batch)


@torch.no_grad()
def measure(name: str, program: IntegerProgram, network: nn.Module | None, ways: list[str], batch: int) -> None:
    """Print a line for each way. network: the float one."""
    module = program.to_module().to(DEVICE)
    inputs = [tensor.to(DEVICE) for tensor in inputs_of(program, batch).values()]
    for way in ways:
        if way == "float":
            print(f"{name}, float: {milliseconds(network, inputs):.2f} ms", flush=True)
            continue
        start = time.perf_counter()
        run = made(module, way, inputs)
        wrong = differing(program, run)
        first = time.perf_counter() - start
        print(f"{name}, {way}: {wrong} differ, {milliseconds(run, inputs):.2f} ms, ready in {first:.0f} s", flush=True)


def made(module: nn.Module, way: str, inputs: list[Tensor]) -> Callable:
    """The module, its exported graph, or its compiled code."""
    match way:
        case "exported":
            batch = torch.export.Dim("batch")
            shapes = tuple({0: batch} for _ in inputs)
            return torch.export.export(module, tuple(inputs), dynamic_shapes=shapes).module()
        case "compiled":
            return torch.compile(module, fullgraph=True, dynamic=True)
    return module


if __name__ == "__main__":
    main()
