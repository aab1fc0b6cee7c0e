"""Parameters and buffers of a module that are changed for a while, and given back bit for bit."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Adjustments:
    """The tensors of `module` that were changed, by name, each with a copy of what it was."""

    def __init__(self, module: nn.Module):
        self.module = module
        self.before: dict[str, Tensor] = {}

    def tensor(self, name: str) -> Tensor:
        """The parameter or buffer `name` as it is now."""
        owner, _, attribute = name.rpartition(".")
        return getattr(self.module.get_submodule(owner), attribute)

    def write(self, name: str, values: Tensor) -> None:
        """Put `values` into the parameter or buffer `name`, in place."""
        tensor = self.tensor(name).detach()
        self.before.setdefault(name, tensor.clone())
        tensor.copy_(values)

    @contextlib.contextmanager
    def undone(self) -> Iterator[None]:
        """The module as it was, inside; nothing is copied."""
        changed = {name: self.tensor(name) for name in self.before}
        adjusted = {name: tensor.data for name, tensor in changed.items()}
        for name, tensor in changed.items():
            tensor.data = self.before[name]
        try:
            yield
        finally:
            for name, tensor in changed.items():
                tensor.data = adjusted[name]

    def undo(self) -> None:
        """Give the module back what it had."""
        with torch.no_grad():
            for name, values in self.before.items():
                self.tensor(name).copy_(values)
        self.before.clear()
