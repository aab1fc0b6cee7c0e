"""Functions of torch that hold several computations, written as those, so that each is quantized by itself.

A prepared network runs these instead, in training as in eval mode, with the function mode around them: every call in
here is recorded, planned and quantized like a line of the network's own. A function that returns `NotImplemented` says
nothing about the arguments it got, and the call stays what it is.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from qat.errors import PreparationError
from qat.inject import addresses
from qat.inject.einsum import einsum
from qat.inject.looked_up import LOOKED_UP
from qat.inject.masks import MASKED_BELOW
from qat.inject.rearranged import REARRANGED
from qat.inject.recurrent import RECURRENCES
from qat.inject.written_out import WRITTEN_OUT, WRITTEN_OUT_IN_PLACE


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(query @ key^T * scale + mask) @ value (arXiv:1706.03762).

    query: (..., heads, L, E). key: (..., heads, S, E). value: (..., heads, S, V); with `enable_gqa` fewer heads, each
    for as many of the query's (arXiv:2305.13245).
    """
    if enable_gqa:
        key, value = (_repeat_heads(x, query.shape[-3] // x.shape[-3]) for x in (key, value))
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    scores = torch.matmul(query, key.transpose(-2, -1)) * factor
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2], scores.shape[-1], dtype=torch.bool, device=scores.device).tril()
    # one line masks in both cases: libraries say `is_causal` for a batch without padding and give a mask for others
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(attn_mask.logical_not(), -math.inf)
    elif attn_mask is not None:
        scores = _with_bias(scores, attn_mask)
    weights = torch.softmax(scores, -1)
    if dropout_p > 0:
        weights = F.dropout(weights, dropout_p)
    return torch.matmul(weights, value)


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """What `torch.nn.MultiheadAttention` computes. query: (L, N, E). key, value: (S, N, E).

    Returns (output (L, N, E), attention weights (N, L, S) or None).
    """
    if bias_k is not None or bias_v is not None or add_zero_attn or static_k is not None or static_v is not None:
        raise PreparationError(
            f"the MultiheadAttention at {addresses.source_of(addresses.caller(0))} has add_bias_kv, add_zero_attn or "
            "static keys; leave these options off."
        )
    is_self, is_crossed = key is query and value is query, key is value
    query, key, value = (x.transpose(0, 1) for x in (query, key, value))  # the batch first
    if use_separate_proj_weight:
        weights = q_proj_weight, k_proj_weight, v_proj_weight
        biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
        projected = [F.linear(x, *pair) for x, *pair in zip((query, key, value), weights, biases, strict=True)]
    elif is_self:
        projected = F.linear(query, in_proj_weight, in_proj_bias).chunk(3, -1)
    else:
        split = embed_dim_to_check
        biases = (None, None) if in_proj_bias is None else (in_proj_bias[:split], in_proj_bias[split:])
        first = F.linear(query, in_proj_weight[:split], biases[0])
        if is_crossed:
            projected = first, *F.linear(key, in_proj_weight[split:], biases[1]).chunk(2, -1)
        else:
            rest = (None, None) if in_proj_bias is None else biases[1].chunk(2)
            weights = in_proj_weight[split:].chunk(2)
            projected = first, F.linear(key, weights[0], rest[0]), F.linear(value, weights[1], rest[1])
    # each (N, heads, length, E / heads); torch.compile does not follow Tensor.unflatten here
    heads = [x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads).transpose(1, 2) for x in projected]
    scores = torch.matmul(heads[0], heads[1].transpose(-2, -1)) * (1 / math.sqrt(heads[0].shape[-1]))
    mask, padding = _masks_of_scores(attn_mask, key_padding_mask, num_heads)
    if mask is not None:
        scores = scores.masked_fill(mask, -math.inf) if mask.dtype == torch.bool else _with_bias(scores, mask)
    if padding is not None:  # not in a loop: a line that masks what it masked is one call
        scores = scores.masked_fill(padding, -math.inf) if padding.dtype == torch.bool else _with_bias(scores, padding)
    attention = torch.softmax(scores, -1)
    dropped = F.dropout(attention, dropout_p) if training and dropout_p > 0 else attention
    output = F.linear(torch.matmul(dropped, heads[2]).transpose(1, 2).flatten(2), out_proj_weight, out_proj_bias)
    if need_weights:
        return output.transpose(0, 1), attention.mean(1) if average_attn_weights else attention
    return output.transpose(0, 1), None


def _masks_of_scores(
    attn_mask: Tensor | None, key_padding_mask: Tensor | None, heads: int
) -> tuple[Tensor | None, Tensor | None]:
    """Masks that broadcast against (N, heads, L, S), one behind the other; bool ones are True where no score is.

    A sum of both would hold real numbers, where one is a constant and one an input.
    """
    if attn_mask is not None and attn_mask.dim() == 3:
        attn_mask = attn_mask.reshape(attn_mask.shape[0] // heads, heads, *attn_mask.shape[1:])
    if key_padding_mask is None:
        return attn_mask, None
    padding = key_padding_mask[:, None, None, :]
    if attn_mask is not None and attn_mask.dtype == padding.dtype == torch.bool:
        return torch.logical_or(attn_mask, padding), None
    return attn_mask, padding


def _with_bias(scores: Tensor, bias: Tensor) -> Tensor:
    """The scores plus a bias, of which entries from -50 on downwards leave a score out, and have no code themselves."""
    out = bias <= MASKED_BELOW
    return (scores + bias.masked_fill(out, 0.0)).masked_fill(out, -math.inf)


def _repeat_heads(x: Tensor, times: int) -> Tensor:
    """Every head `times` times in a row. x: (..., heads, length, features)."""
    return x.unsqueeze(-3).expand(*x.shape[:-2], times, *x.shape[-2:]).flatten(-4, -3) if times > 1 else x


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """Expanded to the sizes of a tensor, of which nothing else is read: constants stay constants beside an input."""
    return input.expand(other.shape)


#: Tensors without contents have no range. A network fills them in, and zeros are as good to begin with.
_EMPTY = {torch.empty: torch.zeros, torch.empty_like: torch.zeros_like, Tensor.new_empty: Tensor.new_zeros}

OPENED = {
    **_EMPTY,
    F.scaled_dot_product_attention: scaled_dot_product_attention,
    F.multi_head_attention_forward: multi_head_attention_forward,
    torch.einsum: einsum,
    Tensor.expand_as: expand_as,
    **REARRANGED,
    **WRITTEN_OUT,
    **WRITTEN_OUT_IN_PLACE,
    **RECURRENCES,
    **LOOKED_UP,
}
