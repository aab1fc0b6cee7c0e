"""The typed operations of an integer program, one file per family; `base` says what they have in common."""

from qat.integer.operations.base import ComputingOperation, MovingOperation, Operation
from qat.integer.operations.elementwise import Add, Mul, Requantize
from qat.integer.operations.moves import Concatenate, Pad, Reshape, Slice, Transpose
from qat.integer.operations.reductions import AveragePool, Max, MaxPool, Mean
from qat.integer.operations.weighted import Conv, Linear, WeightedOperation

__all__ = [
    "OPERATIONS", "Add", "AveragePool", "ComputingOperation", "Concatenate", "Conv", "Linear", "Max", "MaxPool",
    "Mean", "MovingOperation", "Mul", "Operation", "Pad", "Requantize", "Reshape", "Slice", "Transpose",
    "WeightedOperation",
]  # fmt: skip

#: Every kind that a program can hold, and a file can name.
OPERATIONS: tuple[type[Operation], ...] = (
    Conv,
    Linear,
    Add,
    Mul,
    Requantize,
    AveragePool,
    Mean,
    MaxPool,
    Max,
    Concatenate,
    Reshape,
    Transpose,
    Slice,
    Pad,
)
