"""Batch norms, which go into the layer in front of them where they can, and softmax."""

import dataclasses

from torch import Tensor
from torch.fx import Node

from qat.folding import BatchNorm
from qat.lowering.real.builder import Builder
from qat.lowering.real.operands import Unlisted
from qat.real.nodes import RealNode


def batch_norm(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """In eval mode a product and a sum for each channel, of the layer in front where nothing else reads that."""
    source, weight, bias, mean, variance, _, eps = args
    statistics = BatchNorm(mean, variance, weight, bias, eps)
    layer = builder.nodes.get(source.name)
    if len(node.args[0].users) == 1 and layer is not None and _fold(builder, layer, statistics):
        return (source,)
    multiplier, shift = statistics.affine(None)
    shape = (-1, *[1] * (node.meta["val"][0].dim() - 2))
    inner = _Meta(node, node.meta["val"][0])
    scaled = builder.add(inner, "aten.mul.Tensor", {"self": source, "other": multiplier.reshape(shape)})
    return (builder.add(inner, "aten.add.Tensor", {"self": scaled, "other": shift.reshape(shape), "alpha": 1}),)


class _Meta:
    """A node of the graph with another value in the place of its own."""

    def __init__(self, node: Node, value: Tensor):
        self.meta = dict(node.meta) | {"val": value}


def _fold(builder: Builder, layer: RealNode, statistics: BatchNorm) -> bool:
    """Put a batch norm into the layer in front of it; whether that can be."""
    if layer.function not in ("linear", "convolution") or layer.name in builder.folded:
        return False
    if layer.function == "linear" and len(layer.shape) != 2:
        return False
    own = builder.weights.get(layer.weight)
    readers = [node for node in builder.nodes.values() if layer.weight in node.reads]
    bias = layer.named["bias"]
    multiplier, shift = statistics.affine(None if bias is None else builder.constants[bias.name])
    if len(readers) > 1 or (own is not None and own.scale.shape[0] != multiplier.shape[0]):
        return False
    if own is None:
        tensor, axis = builder.constants[layer.weight], 1 if layer.named.get("transposed", False) else 0
        if tensor.shape[axis] != multiplier.shape[0]:
            return False
        shape = [1] * tensor.dim()
        shape[axis] = -1
        builder.constants[layer.weight] = tensor * multiplier.reshape(shape)
    else:
        builder.weights[layer.weight] = dataclasses.replace(own, scale=own.scale * multiplier[:, None])
    folded = builder.constant(shift.contiguous(), f"{layer.name}.bias")
    arguments = tuple((name, folded if name == "bias" else value) for name, value in layer.arguments)
    builder.nodes[layer.name] = dataclasses.replace(layer, arguments=arguments)
    builder.folded.add(layer.name)
    return True


def softmax(builder: Builder, node: Node, args: tuple, kwargs: dict):
    """Softmax or its logarithm, in float32."""
    if args[2]:
        raise Unlisted("it widens float16 as it computes; convert its input first")
    return builder.add(node, str(node.target), {"self": args[0], "dim": args[1], "half_to_float": False})
