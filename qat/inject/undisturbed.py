"""Running a network without leaving a trace in it."""

import contextlib
import random

import numpy
import torch
from torch import nn


@contextlib.contextmanager
def with_attributes_kept(module: nn.Module):
    """Give the parts the attributes back that they have now: they may keep tensors of their last forward."""
    attributes = [(part, dict(part.__dict__)) for part in module.modules()]
    try:
        yield
    finally:
        for part, own in attributes:
            with contextlib.suppress(AttributeError):
                part.__dict__.update(own)


@contextlib.contextmanager
def undisturbed(module: nn.Module):
    """Leave buffers, modes and random states as they are, whatever runs inside."""
    buffers = [(part, dict(part._buffers)) for part in module.modules()]
    contents = {
        id(buffer): buffer.detach().clone() for _, own in buffers for buffer in own.values() if buffer is not None
    }
    modes = {name: part.training for name, part in module.named_modules()}
    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    devices = sorted({parameter.device.index for parameter in module.parameters() if parameter.is_cuda})
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python_state)
        numpy.random.set_state(numpy_state)
        for name, part in module.named_modules():
            part.training = modes[name]
        with torch.no_grad():
            for part, own in buffers:
                part._buffers.clear()
                part._buffers.update(own)
                for buffer in own.values():
                    if buffer is not None:
                        buffer.copy_(contents[id(buffer)])
