"""RMS norms that a network writes out, put together again: see `qat.inject.written_norms`."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from qat.inject.nonlinear import normalize_between
from qat.inject.normalizations import Normalization
from qat.inject.tables import grid_points
from qat.lowering.state import Pending, Quantized, batch_shape, module_path


@dataclass(frozen=True)
class MeanSquare:
    """The mean of a value's squares over its last dimensions, then plus epsilon, then its root or one over that."""

    root: Quantized
    over: int
    epsilon: float = 0.0
    is_root: bool = False
    is_inverse: bool = False


def step_of_norm(node: Node, name: str, args: tuple, kwargs: dict):
    """What a node makes of a norm in the making; None where it is no step of one."""
    first, second = (*args, None)[:2]
    if name == "mean" and isinstance(first, Pending) and _is_square(first.mapped):
        return MeanSquare(first.mapped.root, 1 if isinstance(second, int) else len(second))
    if name == "add" and any(isinstance(argument, MeanSquare) for argument in (first, second)):
        if isinstance(first, MeanSquare):
            return _with_epsilon(first, second, **kwargs)
        return None if kwargs else _with_epsilon(second, first)  # alpha would scale the mean
    if isinstance(first, MeanSquare) and name in ("rsqrt", "sqrt"):
        return dataclasses.replace(first, is_root=True, is_inverse=name == "rsqrt")
    pairs = ((first, second), (second, first)) if name == "mul" else ((first, second),) if name == "div" else ()
    for value, other in pairs:
        if isinstance(other, MeanSquare) and other.is_root and other.is_inverse == (name == "mul"):
            if isinstance(value, Quantized) and value.name == other.root.name:
                return _normalized(node, other, None)
        if isinstance(value, Pending) and value.gained is not None and isinstance(other, Tensor) and name == "mul":
            return value.gained(node, other)
    return None


def _with_epsilon(statistic: MeanSquare, epsilon, alpha=1) -> MeanSquare | None:
    """Plus epsilon: a number, or a constant of one element."""
    is_number = isinstance(epsilon, int | float) or (isinstance(epsilon, Tensor) and epsilon.numel() == 1)
    return dataclasses.replace(statistic, epsilon=float(epsilon) * alpha) if is_number else None


def _is_square(mapped) -> bool:
    if mapped is None or not hasattr(mapped.root.grid, "scale"):
        return False
    return torch.equal(mapped.points, grid_points(mapped.root.grid).square())


def _normalized(node: Node, statistic: MeanSquare, gain: Tensor | None) -> Pending:
    x = statistic.root
    norm = Normalization(x.shape, statistic.over, False, statistic.epsilon, gain, None)
    make = normalize_between(x.grid, norm)

    def build(name, output, grid, clamp_min, clamp_max):
        names = {"name": name, "source": module_path(node), "inputs": (x.name,), "output": output}
        return make(grid, clamp_min, clamp_max, **names)

    def gained(node: Node, gain: Tensor) -> Pending:
        return _normalized(node, statistic, gain)

    return Pending(batch_shape(node), build, gained=gained if gain is None else None)
