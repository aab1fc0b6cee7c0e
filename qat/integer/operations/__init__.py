"""The typed operations of an integer program, one file per family; `base` says what they have in common."""

from qat.integer.operations.base import ComputingOperation, MovingOperation, Operation
from qat.integer.operations.choices import MASK_GRID, ArgMax, Negate, Select, TopKIndices, TopKValues
from qat.integer.operations.division import Divide, Ratio
from qat.integer.operations.elementwise import Add, Mul, Requantize
from qat.integer.operations.indices import CumulativeSum, Gather, IndexProduct, IndexSum, IndexTable
from qat.integer.operations.islands import FloatIsland
from qat.integer.operations.loops import Loop
from qat.integer.operations.moves import Concatenate, Expand, Pad, Reshape, Slice, Take, Transpose
from qat.integer.operations.normalize import Normalize, NormalizeFactors
from qat.integer.operations.products import MatMul
from qat.integer.operations.reductions import AveragePool, Max, MaxPool, Mean, Sum
from qat.integer.operations.softmax import LogSoftmax, LogSoftmaxFactors, Softmax, SoftmaxFactors
from qat.integer.operations.tables import Embedding, Table, table_codes
from qat.integer.operations.weighted import Conv, Linear, WeightedOperation

__all__ = [
    "MASK_GRID", "OPERATIONS", "Add", "ArgMax", "AveragePool", "ComputingOperation", "Concatenate", "Conv",
    "CumulativeSum", "Divide", "Embedding", "Expand", "FloatIsland", "Gather", "IndexProduct", "IndexSum",
    "IndexTable", "Linear", "LogSoftmax", "LogSoftmaxFactors", "Loop", "MatMul", "Max", "MaxPool", "Mean",
    "MovingOperation", "Mul", "Negate",
    "Normalize", "NormalizeFactors", "Operation", "Pad", "Ratio", "Requantize", "Reshape", "Select", "Slice",
    "Softmax", "SoftmaxFactors", "Sum", "Table", "Take", "TopKIndices", "TopKValues", "Transpose",
    "WeightedOperation", "table_codes",
]  # fmt: skip

#: Every kind that a program can hold, and a file can name.
OPERATIONS: tuple[type[Operation], ...] = (
    Conv,
    Linear,
    MatMul,
    Add,
    Mul,
    Requantize,
    Table,
    Divide,
    Softmax,
    LogSoftmax,
    Normalize,
    AveragePool,
    Mean,
    Sum,
    MaxPool,
    Max,
    Concatenate,
    Reshape,
    Transpose,
    Slice,
    Pad,
    Take,
    Expand,
    Negate,
    Select,
    Embedding,
    ArgMax,
    TopKValues,
    TopKIndices,
    IndexTable,
    IndexSum,
    IndexProduct,
    CumulativeSum,
    Gather,
    Loop,
    FloatIsland,
)
