"""Functions of torch that compute, written as matrix products, sums and functions of one value (`qat.inject.opened`).

A function returns `NotImplemented` for arguments it says nothing about; the call then stays what it is.
"""

import math
import operator

import torch
import torch.nn.functional as F
from torch import Tensor

from qat.inject.choices import is_value_sized
from qat.integer.geometry import per_dimension


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """One half of the channels, times the sigmoid of the other (arXiv:1612.08083)."""
    first, second = input.chunk(2, dim)
    return first * torch.sigmoid(second)


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype=None) -> Tensor:
    """Softmax of minus the values."""
    return F.softmax(-input, dim, _stacklevel, dtype)


def softmax_like(function):
    """F.softmax or F.log_softmax without a dimension: along the one that torch chooses, and warns of."""

    def along(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype=None) -> Tensor:
        if dim is not None:
            return NotImplemented
        return function(input, F._get_softmax_dim(function.__name__, input.dim(), _stacklevel), dtype=dtype)

    return along


def matmul(input: Tensor, other: Tensor, *, out=None) -> Tensor:
    """A product with a vector, as one with a matrix of a single column or row."""
    if out is not None or (input.dim() != 1) == (other.dim() != 1):
        return NotImplemented
    if other.dim() == 1:
        return torch.matmul(input, other.unsqueeze(-1)).squeeze(-1)
    return torch.matmul(input.unsqueeze(0), other).squeeze(-2)


def mul(input, other, *, out=None) -> Tensor:
    """A value times a mask: the value where the mask is True, else 0."""
    for x, mask in ((input, other), (other, input)):
        if _is_mask(mask) and isinstance(x, Tensor) and x.is_floating_point() and x.dim() and out is None:
            return torch.where(mask, x, 0.0)
    return NotImplemented


def add(input, other, *, alpha=1, out=None) -> Tensor:
    """input + alpha * other, for an alpha that is not 1."""
    return NotImplemented if out is not None or _is_one(alpha) else torch.add(input, _times(other, alpha))


def sub(input, other, *, alpha=1, out=None) -> Tensor:
    """input - alpha * other, for an alpha that is not 1."""
    return NotImplemented if out is not None or _is_one(alpha) else torch.sub(input, _times(other, alpha))


def rsub(input: Tensor, other, *, alpha=1) -> Tensor:
    """other - alpha * input, of two values."""
    return other - _times(input, alpha) if isinstance(other, Tensor) else NotImplemented


def clamp(input: Tensor, min=None, max=None, *, out=None) -> Tensor:
    """Bounds that are tensors, as the larger and the smaller of two values."""
    if out is not None or not (isinstance(min, Tensor) or isinstance(max, Tensor)):
        return NotImplemented
    if min is not None:
        input = torch.maximum(input, min) if isinstance(min, Tensor) else input.clamp(min=min)
    if max is not None:
        input = torch.minimum(input, max) if isinstance(max, Tensor) else input.clamp(max=max)
    return input


def clamp_max(input: Tensor, max, *, out=None) -> Tensor:
    """torch.clamp_max with a tensor."""
    return clamp(input, None, max, out=out)


def where(condition: Tensor, input=None, other=None, *, out=None) -> Tensor:
    """One of two numbers, as a function of the mask."""
    if not isinstance(input, int | float) or not isinstance(other, int | float) or out is not None:
        return NotImplemented
    if isinstance(input, int) and isinstance(other, int) or not (is_value_sized(input) and is_value_sized(other)):
        return NotImplemented
    return condition.to(torch.get_default_dtype()) * (input - other) + other


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, out_dtype=None, *, beta=1, alpha=1, out=None) -> Tensor:
    """beta * input + alpha * (mat1 @ mat2), for factors that are not 1."""
    if out_dtype is not None or out is not None or (_is_one(beta) and _is_one(alpha)):
        return NotImplemented
    return _times(input, beta) + _times(torch.mm(mat1, mat2), alpha)


def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta=1, alpha=1, out_dtype=None) -> Tensor:
    """beta * input + alpha * (batch1 @ batch2)."""
    product = torch.matmul(batch1, batch2)
    return _times(input, beta) + _times(product, alpha)


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value=1) -> Tensor:
    """input + value * tensor1 * tensor2."""
    return input + _times(tensor1 * tensor2, value)


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value=1) -> Tensor:
    """input + value * tensor1 / tensor2."""
    return input + _times(tensor1 / tensor2, value)


def lerp(input: Tensor, end: Tensor, weight) -> Tensor:
    """input + weight * (end - input)."""
    return input + (end - input) * weight


def mean_square(x: Tensor, dims: tuple[int, ...], keepdim: bool, share: float) -> Tensor:
    """Sum over `dims` of the squares, times `share`: as a product of matrices, whose sums are not rounded."""
    moved = x.movedim(dims, tuple(range(-len(dims), 0))).flatten(-len(dims))
    product = _times(torch.matmul(moved.unsqueeze(-2), moved.unsqueeze(-1)), share)
    kept = moved.shape[:-1]
    if keepdim:
        kept = [1 if dim in dims else size for dim, size in enumerate(x.shape)]
    return product.reshape(kept)


def variance(input: Tensor, dim=None, unbiased=None, keepdim: bool = False, *, correction=None) -> Tensor:
    """Mean square of the distance from the mean, over all but the batch."""
    if isinstance(dim, bool):  # var(unbiased)
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None else int(unbiased)
    dims = _dims(input, dim)
    count = 1
    for d in dims or ():  # compiled code follows no product of a generator
        count = count * input.shape[d]
    if dims is None or count <= correction:
        return NotImplemented
    centered = input - input.mean(dims, keepdim=True)
    return mean_square(centered, dims, keepdim, 1 / (count - correction))


def deviation(*args, **kwargs) -> Tensor:
    """The root of `variance`."""
    result = variance(*args, **kwargs)
    return result if result is NotImplemented else _root(result)


def variance_and_mean(input: Tensor, dim=None, unbiased=None, keepdim: bool = False, *, correction=None):
    """(variance, mean)."""
    result = variance(input, dim, unbiased, keepdim, correction=correction)
    return result if result is NotImplemented else (result, input.mean(_dims(input, dim), keepdim=keepdim))


def deviation_and_mean(input: Tensor, dim=None, unbiased=None, keepdim: bool = False, *, correction=None):
    """(standard deviation, mean)."""
    result = variance_and_mean(input, dim, unbiased, keepdim, correction=correction)
    return result if result is NotImplemented else (_root(result[0]), result[1])


def vector_norm(x: Tensor, ord=2, dim=None, keepdim: bool = False, *, dtype=None, out=None) -> Tensor:
    """The 2-norm, 1-norm or largest magnitude of vectors along `dim`, which is not the batch."""
    dims = _dims(x, dim)
    if dims is None or dtype is not None or out is not None:
        return NotImplemented
    if ord == 2:
        return _root(mean_square(x, dims, keepdim, 1.0))
    if ord == 1:
        return x.abs().sum(dims, keepdim=keepdim)
    return x.abs().amax(dims, keepdim=keepdim) if ord == math.inf else NotImplemented


def norm(input: Tensor, p="fro", dim=None, keepdim: bool = False, out=None, dtype=None) -> Tensor:
    """torch.norm: `vector_norm` along `dim`, over two of them with the squares of all elements."""
    order = 2 if p is None or p == "fro" else p
    return vector_norm(input, order, dim, keepdim, dtype=dtype, out=out)


def linalg_norm(A: Tensor, ord=None, dim=None, keepdim: bool = False, *, out=None, dtype=None) -> Tensor:
    """torch.linalg.norm of vectors."""
    is_matrix = isinstance(dim, tuple | list) and len(dim) > 1 and ord not in (None, "fro")
    return NotImplemented if is_matrix else norm(A, ord, dim, keepdim, out, dtype)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out=None) -> Tensor:
    """Vectors along `dim` divided by their 2-norm: what an RMS norm with the gain 1 / sqrt(length) does."""
    if p != 2 or not isinstance(dim, int) or dim % input.dim() == 0 or out is not None:
        return NotImplemented
    length = input.shape[dim]
    gain = torch.full((length,), 1 / math.sqrt(length), dtype=input.dtype, device=input.device)
    last = F.rms_norm(input.movedim(dim, -1), (length,), gain, eps * eps / length)
    return last.movedim(-1, dim)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Sum of the products of both, normalized."""
    return (F.normalize(x1, dim=dim, eps=eps) * F.normalize(x2, dim=dim, eps=eps)).sum(dim)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """Norm of the difference along the last dimension."""
    return NotImplemented if x1.dim() < 2 else vector_norm(x1 - x2 + eps, p, -1, keepdim)


def logsumexp(input: Tensor, dim, keepdim: bool = False, *, out=None) -> Tensor:
    """The largest value less its own logarithm of the softmax."""
    if not isinstance(dim, int) or out is not None or not input.is_floating_point():
        return NotImplemented
    return input.amax(dim, keepdim=keepdim) - torch.log_softmax(input, dim).amax(dim, keepdim=keepdim)


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Values divided by a power of the mean square of as many neighbouring channels."""
    if input.dim() < 3:
        return NotImplemented
    squares = (input * input).flatten(2).transpose(1, 2)
    means = F.avg_pool1d(F.pad(squares, (size // 2, (size - 1) // 2)), size, stride=1)
    return input / (means * alpha + k).pow(beta).transpose(1, 2).reshape(input.shape)


def lp_pool(dims: int):
    """F.lp_pool1d and its like: the root of the sum of powers over each window."""
    pool = getattr(F, f"avg_pool{dims}d")

    def pooled(input: Tensor, norm_type: float, kernel_size, stride=None, ceil_mode: bool = False) -> Tensor:
        count = math.prod(per_dimension(kernel_size, dims))
        means = pool(input if norm_type == 1 else input.pow(norm_type), kernel_size, stride, 0, ceil_mode)
        if norm_type == 1:
            return means * count
        return (means * count).clamp_min(torch.finfo(input.dtype).tiny).pow(1.0 / norm_type)

    return pooled


def lower_triangle(input: Tensor, diagonal: int = 0) -> Tensor:
    """torch.tril: zeros above a diagonal."""
    return _kept(input, torch.tril, diagonal)


def upper_triangle(input: Tensor, diagonal: int = 0) -> Tensor:
    """torch.triu: zeros below a diagonal."""
    return _kept(input, torch.triu, diagonal)


def _kept(x: Tensor, function, diagonal: int) -> Tensor:
    if not x.is_floating_point() or x.dim() < 3:
        return NotImplemented
    kept = torch.ones(x.shape[-2:], dtype=torch.bool, device=x.device)
    return torch.where(function(kept, diagonal), x, 0.0)


def _root(x: Tensor) -> Tensor:
    """The square root, whose gradient at 0 is 0 and not infinite."""
    return torch.sqrt(x.clamp_min(torch.finfo(x.dtype).tiny))


def _is_one(number) -> bool:
    return isinstance(number, int | float) and number == 1


def _is_mask(x) -> bool:
    return isinstance(x, Tensor) and x.dtype == torch.bool


def _times(x: Tensor, number) -> Tensor:
    return x if number == 1 else x * number


def _dims(x: Tensor, dim) -> tuple[int, ...] | None:
    """`dim` as dimensions counted from 0; None where it is about the batch too."""
    if dim is None or (isinstance(dim, tuple | list) and not dim):
        return None
    dims = tuple(sorted(d % x.dim() for d in (dim if isinstance(dim, tuple | list) else (dim,))))
    return None if 0 in dims else dims


WRITTEN_OUT = {
    F.glu: glu,
    F.softmin: softmin,
    F.softmax: softmax_like(torch.softmax),
    F.log_softmax: softmax_like(torch.log_softmax),
    F.pairwise_distance: pairwise_distance,
    F.local_response_norm: local_response_norm,
    F.lp_pool1d: lp_pool(1),
    F.lp_pool2d: lp_pool(2),
    torch.where: where,
    **dict.fromkeys((torch.logsumexp, Tensor.logsumexp), logsumexp),
    **dict.fromkeys((torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, operator.mul), mul),
    **dict.fromkeys((torch.add, Tensor.add), add),
    **dict.fromkeys((torch.sub, Tensor.sub, torch.subtract, Tensor.subtract), sub),
    torch.rsub: rsub,
    **dict.fromkeys((torch.clamp, Tensor.clamp, torch.clip, Tensor.clip), clamp),
    **dict.fromkeys((torch.clamp_min, Tensor.clamp_min), clamp),
    **dict.fromkeys((torch.clamp_max, Tensor.clamp_max), clamp_max),
    F.normalize: normalize,
    F.cosine_similarity: cosine_similarity,
    torch.linalg.vector_norm: vector_norm,
    torch.linalg.norm: linalg_norm,
    **dict.fromkeys((torch.matmul, Tensor.matmul, Tensor.__matmul__, operator.matmul, torch.mv, Tensor.mv), matmul),
    **dict.fromkeys((torch.addmm, Tensor.addmm), addmm),
    **dict.fromkeys((torch.baddbmm, Tensor.baddbmm), baddbmm),
    **dict.fromkeys((torch.addcmul, Tensor.addcmul), addcmul),
    **dict.fromkeys((torch.addcdiv, Tensor.addcdiv), addcdiv),
    **dict.fromkeys((torch.lerp, Tensor.lerp), lerp),
    **dict.fromkeys((torch.var, Tensor.var), variance),
    **dict.fromkeys((torch.std, Tensor.std), deviation),
    torch.var_mean: variance_and_mean,
    torch.std_mean: deviation_and_mean,
    **dict.fromkeys((torch.norm, Tensor.norm), norm),
    **dict.fromkeys((torch.tril, Tensor.tril), lower_triangle),
    **dict.fromkeys((torch.triu, Tensor.triu), upper_triangle),
}


def _in_place(written_out):
    def write(input, *args, **kwargs):
        result = written_out(input, *args, **kwargs)
        return NotImplemented if result is NotImplemented else input.copy_(result)

    return write


#: The spellings that write the result into their first operand: `x.lerp_(y, 0.5)`, `torch.clamp_(x, y)`.
WRITTEN_OUT_IN_PLACE = {
    getattr(space, f"{function.__name__}_"): _in_place(written_out)
    for function, written_out in WRITTEN_OUT.items()
    for space in (torch, Tensor)
    if getattr(space, function.__name__, None) is function and hasattr(space, f"{function.__name__}_")
}
