"""Layers with weights as products of matrices: `outputs = rows @ matrix.T`, for each group of channels.

A convolution multiplies every window of its input, flattened to a row, with the same matrix. So whatever is known of
the rows (their mean, their second moments) says what becomes of the outputs when the matrix changes.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from qat.integer.geometry import per_dimension

_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_CONV_TRANSPOSE = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")


@dataclass(frozen=True)
class Geometry:
    """How a layer makes rows of its input. dims: spatial ones, 0 for a product. transposed: the weight is stored so.

    kernel, stride, dilation, padding, output_padding: one entry for each spatial dimension, padding for both sides.
    """

    dims: int = 0
    transposed: bool = False
    groups: int = 1
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    output_padding: tuple[int, ...] = ()

    @classmethod
    def of(cls, operation: str, args: tuple, kwargs: dict, weight: Tensor) -> "Geometry":
        """Of a call to the layer `operation` (its canonical name)."""
        if not operation.startswith("conv"):
            return cls(transposed=operation != "linear")
        transposed, dims = operation.startswith("conv_transpose"), weight.dim() - 2
        names = _CONV_TRANSPOSE if transposed else _CONV
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        kernel = tuple(weight.shape[2:])
        dilation = per_dimension(given.get("dilation", 1), dims)
        return cls(
            dims=dims,
            transposed=transposed,
            groups=given.get("groups", 1),
            kernel=kernel,
            stride=per_dimension(given.get("stride", 1), dims),
            dilation=dilation,
            padding=_both_sides(given.get("padding", 0), kernel, dilation),
            output_padding=per_dimension(given.get("output_padding", 0), dims),
        )

    def rows(self, x: Tensor) -> Tensor:
        """(groups, rows, inputs of a row) of an input as the layer takes it."""
        if not self.dims:
            return x.reshape(1, -1, x.shape[-1])
        if x.dim() == self.dims + 1:  # without a batch
            x = x.unsqueeze(0)
        windows = self._padded(x)
        stride = (1,) * self.dims if self.transposed else self.stride
        for dim in range(self.dims):
            reach = self.dilation[dim] * (self.kernel[dim] - 1) + 1
            windows = windows.unfold(2 + dim, reach, stride[dim])[..., :: self.dilation[dim]]
        # (N, C, *positions, *kernel) -> (groups, N and positions, channels of a group and kernel)
        positions = tuple(range(2, 2 + self.dims))
        windows = windows.permute(0, *positions, 1, *range(2 + self.dims, 2 + 2 * self.dims))
        count = windows.shape[0] * windows[0].flatten(0, self.dims - 1).shape[0]
        return windows.reshape(count, self.groups, -1).transpose(0, 1)

    def matrix(self, weight: Tensor) -> Tensor:
        """(groups, outputs of a group, inputs of a row) of a tensor of the weight's shape."""
        if not self.dims:
            return (weight.T if self.transposed else weight).unsqueeze(0)
        if not self.transposed:
            return weight.reshape(self.groups, weight.shape[0] // self.groups, -1)
        flipped = weight.flip(tuple(range(2, weight.dim())))  # (I, O of a group, *kernel)
        return flipped.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(2)

    def weight(self, matrix: Tensor, like: Tensor) -> Tensor:
        """The tensor of the shape of `like` whose `matrix` is this."""
        if not self.dims:
            return matrix[0].T if self.transposed else matrix[0]
        if not self.transposed:
            return matrix.reshape(like.shape)
        inputs = like.shape[0] // self.groups
        swapped = matrix.reshape(self.groups, like.shape[1], inputs, *self.kernel).transpose(1, 2)
        return swapped.reshape(like.shape).flip(tuple(range(2, like.dim())))

    def _padded(self, x: Tensor) -> Tensor:
        if not self.transposed:
            return F.pad(x, _for_pad(self.padding))
        # a transposed convolution is one over its input with zeros in between, and all around
        spread = [(size - 1) * step + 1 for size, step in zip(x.shape[2:], self.stride, strict=True)]
        apart = x.new_zeros(*x.shape[:2], *spread)
        apart[(..., *(slice(None, None, step) for step in self.stride))] = x
        reach = [spread * (size - 1) for spread, size in zip(self.dilation, self.kernel, strict=True)]
        around = [
            (size - before, size - behind + more)
            for size, (before, behind), more in zip(reach, self.padding, self.output_padding, strict=True)
        ]
        return F.pad(apart, _for_pad(around))


def _both_sides(padding, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":  # torch puts the odd one at the end
        totals = [spread * (size - 1) for size, spread in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((amount, amount) for amount in per_dimension(padding, len(kernel)))


def _for_pad(sides) -> list[int]:
    """Padding as `F.pad` takes it: the last dimension first."""
    return [amount for pair in reversed(list(sides)) for amount in pair]
