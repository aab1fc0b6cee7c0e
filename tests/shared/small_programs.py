"""Programs of a few operations, that every emitter is tried on."""

import math

import torch

from qat.integer.builder import ProgramBuilder
from qat.integer.values import Weight, WeightGrid


def small_program(write, shapes, grids):
    """The program that `write(builder, *inputs)` makes of inputs of these shapes and grids, its outputs as a dict.

    `write` gives the name of the value that is the output, or of several.
    """
    builder = ProgramBuilder()
    edges = enumerate(zip(shapes, grids, strict=True))
    sources = [builder.input(f"x{index}", shape, grid) for index, (shape, grid) in edges]
    results = write(builder, *sources)
    for index, name in enumerate((results,) if isinstance(results, str) else results):
        builder.output(f"y{index}", name)
    return builder.build("dict")


def random_weight(shape, bits=8, step=1, offset=0, seed=0):
    """Weights that keep the spread of their input, so that results fill the output's grid."""
    generator = torch.Generator().manual_seed(seed)
    half = 2 ** (bits - 1)
    codes = torch.randint(-half, half, shape, generator=generator).to(torch.int8)
    spread = math.sqrt(math.prod(shape[1:])) * half * step * 0.5
    scale = (0.5 + torch.rand(shape[0], generator=generator)) / spread
    return Weight(codes, WeightGrid(bits, step, offset), scale.to(torch.float32))
