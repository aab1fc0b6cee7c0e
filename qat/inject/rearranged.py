"""Functions of torch that only move values, written as reshapes, permutations, slices and selections.

They are opened as the functions of `qat.inject.written_out` are, and move no value differently.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from qat.inject.choices import is_value_sized
from qat.tracing import is_exporting


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(..., C * r * r, H, W) to (..., C, H * r, W * r) (arXiv:1609.05158)."""
    *leading, channels, height, width = input.shape
    r, rank = upscale_factor, len(leading)
    parts = input.reshape(*leading, channels // (r * r), r, r, height, width)
    order = (*range(rank), rank, rank + 3, rank + 1, rank + 4, rank + 2)
    return parts.permute(order).reshape(*leading, channels // (r * r), height * r, width * r)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(..., C, H * r, W * r) to (..., C * r * r, H, W)."""
    *leading, channels, height, width = input.shape
    r, rank = downscale_factor, len(leading)
    parts = input.reshape(*leading, channels, height // r, r, width // r, r)
    order = (*range(rank), rank, rank + 2, rank + 4, rank + 1, rank + 3)
    return parts.permute(order).reshape(*leading, channels * r * r, height // r, width // r)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Channels of all groups in turn (arXiv:1707.01083)."""
    channels, *spatial = input.shape[1:]
    parts = input.reshape(input.shape[0], groups, channels // groups, *spatial)
    return parts.transpose(1, 2).reshape(input.shape)


def unfold(input: Tensor, kernel_size, dilation=1, padding=0, stride=1) -> Tensor:
    """Windows of (N, C, H, W) as columns, (N, C * kernel, windows)."""
    if input.dim() != 4:
        return NotImplemented
    kernel, spread, amount, step = (
        (v, v) if isinstance(v, int) else tuple(v) for v in (kernel_size, dilation, padding, stride)
    )
    x = F.pad(input, (amount[1], amount[1], amount[0], amount[0])) if any(amount) else input
    counts = []
    for index in range(2):
        dim = 2 + 2 * index
        count = (x.shape[dim] - spread[index] * (kernel[index] - 1) - 1) // step[index] + 1
        places = [
            place * spread[index] + window * step[index] for place in range(kernel[index]) for window in range(count)
        ]
        x = _taken(x, dim, places).unflatten(dim, (kernel[index], count))
        counts.append(count)
    x = x.permute(0, 1, 2, 4, 3, 5)  # (N, C, kernel, kernel, windows, windows)
    return x.reshape(x.shape[0], x.shape[1] * kernel[0] * kernel[1], counts[0] * counts[1])


def fold(input: Tensor, output_size, kernel_size, dilation=1, padding=0, stride=1) -> Tensor:
    """Columns back to (N, C, H, W), where windows lie side by side; overlapping ones would be summed."""
    size, kernel, spread, amount, step = (
        (v, v) if isinstance(v, int) else tuple(v) for v in (output_size, kernel_size, dilation, padding, stride)
    )
    fits = all(extent % side == 0 for extent, side in zip(size, kernel, strict=True))
    if input.dim() != 3 or kernel != step or spread != (1, 1) or any(amount) or not fits:
        return NotImplemented
    rows, columns = size[0] // kernel[0], size[1] // kernel[1]
    x = input.reshape(input.shape[0], -1, kernel[0], kernel[1], rows, columns)
    return x.permute(0, 1, 4, 2, 5, 3).reshape(input.shape[0], -1, size[0], size[1])


def windows_of(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Tensor.unfold: windows along a dimension, their elements last."""
    dim = dimension % input.dim()
    count = (input.shape[dim] - size) // step + 1
    places = [window * step + place for window in range(count) for place in range(size)]
    return _taken(input, dim, places).unflatten(dim, (count, size)).movedim(dim + 1, -1)


def tensor_split(
    input: Tensor, indices_or_sections=None, dim: int = 0, *, indices=None, sections=None, axis: int | None = None
) -> tuple[Tensor, ...]:
    """Pieces along a dimension, of nearly equal size or cut at the given places."""
    indices_or_sections = next(x for x in (indices_or_sections, indices, sections) if x is not None)
    dim = dim if axis is None else axis
    if isinstance(indices_or_sections, Tensor):
        return NotImplemented
    size = input.shape[dim]
    if isinstance(indices_or_sections, int):
        count = indices_or_sections
        sizes = [size // count + (index < size % count) for index in range(count)]
        bounds = [sum(sizes[:index]) for index in range(count + 1)]
    else:
        bounds = [0, *(min(max(place % size if place < 0 else place, 0), size) for place in indices_or_sections), size]
    sizes = [max(end - start, 0) for start, end in zip(bounds, bounds[1:], strict=False)]
    if sum(sizes) == size:  # side by side: one call, whose results are several values
        return tuple(input.split(sizes, dim))
    return tuple(input.narrow(dim, start, count) for start, count in zip(bounds, sizes, strict=False))


def hsplit(input: Tensor, *places: int, indices=None, sections=None) -> tuple[Tensor, ...]:
    """Pieces along dimension 1; sections of unequal size stay torch's own error."""
    return _split_along(1, input, places, indices, sections)


def vsplit(input: Tensor, *places: int, indices=None, sections=None) -> tuple[Tensor, ...]:
    """Pieces along dimension 0, which is refused where that is the batch."""
    return _split_along(0, input, places, indices, sections)


def dsplit(input: Tensor, *places: int, indices=None, sections=None) -> tuple[Tensor, ...]:
    """Pieces along dimension 2."""
    return _split_along(2, input, places, indices, sections)


def rot90(input: Tensor, k: int = 1, dims=(0, 1)) -> Tensor:
    """Quarter turns in the plane of two dimensions."""
    first, second = dims
    match k % 4:
        case 1:
            return input.flip(second).transpose(first, second)
        case 2:
            return input.flip(first, second)
        case 3:
            return input.flip(first).transpose(first, second)
    return input


def flipped_rows(input: Tensor) -> Tensor:
    """torch.fliplr."""
    return input.flip(1)


def hstack(tensors, *, out=None) -> Tensor:
    """Joined along dimension 1."""
    return torch.cat(tuple(tensors), 1) if out is None and tensors[0].dim() > 1 else NotImplemented


def dstack(tensors, *, out=None) -> Tensor:
    """Joined along dimension 2."""
    return torch.cat(tuple(tensors), 2) if out is None and tensors[0].dim() > 2 else NotImplemented


def cat(tensors, dim: int = 0, *, axis: int | None = None, out=None) -> Tensor:
    """Joined without the pieces of no elements, such as what a full rotary embedding leaves as it is."""
    pieces = tuple(tensors)
    filled = tuple(piece for piece in pieces if not _is_empty(piece))
    dim = dim if axis is None else axis
    return torch.cat(filled, dim) if out is None and 0 < len(filled) < len(pieces) else NotImplemented


def diff(input: Tensor, n: int = 1, dim: int = -1, prepend=None, append=None) -> Tensor:
    """Each element less the one before."""
    if n != 1 or prepend is not None or append is not None:
        return NotImplemented
    rest = input.shape[dim] - 1
    return input.narrow(dim, 1, rest) - input.narrow(dim, 0, rest)


def pad(input: Tensor, pad, mode: str = "constant", value: float | None = None) -> Tensor:
    """Padding with a number that is not zero: zeros around, then the number there."""
    if mode != "constant" or not value or not is_value_sized(value) or not input.is_floating_point():
        return NotImplemented
    sizes = input.shape[input.dim() - len(pad) // 2 :]
    inside = F.pad(torch.ones(sizes, device=input.device), pad) > 0
    return torch.where(inside, F.pad(input, pad), value)


def max_pool1d(
    input: Tensor, kernel_size, stride=None, padding=0, dilation=1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:  # fmt: skip
    """The largest of each window. torch.max_pool1d itself is exported for the recorded length alone."""
    if return_indices:
        return NotImplemented
    stride = kernel_size if stride is None else stride
    return torch.max_pool1d_with_indices(input, kernel_size, stride, padding, dilation, ceil_mode)[0]


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True, *, out=None):
    """The k most extreme along a dimension; of equals the first comes first, which torch leaves open."""
    if is_exporting() or out is not None:
        return NotImplemented
    values, indices = torch.sort(input, dim=dim, descending=largest, stable=True)
    return torch.return_types.topk((values.narrow(dim, 0, k), indices.narrow(dim, 0, k)))


def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False, out=None):
    """(smallest, largest) along a dimension."""
    if dim is None or out is not None:
        return NotImplemented
    return torch.return_types.aminmax((input.amin(dim, keepdim=keepdim), input.amax(dim, keepdim=keepdim)))


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """Diagonals of two dimensions, as the last dimension."""
    if 0 in (dim1 % input.dim(), dim2 % input.dim()):
        return NotImplemented
    x = input.movedim((dim1, dim2), (-2, -1))
    rows, columns = x.shape[-2:]
    places = [row * columns + row + offset for row in range(rows) if 0 <= row + offset < columns]
    return _taken(x.flatten(-2), -1, places)


def slice_scatter(input: Tensor, src: Tensor, dim: int = 0, start=None, end=None, step: int = 1) -> Tensor:
    """`input` with `src` in place of a slice."""
    first, last, step = slice(start, end, step).indices(input.shape[dim])
    if step != 1:
        return NotImplemented
    before, behind = input.narrow(dim, 0, first), input.narrow(dim, last, input.shape[dim] - last)
    return torch.cat([part for part in (before, src, behind) if part.shape[dim]], dim)


def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """`input` with `src` in one place of a dimension."""
    index = index % input.shape[dim]
    return slice_scatter(input, src.unsqueeze(dim), dim, index, index + 1)


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None, *, out=None) -> Tensor:
    """Entries along a dimension, chosen elsewhere by indices that broadcast."""
    if dim is None or out is not None:
        return NotImplemented
    shape = [indices.shape[d] if d == dim % input.dim() else size for d, size in enumerate(input.shape)]
    return input.gather(dim, indices.expand(shape))


def _is_empty(piece) -> bool:
    """Whether a tensor has no elements, for a batch of any size; a size that is a symbol is not 0."""
    return isinstance(piece, Tensor) and any(isinstance(size, int) and size == 0 for size in piece.shape)


def _split_along(dim: int, input: Tensor, places: tuple, indices, sections):
    """places: what came by position, `(2, 5)`, `((2, 5),)` or `(sections,)`."""
    given = next(x for x in (places[0] if len(places) == 1 else places or None, indices, sections) if x is not None)
    if input.dim() <= max(dim, 1) or (isinstance(given, int) and input.shape[dim] % given):
        return NotImplemented
    return tensor_split(input, given, dim)


def _taken(x: Tensor, dim: int, places: list[int]) -> Tensor:
    return x.index_select(dim, torch.tensor(places, device=x.device))


REARRANGED = {
    **dict.fromkeys((F.pixel_shuffle, torch.pixel_shuffle), pixel_shuffle),
    **dict.fromkeys((F.pixel_unshuffle, torch.pixel_unshuffle), pixel_unshuffle),
    **dict.fromkeys((F.channel_shuffle, torch.channel_shuffle, F.native_channel_shuffle), channel_shuffle),
    F.unfold: unfold,
    F.fold: fold,
    Tensor.unfold: windows_of,
    **dict.fromkeys((torch.tensor_split, Tensor.tensor_split), tensor_split),
    **dict.fromkeys((torch.hsplit, Tensor.hsplit), hsplit),
    **dict.fromkeys((torch.vsplit, Tensor.vsplit), vsplit),
    **dict.fromkeys((torch.dsplit, Tensor.dsplit), dsplit),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), cat),
    **dict.fromkeys((torch.rot90, Tensor.rot90), rot90),
    **dict.fromkeys((torch.fliplr, Tensor.fliplr), flipped_rows),
    torch.hstack: hstack,
    torch.dstack: dstack,
    **dict.fromkeys((torch.diff, Tensor.diff), diff),
    F.pad: pad,
    **dict.fromkeys((torch.aminmax, Tensor.aminmax), aminmax),
    **dict.fromkeys((torch.diagonal, Tensor.diagonal), diagonal),
    **dict.fromkeys((torch.slice_scatter, Tensor.slice_scatter), slice_scatter),
    **dict.fromkeys((torch.select_scatter, Tensor.select_scatter), select_scatter),
    **dict.fromkeys((torch.take_along_dim, Tensor.take_along_dim), take_along_dim),
    **dict.fromkeys((F.max_pool1d, torch.max_pool1d), max_pool1d),
    **dict.fromkeys((torch.topk, Tensor.topk), topk),
}
