"""Quotients and square roots of int64 numbers, by the remainders that LiteRT has (`long_division.py`)."""

import numpy

from qat.emitters.litert.forms.integers import Integers
from qat.emitters.litert.long_division import Digits, RootSteps
from qat.integer.kernels.normalize import ROOT_ESTIMATES


def divided(nodes: Integers, numerator: int, divisor: int, digits: Digits, zeros: int = 0) -> int:
    """`floor((numerator << zeros) / divisor)` of int64 tensors, numbers of at least 0 and of at least 1."""
    end, base = 1 << digits.raised, 1 << digits.bits
    low, behind = None, digits.bits * (digits.count - 1)
    if digits.count == 1 or zeros:
        scaled = nodes.apply("MUL", numerator, end << (zeros - behind))
    else:
        low = nodes.apply("FLOOR_MOD", numerator, base)
        scaled = nodes.apply("MUL", nodes.between("SUB", numerator, low), end // base)
    modulus = nodes.apply("SUB", nodes.apply("MUL", divisor, end), 1)
    total = None
    for place in range(digits.count):
        found = nodes.between("FLOOR_MOD", scaled, modulus)
        digit = nodes.apply("FLOOR_MOD", found, end)
        total = digit if total is None else nodes.between("ADD", nodes.apply("MUL", total, base), digit)
        if place < digits.count - 1:
            scaled = nodes.apply("MUL", nodes.between("SUB", found, digit), base)
        if low is not None and place < digits.count - 1:
            scaled = nodes.between("ADD", scaled, nodes.apply("MUL", low, end))
    return total


def root(nodes: Integers, numbers: int, bounds: RootSteps) -> int:
    """`qat.integer.kernels.normalize.integer_root` of an int64 tensor (N, rows) of numbers of at least 1."""
    shape = nodes.writer.model.shape(numbers)
    pairs = nodes.reached(nodes.reshaped(numbers, (*shape, 1)), [4**place for place in range(31)])
    found = nodes.gathered(numpy.array(ROOT_ESTIMATES), nodes.reshaped(pairs, shape))
    for step in bounds.steps:
        # numbers - found^2 + lift * 2 * found
        lowered = nodes.apply("SUB", found, 2 * step.lift)
        numerator = nodes.between("SUB", numbers, nodes.between("MUL", found, lowered))
        moved = divided(nodes, numerator, nodes.apply("MUL", found, 2), step.digits)
        found = nodes.apply("SUB", nodes.between("ADD", found, moved), step.lift)
    return found
