"""One rounding in the place of two, for channels whose second rounding now and then gives another code.

float32 stores a product that lies close to a tie as the tie, which then goes to the even code. So a product that is
within some distance of a tie is taken to the even code here, too. The distance grows with the product, and whole sums
lie far apart: for most channels one distance tells those that become ties from all others, with the factor as it is or
with one that is a little beside it.
"""

import torch
from torch import Tensor

#: Bits that a factor beside a mantissa has more than that: with 31 and sums of 31 products stay in int64.
_FINER = 7
#: Longest shift with which no offset leaves int64: zero points have up to 17 bits.
LONGEST_SHIFT = 44
#: What is added to a factor of so many bits, in the order of trial.
_BESIDE = (0, *(sign * size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256) for sign in (1, -1)))


def tie_distances(
    mantissa: Tensor, shift: Tensor, steps: Tensor, first: int, even: int, reach: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(mantissa, shift, distance, found) of channels, each (O,): how far from a tie, in 2^-shift of a step, a product
    goes to the even code; found: bool, whether these give every code that `steps` say.

    mantissa, shift: int64 (O,), the factor as mantissa / 2^shift, of up to 24 bits and LONGEST_SHIFT. steps: int64
    (O, codes), the smallest sums of the codes `first`, `first + 1`, ... less the zero point; ascending. even: a code,
    less the zero point, to which ties go. reach: no sum is larger.
    """
    finer = (LONGEST_SHIFT - shift).clamp(0, _FINER)
    mantissa, shift = mantissa << finer, shift + finer
    distance, found = torch.zeros_like(shift), torch.zeros_like(shift, dtype=torch.bool)
    exact = mantissa
    for beside in _BESIDE:
        left = (~found).nonzero().flatten()
        if not len(left):
            break
        tried = (exact[left] + beside).clamp(1, 2**31 - 1)
        least, most = _bounds(tried, shift[left], steps[left], first, even, reach)
        fits = least <= most
        mended = left[fits]
        mantissa, distance = mantissa.index_copy(0, mended, tried[fits]), distance.index_copy(0, mended, least[fits])
        found = found.index_fill(0, mended, True)
    return mantissa, shift, distance, found


def _bounds(mantissa: Tensor, shift: Tensor, steps: Tensor, first: int, even: int, reach: int) -> tuple[Tensor, Tensor]:
    """The least and the largest distance of each channel, (O,)."""
    mantissa, shift = mantissa[:, None], shift[:, None]
    half = torch.ones_like(shift) << (shift - 1)
    codes = torch.arange(first, first + steps.shape[1])[None]
    ties, up = (codes << shift) - half, (codes - even) % 2 == 0
    # The first sum of a code lies behind its tie, and the sum before does not; a tie that goes up begins earlier by the
    # distance, one that goes down later.
    after, before = steps.clamp(min=-reach), (steps - 1).clamp(max=reach)
    behind, ahead = after * mantissa - ties, ties - before * mantissa - 1
    no_least, no_most = torch.zeros_like(behind), (half - 1).clamp(max=2**31 - 1).expand_as(behind)
    behind_counts, ahead_counts = after <= reach, before >= -reach
    least = torch.maximum(
        torch.where(up & behind_counts, -behind, no_least), torch.where(~up & ahead_counts, -ahead, no_least)
    ).amax(1)
    most = torch.minimum(
        torch.where(~up & behind_counts, behind, no_most), torch.where(up & ahead_counts, ahead, no_most)
    ).amin(1)
    return least, most
