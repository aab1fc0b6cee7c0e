"""Addition, multiplication, and the activations that are a clamp."""

import dataclasses
import math

import torch
from torch.fx import Node

from qat.inject.exact import number_grid
from qat.inject.nonlinear import divide_between
from qat.integer.program import Add, Constant, Mul, Multiplier, Negate, Requantize, SumMultipliers, float32
from qat.lowering.state import (
    Pending,
    Program,
    Quantized,
    QuantizedConstant,
    Unlowerable,
    batch_shape,
    check_quantized,
    module_path,
)


def add(program: Program, node: Node, first, second, alpha=1, minus=False) -> Pending:
    """aten.add of two values, or of a value and a constant. minus: the constant counts with the other sign."""
    if alpha != 1:
        raise Unlowerable(f"alpha={alpha} scales the second operand; multiply it before adding")
    first, second = _operands(program, node, first, second, minus)

    def build(name, output, grid, clamp_min, clamp_max):
        factors = SumMultipliers.from_grids(first.grid, second.grid, grid)
        return Add(
            name=name, source=module_path(node), inputs=(first.name, second.name), output=output, clamp_min=clamp_min,
            clamp_max=clamp_max, factors=factors,
        )  # fmt: skip

    return Pending(batch_shape(node), build)


def sub(program: Program, node: Node, first, second, alpha=1) -> Pending:
    """aten.sub: the sum of the first operand and the second one mirrored about zero."""
    if isinstance(second, int | float):
        return add(program, node, first, -second, alpha)
    if isinstance(second, Quantized):
        return add(program, node, first, negate(program, node, second), alpha)
    return add(program, node, first, second, alpha, minus=True)


def negate(program: Program, node: Node, x: Quantized) -> Quantized:
    """The value times -1, exactly: its codes mirrored, on the mirrored grid."""
    return program.move(node, x, x.shape, Negate)


def div(program: Program, node: Node, first, second, rounding_mode=None) -> Pending:
    """aten.div by a number, or of values."""
    if rounding_mode is not None:
        raise Unlowerable(f"rounding_mode={rounding_mode!r} cuts values off; divide without")
    if isinstance(second, int | float):
        return rescale(node, first, 1 / float(second) if second else math.inf)
    return quotient(program, node, first, second)


def quotient(program: Program, node: Node, first, second) -> Pending:
    """A value over a value or a constant, or a constant over a value."""
    value_first = isinstance(first, Quantized)
    value, other = _operands(program, node, first, second)
    first, second = (value, other) if value_first else (other, value)
    make = divide_between(first.grid, second.grid)

    def build(name, output, grid, clamp_min, clamp_max):
        names = {"name": name, "source": module_path(node), "inputs": (first.name, second.name), "output": output}
        return make(grid, clamp_min, clamp_max, **names)

    return Pending(batch_shape(node), build)


def mul(program: Program, node: Node, first, second) -> Pending:
    """aten.mul of two values, of a value and a constant, or of a value and a number."""
    for value, number in ((first, second), (second, first)):
        if isinstance(number, int | float):
            return rescale(node, value, float(number))
    first, second = _operands(program, node, first, second)

    def build(name, output, grid, clamp_min, clamp_max):
        multiplier = Multiplier.from_scales(first.grid.scale, second.grid.scale, grid.scale)
        return Mul(
            name=name, source=module_path(node), inputs=(first.name, second.name), output=output, clamp_min=clamp_min,
            clamp_max=clamp_max, multiplier=multiplier,
        )  # fmt: skip

    return Pending(batch_shape(node), build)


def clamp(program: Program, node: Node, x, low=None, high=None) -> Pending:
    """aten.clamp, hardtanh, relu6 and relu: bounds of the kernel before, or a requantization of its own."""
    low = -math.inf if low is None else float(low)
    high = math.inf if high is None else float(high)
    pending = x if isinstance(x, Pending) else rescale(node, x, 1.0)

    def bounded(bound: float) -> float:
        return max(min(bound, high), low)

    return dataclasses.replace(pending, low=bounded(pending.low), high=bounded(pending.high), fold=None)


def relu(program: Program, node: Node, x) -> Pending:
    """aten.relu."""
    return clamp(program, node, x, low=0.0)


def rescale(node: Node, x, factor: float) -> Pending:
    """A value times a number, on a grid of its own."""
    if isinstance(x, Pending) and x.times is not None and factor > 0:
        return x.times(node, factor)
    check_quantized(x)
    factor = float32(factor)
    if factor == 0.0 or not math.isfinite(factor):
        raise Unlowerable(f"it multiplies by {factor}, which leaves nothing to compute; remove it")

    def build(name, output, grid, clamp_min, clamp_max):
        return Requantize(
            name=name, source=module_path(node), inputs=(x.name,), output=output, clamp_min=clamp_min,
            clamp_max=clamp_max, factor=factor,
            multiplier=Multiplier.from_scales(x.grid.scale, abs(factor), grid.scale),
        )  # fmt: skip

    return Pending(batch_shape(node, batch_at=x.batch_at), build)


def _operands(program: Program, node: Node, first, second, minus: bool = False) -> tuple:
    """Both operands as values or constants of one rank, the value first."""
    if not isinstance(first, Quantized):
        first, second = second, first
    if not isinstance(first, Quantized):
        raise Unlowerable("neither operand is on an integer grid")
    if isinstance(second, Quantized):
        if len(first.shape) != len(second.shape):
            raise Unlowerable(
                f"its operands have shapes {first.shape} and {second.shape}, whose batch dimensions do not meet; "
                "reshape one"
            )
        return first, second
    rank = len(batch_shape(node))
    if isinstance(second, int | float):
        return first, _number(program, node, float(second), rank)
    if isinstance(second, QuantizedConstant):
        return first, program.operand(second, rank, minus)
    raise Unlowerable("its second operand is not on an integer grid")


def _number(program: Program, node: Node, number: float, rank: int) -> Constant:
    """A number as the single code of a grid of its own."""
    codes = torch.full((1,) * rank, int(math.copysign(1, number)) if number else 0)
    return program.constant(f"{module_path(node) or 'network'}.constant", number_grid(number), codes)
