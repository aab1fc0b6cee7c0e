"""Which tensors a recording can follow: made by calls that it saw, dense, of real numbers or integers."""

import contextlib
import gc
from collections.abc import Iterable

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree

from qat.errors import PreparationError
from qat.inject.operations import Operation

_WAY_OUT = "leave it out of the part that is quantized (module=)"


class Followed:
    """The tensors that a network has of its own or is given, and those that its calls have made since.

    Others may have been there before the forward, such as a tensor in a closure, which is as good. What the garbage
    collector met since the forward began, and no call made, came from nowhere.
    """

    def __init__(self, own: Iterable[Tensor]):
        self.tensors: dict[int, Tensor] = {}  # ids stay unique only while their tensors live
        self.by_memory: dict[int, list[Tensor]] = {}
        for tensor in own:
            self._know(tensor)

    @contextlib.contextmanager
    def watching(self):
        """Tell apart what is there before from what is made inside."""
        gc.freeze()  # moves all there is out of what `gc.get_objects` lists, at no cost
        try:
            yield
        finally:
            gc.unfreeze()

    def add(self, result) -> None:
        """Know every tensor in the result of a call."""
        for leaf in [result] if isinstance(result, Tensor) else pytree.tree_leaves(result):
            if isinstance(leaf, Tensor) and id(leaf) not in self.tensors:
                self._know(leaf)

    def _know(self, tensor: Tensor) -> None:
        self.tensors[id(tensor)] = tensor
        if tensor.layout is torch.strided and not isinstance(tensor, FakeTensor):  # left behind by an export
            self.by_memory.setdefault(memory_of(tensor), []).append(tensor)

    def sharing(self, tensor: Tensor) -> list[Tensor]:
        """The other tensors that lie in the memory of this one: its views, and what it is a view of."""
        memory = memory_of(tensor)
        return [other for other in self.by_memory.get(memory, ()) if memory is not None and other is not tensor]

    def check(self, tensor: Tensor, operation: Operation, place: str) -> None:
        """Raise `PreparationError` for a tensor that came from nowhere, as out of NumPy or a functional transform.

        place: of the call, module and line.
        """
        if id(tensor) in self.tensors:
            return
        if any(thing is tensor for thing in gc.get_objects()):
            raise PreparationError(
                f"{operation.name} in {place} reads a tensor that no torch call of the network made (NumPy, "
                "torch.Tensor(...), torch.vmap or compiled code did), so its values would pass unquantized; compute it "
                f"with torch calls, constants with torch.tensor, or {_WAY_OUT}."
            )
        self._know(tensor)


def memory_of(tensor: Tensor) -> int | None:
    """Where a tensor lies; None for one without memory of its own.

    Such are sparse tensors, those that a compilation left behind, and the parameters of lazy layers.
    """
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError, ValueError):
        return None


def refuse_unfit(tensors: list[Tensor], operation: Operation, place: str) -> None:
    """Raise `PreparationError` for complex, sparse and quantized tensors among those a call reads or makes."""
    for tensor in tensors:
        what = _what_is_unfit(tensor)
        if what is not None:
            raise PreparationError(
                f"{operation.name} in {place} computes with {what}, which have no integer form; compute with dense "
                f"real tensors, or {_WAY_OUT}."
            )


def _what_is_unfit(tensor: Tensor) -> str | None:
    if tensor.is_complex():
        return "complex numbers"
    if tensor.is_nested:
        return "nested tensors"
    if tensor.layout is not torch.strided:
        return f"sparse tensors ({str(tensor.layout).removeprefix('torch.')})"
    if tensor.is_quantized:
        return f"tensors that are quantized by other means ({str(tensor.dtype).removeprefix('torch.')})"
    return None
