"""What a .pt2 file says of itself: its nodes, what they compute on, and what of that are real numbers."""

import operator
from os import PathLike

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from qat.emitters.options import FileOperation
from qat.emitters.pytorch.archive import read
from qat.emitters.pytorch.graph import OPERATION

_ATEN = torch.ops.aten
#: What quantizing an input is made of: a division by the scale, rounded and clamped.
_QUANTIZES = {_ATEN.div.Tensor, _ATEN.round.default, _ATEN.clamp_.default, _ATEN.to.dtype}
#: What dequantizing an output is made of: whole numbers made real, times the scale.
_DEQUANTIZES = {_ATEN.mul.Tensor, _ATEN.to.dtype}
#: What hands a constant on.
_HANDS_ON = {_ATEN.lift_fresh_copy.default, _ATEN.detach_.default, _ATEN.detach.default}


def float_ops(path: str | PathLike) -> list[str]:
    """The nodes that compute with real numbers, but for the first quantization and the last dequantization."""
    return float_nodes(read(path)[0])


def float_nodes(graph: ExportedProgram) -> list[str]:
    """`float_ops` of a graph."""
    nodes = list(graph.graph.nodes)
    entering, leaving = set(), set()
    for node in nodes:  # made of real inputs and constants by what quantizes
        sources = [source for source in node.all_input_nodes if _is_real(source)]
        handed = node.op == "placeholder" or node.target in _HANDS_ON
        if handed or (sources and node.target in _QUANTIZES and entering.issuperset(sources)):
            entering.add(node)
    for node in reversed(nodes):  # made into outputs by what dequantizes
        if node.op == "output" or (node.target in _DEQUANTIZES and _is_real(node) and leaving.issuperset(node.users)):
            leaving.add(node)
    return [
        f"{_named(node)[0]}: {_kind(node)}"
        for node in nodes
        if node.op == "call_function"
        and (_is_real(node) or (_tensors(node) and any(map(_is_real, node.all_input_nodes))))
        and node not in entering
        and node not in leaving
    ]


def operations(path: str | PathLike) -> list[FileOperation]:
    """Every node that computes a tensor, in order.

    name: of the program's operation that it is part of; the node's own where it is part of none. kind: the function of
    torch. dtype: of what it makes. bytes: of the weights and other constants that it is the first to read.
    """
    graph, _ = read(path)
    signature = graph.graph_signature
    held = {**signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    stored = {**graph.state_dict, **graph.constants}
    unread = {name: stored[target] for name, target in held.items()}
    found = []
    for node in graph.graph.nodes:
        made = _tensors(node)
        if node.op != "call_function" or node.target is operator.getitem or not made:
            continue
        read_first = [unread.pop(source.name) for source in node.all_input_nodes if source.name in unread]
        size = sum(tensor.numel() * tensor.element_size() for tensor in read_first)
        dtype = str(made[0].dtype).removeprefix("torch.")
        found.append(FileOperation(_named(node)[0], _kind(node), dtype, size))
    return found


def _tensors(node: Node) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(node.meta.get("val")) if isinstance(leaf, Tensor)]


def _is_real(node: Node) -> bool:
    values = tree_leaves(node.meta.get("val"))
    return any(
        isinstance(value, float | torch.SymFloat)
        or (isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()))
        for value in values
    )


def _named(node: Node) -> tuple[str, str]:
    """The name and the kind of the program's operation that a node is part of."""
    return tuple(node.meta.get("custom", {}).get(OPERATION, (node.name, "")))


def _kind(node: Node) -> str:
    return str(node.target) if isinstance(node.target, torch._ops.OpOverload) else node.target.__name__
