"""Looking into the forwards of a prepared network: what is computed there, with which tensors, and who reads it."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

from torch import Tensor, nn

from qat.inject.calls import Call, ValueId, has_slot, operand_at
from qat.inject.flow import Flow, is_identity
from qat.inject.handle import Handle
from qat.schedule import QuantState

#: Nothing is rounded, and in eval mode nothing observed either; the forward runs call by call all the same.
FLOAT = QuantState(observe=True, fake_quantize=False)
QUANTIZED = QuantState(observe=False, fake_quantize=True, freeze_batch_norm=True, freeze_scales=True, final=True)

#: Told of a computation before it runs: its address, function, positional and keyword arguments.
Watcher = Callable[[int, Callable, tuple, dict], None]


@contextlib.contextmanager
def watched(handle: Handle, watcher: Watcher) -> Iterator[None]:
    """Let `watcher` see every computation of a prepared network, inside."""
    handle.watcher = watcher
    try:
        yield
    finally:
        handle.watcher = None


def tensors_of(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """Every parameter and buffer with its name."""
    yield from module.named_parameters()
    yield from module.named_buffers()


def operand_in(slots, args: tuple, kwargs: dict):
    """What a call was given in the first of `slots` that it was given anything in; None for nothing."""
    return next((operand_at(args, kwargs, slot) for slot in slots if has_slot(args, kwargs, slot)), None)


def flow_of(handle: Handle) -> Flow:
    """Who makes and who reads the values of a prepared network."""
    recording = handle.recording
    return Flow(recording.calls, [*recording.outputs, *recording.compared])


def only_reader(value: ValueId, flow: Flow) -> Call | None:
    """The one call that reads a value, and nothing else; None for several, or for what leaves the network.

    What leaves values as they are, and may do so in one mode alone (dropout), reads nothing.
    """
    found, rest = {}, [value]
    while rest:
        each = rest.pop()
        if each in flow.outputs:
            return None
        for reader in flow.readers.get(each, ()):
            if is_identity(reader):
                rest.append(("call", reader.address, 0))
            else:
                found[reader.address] = reader
    (reader,) = found.values() if len(found) == 1 else (None,)
    if reader is None or {flow.source(each) for each in reader.values()} != {value}:
        return None
    return reader
