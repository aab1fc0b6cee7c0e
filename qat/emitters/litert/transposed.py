"""Transposed convolutions, which a program has as a convolution of its input with zeros between the codes.

TRANSPOSE_CONV computes the same sums without the zeros. It is found by what stands before the convolution: a Reshape, a
Pad and a Reshape that put the zeros there, and a Slice where the padding is more than the kernel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qat.integer.operations import Conv, Operation, Pad, Reshape, Slice
from qat.integer.program import IntegerProgram


@dataclass(frozen=True)
class Spread:
    """source: the value between whose codes zeros are put. strides: how far apart its codes then lie.

    steps: names of the operations that do so. crop: (before, after) of each spatial dimension, what the convolution
    leaves out of the sums of all places that the kernel reaches.
    """

    source: str
    strides: tuple[int, ...]
    steps: tuple[str, ...]
    crop: tuple[tuple[int, int], ...]


def spreads(program: IntegerProgram) -> dict[str, Spread]:
    """By the name of the convolution."""
    makers = {operation.output: operation for operation in program.operations}
    readers: dict[str, list[Operation]] = {}
    for operation in program.operations:
        for name in operation.inputs:
            readers.setdefault(name, []).append(operation)
    kept = {edge.value for edge in program.outputs}
    alone = {name for name, found in readers.items() if len(found) == 1 and name not in kept}
    found = {}
    for operation in program.operations:
        spread = _spread(program, operation, makers, alone) if isinstance(operation, Conv) else None
        if spread is not None:
            found[operation.name] = spread
    return found


def _spread(program: IntegerProgram, conv: Conv, makers: Mapping[str, Operation], alone: set[str]) -> Spread | None:
    if conv.groups > 1 or {*conv.stride, *conv.dilation} != {1} or len(conv.kernel_size) > 2:
        return None
    steps: list[Operation] = []
    for kind in (Slice, Reshape, Pad, Reshape):
        name = steps[-1].inputs[0] if steps else conv.inputs[0]
        maker = makers.get(name)
        if kind is Slice and not isinstance(maker, Slice):
            continue
        if not isinstance(maker, kind) or name not in alone:
            return None
        steps.append(maker)
    cut = steps[0] if isinstance(steps[0], Slice) else None
    together, zeros, apart = steps[-3:]
    source = apart.inputs[0]
    channels, *spatial = program.value(source).shape
    strides = _strides(zeros.amounts)
    if strides is None or tuple(apart.shape) != (channels, *(size for length in spatial for size in (length, 1))):
        return None
    if tuple(together.shape) != (channels, *(length * step for length, step in zip(spatial, strides, strict=True))):
        return None
    if cut is not None and (cut.starts[0], cut.ends[0]) != (0, channels) or cut is not None and set(cut.steps) != {1}:
        return None
    results = program.value(conv.output).shape[1:]
    crop = []
    for dim, (kernel, (before, _)) in enumerate(zip(conv.kernel_size, conv.padding, strict=True)):
        left = kernel - 1 - before + (cut.starts[dim + 1] if cut is not None else 0)
        whole = (spatial[dim] - 1) * strides[dim] + kernel
        crop.append((left, whole - left - results[dim]))
    if any(min(pair) < 0 for pair in crop):
        return None
    return Spread(source, strides, tuple(step.name for step in steps), tuple(crop))


def _strides(amounts: Sequence[tuple[int, int]]) -> tuple[int, ...] | None:
    """The stride of each spatial dimension, of what pads (C, size, 1, ...) behind each code."""
    first, *rest = amounts
    if first != (0, 0) or any(pair != (0, 0) for pair in rest[::2]) or any(before for before, _ in rest[1::2]):
        return None
    return tuple(after + 1 for _, after in rest[1::2])
