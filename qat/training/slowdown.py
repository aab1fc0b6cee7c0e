"""What a quantized training step costs beside a float one, measured on the network itself before it is trained."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from qat.errors import ConfigurationError
from qat.inject.handle import Handle
from qat.inject.inputs import bind_examples
from qat.schedule import QuantState
from qat.training.modes import modes_kept

#: Rounds that the median is taken of, and rounds before them, in which step sizes start and allocators settle.
ROUNDS = 7
WARM_UP_ROUNDS = 2

FLOAT = QuantState(observe=False, fake_quantize=False)
#: The costliest phase: ranges are observed and step sizes learn.
QUANTIZED = QuantState()


@dataclass(frozen=True)
class Slowdown:
    """Seconds of each round, float and quantized side by side, and what they were measured with."""

    float_seconds: tuple[float, ...]
    quantized_seconds: tuple[float, ...]
    batch_size: int
    device: str

    @property
    def ratio(self) -> float:
        """Median over rounds of the quantized step over the float one: noise of the machine meets both alike."""
        rounds = zip(self.quantized_seconds, self.float_seconds, strict=True)
        return statistics.median(quantized / real for quantized, real in rounds)

    def __str__(self) -> str:
        return (
            f"expected slowdown: a quantized step takes {self.ratio:.2f}x the float one "
            f"(median of {len(self.float_seconds)}, batch {self.batch_size}, {self.device})"
        )


def expected_slowdown(handle: Handle, inputs, rounds: int = ROUNDS) -> Slowdown:
    """Time forward and backward of the prepared network, float and quantized in turn.

    inputs: one training batch, as `qat.prepare` takes them, on the device of the network. rounds: steps of each kind.
    Weights, buffers, gradients, quantizers, modes and the random state are left as they were. Raises
    `ConfigurationError` where no output has a gradient.
    """
    args, kwargs = bind_examples(handle.module, inputs)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    device = tensors[0].device
    seconds: dict[QuantState, list[float]] = {FLOAT: [], QUANTIZED: []}
    with _left_as_it_was(handle, device), torch.enable_grad():
        handle.module.train()
        for _ in range(WARM_UP_ROUNDS + rounds):
            for state, times in seconds.items():
                handle.set_state(state)
                times.append(_timed(lambda: _train_step(handle, args, kwargs), device))
    measured = {state: tuple(times[WARM_UP_ROUNDS:]) for state, times in seconds.items()}
    batch_size = max((len(tensor) for tensor in tensors if tensor.dim()), default=1)
    return Slowdown(measured[FLOAT], measured[QUANTIZED], batch_size, device.type)


def _train_step(handle: Handle, args: tuple, kwargs: dict) -> None:
    """Forward and backward; the loss is the mean of all outputs, whose cost is nothing beside the network's."""
    outputs = [leaf for leaf in tree_leaves(handle.module(*args, **kwargs)) if isinstance(leaf, Tensor)]
    trained = [output for output in outputs if output.requires_grad]
    if not trained:
        raise ConfigurationError(
            f"no output of {type(handle.module).__name__} has a gradient, so there is no training step to measure; "
            "unfreeze a parameter."
        )
    torch.autograd.backward([output.float().mean() for output in trained])


def _timed(step: Callable[[], None], device: torch.device) -> float:
    start = _now(device)
    step()
    return _now(device) - start


def _now(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@contextlib.contextmanager
def _left_as_it_was(handle: Handle, device: torch.device) -> Iterator[None]:
    """Put everything back that a training step changes."""
    buffers = [(buffer, buffer.clone()) for buffer in handle.module.buffers()]
    parameters = [*handle.module.parameters(), *handle.parameters()]
    gradients = [parameter.grad for parameter in parameters]
    state, runs = handle.state, handle.runs
    quantizers = {name: {key: value.clone() for key, value in own.items()} for name, own in handle.state_dict().items()}
    for parameter in parameters:
        parameter.grad = None
    try:
        with modes_kept(handle.module), torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        handle.load_state_dict(quantizers)
        handle.set_state(state)
        handle.runs = runs
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
