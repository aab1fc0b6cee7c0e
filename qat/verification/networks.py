"""The networks beside a file: how they are called, what they return, and the metrics of each."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from qat.errors import ConfigurationError
from qat.inject.handle import handle_of
from qat.inject.outputs import by_place, named_outputs
from qat.integer.program import IntegerProgram
from qat.real.program import RealProgram
from qat.verification import meters


class NetworksBeside:
    """The prepared network and the float one, where they are given, each with metrics of its own.

    unchecked: those that may be in train mode or not prepared.
    """

    def __init__(
        self,
        fake_quant: Callable | None,
        float_network: Callable | None,
        metrics: Mapping[str, Any] | None,
        unchecked: Collection[str] = (),
    ):
        given = {"fake_quant": fake_quant, "float": float_network}
        self._networks = {name: network for name, network in given.items() if network is not None}
        for name, network in self._networks.items():
            if isinstance(network, torch.nn.Module) and name not in unchecked:
                check_module(name, network)
        self._meters = {name: meters.cloned(metrics or {}) for name in self._networks}

    def run(self, inputs: Any, targets: Any) -> dict[str, Any]:
        """What each returns, by its name, after its metrics have seen it."""
        outputs = {name: call(network, inputs) for name, network in self._networks.items()}
        for name, output in outputs.items():
            meters.update(self._meters[name], name, by_place(output), targets)
        return outputs

    def numbers(self) -> dict[str, dict[str, float]]:
        """What the metrics of each came to."""
        return {name: meters.numbers(entries) for name, entries in self._meters.items()}


def check_module(name: str, module: torch.nn.Module) -> None:
    """Refuse a network in train mode, and as the fake-quantized one a network that is not prepared."""
    training = [path for path, part in module.named_modules() if part.training]
    if training:
        part = f"{training[0]!r} of the {name} module" if training[0] else f"the {name} module"
        raise ConfigurationError(f"{part} is in train mode; call module.eval() before verifying.")
    if name == "fake_quant" and all(handle_of(part) is None for part in module.modules()):
        raise ConfigurationError(
            f"the module is a {type(module).__name__} that is not prepared; "
            "pass the prepared network, and a float one as float_module=."
        )


def call(module: Callable, inputs: Any):
    """Call a network on inputs as a loader gives them, on the device where it lies."""
    parameter = next(module.parameters(), None) if isinstance(module, torch.nn.Module) else None

    def move(tensor: Tensor) -> Tensor:
        if parameter is None:
            return tensor
        return tensor.to(parameter.device, parameter.dtype if tensor.is_floating_point() else tensor.dtype)

    with torch.no_grad():
        if isinstance(inputs, Mapping):
            return module(**{name: move(tensor) for name, tensor in inputs.items()})
        if isinstance(inputs, Tensor):
            return module(move(inputs))
        return module(*map(move, inputs))


def by_name(program: IntegerProgram | RealProgram, output: Any) -> dict[str, Tensor]:
    """A network's result by output name."""
    names = [edge.name for edge in program.outputs]
    if dataclasses.is_dataclass(output):
        output = vars(output)
    structure, leaves = named_outputs(dict(output) if isinstance(output, Mapping) else output)
    named = {name: leaf for name, leaf in leaves if leaf is not None}
    if structure == "dict":
        if missing := set(names) - set(named):
            raise ConfigurationError(
                f"the network returns {', '.join(named)}, without {min(missing)}; they must agree."
            )
        return {name: named[name] for name in names}
    if len(named) != len(names):
        raise ConfigurationError(
            f"the network returns {len(named)} tensors, the program {len(names)}; they must agree."
        )
    return dict(zip(names, named.values(), strict=True))
