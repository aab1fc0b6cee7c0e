"""Calls that move, cut or reduce along the batch, told while the network is recorded where that can be told.

A file has one program for a batch of any size, whose samples know nothing of each other. Where the batch lies is
followed as long as it is the first dimension; behind a transposition that moves it, conversion tells.
"""

from collections.abc import Callable

from torch import Tensor

from qat.inject.operations import Operation

#: Operations that give dimensions another order, or choose among the entries of the first.
_REORDERING = frozenset(
    "transpose permute movedim moveaxis swapaxes swapdims t adjoint getitem select unbind squeeze einsum rot90".split()
)
#: Operations that add dimensions behind the first, as they are used.
_ADDING_BEHIND = frozenset("reshape view view_as reshape_as unflatten unsqueeze".split())
#: Name -> (what it does to the batch, position of its dimension among the arguments, its default).
_ALONG = {
    "softmax": ("works on", 1, None),
    "log_softmax": ("works on", 1, None),
    "cumsum": ("adds up", 1, None),
    "flip": ("flips", 1, None),
    "roll": ("rolls", 2, None),
    "mean": ("reduces over", 1, None),
    "sum": ("reduces over", 1, None),
    "amax": ("reduces over", 1, None),
    "amin": ("reduces over", 1, None),
    "max": ("reduces over", 1, None),
    "min": ("reduces over", 1, None),
    "cat": ("joins along", 1, 0),
    "chunk": ("splits", 2, 0),
    "split": ("splits", 2, 0),
    "split_with_sizes": ("splits", 2, 0),
    "tensor_split": ("splits", 2, 0),
    "unbind": ("takes apart the samples of", 1, 0),
    "select": ("picks one sample of", 1, None),
    "index_select": ("picks samples of", 1, None),
    "gather": ("picks samples of", 1, None),
    "repeat_interleave": ("repeats the samples of", 2, None),
}
_CHOOSING = frozenset({"index_select"})
_WAY_OUT = "keep dimension 0 for the batch alone, of any size"


def reason_against_choice(operation: Operation, others: list[Tensor], depends: Callable[[Tensor], bool]) -> str | None:
    """Why a call cannot choose entries of a value by these indices; None where it can.

    others: the operands that are no real numbers. depends: tells those that depend on the inputs.
    """
    if operation.name in _CHOOSING and any(map(depends, others)):
        return "it chooses by indices that depend on the inputs; choose by constant ones, or by a mask"
    return None


def reason_against_batch(operation: Operation, args: tuple, kwargs: dict) -> str | None:
    """What a call does to the first dimension of its first operand that is refused there; None for nothing."""
    if operation.name == "getitem":
        return _reason_against_index(args[0], args[1])
    what, position, default = _ALONG.get(operation.name, (None, 0, None))
    if what is None:
        return None
    rank = first_tensor(args, kwargs).dim()
    given = args[position] if len(args) > position else default
    dims = next((kwargs[name] for name in ("dim", "dims", "axis") if name in kwargs), given)
    if operation.name == "flip" and isinstance(dims, int):
        dims = args[1:]
    dims = dims if isinstance(dims, tuple | list) else (dims,)
    if not any(isinstance(dim, int) and not isinstance(dim, bool) and dim in (0, -rank) for dim in dims):
        return None
    return f"it {what} the batch; {_WAY_OUT}"


def first_tensor(args: tuple, kwargs: dict) -> Tensor | None:
    """The tensor that a call works on, of several that it joins the first."""
    operand = args[0] if args else kwargs.get("input", kwargs.get("tensors"))
    operand = next(iter(operand), None) if isinstance(operand, tuple | list) else operand
    return operand if isinstance(operand, Tensor) else None


def keeps_batch_first(operation: Operation, args: tuple, kwargs: dict, result: Tensor) -> bool:
    """Whether the first dimension of the first operand is that of a result of the call, too."""
    source = first_tensor(args, kwargs)
    if operation.name in _REORDERING or source is None or not min(source.dim(), result.dim()):
        return False
    return source.shape[0] == result.shape[0] and (result.dim() <= source.dim() or operation.name in _ADDING_BEHIND)


def _reason_against_index(x: Tensor, index) -> str | None:
    first = index[0] if isinstance(index, tuple) and index else index
    if isinstance(first, bool) or not isinstance(first, int | slice):
        return None
    if isinstance(first, slice) and len(range(*first.indices(x.shape[0]))) == x.shape[0]:
        return None
    what = "cuts" if isinstance(first, slice) else "picks one sample of"
    return f"it {what} the batch; {_WAY_OUT}"
