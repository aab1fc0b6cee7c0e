"""Nodes that multiply by weights: layers, and products with constant matrices."""

import dataclasses

from torch import Tensor
from torch.fx import Node

from qat.lowering.real.builder import Builder
from qat.lowering.real.operands import Coded, Unlisted, arguments_of
from qat.real.nodes import Ref


def embedding(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """Rows of a table."""
    return builder.layer(node, "aten.embedding.default", {"weight": args[0], "indices": args[1]}, ())


def linear(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """A linear layer; a token is what it reads at one position."""
    given = arguments_of(node, args, kwargs)
    if isinstance(given["input"], Coded | Tensor) or isinstance(given["weight"], Ref):
        raise Unlisted("its weight depends on the inputs; multiply with matmul")
    return builder.layer(node, "linear", given, (-1,))


def convolution(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """A convolution; a token is a whole sample, and a transposed one reads real numbers."""
    given = arguments_of(node, args, kwargs)
    if isinstance(given["weight"], Ref):
        raise Unlisted("its weight depends on the inputs; a convolution multiplies with constants")
    rank = node.meta["val"].dim()
    tokens = () if given["transposed"] else tuple(range(1 - rank, 0))
    return builder.layer(node, "convolution", given, tokens)


def matmul(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """A linear layer where the second factor is a constant matrix."""
    first, second = args
    is_matrix = isinstance(second, Tensor | Coded) and _tensor(second).dim() == 2
    if isinstance(first, Ref) and is_matrix:
        return builder.layer(node, "linear", {"input": first, "weight": _turned(second), "bias": None}, (-1,))
    return builder.add(node, "aten.matmul.default", {"self": first, "other": second})


def addmm(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """A linear layer with a bias where the second factor is a constant."""
    bias, first, second = args
    if kwargs.get("beta", 1) != 1 or kwargs.get("alpha", 1) != 1:
        raise Unlisted("beta and alpha scale its parts; multiply them outside")
    if isinstance(second, Tensor | Coded) and isinstance(bias, Tensor) and bias.dim() == 1:
        return builder.layer(node, "linear", {"input": first, "weight": _turned(second), "bias": bias}, (-1,))
    product = builder.add(node, "aten.matmul.default", {"self": first, "other": second})
    return builder.add(node, "aten.add.Tensor", {"self": product, "other": bias, "alpha": 1})


def permute(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """A constant matrix turns its codes."""
    if isinstance(args[0], Coded) and list(args[1]) == [1, 0]:
        return _turned(args[0])
    return builder.plain(node, args, kwargs)


def _tensor(constant: Tensor | Coded) -> Tensor:
    return constant.tensor if isinstance(constant, Coded) else constant


def _turned(constant: Tensor | Coded) -> Tensor | Coded:
    if isinstance(constant, Coded):
        return dataclasses.replace(constant, transposed=not constant.transposed)
    return constant.T.contiguous()
