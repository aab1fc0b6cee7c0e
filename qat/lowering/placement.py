"""How a network stands while it is converted: in eval mode, on the CPU, with numbers of at least float32."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from qat.inject.handle import Handle

_NARROW = (torch.bfloat16, torch.float16)


@contextlib.contextmanager
def placed_for_conversion(module: nn.Module, handle: Handle) -> Iterator[None]:
    """The module in eval mode, on the CPU and in float32 or float64, while inside; then as it was."""
    modes = {name: part.training for name, part in module.named_modules()}
    device = next((tensor.device for tensor in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    try:
        module.eval().to("cpu")
        handle.to("cpu")
        with _widened(module):
            yield
    finally:
        module.to(device)
        handle.to(device)
        for name, part in module.named_modules():
            part.training = modes[name]


@contextlib.contextmanager
def _widened(module: nn.Module) -> Iterator[None]:
    """Parameters and buffers of 16 bits as float32, while inside.

    A network that was cast computes with roundings that no integers have: its program is that of the same numbers in
    float32, which hold them exactly.
    """
    narrow = [tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.dtype in _NARROW]
    contents = [tensor.data for tensor in narrow]
    try:
        for tensor in narrow:
            tensor.data = tensor.data.float()
        yield
    finally:
        for tensor, content in zip(narrow, contents, strict=True):
            tensor.data = content
