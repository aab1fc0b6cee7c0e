"""Count the codes of softmax, normalization and division that are not the float64 function rounded to the grid.

    python tests/benchmarks/nonlinear_rounding.py

Prints, for 8-bit codes of normal distribution and several sizes, how many of a million codes differ and by how much at
most. A code can only differ where the real result lies next to a tie. Of a million codes, none by more than one:

    softmax of 10 to 4,096          0 to 14, in steps of 1 / 255; 0 to 47, in steps of 1 / 1020
    log-softmax of 10 to 32,000     0 to 52
    layer norm, RMS norm, L2 norm   5 to 8 of 16 elements, 21 to 42 of 768, 190 of 16,384, less than 1 beyond
    division                        0
"""

import torch

from qat.integer.builder import ProgramBuilder
from qat.integer.interpreter import run
from qat.integer.values import Grid, float32

SCORES, VALUES = Grid(float32(0.1), 128, 0, 255), Grid(float32(0.03), 128, 0, 255)
CODES, ROUNDS = 2**22, 3


def main() -> None:
    """Print one line per operation and size."""
    shares = Grid(float32(1 / 255), 0, 0, 255)
    narrow = Grid(float32(0.25 / 255), 0, 0, 255)
    for count in (10, 64, 197, 1024, 4096):
        for target in (shares, narrow):
            measure(f"softmax of {count}, scale {target.scale:.2g}", count, softmax_of(target))
    for count in (10, 1000, 32000):
        measure(f"log-softmax of {count}", count, log_softmax_of(Grid(float32(0.08), 255, 0, 255)))
    for kind in ({}, {"centered": False}, {"centered": False, "l2": True}):
        name = "L2 norm" if "l2" in kind else "RMS norm" if kind else "layer norm"
        for count in (16, 192, 768, 4096, 2**14, 2**16):
            target = Grid(float32(4 / count**0.5 / 127), 128, 0, 255) if "l2" in kind else VALUES
            measure(f"{name} of {count}", count, norm_of(count, target, kind))
    measure("division", 64, division_of(Grid(float32(0.02), 128, 0, 255)))


def softmax_of(target: Grid):
    """What writes a softmax, and its float64 function of (codes, generator)."""
    return (
        lambda b, x: b.softmax("y", x, 1, target),
        lambda codes: rounded_up(torch.softmax(real(codes), 1) / target.scale, target),
    )


def log_softmax_of(target: Grid):
    """As `softmax_of`; a tie of a negative result is away from zero."""
    return (
        lambda b, x: b.log_softmax("y", x, 1, target),
        lambda codes: clamped((torch.log_softmax(real(codes), 1) / target.scale - 0.5).ceil(), target),
    )


def norm_of(count: int, target: Grid, kind: dict):
    """As `softmax_of`, with gains around 1."""
    generator = torch.Generator().manual_seed(1)
    gain = 1 + torch.randn(count, generator=generator, dtype=torch.float64) / 4
    shift = torch.randn(count, generator=generator, dtype=torch.float64) * target.scale * 10

    def function(codes):
        x = real(codes)
        if "l2" in kind:
            x = x / x.square().sum(1, keepdim=True).sqrt().clamp(min=1e-5)
        else:
            x = x if kind else x - x.mean(1, keepdim=True)
            x = x / (x.square().mean(1, keepdim=True) + 1e-5).sqrt()
        return rounded_up((x * gain + shift) / target.scale, target)

    return lambda b, x: b.normalize("y", x, (1,), target, gain=gain, shift=shift, **kind), function


def division_of(target: Grid):
    """A value by the value of another grid, here one and the same codes in another order."""

    def write(builder, x):
        turned = builder.take("turned", x, 1, list(range(63, -1, -1)))
        return builder.divide("y", x, turned, target)

    def function(codes):
        divisor = real(codes.flip(1))
        quotient = real(codes) / torch.where(divisor == 0, SCORES.scale, divisor) / target.scale
        return clamped(quotient.sign() * (quotient.abs() + 0.5).floor(), target)

    return write, function


def real(codes: torch.Tensor) -> torch.Tensor:
    """The numbers that codes of `SCORES` stand for."""
    return (codes.to(torch.float64) - SCORES.zero_point) * SCORES.scale


def rounded_up(steps: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Codes of a number of steps, ties up."""
    return clamped((steps + 0.5).floor(), grid)


def clamped(steps: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Codes of a whole number of steps."""
    return (steps + grid.zero_point).clamp(grid.quant_min, grid.quant_max).to(torch.int64)


def measure(name: str, count: int, forms) -> None:
    """Print how many of a million codes differ, and by how much."""
    write, function = forms
    builder = ProgramBuilder()
    builder.output("out", write(builder, builder.input("x", (count,), SCORES)))
    program = builder.build()
    differing = total = largest = 0
    generator = torch.Generator().manual_seed(0)
    for _ in range(ROUNDS):
        spread = 5 + 40 * torch.rand(CODES // count, 1, generator=generator)
        codes = (torch.randn(CODES // count, count, generator=generator) * spread + 130).round().clamp(0, 255)
        codes = codes.to(torch.uint8)
        distance = (run(program, {"x": codes}, keep_all=False)["y"].to(torch.int64) - function(codes)).abs()
        differing, total = differing + int(distance.count_nonzero()), total + distance.numel()
        largest = max(largest, int(distance.max()))
    print(f"{name:32} {differing / total * 1e6:8.2f} per million, at most {largest}", flush=True)


if __name__ == "__main__":
    main()
