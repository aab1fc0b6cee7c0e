"""Networks that were prepared and trained for one step."""

import torch

import qat
from qat.integer.program import Loop


def trained(network, quant, x, target="onnxruntime"):
    """Prepared, and one step of training."""
    handle = qat.prepare(network, x[:2], quant, target)
    optimizer = torch.optim.SGD([*network.parameters(), *handle.parameters()], 0.01)
    network(x).square().mean().backward()
    optimizer.step()
    network(x)
    network.eval()


def loops_of(program):
    return [operation for operation in program.operations if isinstance(operation, Loop)]
