"""What nodes of a decomposed graph become in a real program, where that is not the function of their own name."""

from collections.abc import Callable

import torch

from qat.lowering.real import layers, norms, tensors

aten = torch.ops.aten

#: By the function of a node: what takes (builder, node, args, kwargs) and gives a reference to what it adds.
RULES: dict[Callable, Callable] = {
    **dict.fromkeys(
        (aten.clone.default, aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default,
         aten.contiguous.default),
        tensors.same,
    ),
    aten._to_copy.default: tensors.cast,
    **dict.fromkeys((aten.view.default, aten._unsafe_view.default, aten.reshape.default), tensors.reshape),
    aten.expand.default: tensors.expand,
    aten.arange.start_step: tensors.arange,
    aten.full.default: tensors.full,
    aten.full_like.default: tensors.full_like,
    aten.slice.Tensor: tensors.cut,
    aten.index.Tensor: tensors.index,
    aten.embedding.default: layers.embedding,
    aten.linear.default: layers.linear,
    aten.convolution.default: layers.convolution,
    **dict.fromkeys((aten.matmul.default, aten.mm.default, aten.bmm.default), layers.matmul),
    aten.addmm.default: layers.addmm,
    aten.permute.default: layers.permute,
    aten._softmax.default: norms.softmax,
    aten._log_softmax.default: norms.softmax,
    aten._native_batch_norm_legit_no_training.default: norms.batch_norm,
}  # fmt: skip
