"""Functions of one value: whatever a network writes with them alone becomes one table of 256 codes.

A table holds the result for every code of its input, so any chain of such functions, however long and with whatever
numbers, costs one lookup and one rounding. Where in the network the chains are is decided in `qat.inject.fusing`.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from qat.inject.calls import Operand
from qat.inject.operations import Kind, Operation, first_operand

#: Operations that compute every element of the result from the same element of their tensors.
NONLINEAR = frozenset("""
    gelu silu sigmoid tanh hardswish hardsigmoid elu selu celu leaky_relu prelu mish softplus softsign tanhshrink
    logsigmoid hardshrink softshrink threshold rrelu exp exp2 expm1 log log1p log2 log10 logit sqrt rsqrt reciprocal
    square abs sign sgn sin cos tan asin acos atan sinh cosh asinh acosh atanh erf erfc pow rpow float_power rdiv
    maximum minimum rsub neg sinc nan_to_num round floor ceil trunc frac
    fmod remainder floor_divide heaviside copysign hypot atan2 logaddexp erfinv lgamma digamma
""".split())  # fmt: skip
#: The same, where a kernel of their own is as good as a table as long as they stand alone.
PLAIN = frozenset("add sub mul div relu relu6 hardtanh clamp clamp_min clamp_max".split())
#: Operations that leave every element as it is, where it is.
IDENTITIES = frozenset("""
    contiguous clone detach to type_as type float half bfloat16 double cpu cuda alias dropout dropout1d dropout2d
    dropout3d feature_dropout alpha_dropout feature_alpha_dropout requires_grad
""".split())  # fmt: skip


def is_pointwise(operation: Operation, operands: Iterable[Operand], others: Iterable[Tensor]) -> bool:
    """Whether a call is a function of its values element by element, with the same numbers for all elements.

    operands: its real tensors. others: its other tensors. The weight of a PReLU may differ from channel to channel,
    dimension 1.
    """
    if operation.name not in NONLINEAR and operation.name not in PLAIN:
        return False
    if operation.name == "prelu":
        return True
    single = all(math.prod(operand.shape) == 1 for operand in operands if operand.value is None)
    alike = len({operand.shape for operand in operands if operand.value is not None}) == 1
    return single and alike and all(tensor.numel() == 1 for tensor in others)


def is_elementary(operation: Operation, kind: Kind) -> bool:
    """Whether an operation computes element by element, or moves and joins elements."""
    return kind in (Kind.CAST, Kind.PASS, Kind.JOIN, Kind.FUSE) or operation.name in NONLINEAR | PLAIN


def evaluate(name: str, function, args: tuple, kwargs: dict) -> Tensor:
    """The real results of one call for every code of its input.

    name: canonical name of the operation. args, kwargs: with the reals of those codes, float64 (n,) or (C, n), where
    values were.
    """
    if name == "prelu":
        points = first_operand(args, kwargs)
        weight = (args[1] if len(args) > 1 else kwargs["weight"]).detach().double()
        return torch.where(points > 0, points, points * (weight if weight.numel() == 1 else weight[:, None]))
    return function(*args, **kwargs)
