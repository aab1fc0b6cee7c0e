"""What nodes of a decomposed graph give each other while a real program is made of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import sympy
from torch import Tensor
from torch.fx import Node

from qat.quantizers import FakeQuantize
from qat.real.nodes import Argument, Shape

#: Parameters that say nothing about the result on a CPU.
_IGNORED = frozenset("""
    layout device pin_memory memory_format non_blocking generator scale_grad_by_freq sparse cudnn_enable padding_idx
    implicit cudnn_enabled half_to_float
""".split())  # fmt: skip


class Unlisted(Exception):
    """A node has no place in a real program; the message says why and what to do."""


@dataclass(frozen=True)
class Coded:
    """A constant behind its quantizer. transposed: a matrix whose second dimension was the outputs."""

    tensor: Tensor
    quantizer: FakeQuantize
    transposed: bool = False


@dataclass(frozen=True)
class Several:
    """A function of several results, of which nodes take parts."""

    node: Node
    arguments: Mapping[str, Argument]


def dtype_of(value: Tensor) -> str:
    """The type that a program has for a tensor: real numbers are float32."""
    return "float32" if value.dtype.is_floating_point else str(value.dtype).removeprefix("torch.")


def shape_of(value: Tensor, names: Mapping[sympy.Symbol, sympy.Symbol] | None = None) -> Shape:
    """Its sizes; those that follow the inputs as texts. names: of the symbols in them."""
    return tuple(size if isinstance(size, int) else str(size.node.expr.subs(names or {})) for size in value.shape)


def arguments_of(node: Node, args: tuple, kwargs: dict) -> dict[str, object]:
    """The arguments of an ATen function by the names of its schema, but for what does not count."""
    parameters = node.target._schema.arguments
    given = dict(zip((parameter.name for parameter in parameters), args, strict=False)) | kwargs
    arguments = {}
    for parameter in parameters:
        value = given.get(parameter.name, parameter.default_value)
        if parameter.name in _IGNORED:
            continue
        if parameter.name == "dtype":
            if value is not None and not value.is_floating_point:
                raise Unlisted(f"it computes in {value}; convert its input first")
            continue
        arguments[parameter.name] = value
    return arguments
