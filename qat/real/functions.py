"""The functions that a real program may hold: an explicit list, each a function of torch, by the name a file gives it.

Most are operations of core ATen under their own names ("aten.gelu.default"), with the parameters of their schema. The
others are what lowering writes in one form where torch has several.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from qat.real.weights import RealWeight
from qat.tokens import TOKEN_MAX, token_codes

#: Of each element alone, of one tensor.
_UNARY = """
    relu gelu sigmoid tanh exp log sqrt rsqrt abs neg sin cos tan asin acos atan sinh cosh erf silu hardswish
    hardsigmoid elu leaky_relu softplus mish hardtanh reciprocal floor ceil round sign logical_not bitwise_not clamp
    isnan
"""
#: Of two tensors, or of one and a number.
_BINARY = "add.Tensor sub.Tensor mul.Tensor div.Tensor add.Scalar sub.Scalar mul.Scalar div.Scalar"
_COMPARED = " ".join(f"{name}.{kind}" for name in ("eq", "ne", "lt", "le", "gt", "ge") for kind in ("Tensor", "Scalar"))
_LOGICAL = """
    logical_and.default logical_or.default logical_xor.default bitwise_and.Tensor bitwise_or.Tensor bitwise_xor.Tensor
"""
_OTHERS = """
    pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar maximum.default minimum.default where.self rsub.Scalar
    remainder.Scalar floor_divide.default div.Tensor_mode div.Scalar_mode
    matmul.default bmm.default layer_norm.default group_norm.default rms_norm.default _softmax.default
    _log_softmax.default
    mean.dim mean.default sum.dim_IntList sum.default amax.default amin.default argmax.default argmin.default
    cumsum.default any.dim any.default all.dim var.correction linalg_vector_norm.default prod.dim_int
    max_pool2d_with_indices.default avg_pool1d.default avg_pool2d.default avg_pool3d.default
    adaptive_avg_pool1d.default adaptive_avg_pool2d.default adaptive_avg_pool3d.default
    upsample_nearest2d.vec upsample_bilinear2d.vec
    permute.default slice.Tensor select.int cat.default unsqueeze.default squeeze.dims constant_pad_nd.default
    index_select.default gather.default flip.default split_with_sizes.default topk.default max.dim min.dim tril.default
    triu.default embedding.default
"""
#: Functions that move or choose numbers and make none.
MOVES = frozenset(
    """
    aten.permute.default aten.slice.Tensor aten.select.int aten.cat.default aten.unsqueeze.default aten.squeeze.dims
    aten.constant_pad_nd.default aten.index_select.default aten.gather.default aten.flip.default aten.where.self
    aten.split_with_sizes.default aten.embedding.default aten.max_pool2d_with_indices.default aten.maximum.default
    aten.minimum.default aten.amax.default aten.amin.default aten.max.dim aten.min.dim aten.topk.default
    aten.tril.default aten.triu.default aten.upsample_nearest2d.vec
    reshape expand index
""".split()
)


def _reshape(input: Tensor, sizes: Sequence[int]) -> Tensor:
    """sizes: 0 for the size that the input has there, -1 for what is left, as in ONNX."""
    return input.reshape([size if size != 0 else input.shape[dim] for dim, size in enumerate(sizes)])


def _expand(input: Tensor, sizes: Sequence[int]) -> Tensor:
    return input.expand([int(size) for size in sizes])


def _index(input: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    return torch.ops.aten.index.Tensor(input, list(indices))


def _cast(input: Tensor, dtype: str) -> Tensor:
    return input.to(DTYPES[dtype])


def _full(sizes: Sequence[int], value, dtype: str) -> Tensor:
    return torch.full([int(size) for size in sizes], value, dtype=DTYPES[dtype])


def _arange(start: int, end: int, step: int, dtype: str) -> Tensor:
    return torch.arange(start, end, step, dtype=DTYPES[dtype])


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(input, weight, bias)


def _convolution(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride, padding, dilation, transposed, output_padding, groups
) -> Tensor:
    arguments = (stride, padding, dilation, transposed, output_padding, groups)
    return torch.ops.aten.convolution.default(input, weight, bias, *arguments)


DTYPES = {
    name: getattr(torch, name) for name in ("float32", "float64", "int64", "int32", "bool", "uint8", "int8", "float16")
}


def _aten(names: str) -> dict[str, Callable]:
    functions = {}
    for name in names.split():
        packet, _, overload = name.partition(".")
        overload = overload or "default"
        functions[f"aten.{packet}.{overload}"] = getattr(getattr(torch.ops.aten, packet), overload)
    return functions


#: Every function that a program may name, and a file.
FUNCTIONS: dict[str, Callable] = {
    **_aten(_UNARY), **_aten(_BINARY), **_aten(_COMPARED), **_aten(_LOGICAL), **_aten(_OTHERS),
    "reshape": _reshape, "expand": _expand, "index": _index, "cast": _cast, "full": _full, "arange": _arange,
    "linear": _linear, "convolution": _convolution,
    "size": lambda input, dim: input.shape[dim],
    "size.add": lambda first, second: first + second,
    "size.sub": lambda first, second: first - second,
    "size.mul": lambda first, second: first * second,
    "size.floordiv": lambda first, second: first // second,
}  # fmt: skip


def codes_and_sums(function: str, arguments: dict, weight: RealWeight, dims: tuple[int, ...]):
    """(codes, scale, sums) of a layer that reads tokens on grids of the moment (`qat.tokens`).

    arguments: of a linear layer or a convolution. codes: float32 whole numbers of -127..127. scale: real units of one
    step, for each token. sums: int64, of codes times the integers of the weight.
    """
    codes, scale = token_codes(arguments["input"], dims)
    # float32 holds sums below 2^24 exactly, in any order, and float64 all others of 8-bit products
    real = torch.float32 if TOKEN_MAX * weight.largest_sum < 2**24 else torch.float64
    arguments = arguments | {"input": codes.to(real), "weight": weight.integers.to(real), "bias": None}
    return codes, scale, FUNCTIONS[function](**arguments).to(torch.int64)


def scaled_sums(sums: Tensor, scale: Tensor, weight: RealWeight, bias: Tensor | None, channels: int) -> Tensor:
    """fl32(fl32(fl32(sums) * scale) * weight scale) + bias, in this order. channels: their dimension, from the end."""
    shape = (-1, *[1] * (-channels - 1))
    result = sums.float() * scale * weight.integer_scale.reshape(shape)
    return result if bias is None else result + bias.reshape(shape)
