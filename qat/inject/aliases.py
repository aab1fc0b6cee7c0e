"""Tensors written in place while a network is recorded: the writes are done on new tensors instead."""

from collections.abc import Iterable

from torch import Tensor

from qat.errors import PreparationError
from qat.inject.calls import substitute, tensor_slots
from qat.inject.operations import Operation


class Aliases:
    """What stands for a tensor that was written in place, and which tensors would have changed with it.

    replaced: id of what was written -> the result. stale: id of a tensor in the memory written to -> (source line, id
    of what was written). views: id of what indexing made -> (id of the tensor it looks into, the index).
    """

    def __init__(self):
        self.replaced: dict[int, Tensor] = {}
        self.stale: dict[int, tuple[str, int]] = {}
        self.views: dict[int, tuple[int, str]] = {}
        self.alive: list[Tensor] = []  # ids stay unique only while their tensors live

    def current(self, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Arguments with what was written in place of the tensors it was written to."""
        return substitute(self.replaced, args, kwargs) if self.replaced else (args, kwargs)

    def replace(self, written: Tensor, result: Tensor) -> None:
        """Let later uses of `written` see `result`."""
        self.replaced[id(written)] = result
        self.alive.append(written)

    def note_view(self, operation: Operation, args: tuple, result) -> None:
        """Remember what indexing looks into."""
        if operation.name == "getitem" and isinstance(result, Tensor):
            self.views[id(result)] = (id(args[0]), repr(args[1]))
            self.alive.append(result)

    def make_stale(self, others: Iterable[Tensor], written: Tensor, source: str) -> None:
        """Note that the write at `source` would have changed `others` too."""
        for other in others:
            if id(other) not in self.replaced:
                self.stale.setdefault(id(other), (source, id(written)))
                self.alive.append(other)

    def check(self, operation: Operation, args: tuple, kwargs: dict) -> None:
        """Raise `PreparationError` for a call that reads a stale tensor.

        `x[index] += y` writes into a view and then the view into `x`: that is followed.
        """
        if not self.stale:
            return
        if operation.name == "setitem" and id(args[0]) in self.stale:
            _, written = self.stale[id(args[0])]
            if self.views.get(written) == (id(args[0]), repr(args[1])):
                del self.stale[id(args[0])]
        for _, tensor in tensor_slots(args, kwargs):
            self.refuse_stale(tensor)

    def refuse_stale(self, tensor) -> None:
        """Raise `PreparationError` for a tensor that a write into its memory would have changed."""
        if id(tensor) in self.stale:
            source, _ = self.stale[id(tensor)]
            raise PreparationError(
                f"{source} writes in place into memory that another tensor used later shares (a view of it), which "
                "quantization cannot follow; write to a new tensor instead (x = x + y, torch.cat, torch.where)."
            )
