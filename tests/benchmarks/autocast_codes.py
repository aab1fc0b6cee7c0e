"""How many output codes of a quantized forward bfloat16 autocast changes, left to itself and as `prepare` has it.

    python tests/benchmarks/autocast_codes.py

Random networks and inputs on the CPU; each forward under autocast is compared with the float32 one of the same network
and mode, and the eval forward with the integer program as well.
"""

from unittest import mock

import torch
from torch import nn

import qat
from qat.inject.handle import Handle
from qat.models import ResNet20

SAMPLES = 256


def linear_network() -> nn.Module:
    """Three layers of 256 units."""
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def codes(network: nn.Module, inputs: torch.Tensor, scale: torch.Tensor, autocast: bool) -> torch.Tensor:
    """Output of one forward in whole steps of its scale."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return torch.round(network(inputs).float() / scale)


def main() -> None:
    """Print one line for each network, width and mode."""
    for make, shape in ((ResNet20, (3, 32, 32)), (linear_network, (64,))):
        for quant in ("w8a8", "w4a4"):
            torch.manual_seed(0)
            network, inputs = make(), torch.randn(SAMPLES, *shape)
            handle = qat.prepare(network, inputs[:2], quant)
            network(inputs)
            handle.set_state(qat.QuantState(observe=False))
            output = [name for name, site in handle.plan.sites.items() if site.role == "activation"][-1]
            for training in (True, False):
                network.train(training)
                scale = handle.quantizers[output].qparams().scale
                expected = codes(network, inputs, scale, autocast=False)
                inside = codes(network, inputs, scale, autocast=True)
                with mock.patch.object(Handle, "widens", False):
                    alone = codes(network, inputs, scale, autocast=True)
                print(
                    f"{type(network).__name__:10} {quant} {'train' if training else 'eval':5}: "
                    f"{int((alone != expected).sum()):5} of {expected.numel()} output codes differ "
                    f"with autocast alone, {int((inside != expected).sum())} as prepared"
                )
            program = torch.round(qat.convert(network)(inputs) / scale)
            print(f"{type(network).__name__:10} {quant} program: {int((inside != program).sum())} differ from eval")


if __name__ == "__main__":
    main()
