"""Train and eval mode of every part of a module: a frozen layer may be in eval mode while the rest trains."""

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    """Give every part its own mode back, whatever was set inside."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
