"""Integer kernels on a GPU and on the processor: how many codes differ, by operation; 0 for all.

python tests/benchmarks/device_kernels.py
"""

import torch
from every_operation import program_of_every_operation

from qat.integer.interpreter import quantize_inputs, run
from qat.integer.values import Grid, float32


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for source in (Grid(float32(0.02), 128, 0, 255), Grid(float32(0.0001), 0, -32768, 32767)):
        program = program_of_every_operation(source)
        generator = torch.Generator().manual_seed(0)
        inputs = {}
        for edge in program.inputs:
            value = program.value(edge.value)
            shape = (64, *value.shape)
            real = isinstance(value.grid, Grid)
            inputs[edge.name] = (
                torch.randn(shape, generator=generator)
                if real
                else torch.randint(0, value.grid.count, shape, generator=generator)
            )
        codes = quantize_inputs(program, inputs)
        here = run(program, codes)
        there = run(program, {name: tensor.to(device) for name, tensor in codes.items()})
        for operation in program.operations:
            name = operation.output
            differing = int((here[name] != there[name].cpu()).sum())
            print(f"{device} {type(operation).__name__} {name!r}: {differing} of {here[name].numel()}")


if __name__ == "__main__":
    main()
