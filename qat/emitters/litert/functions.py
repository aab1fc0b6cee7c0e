"""Which function a table is of: that of a network's own lines has no name, and its entries tell."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from qat.integer.operations import Table, table_codes
from qat.integer.values import AnyGrid, Grid

#: By name, on float64.
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "gelu_tanh": lambda points: F.gelu(points, approximate="tanh"),
    "silu": F.silu,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "elu": F.elu,
    "exp": torch.exp,
    "abs": torch.abs,
}


def function_of(operation: Table, source: AnyGrid, target: Grid) -> str:
    """The name of a function whose codes are just those of the table; the table's own name, or none, elsewhere."""
    if operation.function or not isinstance(source, Grid) or operation.codes.dim() != 1:
        return operation.function
    codes = torch.arange(source.quant_min, source.quant_max + 1, dtype=torch.float64)
    points = (codes - source.zero_point) * source.scale
    for name, function in FUNCTIONS.items():
        entries = table_codes(function(points), target, operation.clamp_min, operation.clamp_max)
        if torch.equal(entries, operation.codes):
            return name
    return ""
