"""Arithmetic of real values and of tensors of integers, such as a mask's: the integers become real numbers in a call of
their own, which is quantized like a mask that the network converts itself.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from qat.inject.operations import operation_of

_ARITHMETIC = frozenset({"add", "sub", "rsub", "mul", "div", "rdiv"})


def with_real_operands(function: Callable, args: tuple, kwargs: dict) -> Callable | None:
    """A function of the same arguments that converts those of integers first; None where nothing is to be converted.

    Tensors without dimensions are numbers, which need no grid. Two tensors of integers have a quotient of real numbers.
    """
    if operation_of(function).name not in _ARITHMETIC or kwargs.get("rounding_mode") is not None:
        return None
    tensors = [argument for argument in args if isinstance(argument, Tensor)]
    integers = [tensor for tensor in tensors if tensor.dim() and not _is_inexact(tensor)]
    reals = [tensor for tensor in tensors if _is_inexact(tensor)]
    divides = operation_of(function).name in ("div", "rdiv") and len(tensors) == 2
    if not integers or not (reals or divides) or any(tensor.is_complex() for tensor in tensors):
        return None
    dtype = next((tensor.dtype for tensor in reals if tensor.dim()), torch.get_default_dtype())

    def converted(*args, **kwargs):
        args = [x.to(dtype) if isinstance(x, Tensor) and x.dim() and not _is_inexact(x) else x for x in args]
        return function(*args, **kwargs)

    return converted


def _is_inexact(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
