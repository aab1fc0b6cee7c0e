"""A program as a torch module: differing codes, 0 for all, and milliseconds, on the GPU where there is one.

    python tests/benchmarks/bench_module.py

First a program of every kind of operation, then a ResNet-20 and a vision transformer at w8a8: run by the module in
eager code, as exported graph, and compiled, each beside the interpreter.
"""

import argparse
import time
from collections.abc import Callable

import torch
from every_operation import program_of_every_operation
from torch import Tensor
from torch.utils._pytree import tree_leaves

import qat
from qat.integer.program import IntegerProgram
from qat.integer.values import Grid, float32
from qat.models import ResNet20, VisionTransformer

BATCH, REPEATS = 64, 10
WAYS = ["eager", "exported", "compiled"]
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
    """How many numbers of the outputs differ from the interpreter's, over batches of 1, 3 and `BATCH`."""
    count = 0
    for batch in (3, 1, BATCH):
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS, help="how to run them (default: all)")
    ways = parser.parse_args().ways
    torch.manual_seed(0)
    images = torch.randn(32, 3, 32, 32)
    programs = {
        "every operation": program_of_every_operation(Grid(float32(0.02), 128, 0, 255)),
        "ResNet-20": qat.quantize(ResNet20().eval(), [images]),
        "vision transformer": qat.quantize(VisionTransformer().eval(), [images]),
    }
    processor = torch.cuda.get_device_name() if DEVICE == "cuda" else "processor"
    print(f"torch {torch.__version__}, {processor}, {torch.get_num_threads()} threads, batch of {BATCH}")
    for name, program in programs.items():
        module = program.to_module().to(DEVICE)
        inputs = [tensor.to(DEVICE) for tensor in inputs_of(program, BATCH).values()]
        for way in ways:
            start = time.perf_counter()
            run = made(module, way, inputs)
            wrong = differing(program, run)
            first = time.perf_counter() - start
            least = milliseconds(run, inputs)
            print(f"{name}, {way}: {wrong} differ, {least:.2f} ms, ready in {first:.0f} s", flush=True)


def made(module: torch.nn.Module, way: str, inputs: list[Tensor]) -> Callable:
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
