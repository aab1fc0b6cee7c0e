"""Grids that are made at run time: 8 bits, symmetric, one scale for each token of the values that come.

A token is what a layer with weights multiplies at once: the features of one position for a linear layer, the whole
sample for a convolution, whose windows overlap. All of it is float32 with one rounding after each operation, so that
every runtime makes the same codes of the same numbers.
"""

import torch
from torch import Tensor

from qat.functional import SCALE_FLOOR

#: Largest code; the grid is symmetric, and the smallest is as far from 0.
TOKEN_MAX = 127


def token_codes(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """(codes, scale) of `x`, both float32: round_half_even(fl32(x / scale)), scale = fl32(max |x| over dims / 127).

    dims: of one token. scale: the shape of `x` with size 1 there, at least `SCALE_FLOOR`, which a token of zeros has.
    """
    values = x.float()
    largest = torch.tensor(float(TOKEN_MAX), device=x.device)  # a tensor: a GPU multiplies by the inverse of a number
    scale = (values.abs().amax(dims, keepdim=True) / largest).clamp(min=SCALE_FLOOR)
    # a largest value at the edge of float32 may come out one step above 127
    return torch.round(values / scale).clamp(-TOKEN_MAX, TOKEN_MAX), scale


def fake_quantize_tokens(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """`x` rounded to its tokens' grids and back in real units, in its own type; the gradient is that of the identity.

    Nothing is clamped: the range is that of the token itself (straight-through, arXiv:1308.3432).
    """
    codes, scale = token_codes(x.detach(), dims)
    return x + (codes * scale - x.detach()).to(x.dtype)
