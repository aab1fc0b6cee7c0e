"""How windows, reductions and broadcasting change a shape, or why they cannot.

Shapes are without the batch. `error` makes the exception from what is wrong; it knows who asks.
"""

from collections.abc import Callable, Sequence

from qat.errors import ProgramError

Shape = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]
Refuse = Callable[[str], ProgramError]

#: Largest extent, step or padding of a window.
MAX_WINDOW = 2**16


def per_dimension(value, dims: int) -> tuple[int, ...]:
    """One number for each of `dims` dimensions, from one for all or one for each; none stays none."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dims if len(values) == 1 else values


def check_window(error: Refuse, kernel_size: Shape, stride: Shape, padding: Pairs, dilation: Shape) -> None:
    """Refuse a window without an extent, stride, padding and dilation in range for each of 1 to 3 dimensions."""
    dims = len(kernel_size)
    if not (dims in (1, 2, 3) and dims == len(stride) == len(padding) == len(dilation)):
        raise error(f"needs a stride, padding and dilation for each of the {dims} dimensions of its window, 1 to 3")
    sizes = (*kernel_size, *stride, *dilation)
    if min(sizes) < 1 or max(sizes) > MAX_WINDOW or any(min(pair) < 0 or max(pair) > MAX_WINDOW for pair in padding):
        raise error(
            f"has kernel {kernel_size}, stride {stride}, dilation {dilation}, padding {padding}; they "
            f"lie in 1..{MAX_WINDOW}, padding in 0..{MAX_WINDOW}"
        )


def check_spatial(error: Refuse, shape: Shape, kernel_size: Shape) -> Shape:
    """`shape` if it is (C, *spatial) with as many spatial dimensions as the window has."""
    if len(shape) != len(kernel_size) + 1:
        raise error(f"with windows of {kernel_size} cannot take an input of (C, *spatial) {shape}")
    return shape


def count_windows(
    error: Refuse,
    spatial: Sequence[int],
    kernel_size: Shape,
    stride: Shape,
    padding: Pairs,
    dilation: Shape,
    ceil_mode: bool = False,
) -> list[int]:
    """How many windows there are along each spatial dimension. ceil_mode: the last may overhang the end."""
    counts = []
    for size, kernel, step, (before, after), spread in zip(
        spatial, kernel_size, stride, padding, dilation, strict=True
    ):
        room = size + before + after - spread * (kernel - 1) - 1
        count = room // step + 1
        # A window that overhangs must still begin inside the input or its padding in front.
        if ceil_mode and room % step and count * step < size + before:
            count += 1
        if count < 1:
            raise error(
                f"has windows of {kernel_size} (dilation {dilation}) larger than its padded input of {tuple(spatial)}"
            )
        counts.append(count)
    return counts


def reduced_shape(error: Refuse, shape: Shape, dims: tuple[int, ...], keepdim: bool) -> Shape:
    """`shape` with `dims` (the batch is 0) of size 1, or gone."""
    if not dims or len(set(dims)) != len(dims) or not all(1 <= dim <= len(shape) for dim in dims):
        raise error(f"reduces dimensions {dims} of an input of {shape}; name each once, the batch (0) is not reduced")
    if keepdim:
        return tuple(1 if dim in dims else size for dim, size in enumerate(shape, start=1))
    return tuple(size for dim, size in enumerate(shape, start=1) if dim not in dims)


def broadcast_shape(error: Refuse, first: Shape, second: Shape) -> Shape:
    """Broadcast of two shapes of equal rank: with another rank a dimension would meet the batch."""
    if len(first) != len(second) or any(a != b and 1 not in (a, b) for a, b in zip(first, second, strict=True)):
        raise error(
            f"cannot broadcast {first} and {second} (without the batch); give both the same number of dimensions, "
            "each of equal size or 1"
        )
    return tuple(max(pair) for pair in zip(first, second, strict=True))
