"""The layers with weights of a prepared network that can be adjusted, and what they meet on calibration data."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from qat.inject.accumulators import batch_norm_of
from qat.inject.calls import has_slot, operand_at
from qat.inject.handle import Handle
from qat.post_training.adjustments import Adjustments
from qat.post_training.moments import Moments, spread
from qat.post_training.rows import Geometry
from qat.schedule import QuantState

#: Nothing is rounded, and in eval mode nothing observed either; the forward runs call by call all the same.
FLOAT = QuantState(observe=True, fake_quantize=False)
QUANTIZED = QuantState(observe=False, fake_quantize=True, freeze_batch_norm=True, freeze_scales=True, final=True)


@dataclass(frozen=True)
class Call:
    """One place where a layer runs. name, address: of the layer. bias: the parameter that shifts its outputs, if any.

    mean: the buffer with the running mean of the batch norm folded into it; what is taken off there is taken off as
    well. Both are None where something else uses them, too. runs: executions in one forward.
    """

    name: str
    address: int
    operation: str
    bias: str | None
    mean: str | None
    runs: int

    @property
    def shift(self) -> str | None:
        """The one of the two that a correction goes to."""
        return self.bias or self.mean


@dataclass
class Layer:
    """All calls with one weight. weight: name of its quantizer.

    owned: whether that is the name of a parameter or buffer as well, which nothing but these calls rounds.
    """

    weight: str
    owned: bool
    calls: list[Call] = field(default_factory=list)


def layers_of(handle: Handle, run: Callable[[], None]) -> list[Layer]:
    """The layers with weights of a prepared network, in the order in which a forward runs them.

    run: one forward in eval mode.
    """
    names = {id(tensor): name for name, tensor in tensors_of(handle.module)}
    found: dict[int, str | None] = {}  # address -> bias or running mean
    runs: dict[int, int] = {}
    actions = handle.plan.actions

    def note(address: int, function: Callable, args: tuple, kwargs: dict) -> None:
        action = actions[address]
        runs[address] = runs.get(address, 0) + 1
        if handle.operations[address] == "batch_norm" and action.folded_into is not None:
            found[address] = names.get(id(batch_norm_of(function, args, kwargs)[1].mean))
        elif action.weight_quantizer is not None and action.bias is not None:
            if has_slot(args, kwargs, action.bias):
                found[address] = names.get(id(operand_at(args, kwargs, action.bias)))

    handle.set_state(FLOAT)
    with watched(handle, note):
        run()
    owned = set(names.values())
    shared = {name for name in found.values() if list(found.values()).count(name) > 1}
    elsewhere = {name for action in actions.values() for _, name in action.weights if name != action.weight_quantizer}
    layers: dict[str, Layer] = {}
    for address in runs:
        action = actions[address]
        weight = action.weight_quantizer
        if weight is None:
            continue
        shifts = {"bias": found.get(address), "mean": found.get(action.batch_norm)}
        shifts = {kind: name if name not in shared else None for kind, name in shifts.items()}
        call = Call(action.layer, address, handle.operations[address], runs=runs[address], **shifts)
        layers.setdefault(weight, Layer(weight, weight in owned - elsewhere)).calls.append(call)
    return list(layers.values())


def tensors_of(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """Every parameter and buffer with its name."""
    yield from module.named_parameters()
    yield from module.named_buffers()


@dataclass
class Met:
    """What one call of a layer met on all calibration data. matrix: its weight as rounded, (groups, O, I)."""

    moments: Moments
    geometry: Geometry
    matrix: Tensor


@dataclass(frozen=True)
class _Run:
    """One execution of a layer: rows of its input, and its weight, rounded if the forward rounds."""

    address: int
    rows: Tensor
    matrix: Tensor
    geometry: Geometry


class Calibration:
    """Runs the network on calibration data, in float as it was and quantized as it is, and looks into it.

    run: one forward in eval mode on a batch. batches: of inputs.
    """

    def __init__(self, handle: Handle, adjustments: Adjustments, batches: list, run: Callable[[object], None]):
        self.handle = handle
        self.adjustments = adjustments
        self.batches = batches
        self.run = run

    def met(self, layer: Layer, second: bool) -> dict[int, Met]:
        """What each call of a layer meets, by address. second: whether second moments are wanted.

        What the outputs should be is what the float network computes there, on its own inputs.
        """
        found: dict[int, Met] = {}
        for batch in self.batches:
            with self.adjustments.undone():
                wanted = self._runs(layer, batch, FLOAT)
            for run, real in zip(self._runs(layer, batch, QUANTIZED), wanted, strict=True):
                outputs = real.rows @ real.matrix.transpose(1, 2)
                moments = Moments.of(run.rows, outputs, second)
                if run.address in found:
                    found[run.address].moments.add(moments)
                else:
                    found[run.address] = Met(moments, run.geometry, run.matrix)
        return found

    def _runs(self, layer: Layer, batch, state: QuantState) -> list[_Run]:
        """Each run of a layer in one forward."""
        calls = {call.address: call for call in layer.calls}
        left = sum(call.runs for call in layer.calls)
        runs: list[_Run] = []

        def look(address: int, function: Callable, args: tuple, kwargs: dict) -> None:
            if address not in calls:
                return
            form = self.handle.plan.actions[address].form
            x, weight = (
                next(operand_at(args, kwargs, slot) for slot in slots if has_slot(args, kwargs, slot)).detach().float()
                for slots in (form.inputs, form.weight)
            )
            geometry = Geometry.of(calls[address].operation, args, kwargs, weight)
            rows = geometry.rows(x)
            runs.append(_Run(address, rows[:, spread(rows)], geometry.matrix(weight), geometry))
            if len(runs) == left:
                raise _Seen

        self.handle.set_state(state)
        with watched(self.handle, look), contextlib.suppress(_Seen):
            self.run(batch)
        return runs


class _Seen(BaseException):
    """Ends a forward that has shown what was asked for; no error, and nothing that a network may catch."""


@contextlib.contextmanager
def watched(handle: Handle, watcher: Callable[[int, Callable, tuple, dict], None]) -> Iterator[None]:
    """Let `watcher` see every computation of a prepared network, inside."""
    handle.watcher = watcher
    try:
        yield
    finally:
        handle.watcher = None
